"""The data sets of a config as task groups: read, dealt to the fleet once per process, and drawn as problems."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from random import Random

import numpy as np
from numpy.typing import NDArray

from flsim.config import Config, ConfigError
from flsim.config_data import DataConfig
from flsim.seeding import seed_for
from flsim.tasks.data.instructions import INSTRUCTIONS
from flsim.tasks.data.item import Item
from flsim.tasks.data.load import VERIFIERS, load
from flsim.tasks.data.partition import Assignment, by_user, dirichlet, evenly
from flsim.tasks.data.quantity import lognormal_shares
from flsim.tasks.data.readers.gym import reference_of
from flsim.tasks.data.source import DataSource
from flsim.tasks.data.splits import split_items
from flsim.tasks.judging import GYM, called, verifier
from flsim.tasks.problem import SPLITS, Problem
from flsim.verifying.helper import VerifierError

_SHOWN = 3  # references of dropped items that are named
_LONGEST_SHOWN = 80


@dataclass(frozen=True, eq=False)
class DataGroup:
    """A data set as a task group. Equal configs share one in a process, so it is compared and hashed by identity."""

    name: str
    config: DataConfig
    source: DataSource
    """Its items, their splits and their devices; each item's answer is what the verifier takes."""
    instruction: str
    score_words: tuple[str, str] = ("", "")
    """The answers that stand for the score labels 0 and 1; empty where items have none."""
    dropped: tuple[str, ...] = ()
    """References that no completion could meet; their items have been left out."""

    def draw(self, device: int, split: str, rng: Random) -> Problem:
        """One of the device's own problems of a split, with replacement; draws from `rng` once."""
        return self.problem(self.source.draw(device, split, rng))

    def draw_set(self, device: int, split: str, count: int, rng: Random) -> list[Problem]:
        """So many of the device's own problems: none twice until all have come, then all of them again."""
        return self._dealt_out(self.source.all(device, split), count, rng)

    def proxy_set(self, split: str, count: int, rng: Random) -> list[Problem]:
        """At most so many different problems of a split, whoever holds them: what a server may ask by itself."""
        there = [
            item
            for item, number in zip(self.source.items, self.source.assignment.split.tolist(), strict=True)
            if number == SPLITS.index(split)
        ]
        return self._dealt_out(there, min(count, len(there)), rng)

    def problem(self, item: Item) -> Problem:
        """An item as a problem of this group."""
        return Problem(
            group=self.name,
            family=item.label or "",
            level=item.level or 0,
            question=item.question,
            answer=item.answer,
            verifier=self.source.verifier,
            instruction=self.instruction,
            solution=item.solution,
            difficulty=self._difficulty(item.level),
            score_label=item.score_label,
            other="" if item.score_label is None else self.score_words[1 - item.score_label],
        )

    @property
    def said(self) -> str | None:
        """What is to be told of items that were left out; None if none was."""
        if not self.dropped:
            return None
        shown = ", ".join(repr(text[:_LONGEST_SHOWN]) for text in self.dropped[:_SHOWN])
        return (
            f"data.{self.name}: left out the items of {len(self.dropped)} references that no completion could meet by "
            f"the verifier {self.source.verifier}, such as {shown}"
        )

    def _dealt_out(self, items: Sequence[Item], count: int, rng: Random) -> list[Problem]:
        found: list[Item] = []
        while items and len(found) < count:
            found += rng.sample(items, len(items))
        return [self.problem(item) for item in found[:count]]

    def _difficulty(self, level: int | None) -> float:
        low, high = self._levels
        return 0.0 if level is None or high == low else (level - low) / (high - low)

    @cached_property
    def _levels(self) -> tuple[int, int]:
        levels = [item.level for item in self.source.items if item.level is not None]
        return min(levels, default=0), max(levels, default=0)


