"""What it takes to get to an accuracy, in hours, joules, bytes, money and grams; who never gets there is said so.

Accuracy is known at tests only, so between two tests it is that of the earlier one. By hand, tests after 0, 1 and 3
hours with accuracies 0.2, 0.5 and 0.7: 0.5 takes 1 hour and 0.6 takes 3; 0.8 is not reached by 3 hours; after 2 hours
the accuracy is 0.5; the area to 4 hours is (1 * 0.2 + 2 * 0.5 + 1 * 0.7) / 4 = 0.475.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.metrics.intervals import DRAWS, Interval
from flsim.metrics.rows import STAGE, WARMUP, picked, training
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import PARTS, virtual_seconds
from flsim.metrics.weighting import EXAMPLES, UNIFORM, WEIGHTINGS
from flsim.seeding import generator


@dataclass(frozen=True)
class Axis:
    """One kind of cost."""

    name: str
    """Of columns in frames and files."""
    title: str
    """In figures and tables."""
    unit: str
    """Of `flsim.metrics.measure.UNITS`."""
    rows: tuple[str, ...]
    """Training rows that are added up over devices and rounds; none for the clock's."""


TIME = Axis("seconds", "virtual time", "seconds", ())
BYTES = Axis("bytes", "sent up and down", "bytes", ("link_bytes",))
SENT = ("uplink_bytes", "downlink_bytes", "cloud_up_bytes", "cloud_down_bytes")
"""What stands for `link_bytes`, those of the size that a run stands for, in a run without virtual time."""
AXES = (
    TIME,
    Axis("joules", "joules of devices", "joules", tuple(f"{part}_joules" for part in PARTS)),
    BYTES,
    Axis("money", "money for the cloud", "money", ("cloud_money",)),
    Axis("grams", "grams of CO2", "count", ("grams",)),
)
"""All kinds of cost, in the order in which tables and figures show them."""


def costs_by_round(rows: pd.DataFrame) -> pd.DataFrame:
    """What a run had cost by the end of every round, since its start; of money also what warm-up and stage spent.

    Law: it never falls from round to round.

    Returns:
        By round, a column for each of `AXES` that the run has rows of.
    """
    rounds = pd.Index(sorted({0, *rows["round"].unique()}), name="round")
    found = {}
    for axis in AXES:
        if not axis.rows:
            ends = virtual_seconds(rows)
            if len(ends):
                found[axis.name] = ends.reindex(rounds).ffill()
            continue
        names = SENT if axis == BYTES and not (rows["name"] == "link_bytes").any() else axis.rows
        parts = [training(rows, name=name) for name in names]
        parts += [picked(rows, split=split, name=names) for split in (WARMUP, STAGE)]  # one before, the other after
        spent = pd.concat(parts)
        if len(spent):
            found[axis.name] = spent.groupby("round")["total"].sum().reindex(rounds, fill_value=0.0).cumsum()
    return pd.DataFrame(found, index=rounds)


def course_of(run: RunRows) -> pd.DataFrame:
    """What a run had cost at every test, and how often its mean user was right there when it may ask.

    Returns:
        By tested round: a column for each of `AXES` that is known, and one for each of `WEIGHTINGS` that users have.
    """
    sums = run.tested("accuracy").groupby(["round", "device"])[["total", "weight"]].sum()
    sums = sums[sums["weight"] > 0]
    values = (sums["total"] / sums["weight"]).unstack("device")  # tests x users
    means = {}
    for weighting in WEIGHTINGS.values():
        own = run.user_weights(weighting)
        if weighting == EXAMPLES:
            weights = sums["weight"].unstack("device")
        elif own is not None:
            weights = values.notna() * own.reindex(values.columns).fillna(0.0)
        else:
            continue
        weights = weights.fillna(0.0)
        known = weights.sum(axis=1)
        means[weighting.name] = (values.fillna(0.0) * weights).sum(axis=1) / known.where(known > 0)
    return costs_by_round(run.rows).reindex(values.index).assign(**means)


def cost_to(course: pd.DataFrame, axis: str, target: float, by: str = UNIFORM.name) -> float | None:
    """What the first test cost at which the mean user was right that often.

    Laws: twice the costs take twice as much; a higher target never takes less.

    Args:
        course: as `course_of` gives.
        axis: of its columns.
        target: share of prompts that are right.
        by: the weighting of users.

    Returns:
        None if no test reached it.
    """
    reached = round_of(course, target, by)
    return None if reached is None else float(course[axis].loc[reached])


def round_of(course: pd.DataFrame, target: float, by: str = UNIFORM.name) -> int | None:
    """The first tested round at which the mean user was right that often; None if there is none."""
    there = course.index[course[by] >= target - 1e-12]  # accuracies are ratios of counts
    return int(there[0]) if len(there) else None


def accuracy_at(course: pd.DataFrame, axis: str, cost: float, by: str = UNIFORM.name) -> float:
    """Accuracy at the last test that had cost no more; nan if the first had cost more already."""
    done = course.loc[course[axis] <= cost * (1 + 1e-12), by]
    return float(done.iloc[-1]) if len(done) else float("nan")


def area_under(course: pd.DataFrame, axis: str, end: float, by: str = UNIFORM.name) -> float:
    """The area under accuracy over a cost, from the first test to `end`, over its length: the mean accuracy.

    Returns:
        Nan if `end` lies at or before the first test.
    """
    costs = np.minimum(course[axis].to_numpy(dtype=float), end)  # (E,)
    lengths = np.diff(np.append(costs, end))  # (E,)
    length = lengths.sum()
    return float(course[by].to_numpy(dtype=float) @ lengths / length) if length > 0 else float("nan")


def median_cost(costs: Sequence[float | None]) -> float:
    """The median over seeds, those that did not get there counting as infinite; by hand: 1, 3 and None are 3."""
    return float(np.median([np.inf if cost is None else cost for cost in costs]))


def speed_up(base: Sequence[float | None], other: Sequence[float | None]) -> Interval | None:
    """How many times less `other` takes: the ratio of medians, with seeds drawn in pairs for its interval.

    Laws: the other way round it is the inverse; twice the costs of `base` are twice the speed-up.

    Args:
        base: costs by seed, None where the target was not reached.
        other: of the other method, in the order of the same seeds.

    Returns:
        Infinite where only `base` does not get there, 0 where only `other` does not; None where neither does, or both
        take nothing. Draws for which the ratio is not defined are left out.
    """
    pairs = np.array([[np.inf if cost is None else cost for cost in costs] for costs in (base, other)])  # (2, S)
    ratio = float(_ratio(np.median(pairs, axis=1)))
    if np.isnan(ratio):
        return None
    drawn = generator(0, "speed-up").integers(pairs.shape[1], size=(DRAWS, pairs.shape[1]))  # (D, S)
    medians = np.median(pairs[:, drawn], axis=2)  # (2, D)
    ratios = _ratio(medians)  # (D,)
    ratios = ratios[~np.isnan(ratios)]
    low, high = np.quantile(ratios, [0.025, 0.975], method="inverted_cdf")  # between infinite draws lies no mean
    return Interval(ratio, float(low), float(high))


def _ratio(medians: NDArray[np.float64]) -> NDArray[np.float64]:
    """First over second `(2, ...)`; nan where both are 0 or infinite."""
    one, other = medians  # (...), (...)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 and infinite over infinite are nan, as they should be
        return np.asarray(one / other)  # (...)
