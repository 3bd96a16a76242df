"""What measures are made by: values read from rows, statistics over users, and ratios of the mean user.

A formula takes the rows of one run (`RunRows`). A series that it returns holds a value per user (by device); a number
is of the whole run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.metrics.auc import UserAuc, over_users
from flsim.metrics.calibration import TENTHS, expected_calibration_error
from flsim.metrics.fairness import harm_rate
from flsim.metrics.offloading import accuracy_at, average_gap_recovered, call_performance_threshold
from flsim.metrics.run_rows import RunRows, total
from flsim.metrics.users import value_of
from flsim.metrics.weighting import EXAMPLES, Weighting, mean_by

SENDING = tuple(range(10, 100, 10))
"""Percentages of prompts sent at which accuracy is known, from `accuracy_sending_10` to `accuracy_sending_90`."""


@dataclass(frozen=True)
class AtEnd:
    """Every user's value at the last test of a model."""

    name: str
    """Of the rows."""
    model: str = "global"

    def rows(self, run: RunRows) -> pd.DataFrame:
        """All rounds of it."""
        return run.tested(self.name, self.model)

    def __call__(self, run: RunRows) -> pd.Series:
        """By device."""
        return run.value_at_end(self.name, self.model)

    def examples(self, run: RunRows) -> pd.Series:
        """By device, how many values it is of."""
        return run.weights(self.name, self.model)


@dataclass(frozen=True)
class Trained:
    """Every user's value over all rounds of training."""

    name: str | tuple[str, ...]
    """Of the rows, or several of them."""

    def rows(self, run: RunRows) -> pd.DataFrame:
        """All rounds of it."""
        return run.trained(self.name)

    def __call__(self, run: RunRows) -> pd.Series:
        """By device."""
        return value_of(run.sums_of_training(self.name))

    def examples(self, run: RunRows) -> pd.Series:
        """By device, how many values it is of."""
        return run.sums_of_training(self.name)["weight"]


@dataclass(frozen=True)
class Spent:
    """A sum over rounds and devices of training."""

    name: str | tuple[str, ...]
    """Of the rows, or several that are added up."""

    def rows(self, run: RunRows) -> pd.DataFrame:
        """All rounds of it."""
        return run.trained(self.name)

    def __call__(self, run: RunRows) -> float:
        """Nan where it was never measured."""
        return total(self.rows(run))


@dataclass(frozen=True)
class SpentAnywhere(Spent):
    """A sum over all rows of a name: of training, of tests, and of the stage."""

    def rows(self, run: RunRows) -> pd.DataFrame:
        """All rounds of it."""
        return run.picked(self.name)


@dataclass(frozen=True)
class SpentInWarmup(Spent):
    """What a warm-up took."""

    name: str
    """Of the rows."""

    def rows(self, run: RunRows) -> pd.DataFrame:
        """Of round 0, if there was one."""
        return run.by_warmup(self.name)


Read = AtEnd | Trained | Spent
"""Formulas that read one kind of rows, which can be followed over rounds."""


@dataclass(frozen=True)
class MeanUser:
    """A ratio of means: taken of the mean user over all seeds, since users' own ratios rest on few prompts."""

    needs: tuple[str, ...]
    """Measures of users."""
    ratio: Callable[[NDArray[np.float64]], float]
    """The mean user's values `(M,)` of these -> the ratio; nan where it is not defined."""


def gap_recovered_on_average() -> MeanUser:
    """APGR over the measured shares of prompts sent; not defined where the cloud is no better."""
    return MeanUser(_ENDS, _apgr)


def calls_to_recover(part: float) -> MeanUser:
    """CPT: the least share of prompts to send to close `part` of the gap to the cloud."""
    return MeanUser(_ENDS, partial(_cpt, part=part))


def at_equal_spend() -> MeanUser:
    """Accuracy at test of the requests that training leaves of S per prompt; nan where it has spent more."""
    return MeanUser(("left_for_test", *_ENDS), lambda v: accuracy_at(v[0], _SHARES, v[3:].tolist(), v[1], v[2]))


