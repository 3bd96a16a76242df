"""A data set read, judged, split and dealt: from a config and the files to the items of each device.

All of it is a pure function of settings and files; `flsim/tasks/kept.py` keeps what came out of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flsim.config.schema import ConfigError, DataConfig
from flsim.problems.judging import called, verifier
from flsim.problems.problem import SPLITS
from flsim.problems.rewards import RewardVerifier
from flsim.sandbox.helper import VerifierError
from flsim.tasks.doubts import doubts
from flsim.tasks.item import Item
from flsim.tasks.item_table import NONE, ItemTable, table_of
from flsim.tasks.known_set import KnownSet
from flsim.tasks.load import load, reader_of
from flsim.tasks.partition import (
    Assignment,
    by_user,
    dirichlet,
    evenly,
    lacking,
    lognormal_shares,
    named_lack,
)
from flsim.tasks.partitioner import by_partitioner
from flsim.tasks.people import numbered, told_of_users
from flsim.tasks.references import as_references, own_verifier
from flsim.tasks.splits import split_items

_SHOWN = 3  # references of dropped items that are named


_LONGEST_SHOWN = 80


@dataclass(frozen=True, eq=False)
class Dealt:
    """What came of a data set."""

    items: ItemTable
    """All items, dealt or not; their users are numbers unless ids are kept."""
    assignment: Assignment
    judge: str
    """The verifier of their answers, with its settings."""
    score_words: tuple[str, ...]
    """The answers that stand for the score labels, from 0; empty where items have none."""
    told: tuple[str, ...]
    """What is to be told of the items, in sentences."""
    fingerprint: str | None = None
    """Of what each device holds (`fingerprinted`), where it is known already."""

    def fingerprinted(self) -> str:
        """Of what each device holds, in whatever order it was read: equal for equal partitions; it names nobody."""
        return self.fingerprint or fingerprint_of(self.items, self.assignment)


def fingerprint_of(items: Sequence[Item], assignment: Assignment) -> str:
    """`Dealt.fingerprinted`, of items and whose they are."""
    table, held = table_of(items), np.flatnonzero((assignment.device >= 0) & (assignment.split >= 0))
    numbers = [own[held].tolist() for own in (assignment.device, assignment.split)]
    fields = [table.of_field(name, held) for name in ("answer", "level", "score_label")]
    rows = zip(*numbers, table.questions(held), *fields, strict=True)
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(repr(row).encode()).digest() for row in rows))).hexdigest()


def dealt(config: DataConfig, devices: int, seed: int, needs: Sequence[str] = SPLITS) -> Dealt:
    """Read and deal one data set.

    Args:
        config: of the set.
        devices: of the fleet.
        seed: of the partition.
        needs: splits that every device must have an item of.

    Raises:
        ConfigError: if it cannot be read, judged or dealt, or a device has no item of a split that it needs.
    """
    where = config.reader or config.kind
    read = load(where, config.root, encoding=config.encoding, **config.settings)
    kind = config.verifier or own_verifier(config)
    judge = called(kind, config.verifier_settings)
    refuse_unusable(judge)
    items = table_of(as_references(read, where, kind, judge, config.instruction))
    dropped = _unreadable(judge, items.columns["answer"].used())
    if dropped:
        answer = items.columns["answer"]
        fit = np.array([text not in set(dropped) for text in answer.known])
        items = items.take(np.flatnonzero(fit[answer.codes]))
    if not items:
        raise ConfigError(
            f"no item is left: by the verifier {kind} no completion could meet {dropped[0][:_LONGEST_SHOWN]!r}, "
            f"nor any other reference; is it the right verifier?"
        )
    splits = split_items(items, config.splits)
    told = _told(config, items, splits, judge, dropped)
    assignment = _assigned(config, items, splits, devices, seed, needs)
    _refuse_lack(config, items, assignment, seed, needs)
    held = items if config.keep_user_ids else table_of(numbered(items))
    return Dealt(held, assignment, judge, _score_words(items), tuple(told))


def _told(
    config: DataConfig, items: Sequence[Item], splits: NDArray[np.int8], judge: str, dropped: Sequence[str]
) -> list[str]:
    """What is to be told of the items.

    Raises:
        ConfigError: if some of it is doubtful and `strict` is set.
    """
    own = isinstance(verifier(judge), RewardVerifier)  # whose references are JSON, and its solutions the answers
    seen = table_of(items).having(answer=table_of(items).columns["solution"]) if own else items
    found = doubts(seen, splits.tolist(), code=judge.partition(" ")[0] == "code")
    if found and config.strict:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(f"strict: {found[0]}{more}; mend the files, or set strict=false to be told only")
    if dropped and own:
        found.append(
            f"left out {len(dropped)} items to whose own solutions the reward function {judge} does not apply (it "
            f"returns None), such as {dropped[0][:_LONGEST_SHOWN]!r}"
        )
    elif dropped:
        shown = ", ".join(repr(text[:_LONGEST_SHOWN]) for text in dropped[:_SHOWN])
        found.append(
            f"left out the items of {len(dropped)} references that no completion could meet by the verifier {judge}, "
            f"such as {shown}"
        )
    return found + ([] if config.keep_user_ids else told_of_users(items))


def refuse_unusable(judge: str) -> None:
    """Refuse a verifier that cannot work on this host.

    Raises:
        ConfigError: saying why.
    """
    _unreadable(judge, ())


def _unreadable(judge: str, references: Sequence[str]) -> tuple[str, ...]:
    """References that no completion could meet, each once.

    Raises:
        ConfigError: if the verifier cannot work on this host, or refuses its settings.
    """
    try:
        return tuple(verifier(judge).unreadable(references))
    except (VerifierError, TypeError, ValueError) as error:
        raise ConfigError(f"the verifier {judge} cannot be used: {error}") from error


def _refuse_lack(config: DataConfig, items: ItemTable, assignment: Assignment, seed: int, needs: Sequence[str]) -> None:
    """Refuse a deal in which a device has no item of a split that somebody reads.

    Raises:
        ConfigError: naming the devices and the mends that are left.
    """
    for split in needs:
        empty = lacking(assignment, split)
        if not empty:
            continue
        held = int((assignment.split == SPLITS.index(split)).sum())
        mends = [*([_largest(config, items, assignment, seed, needs)] if held else []), *_mends(config, held)]
        raise ConfigError(
            f"{named_lack(assignment, split)}; the data set has {held}. "
            f"{'; '.join(mend for mend in mends if mend) or f'Bring items of {split}'}"
        )


def _mends(config: DataConfig, held: int) -> list[str]:
    """What else a config could change, of what it has not set so already."""
    reader = reader_of(config.reader or config.kind)
    found = []
    if not held and config.splits != "hash" and not (isinstance(reader, KnownSet) and reader.tells_the_past):
        found.append("splits=hash makes one of the other splits' items")
    if held and config.partition == "user" and config.least == 0:
        found.append("least=1 draws users who have items of every split")
    if held and config.partition != "user" and config.quantity_sigma:
        found.append(f"a quantity_sigma below {config.quantity_sigma:g} makes devices more equal")
    if held and config.partition not in ("user", "evenly"):
        found.append("partition=evenly deals every device of everything")
    if held and config.partition == "dirichlet" and np.isfinite(config.alpha):
        found.append(f"so does an alpha above {config.alpha:g}, nearly")
    return found


def _largest(
    config: DataConfig, items: ItemTable, assignment: Assignment, seed: int, needs: Sequence[str]
) -> str | None:
    """The largest fleet that is found to fit, in words; None if not even one device does."""
    low, high = 0, assignment.devices
    while high - low > 1:
        middle = (low + high) // 2
        try:
            tried = _assigned(config, items, assignment.split, middle, seed, needs)
            fits = not any(lacking(tried, split) for split in needs)
        except ConfigError:
            fits = False
        low, high = (middle, high) if fits else (low, middle)
    is_most = config.partition == "evenly" and not config.quantity_sigma
    return f"fleet.devices={low} {'is the most that fits' if is_most else 'fits'}" if low else None


def _assigned(
    config: DataConfig, items: ItemTable, splits: NDArray[np.int8], devices: int, seed: int, needs: Sequence[str]
) -> Assignment:
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
            needs=needs,
        )
    if ":" in config.partition:
        path, settings = config.partition, config.partition_settings
        return by_partitioner(items, splits, path=path, settings=settings, devices=devices, seed=seed)
    sigma = config.quantity_sigma
    shares = lognormal_shares(devices, sigma=sigma, seed=seed) if sigma else None
    if config.partition == "evenly":
        return evenly(items, splits, devices=devices, shares=shares, seed=seed)
    alpha, over = config.alpha, config.over
    return dirichlet(items, splits, devices=devices, alpha=alpha, over=over, shares=shares, seed=seed)


def _score_words(items: ItemTable) -> tuple[str, ...]:
    """The answers that stand for the score labels, from 0 and at least two; none where no item has a label.

    Raises:
        ConfigError: if a label has several answers, two have the same, or one below the highest has none.
    """
    codes = np.stack([items.columns[name].codes for name in ("score_label", "answer")], axis=1)  # (N, 2)
    known, texts = items.values("score_label"), items.columns["answer"].known
    pairs = [(known[label], texts[answer]) for label, answer in np.unique(codes, axis=0).tolist() if label != NONE]
    labels = {label for label, _ in pairs}
    if not labels:
        return ()
    answers = [sorted({text for label, text in pairs if label == n}) for n in range(max(*labels, 1) + 1)]
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
