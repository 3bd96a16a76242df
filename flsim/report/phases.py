"""What the report asks of a stream's phases: the order of their task groups, and where their last third begins."""

from collections.abc import Sequence

from flsim.tasks.stream import Phase


def last_third(phase: Phase) -> int:
    """First round of the phase's last `ceil(rounds / 3)` rounds; 5 for a phase of rounds 1 to 6."""
    rounds = phase.last_round - phase.first_round + 1
    return phase.last_round - (-(-rounds // 3)) + 1


def ordered_tasks(phases: Sequence[Phase], found: Sequence[str]) -> list[str]:
    """Task groups in the order in which phases bring them, then the other `found` ones by name.

    Args:
        phases: the run's phases.
        found: task groups that were measured; the others are left out.
    """
    brought = dict.fromkeys(task for phase in phases for task in phase.tasks if task in found)
    return [*brought, *sorted(set(found) - set(brought))]
