"""The data sets of a config as tasks: read, dealt to the fleet once per process, and drawn as problems.

A `DataSource` is the items of a set, whose they are, and how a device draws one; a `DataTask` makes problems of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import chain
from random import Random

import numpy as np
from numpy.typing import NDArray

from flsim.config.schema import ConfigError, DataConfig, StreamConfig
from flsim.problems.judging import called, verifier
from flsim.problems.problem import SPLITS, Problem
from flsim.sandbox.helper import VerifierError
from flsim.seeding import seed_for
from flsim.tasks.doubts import doubts
from flsim.tasks.item import Item, split_items
from flsim.tasks.known_set import KnownSet
from flsim.tasks.load import load, reader_of
from flsim.tasks.partition import Assignment, by_user, dirichlet, evenly, lognormal_shares
from flsim.tasks.people import numbered, told_of_users

_NAMED = 5  # devices that an error names


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

    def __post_init__(self) -> None:
        """Check that every device can draw.

        Raises:
            ConfigError: if items and assignment do not belong together, or a device has no item of a needed split.
        """
        if len(self.items) != len(self.assignment.device):
            raise ConfigError(f"data: {len(self.items)} items and {len(self.assignment.device)} assignments")
        for split in self.needs:
            empty = [d for d in range(self.assignment.devices) if not self.size(d, split)]
            if empty:
                named = ", ".join(self.assignment.names[d] for d in empty[:_NAMED])
                more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
                held = int((self.assignment.split == SPLITS.index(split)).sum())
                raise ConfigError(
                    f"data: {len(empty)} of {self.assignment.devices} devices have no {split} item: {named}{more}; the "
                    f"data set has {held}. Use fewer devices (fleet.devices), a larger alpha, partition=evenly, users "
                    "with more items (least), or splits=hash if the data set has no such split"
                )

    def size(self, device: int, split: str) -> int:
        """Number of a device's own items of a split."""
        return len(self._own[device, split])

    def draw(self, device: int, split: str, rng: Random) -> Item:
        """One of the device's own items of a split, all equally likely, with replacement.

        Args:
            device: from 0.
            split: `train`, `validation` or `test`.
            rng: the only source of chance; drawn from once.

        Raises:
            ConfigError: if the device has none.
        """
        own = self._own[device, split]
        if not own:
            raise ConfigError(f"data: {self.assignment.names[device]} has no {split} item")
        return self.items[own[rng.randrange(len(own))]]

    @cached_property
    def fingerprint(self) -> str:
        """Of what each device holds, in whatever order it was read: equal for equal partitions; it names nobody."""
        held = zip(self.items, self.assignment.device.tolist(), self.assignment.split.tolist(), strict=True)
        each = (
            repr((device, split, item.question, item.answer, item.level, item.score_label)).encode()
            for item, device, split in held
            if device >= 0 and split >= 0
        )
        return hashlib.sha256(b"".join(sorted(hashlib.sha256(text).digest() for text in each))).hexdigest()

    def of_splits(self) -> list[tuple[Item, str]]:
        """All items that are of a split, with its name, in the order of the data set; dealt or not."""
        pairs = zip(self.items, self.assignment.split.tolist(), strict=True)
        return [(item, SPLITS[split]) for item, split in pairs if split >= 0]

    def all(self, device: int, split: str) -> list[Item]:
        """A device's own items of a split, in the order of the data set."""
        return [self.items[index] for index in self._own[device, split]]

    @cached_property
    def _own(self) -> dict[tuple[int, str], list[int]]:
        """Indices of items by device and split."""
        found: dict[tuple[int, str], list[int]] = {
            (device, split): [] for device in range(self.assignment.devices) for split in SPLITS
        }
        pairs = zip(self.assignment.device.tolist(), self.assignment.split.tolist(), strict=True)
        for index, (device, split) in enumerate(pairs):
            if device >= 0 and split >= 0:
                found[device, SPLITS[split]].append(index)
        return found


_SHOWN = 3  # references of dropped items that are named


_LONGEST_SHOWN = 80


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
        return self._sample(self.source.all(device, split), count, rng)

    def proxy_set(self, split: str, count: int, rng: Random) -> list[Problem]:
        """At most so many different problems of a split, whoever holds them: what a server may ask by itself."""
        there = [
            item
            for item, number in zip(self.source.items, self.source.assignment.split.tolist(), strict=True)
            if number == SPLITS.index(split)
        ]
        return self._sample(there, count, rng)

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
        )

    @property
    def is_code(self) -> bool:
        """Whether answers are tests, which are no right answer themselves."""
        return self.source.verifier.partition(" ")[0] == "code"

    @property
    def has_solutions(self) -> bool:
        """Whether some item has a solution."""
        return any(item.solution is not None for item in self.source.items)

    def _sample(self, items: Sequence[Item], count: int | None, rng: Random) -> list[Problem]:
        return [self.problem(item) for item in rng.sample(items, len(items))[:count]]

    def _difficulty(self, level: int | None) -> float:
        low, high = self._levels
        return 0.0 if level is None or high == low else (level - low) / (high - low)

    @cached_property
    def _levels(self) -> tuple[int, int]:
        levels = [item.level for item in self.source.items if item.level is not None]
        return min(levels, default=0), max(levels, default=0)


