"""The verifier of reasoning-gym: the package's own scoring, by the name of its task."""

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from flsim.config.schema import ConfigError


class GymVerifier:
    """The judges of the tasks, for references from `reference_of`."""

    instruction = "Answer with the final answer alone, without any explanation."

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion gets the full score of its reference's task.

        Raises:
            ConfigError: as for `verdict`.
        """
        return [_verdict(json.loads(reference), completion) for reference, completion in pairs]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """None: a recipe has just made its question, or is refused."""
        return []


def _verdict(recipe: Mapping[str, Any], completion: str) -> bool:
    data = _again(recipe["task"], json.dumps(recipe["settings"]), recipe["seed"], recipe["size"])
    entry = data[recipe["at"]]  # judges read its metadata
    if entry["question"] != recipe["question"]:
        made = {name: value for name, value in recipe.items() if name != "question"}
        raise ConfigError(f"reasoning_gym: {made} makes another question here; use the version that made the items")
    try:
        return float(data.score_answer(completion, entry)) == 1.0
    except (ValueError, TypeError, SyntaxError, ArithmeticError, LookupError, AttributeError, RecursionError):
        return False


@lru_cache(maxsize=256)
def _again(task: str, settings: str, seed: int, size: int) -> Any:
    """The data set of a recipe, kept: a user's items of one task share it."""
    return _dataset(_package(), task, json.loads(settings), seed=seed, size=size)


def _dataset(gym: ModuleType, task: str, settings: Mapping[str, Any], *, seed: int, size: int) -> Any:
    try:
        return gym.create_dataset(task, seed=seed, size=size, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"reasoning_gym: cannot make {task!r} with {dict(settings)} ({error})") from None


def _package() -> ModuleType:
    """Imported here and not above: it takes seconds and 110 MB."""
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ConfigError(
            f"reasoning_gym: the package cannot be imported ({error}); pip install 'flsim-continual[gym]'"
        ) from None