def calibration_error() -> MeanUser:
    """ECE of all prompts together: the gaps of users are averaged before they lose their signs."""
    return MeanUser(tuple(f"claim_gap_{tenth}" for tenth in TENTHS), expected_calibration_error)


_SHARES = [percent / 100 for percent in SENDING]
_ENDS = ("alone_accuracy", "cloud_accuracy", *(f"sending_{percent}" for percent in SENDING))


def _apgr(values: NDArray[np.float64]) -> float:
    """Of the device alone, the cloud alone and the curve between them."""
    weak, strong, *curve = values.tolist()
    return average_gap_recovered(_SHARES, curve, weak, strong) if strong > weak else float("nan")


def _cpt(values: NDArray[np.float64], part: float) -> float:
    weak, strong, *curve = values.tolist()
    return call_performance_threshold(part, _SHARES, curve, weak, strong) if strong > weak else float("nan")


def over_accuracies(statistic: Callable[[NDArray[np.float64]], float]) -> Callable[[RunRows], float]:
    """A statistic of the users' accuracies at the end `(U,)`; nan without users."""

    def of(run: RunRows) -> float:
        values = run.accuracy.to_numpy(dtype=float)  # (U,)
        return float(statistic(values)) if len(values) else float("nan")

    return of


def accuracy_by(weighting: Weighting) -> Callable[[RunRows], float]:
    """Mean accuracy at the end under a weighting; nan where nobody's weight is known."""

    def of(run: RunRows) -> float:
        found = mean_by(run.accuracy, run.user_weights(weighting))
        return float("nan") if found is None else found

    return of


IMPRESSIONS = {
    "asking_auc": "accuracy",
    "wrong_auc": "alone_accuracy",
    "task_auc": "positives",
    "class_auc": "largest_class",
}
"""AUCs that devices take of themselves, and the rows whose weights say of how many items."""


def auc_over_users(run: RunRows, name: str, weighting: Weighting = EXAMPLES, model: str = "global") -> UserAuc | None:
    """User-level weighted AUC at the end, from what devices measured of themselves; None if that was not measured.

    Args:
        run: its rows.
        name: of `IMPRESSIONS`.
        weighting: by examples it is GAUC, each user weighed by its impressions.
        model: what was measured.
    """
    if run.tested(name, model).empty:
        return None
    items = run.weights(IMPRESSIONS[name], model)
    items = items[items > 0]
    weights = items if weighting == EXAMPLES else run.user_weights(weighting)
    known = pd.Series(np.nan, items.index) if weights is None else weights.reindex(items.index).fillna(0.0)
    return over_users(AtEnd(name, model)(run).reindex(items.index), known)


def auc_part(name: str, part: str) -> Callable[[RunRows], float]:
    """A field of the user-level AUC by examples; nan where it was not measured."""

    def of(run: RunRows) -> float:
        found = auc_over_users(run, name)
        return float("nan") if found is None else float(getattr(found, part))

    return of


def claim_gap(tenth: int) -> Callable[[RunRows], pd.Series]:
    """Claimed minus true of one tenth of the claims, for each prompt of the user."""
    return lambda run: run.claim_gaps[tenth]


def harmed(run: RunRows) -> float:
    """The share of users below what they would have without the others; nan if that is not known."""
    before = run.before
    return float("nan") if before is None else _or_nan(lambda: harm_rate(run.accuracy, before.dropna()))


def price_per_call(run: RunRows) -> float:
    """Mean price of a cloud call while training; nan without one."""
    calls = total(run.trained("cloud_calls"))
    return total(run.trained("cloud_money")) / calls if calls > 0 else float("nan")


def _or_nan(take: Callable[[], float]) -> float:
    """Nan where a measure has nothing to stand on: no requests at all, or no user in common."""
    try:
        return take()
    except ValueError:
        return float("nan")
