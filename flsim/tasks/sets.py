"""The data sets of a config as tasks: read, dealt to the fleet once per process, and drawn as problems.

A `DataSource` is the items of a set, whose they are, and how a device draws one; a `DataTask` makes problems of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import chain
from random import Random

import numpy as np

from flsim.config.schema import ConfigError, DataConfig, StreamConfig
from flsim.config.session import Meant, meant_in
from flsim.problems.judging import verifier
from flsim.problems.problem import SPLITS, Problem
from flsim.seeding import seed_for
from flsim.tasks.dealing import fingerprint_of
from flsim.tasks.item import Item
from flsim.tasks.item_table import NONE, Indices, table_of
from flsim.tasks.kept import kept
from flsim.tasks.partition import Assignment, lacking, named_lack


@dataclass(frozen=True)
class DataSource:
    """One data set, dealt to the devices of a fleet."""

    items: Sequence[Item]
    """All items, dealt or not."""
    assignment: Assignment
    """Which of them are whose."""
    verifier: str
    """Name of the verifier for `Item.answer`."""
    needs: tuple[str, ...] = ("train", "test")
    """Splits that every device must have an item of; checked here, so before the run."""
    known_fingerprint: str | None = None
    """The fingerprint, where it is known already."""

    def __post_init__(self) -> None:
        """Check that every device can draw.

        Raises:
            ConfigError: if items and assignment do not belong together, or a device has no item of a needed split.
        """
        if len(self.items) != len(self.assignment.device):
            raise ConfigError(f"data: {len(self.items)} items and {len(self.assignment.device)} assignments")
        for split in self.needs:
            self.demand(split)

    def demand(self, split: str, why: str = "Use fewer devices, or deal otherwise") -> None:
        """Refuse a device without an item of a split.

        Args:
            split: that somebody reads.
            why: or what to do, for the error.

        Raises:
            ConfigError: naming the devices.
        """
        if lacking(self.assignment, split):
            held = int((self.assignment.split == SPLITS.index(split)).sum())
            raise ConfigError(f"data: {named_lack(self.assignment, split)}; the data set has {held}. {why}")

    def size(self, device: int, split: str) -> int:
        """Number of a device's own items of a split."""
        return len(self._own(device, split))

    def draw(self, device: int, split: str, rng: Random) -> Item:
        """One of the device's own items of a split, all equally likely, with replacement.

        Args:
            device: from 0.
            split: `train`, `validation` or `test`.
            rng: the only source of chance; drawn from once.

        Raises:
            ConfigError: if the device has none.
        """
        own = self._own(device, split)
        if not len(own):
            raise ConfigError(f"data: {self.assignment.names[device]} has no {split} item")
        return self.items[int(own[rng.randrange(len(own))])]

    @cached_property
    def fingerprint(self) -> str:
        """Of what each device holds, in whatever order it was read: equal for equal partitions; it names nobody."""
        return self.known_fingerprint or fingerprint_of(self.items, self.assignment)

    def of_splits(self) -> list[tuple[Item, str]]:
        """All items that are of a split, with its name, in the order of the data set; dealt or not."""
        pairs = zip(self.items, self.assignment.split.tolist(), strict=True)
        return [(item, SPLITS[split]) for item, split in pairs if split >= 0]

    def all(self, device: int, split: str) -> list[Item]:
        """A device's own items of a split, in the order of the data set."""
        return [self.items[index] for index in self._own(device, split).tolist()]

    def own(self, device: int, split: str, places: Sequence[int]) -> list[Item]:
        """Some of a device's items of a split, by their places among them."""
        return [self.items[index] for index in self._own(device, split)[list(places)].tolist()]

    def _own(self, device: int, split: str) -> Indices:
        """Indices of the items of a device and split, ascending."""
        place = device * len(SPLITS) + SPLITS.index(split)
        return self._order[self._starts[place] : self._starts[place + 1]]

    @cached_property
    def _places(self) -> Indices:
        """Of every item `device * 3 + split`, or -1 where it is nobody's, `(N,)`."""
        device, split = self.assignment.device, self.assignment.split
        return np.where((device >= 0) & (split >= 0), device * len(SPLITS) + split, -1)

    @cached_property
    def _order(self) -> Indices:
        """Indices of the items that are somebody's, by device, split and place in the data set."""
        order = np.argsort(self._places, kind="stable")
        return order[np.count_nonzero(self._places < 0) :]

    @cached_property
    def _starts(self) -> Indices:
        """Where the items of a device and split begin in that order, and where the last ones end, `(3 D + 1,)`."""
        counts = np.bincount(self._places[self._places >= 0], minlength=self.assignment.devices * len(SPLITS))
        return np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True, eq=False)