def data_groups(config: Config) -> tuple[DataGroup, ...]:
    """The data sets that the stream's phases name, dealt to the fleet: a pure function of the config and the files.

    Raises:
        ConfigError: naming the data set, what is wrong with it, and the mend.
    """
    named = dict.fromkeys(chain.from_iterable(config.stream.phases))
    return tuple(
        _group(name, json.dumps(asdict(config.data[name]), sort_keys=True), config.fleet.devices, config.stream.seed)
        for name in named
        if name in config.data
    )


@lru_cache(maxsize=8)  # of one config; tests and sweeps meet several
def _group(name: str, settings: str, devices: int, seed: int) -> DataGroup:
    """Read and deal one data set.

    Args:
        name: of the group.
        settings: a `DataConfig` as JSON, which can be hashed.
        devices: of the fleet.
        seed: of the partition.
    """
    config = DataConfig(**json.loads(settings))
    kind = config.verifier or VERIFIERS[config.kind]
    try:
        items = [_judged(item, kind) for item in load(config.kind, config.root, **config.settings)]
        judge = called(kind, config.verifier_settings)
        dropped = _unreadable(judge, items)
        left_out = set(dropped)
        kept = [item for item in items if item.answer not in left_out]
        if not kept:
            raise ConfigError(
                f"no item is left: by the verifier {kind} no completion could meet {dropped[0][:_LONGEST_SHOWN]!r}, "
                f"nor any other reference; is it the right verifier?"
            )
        splits = split_items(kept, config.splits)
        assignment = _dealt(config, kept, splits, devices, seed_for(seed, "data", name))
        source, score_words = DataSource(kept, assignment, judge, needs=SPLITS), _score_words(kept)
    except ConfigError as error:
        raise ConfigError(f"data.{name}: {str(error).removeprefix('data: ')}") from error
    words = INSTRUCTIONS.get(kind, "") if config.instruction is None else config.instruction
    return DataGroup(name, config, source, words, score_words, dropped)


def _judged(item: Item, kind: str) -> Item:
    """The item with what its verifier takes as its answer."""
    return replace(item, answer=reference_of(item), solution=item.answer) if kind == GYM else item


def _unreadable(judge: str, items: Sequence[Item]) -> tuple[str, ...]:
    """References that no completion could meet, each once.

    Raises:
        ConfigError: if the verifier cannot work on this host, or refuses its settings.
    """
    try:
        return tuple(verifier(judge).unreadable(list(dict.fromkeys(item.answer for item in items))))
    except (VerifierError, TypeError, ValueError) as error:
        raise ConfigError(f"the verifier {judge} cannot be used: {error}") from error


def _dealt(config: DataConfig, items: Sequence[Item], splits: NDArray[np.int8], devices: int, seed: int) -> Assignment:
    if config.partition == "user":
        per_device, least = config.users_per_device, config.least
        return by_user(items, splits, devices=devices, users_per_device=per_device, least=least, seed=seed)
    sigma = config.quantity_sigma
    shares = lognormal_shares(devices, sigma=sigma, seed=seed) if sigma else None
    if config.partition == "evenly":
        return evenly(items, splits, devices=devices, shares=shares, seed=seed)
    alpha, over = config.alpha, config.over
    return dirichlet(items, splits, devices=devices, alpha=alpha, over=over, shares=shares, seed=seed)


def _score_words(items: Sequence[Item]) -> tuple[str, str]:
    """The answers that stand for the score labels 0 and 1; empty ones where no item has a label.

    Raises:
        ConfigError: if a label has several answers, or both have the same.
    """
    answers = [{item.answer for item in items if item.score_label == label} for label in (0, 1)]
    if not any(answers):
        return "", ""
    for label, own in enumerate(answers):
        if len(own) > 1:
            shown = ", ".join(map(repr, sorted(own)[:_SHOWN]))
            raise ConfigError(
                f"the items with score_label {label} have {len(own)} different answers, such as {shown}; a score is "
                f"the chance of one answer against another, so each label needs one. Map the answer to a word per "
                f"label, or leave score_label out"
            )
    negative, positive = (next(iter(own), "") for own in answers)
    if negative == positive:
        raise ConfigError(f"the items with score_label 0 and 1 have the same answer {negative!r}; give each its own")
    return negative, positive
