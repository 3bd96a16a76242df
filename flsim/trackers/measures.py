"""What is sent of a round, from its rows alone: numbers by the names that they have in a tracker's tree."""

import math
from collections.abc import Mapping

import pandas as pd

from flsim.metrics.rows import REFERENCES, of_fleet, training
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import LOST
from flsim.metrics.time_to import AXES, TIME, costs_by_round
from flsim.metrics.users import per_user, summarise

TESTED = ("accuracy", "alone_accuracy")
"""Of the global adapter `accuracy/mean` and so on, of devices' own adapters `own_accuracy/mean`."""
_HELP = {name: f"cloud_{name}" for name in ("calls", "refused", "tokens", "money")}
_OF_FLEET = ("aggregation_bias", "update_cosine", "effective_devices", "cut_energy")
_HOUR = 3600.0


def measures_of(rows: pd.DataFrame, tau: float | None) -> dict[str, float]:
    """The measures of one round; what it did not measure is left out.

    Law: no other round enters a measure, so each is the same whenever it is read.

    Of a measure of users there are `mean`, `p10`, `p90` (over users, each counting once) and `worst_tenth`, the mean of
    the worst `ceil(users / 10)`. Accuracies, usage and alike are shares, costs are those of this round.

    Args:
        rows: of one round.
        tau: the run's budget; None if nobody asks.
    """
    run = RunRows(rows, (), tau or 0.0)
    found: dict[str, float] = {}
    for name in TESTED:
        found |= _spread(name, run.tested(name))
        found |= _spread(f"own_{name}", run.tested(name, "own"))
        for model in REFERENCES:
            found |= _mean(f"{name}/{model}", run.tested(name, model))
    found |= _spread("usage", run.usage, higher_is_better=False)
    if tau is not None and "usage/mean" in found:
        found["usage/tau"] = tau
        found["usage/users_above_tau"] = float((per_user(run.usage) > tau).sum())
    found |= _spread("lambda", run.trained("dual_variable"), higher_is_better=False)
    for name in ("reward", "alone_reward"):
        found |= _spread(name, run.trained(name))
    found |= _mean("loss/mean", run.trained("loss"))
    found |= {f"cost/{name}": value for name, value in costs_of(rows).items()}
    found |= _health(rows)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def costs_of(rows: pd.DataFrame) -> dict[str, float]:
    """What one round cost, all devices: calls, tokens, money, bytes, and joules and grams where there is a system.

    `hours` is no cost of the round but the virtual time at its end.
    """
    run, kept = RunRows(rows, (), 0.0), dict[str, float]()
    for name, of in _HELP.items():
        spent = run.trained(of)
        if len(spent):
            kept[name] = float(spent["total"].sum())
    whole = costs_by_round(rows)
    for axis in AXES:
        if axis.name in whole.columns and axis.name not in kept and axis != TIME:
            kept[axis.name] = float(whole[axis.name].iloc[-1])
    if TIME.name in whole.columns and not math.isnan(float(whole[TIME.name].iloc[-1])):
        kept["hours"] = float(whole[TIME.name].iloc[-1]) / _HOUR
    return kept


def added(so_far: Mapping[str, float], costs: Mapping[str, float]) -> dict[str, float]:
    """What a run had cost by the end of a round.

    Args:
        so_far: what it had cost before.
        costs: of the round, as `costs_of` gives them; `hours` stays out, as it is the time so far itself.
    """
    names = [*so_far, *(name for name in costs if name not in so_far and name != "hours")]
    return {name: so_far.get(name, 0.0) + costs.get(name, 0.0) for name in names}


def _health(rows: pd.DataFrame) -> dict[str, float]:
    """Of the aggregation, and how many updates were not used."""
    fleet = of_fleet(rows)
    own = fleet[fleet["weight"] > 0].drop_duplicates("name").set_index("name")
    found = {f"health/{name}": _value(own, name) for name in _OF_FLEET if name in own.index}
    if "dual_variable" in own.index:
        found["lambda/fleet"] = _value(own, "dual_variable")
    found |= _mean("health/update_norm", training(rows, name="update_norm"))
    trained = training(rows, name="downlink_bytes")
    if len(trained):
        found["health/devices"] = float(trained["device"].nunique())
        found["health/set_aside"] = float(rows.loc[rows["name"].isin(LOST), "device"].nunique())
    return found


def _value(own: pd.DataFrame, name: str) -> float:
    return float(own["total"][name]) / float(own["weight"][name])


def _mean(name: str, rows: pd.DataFrame) -> dict[str, float]:
    """The mean user's value."""
    values = per_user(rows)
    return {name: float(values.mean())} if len(values) else {}


def _spread(name: str, rows: pd.DataFrame, *, higher_is_better: bool = True) -> dict[str, float]:
    """The mean user, and how users are spread around it."""
    if not rows["weight"].sum() > 0:
        return {}
    users = summarise(rows, higher_is_better)
    return {
        f"{name}/mean": users.user_mean,
        f"{name}/p10": users.p10,
        f"{name}/p90": users.p90,
        f"{name}/worst_tenth": users.worst_decile_mean,
    }
