"""Where the time of a run goes: the mean round from its timing files, and the columns of a picture of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from flsim.charts.colours import COLOURS
from flsim.timing import PARTS, RoundTiming

MEANING: Mapping[str, str] = MappingProxyType(
    {
        "rollout": "sampling completions",
        "cloud": "the cloud's answers",
        "reward": "verdicts on completions",
        "train": "forward, backward, optimizer",
        "evaluate": "tests on the devices",
        "store": "device states, read and written",
        "transport": "messages to and from devices",
        "aggregate": "the server's strategy",
        "commit": "rows and checkpoint",
        "idle": "workers that wait",
        "other": "what no other part claims",
    }
)
"""Every part in a few words."""


PART_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "rollout": COLOURS["global"],
        "cloud": COLOURS["cloud"],
        "reward": "#F0E442",
        "train": "#E69F00",
        "evaluate": COLOURS["own"],
        "store": COLOURS["alone"],
        "transport": COLOURS["dual"],
        "aggregate": COLOURS["random"],
        "commit": "#7A4B1E",
        "idle": "#E2E2E2",
        "other": COLOURS["frozen"],
    }
)
"""Colour of every part."""


@dataclass(frozen=True)
class PartTime:
    """One part in the mean round."""

    name: str
    worker_s: float
    """Worker-seconds."""
    wall_s: float
    """Its piece of the round's wall-clock seconds: each round's worker-seconds over its workers."""
    share: float
    """Of all worker-seconds, from 0 to 1."""


@dataclass(frozen=True)
class Breakdown:
    """The mean round and what it is the mean of."""

    rounds: tuple[int, ...]
    """Rounds measured, ascending."""
    start: RoundTiming | None
    """Round 0, the measurement before training, which is set apart; None if there is none or nothing else."""
    warm_up: RoundTiming | None
    """The first round of training, which also warms caches up and is set apart; None if nothing else is left."""
    workers: tuple[int, ...]
    """Numbers of workers that occur, ascending; more than one if a run was resumed with another."""
    evaluated: int
    """How many of the rounds measured hold an evaluation."""
    wall_s: float
    """Wall-clock seconds of the mean round."""
    parts: tuple[PartTime, ...]
    """All of `PARTS` in their order, also those at zero; a part not known here comes last."""


def break_down(timings: Sequence[RoundTiming]) -> Breakdown:
    """Average the rounds of a run, without its start and its warm-up where anything else is left.

    By hand: two rounds of 1 s and 3 s by two workers, whose training took 1 and 3 worker-seconds and who waited for
    the rest, have a mean round of 2 s with 2 worker-seconds of training: half of all, and 1 s of wall-clock time.

    Args:
        timings: of one run, by round; at least one.
    """
    training = [timing for timing in timings if timing.round > 0]
    start = next((timing for timing in timings if timing.round == 0), None) if training else None
    warm_up = training[0] if len(training) > 1 else None
    measured = training[warm_up is not None :] or list(timings)
    names = [*PARTS, *sorted({name for timing in measured for name in timing.parts} - set(PARTS))]
    count = len(measured)
    worker_s = {name: sum(timing.parts.get(name, 0.0) for timing in measured) / count for name in names}
    wall_s = {name: sum(wall_parts(timing).get(name, 0.0) for timing in measured) / count for name in names}
    whole = sum(worker_s.values())
    return Breakdown(
        rounds=tuple(timing.round for timing in measured),
        start=start,
        warm_up=warm_up,
        workers=tuple(sorted({timing.workers for timing in measured})),
        evaluated=sum(timing.parts.get("evaluate", 0.0) > 0 for timing in measured),
        wall_s=sum(timing.wall_s for timing in measured) / count,
        parts=tuple(PartTime(n, worker_s[n], wall_s[n], worker_s[n] / whole if whole > 0 else 0.0) for n in names),
    )


def wall_parts(timing: RoundTiming) -> dict[str, float]:
    """Every part of a round as its piece of the wall-clock seconds; the pieces add up to the round."""
    return {name: seconds / timing.workers for name, seconds in timing.parts.items()}


SMALL = 0.01
"""A part below this share of the mean round is drawn as `other`."""


_MOST_COLUMNS = 60


@dataclass(frozen=True)
class Column:
    """One or several neighbouring rounds of the picture."""

    first: int
    last: int
    parts: dict[str, float]
    """Mean wall-clock seconds per part."""

    @property
    def height(self) -> float:
        """Seconds of the mean round in it."""
        return sum(self.parts.values())


def drawn_parts(found: Breakdown) -> list[str]:
    """The parts that have a colour of their own: of at least 1 %, in the order of `PARTS`, and `other` at last."""
    large = [
        part.name for part in found.parts if part.share >= SMALL and part.name in PART_COLOURS and part.name != "other"
    ]
    return [*large, "other"]


def columns_of(timings: Sequence[RoundTiming], found: Breakdown, names: Sequence[str]) -> list[Column]:
    """The columns from left to right: at most 60 of measured rounds, and before them start and warm-up.

    Where a column holds several rounds, start and warm-up would be too thin to see and are left out.

    Args:
        timings: of one run, by round.
        found: what `break_down` makes of them.
        names: parts to keep apart; the others become `other`.
    """
    apart = [[timing] for timing in timings if timing.round not in found.rounds]
    measured = [timing for timing in timings if timing.round in found.rounds]
    size = math.ceil(len(measured) / _MOST_COLUMNS)
    blocks = [measured[start : start + size] for start in range(0, len(measured), size)]
    blocks = [*apart, *blocks] if size == 1 else blocks
    return [Column(block[0].round, block[-1].round, _mean_parts(block, names)) for block in blocks]


def _mean_parts(block: Sequence[RoundTiming], names: Sequence[str]) -> dict[str, float]:
    means = dict.fromkeys(names, 0.0)
    for timing in block:
        for name, passed in wall_parts(timing).items():
            means[name if name in means else "other"] += passed / len(block)
    return means
