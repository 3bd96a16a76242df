"""Over a switch: what the first phase's task groups lose while others are learned, in knowledge and in calls."""

from collections.abc import Mapping, Sequence

from flsim.config.schema import Config
from flsim.metrics.rows import evaluation, read_rows
from flsim.metrics.users import per_user
from flsim.tasks.stream import TaskStream
from flsim.text import markdown_table as table

_MEASURES = {"accuracy": "may ask", "alone_accuracy": "alone", "cloud_grants": "share sent to the cloud"}


def over_switch(configs: Sequence[Config]) -> dict[str, tuple[float, float]]:
    """Of one method's runs: each measure on the groups of phase 1, at its end and at the end of phase 2.

    Accuracy under the budget is made of two parts that can move against each other: what the model knows alone, and
    which share of the calls the groups get.

    Args:
        configs: of the finished runs, one per seed; evaluation is at the ends of phases at least.

    Returns:
        By measure (0 to 1): the mean user's, mean over seeds.
    """
    before, after = TaskStream(configs[0].stream, configs[0].rounds).phases[:2]
    runs = [read_rows(config.folder) for config in configs]
    found = {}
    for name in _MEASURES:
        measured = [evaluation(rows, model="global", name=name) for rows in runs]
        ends = []
        for phase in (before, after):
            wanted = [r[(r["round"] == phase.last_round) & r["task"].isin(before.tasks)] for r in measured]
            ends.append(sum(float(per_user(rows).mean()) for rows in wanted) / len(runs))
        found[name] = (ends[0], ends[1])
    return found


def switch_table(found: Mapping[str, Mapping[str, tuple[float, float]]], first_phase: str) -> str:
    """A line per method: `before to after, difference in points`."""
    lines = [[f"group {first_phase}, end of phase 1 to end of phase 2", *_MEASURES.values()]]
    for label, measures in found.items():
        pairs = [measures[name] for name in _MEASURES]
        cells = [f"{100 * old:.1f} to {100 * new:.1f}, {100 * (new - old):+.1f}" for old, new in pairs]
        lines.append([label, *cells])
    return table(lines)