class DataTask:
    """A data set as a task. Equal configs share one in a process, so it is compared and hashed by identity."""

    name: str
    config: DataConfig
    source: DataSource
    """Its items, their splits and their devices; each item's answer is what the verifier takes."""
    instruction: str
    score_words: tuple[str, ...] = ()
    """The answers that stand for the score labels, from 0; empty where items have none."""
    told: tuple[str, ...] = ()
    """What is to be told of its items, in sentences: what was left out, and what is doubtful."""

    def draw(self, device: int, split: str, rng: Random) -> Problem:
        """One of the device's own problems of a split, with replacement; draws from `rng` once."""
        return self.problem(self.source.draw(device, split, rng))

    def draw_set(self, device: int, split: str, count: int | None, rng: Random) -> list[Problem]:
        """At most so many of the device's own problems, drawn without replacement; None takes all of them.

        A larger set begins with the smaller one. Law: each of a device's items is as likely to be in it as any other.
        """
        size = self.source.size(device, split)
        return [self.problem(item) for item in self.source.own(device, split, _sample(size, count, rng))]

    def proxy_set(self, split: str, count: int, rng: Random) -> list[Problem]:
        """At most so many different problems of a split, whoever holds them: what a server may ask by itself."""
        there = np.flatnonzero(self.source.assignment.split == SPLITS.index(split))
        return [self.problem(self.source.items[index]) for index in there[_sample(len(there), count, rng)].tolist()]

    def problem(self, item: Item) -> Problem:
        """An item as a problem of this task."""
        return Problem(
            task=self.name,
            family=item.label or "",
            level=item.level or 0,
            question=item.question,
            answer=item.answer,
            verifier=self.source.verifier,
            instruction=self.instruction,
            solution=item.solution,
            difficulty=self._difficulty(item.level),
            score_label=item.score_label,
            score_words=() if item.score_label is None else self.score_words,
            features=item.features,
        )

    @property
    def is_code(self) -> bool:
        """Whether answers are tests, which are no right answer themselves."""
        return self.source.verifier.partition(" ")[0] == "code"

    @property
    def has_solutions(self) -> bool:
        """Whether some item has a solution."""
        return bool(table_of(self.source.items).columns["solution"].used())

    def _difficulty(self, level: int | None) -> float:
        low, high = self._levels
        return 0.0 if level is None or high == low else (level - low) / (high - low)

    @cached_property
    def _levels(self) -> tuple[int, int]:
        table = table_of(self.source.items)
        codes, values = table.columns["level"].codes, table.values("level")
        levels = [values[code] for code in np.unique(codes).tolist() if code != NONE]
        return min(levels, default=0), max(levels, default=0)


def _sample(size: int, count: int | None, rng: Random) -> list[int]:
    """Places among so many, in random order, at most `count`; None: all. A smaller sample begins a larger one."""
    return rng.sample(range(size), size)[:count]


def data_tasks(
    stream: StreamConfig, data: Mapping[str, DataConfig], devices: int, needs: tuple[str, ...] = SPLITS
) -> tuple[DataTask, ...]:
    """The data sets that the stream's phases name, dealt to the fleet: a pure function of its arguments and the files.

    Args:
        stream: its phases, and the seed of the partition.
        data: settings of the sets by name.
        devices: of the fleet.
        needs: splits that every device must have an item of.

    Raises:
        ConfigError: naming the data set, what is wrong with it, and the mend.
    """
    return tuple(
        _group(name, json.dumps(asdict(data[name]), sort_keys=True), devices, stream.seed, needs, meant_in(data[name]))
        for name in dict.fromkeys(chain.from_iterable(stream.phases))
        if name in data
    )


@lru_cache(maxsize=8)  # of one config; tests and sweeps meet several
def _group(
    name: str, settings: str, devices: int, seed: int, needs: tuple[str, ...], _meant: tuple[Meant, ...]
) -> DataTask:
    """Read and deal one data set.

    Args:
        name: of the task.
        settings: a `DataConfig` as JSON, which can be hashed.
        devices: of the fleet.
        seed: of the partition.
        needs: splits that every device must have an item of.
        _meant: what its names of a notebook stand for, which may have been defined again.
    """
    config = DataConfig(**json.loads(settings))
    try:
        found = kept(config, devices, seed_for(seed, "data", name), needs)
        source = DataSource(found.items, found.assignment, found.judge, (), found.fingerprint)
    except ConfigError as error:
        raise ConfigError(f"data.{name}: {str(error).removeprefix('data: ')}") from error
    words = verifier(found.judge).instruction if config.instruction is None else config.instruction
    return DataTask(name, config, source, words, found.score_words, tuple(f"data.{name}: {s}" for s in found.told))
