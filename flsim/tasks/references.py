"""What a verifier takes as the references of items: answers, or what its judge needs to know them by, as JSON."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flsim.config.schema import ConfigError, DataConfig
from flsim.problems.judging import verifier
from flsim.problems.problem import Problem
from flsim.problems.rewards import RewardVerifier
from flsim.tasks.item import Item
from flsim.tasks.known_set import KnownSet
from flsim.tasks.load import reader_of


def own_verifier(config: DataConfig) -> str:
    """The verifier that a reader's references are for.

    Raises:
        ConfigError: if that depends on what it reads, and this cannot be read.
    """
    reader = reader_of(config.reader or config.kind)
    if isinstance(reader, KnownSet) or reader.judge is None:
        return reader.verifier
    return reader.judge(Path(config.root), config.settings)


def as_references(items: Sequence[Item], where: str, kind: str, judge: str, instruction: str | None) -> Sequence[Item]:
    """The items with what the verifier takes as their answers.

    Args:
        items: as they were read.
        where: the kind or path of their reader.
        kind: of the verifier: its name or path.
        judge: the verifier with its settings.
        instruction: of the set; None is the verifier's own.

    Raises:
        ConfigError: if the verifier is a reward function and items have score labels.
    """
    reader = reader_of(where)
    if not isinstance(reader, KnownSet) and reader.judged is not None and kind == reader.verifier:
        items = [reader.judged(item) for item in items]
    found = verifier(judge)
    if not isinstance(found, RewardVerifier):
        return items
    said = found.instruction if instruction is None else instruction
    return [_rewarded(item, found, said) for item in items]


def _rewarded(item: Item, function: RewardVerifier, instruction: str) -> Item:
    """The item with all that a reward function is to know of it as its answer."""
    if item.score_label is not None:
        raise ConfigError(
            f"{item.where or 'an item'} has a score_label, and the reward function {function.name} has no one answer "
            f"for each label to score; leave score_label out"
        )
    prompt = Problem("", "", 0, item.question, "", instruction=instruction).prompt
    solution = item.answer if item.solution is None else item.solution
    columns = {"answer": item.answer, "solution": solution, "label": item.label, "level": item.level}
    columns |= json.loads(item.extra) if item.extra else {}
    return replace(item, answer=function.reference_of(prompt, columns), solution=solution)
