"""What is sent of a round, from its rows alone: numbers by the names that they have in a tracker's tree.

They are the report's own, but read by positions in arrays and not by a filter of the whole frame for each measure: this
is done after every round, beside the run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.metrics.rows import ASKED, EVERY_TASK, REFERENCES, STAGE, WARMUP, WEIGHED, WHOLE, evaluation_split
from flsim.metrics.systems import LOST
from flsim.metrics.time_to import AXES, BYTES, SENT
from flsim.metrics.users import worst_decile_mean

TESTED = ("accuracy", "alone_accuracy")
"""Of the global adapter `accuracy/mean` and so on, of devices' own adapters `own_accuracy/mean`."""
_HELP = ("calls", "refused", "tokens", "money")  # rows cloud_calls and so on
_OF_FLEET = ("aggregation_bias", "update_cosine", "effective_devices", "cut_energy")
_HOUR = 3600.0

Places = NDArray[np.int64]
"""Positions of rows in a frame `(n,)`."""


@dataclass(frozen=True)
class OneFrame:
    """The rows of one round, sorted once by what they are of."""

    rows: pd.DataFrame

    @cached_property
    def _places(self) -> Mapping[tuple[str, str, str], Places]:
        """By split, model and name."""
        found: Any = self.rows.groupby(["split", "model", "name"]).indices
        return dict(found)

    @cached_property
    def _split(self) -> str:
        """The split that is tested."""
        return evaluation_split(self.rows)

    @cached_property
    def _numbers(self) -> tuple[Places, NDArray[np.float64], NDArray[np.float64]]:
        """Of every row its device, as a number in the order of names, its total and its weight."""
        devices = np.asarray(pd.factorize(self.rows["device"], sort=True)[0], dtype=np.int64)  # (n,)
        return devices, self.rows["total"].to_numpy(dtype=float), self.rows["weight"].to_numpy(dtype=float)

    def of(self, wanted: Callable[[str, str, str], bool]) -> Places:
        """The rows whose split, model and name are wanted."""
        found = [places for key, places in self._places.items() if wanted(*key)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def tested(self, name: str, model: str) -> Places:
        """As `RunRows.tested`; scaling to all of a user's items changes no user's own value."""
        found = self.of(lambda *key: key == (self._split, model, name))
        if not len(found) and (model, name) == ("frozen", "alone_accuracy"):
            return self.tested("accuracy", model)
        return found

    def trained(self, *names: str) -> Places:
        """As `training`: rows for all tasks together, where there are any."""
        found = self.of(lambda split, _, name: split == "train" and name in names)
        together = found[(self.rows["task"].to_numpy()[found] == EVERY_TASK).astype(bool)] if len(found) else found
        return together if len(together) else found

    def users(self, places: Places) -> NDArray[np.float64]:
        """Every user's own value `(U,)`, as `per_user`: sum of totals over sum of weights."""
        devices, totals, weights = self._numbers
        sums, of = (np.bincount(devices[places], numbers[places]) for numbers in (totals, weights))
        measured = of > 0
        return np.asarray(sums[measured] / of[measured])

    def total(self, places: Places) -> float:
        """The sum of totals."""
        return float(self._numbers[1][places].sum())

    def value(self, places: Places) -> float:
        """Total over weight of all together; nan without weight."""
        _, totals, weights = self._numbers
        weight = float(weights[places].sum())
        return float(totals[places].sum()) / weight if weight > 0 else float("nan")

    def devices(self, places: Places) -> int:
        """How many devices have any of these rows."""
        return len(np.unique(self._numbers[0][places]))


def measures_of(rows: pd.DataFrame, tau: float | None) -> dict[str, float]:
    """The measures of one round; what it did not measure is left out.

    Law: no other round enters a measure, so each is the same whenever it is read.

    Of a measure of users there are `mean`, `p10`, `p90` (over users, each counting once) and `worst_tenth`, the mean of
    the worst `ceil(users / 10)`. Accuracies, usage and alike are shares, costs are those of this round.

    Args:
        rows: of one round.
        tau: the run's budget; None if nobody asks.
    """
    of, found = OneFrame(rows), dict[str, float]()
    for name in TESTED:
        found |= _spread(name, of.users(of.tested(name, "global")))
        found |= _spread(f"own_{name}", of.users(of.tested(name, "own")))
        for model in REFERENCES:
            found |= _mean(f"{name}/{model}", of.users(of.tested(name, model)))
    weighed = of.trained(WEIGHED)
    usage = of.users(weighed if len(weighed) else of.trained(*ASKED))
    found |= _spread("usage", usage, higher_is_better=False)
    if tau is not None and len(usage):
        found |= {"usage/tau": tau, "usage/users_above_tau": float((usage > tau).sum())}
    found |= _spread("lambda", of.users(of.trained("dual_variable")), higher_is_better=False)
    for name in ("reward", "alone_reward"):
        found |= _spread(name, of.users(of.trained(name)))
    found |= _mean("loss/mean", of.users(of.trained("loss")))
    found |= {f"cost/{name}": value for name, value in costs_of(of).items()}
    found |= _health(of)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def costs_of(of: OneFrame) -> dict[str, float]:
    """What one round cost, all devices: calls, tokens, money, bytes, and joules and grams where there is a system.

    Bytes, joules and grams are those of `flsim.metrics.time_to.AXES`. `hours` is no cost of the round but the virtual
    time at its end.
    """
    found = dict[str, float]()
    for name in _HELP:
        places = of.trained(f"cloud_{name}")
        if len(places):
            found[name] = of.total(places)
    for axis in AXES:
        if not axis.rows or axis.name in found:
            continue
        names = SENT if axis == BYTES and not len(of.trained(*axis.rows)) else axis.rows
        parts = [of.trained(name) for name in names]
        parts.append(of.of(lambda split, _, name, names=names: split in (STAGE, WARMUP) and name in names))  # type: ignore[misc]
        places = np.concatenate(parts)
        if len(places):
            found[axis.name] = of.total(places)
    now = of.of(lambda *key: key == (WHOLE, WHOLE, "virtual_seconds"))
    return found | ({"hours": of.total(now) / _HOUR} if len(now) else {})


def added(so_far: Mapping[str, float], costs: Mapping[str, float]) -> dict[str, float]:
    """What a run had cost by the end of a round.

    Args:
        so_far: what it had cost before.
        costs: of the round, as `costs_of` gives them; `hours` stays out, as it is the time so far itself.
    """
    names = [*so_far, *(name for name in costs if name not in so_far and name != "hours")]
    return {name: so_far.get(name, 0.0) + costs.get(name, 0.0) for name in names}


def _health(of: OneFrame) -> dict[str, float]:
    """Of the aggregation, and how many updates were not used."""
    found = dict[str, float]()
    for name, called in (*((name, f"health/{name}") for name in _OF_FLEET), ("dual_variable", "lambda/fleet")):
        found[called] = of.value(of.of(lambda *key, name=name: key == (WHOLE, WHOLE, name)))
    found |= _mean("health/update_norm", of.users(of.trained("update_norm")))
    sent = of.trained("downlink_bytes")
    if len(sent):
        found["health/devices"] = float(of.devices(sent))
        found["health/set_aside"] = float(of.devices(of.of(lambda split, _, name: name in LOST)))
    return found


def _mean(name: str, users: NDArray[np.float64]) -> dict[str, float]:
    """The mean user's value."""
    return {name: float(users.mean())} if len(users) else {}


def _spread(name: str, users: NDArray[np.float64], *, higher_is_better: bool = True) -> dict[str, float]:
    """The mean user, and how users `(U,)` are spread around it, as `flsim.metrics.users.summarise` has it."""
    if not len(users):
        return {}
    p10, p90 = (float(value) for value in np.quantile(users, [0.1, 0.9]))
    return {
        f"{name}/mean": float(users.mean()),
        f"{name}/p10": p10,
        f"{name}/p90": p90,
        f"{name}/worst_tenth": worst_decile_mean(users, higher_is_better),
    }