def data_tasks(stream: StreamConfig, data: Mapping[str, DataConfig], devices: int) -> tuple[DataTask, ...]:
    """The data sets that the stream's phases name, dealt to the fleet: a pure function of its arguments and the files.

    Args:
        stream: its phases, and the seed of the partition.
        data: settings of the sets by name.
        devices: of the fleet.

    Raises:
        ConfigError: naming the data set, what is wrong with it, and the mend.
    """
    return tuple(
        _group(name, json.dumps(asdict(data[name]), sort_keys=True), devices, stream.seed)
        for name in dict.fromkeys(chain.from_iterable(stream.phases))
        if name in data
    )


@lru_cache(maxsize=8)  # of one config; tests and sweeps meet several
def _group(name: str, settings: str, devices: int, seed: int) -> DataTask:
    """Read and deal one data set.

    Args:
        name: of the task.
        settings: a `DataConfig` as JSON, which can be hashed.
        devices: of the fleet.
        seed: of the partition.
    """
    config = DataConfig(**json.loads(settings))
    where = config.reader or config.kind
    try:
        kind = config.verifier or reader_of(where).verifier
        items = _judged(load(where, config.root, encoding=config.encoding, **config.settings), where, kind)
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
        told = _told(config, kept, splits, judge, dropped)
        assignment = _dealt(config, kept, splits, devices, seed_for(seed, "data", name))
        held = kept if config.keep_user_ids else numbered(kept)
        source, score_words = DataSource(held, assignment, judge, needs=SPLITS), _score_words(kept)
    except ConfigError as error:
        raise ConfigError(f"data.{name}: {str(error).removeprefix('data: ')}") from error
    words = verifier(judge).instruction if config.instruction is None else config.instruction
    return DataTask(name, config, source, words, score_words, tuple(f"data.{name}: {text}" for text in told))


def _told(
    config: DataConfig, items: Sequence[Item], splits: NDArray[np.int8], judge: str, dropped: Sequence[str]
) -> list[str]:
    """What is to be told of the items.

    Raises:
        ConfigError: if some of it is doubtful and `strict` is set.
    """
    found = doubts(items, splits.tolist(), code=judge.partition(" ")[0] == "code")
    if found and config.strict:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(f"strict: {found[0]}{more}; mend the files, or set strict=false to be told only")
    if dropped:
        shown = ", ".join(repr(text[:_LONGEST_SHOWN]) for text in dropped[:_SHOWN])
        found.append(
            f"left out the items of {len(dropped)} references that no completion could meet by the verifier {judge}, "
            f"such as {shown}"
        )
    return found + ([] if config.keep_user_ids else told_of_users(items))


def _judged(items: list[Item], where: str, kind: str) -> list[Item]:
    """The items with what the verifier takes as their answers."""
    reader = reader_of(where)
    if isinstance(reader, KnownSet) or reader.judged is None or kind != reader.verifier:
        return items
    return [reader.judged(item) for item in items]


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
        return by_user(
            items,
            splits,
            devices=devices,
            users_per_device=per_device,
            least=least,
            seed=seed,
            keep_user_ids=config.keep_user_ids,
        )
    sigma = config.quantity_sigma
    shares = lognormal_shares(devices, sigma=sigma, seed=seed) if sigma else None
    if config.partition == "evenly":
        return evenly(items, splits, devices=devices, shares=shares, seed=seed)
    alpha, over = config.alpha, config.over
    return dirichlet(items, splits, devices=devices, alpha=alpha, over=over, shares=shares, seed=seed)


def _score_words(items: Sequence[Item]) -> tuple[str, ...]:
    """The answers that stand for the score labels, from 0 and at least two; none where no item has a label.

    Raises:
        ConfigError: if a label has several answers, two have the same, or one below the highest has none.
    """
    labels = {item.score_label for item in items if item.score_label is not None}
    if not labels:
        return ()
    answers = [sorted({item.answer for item in items if item.score_label == n}) for n in range(max(*labels, 1) + 1)]
    for label, own in enumerate(answers):
        if len(own) > 1:
            shown = ", ".join(map(repr, own[:_SHOWN]))
            raise ConfigError(
                f"the items with score_label {label} have {len(own)} different answers, such as {shown}; a score is "
                f"the chance of one answer against others, so each label needs one. Map the answer to a word per "
                f"label, or leave score_label out"
            )
        if not own and len(answers) > 2:
            raise ConfigError(f"no item has score_label {label}, though one has {max(labels)}; number them from 0")
    words = [next(iter(own), "") for own in answers]
    for label, word in enumerate(words):
        if word in words[:label]:
            raise ConfigError(
                f"the items with score_label {words.index(word)} and {label} have the same answer {word!r}; give each "
                "its own"
            )
    return tuple(words)
