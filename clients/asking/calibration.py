"""Calibration questions: a device's own, of its tasks and mixture, from a split that is not the one to be measured on.

For tests they come from the `validation` split, and while settings are chosen on `validation`, from `train`, by a draw
of its own. A question's split is a hash of its text, so no calibration question is ever in the measured set.
"""

from functools import lru_cache

from flsim.tasks.problem import Problem
from flsim.tasks.stream import TaskStream, device_name
from flsim.world import World

SOURCE = {"test": "validation", "validation": "train"}
"""Where the questions come from, by `evaluation.split`."""


def calibration_questions(world: World, device: int, per_task: int) -> list[Problem]:
    """Up to `per_task` questions of each task of the stream, without repeats."""
    return [problem for own in _drawn(*_which(world, device), per_task) for problem in own]


def calibration_halves(world: World, device: int, per_task: int) -> tuple[list[Problem], list[Problem]]:
    """The same questions, half of each task's to learn from, and the others to set a threshold on."""
    sets = _drawn(*_which(world, device), per_task)
    learned = [problem for own in sets for problem in own[: len(own) // 2]]
    return learned, [problem for own in sets for problem in own[len(own) // 2 :]]


def enough(calibration: int, *, least: int) -> None:
    """Refuse a number of questions per task that a threshold cannot be set on.

    Raises:
        ValueError: unless it is a whole number of at least `least`.
    """
    if not isinstance(calibration, int) or isinstance(calibration, bool) or calibration < least:
        halves = "; half of them are learned from, the others set the threshold" if least > 1 else ""
        raise ValueError(
            f"calibration={calibration!r} must be a whole number of at least {least}: questions per task{halves}"
        )


def _which(world: World, device: int) -> tuple[TaskStream, str, str]:
    return world.stream, device_name(device), SOURCE[world.config.evaluation.split]


@lru_cache(maxsize=4096)  # devices, as for test sets
def _drawn(stream: TaskStream, device: str, split: str, per_task: int) -> tuple[tuple[Problem, ...], ...]:
    sets = stream.evaluation_problems(device, split, per_task=per_task)
    return tuple(tuple({problem.question: problem for problem in own}.values()) for own in sets.values())
