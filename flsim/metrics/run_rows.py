"""The rows of one run as formulas of measures read them: what was tested, trained and spent, and where tasks switch.

Rows that a run lacks (older runs, other clients) give empty series and nan, never an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.metrics import calibration
from flsim.metrics.compact import places_by, plain
from flsim.metrics.continual import by_user, lost_by_aggregation, user_matrices
from flsim.metrics.offloading import settling_rounds, share_left
from flsim.metrics.rows import (
    ASKED,
    STAGE,
    WARMUP,
    WEIGHED,
    evaluation,
    evaluation_split,
    items_of,
    latest,
    of_fleet,
    picked,
    training,
    user_facts,
)
from flsim.metrics.switches import anytime, dip, recovery_rounds
from flsim.metrics.systems import classes_of
from flsim.metrics.users import over_rounds, user_sums, value_of
from flsim.metrics.weighting import EXAMPLES, REQUESTS, TRAFFIC, UNIFORM, Weighting
from flsim.tasks.stream import Phase

_SILENT = ("frozen", "alone_accuracy")


@dataclass(frozen=True)
class Life:
    """How training and test are counted together."""

    horizon: float = 1.0
    """H: how many test prompts a device meets for each training prompt."""
    spend: float | None = None
    """S: cloud calls per prompt that training and test may make together; None is the budget's tau."""


@dataclass(frozen=True)
class RunRows:
    """One run, as a formula gets it; what several measures need is taken once."""

    rows: pd.DataFrame
    """All of it."""
    phases: Sequence[Phase]
    """Of its stream."""
    tau: float
    """Its budget."""
    before: pd.Series | None = None
    """By device, the accuracy that a user would have without the others; None if nothing was chosen for that."""
    life: Life = field(default_factory=Life)
    """What measures of training and test together take."""

    @classmethod
    def under(cls, rows: pd.DataFrame, phases: Sequence[Phase], budget: float | None) -> Self:
        """A run with that tau; None if it has none."""
        return cls(rows, phases, float("nan") if budget is None else budget)

    @property
    def budget(self) -> float | None:
        """Its tau; None if it has none."""
        return None if np.isnan(self.tau) else self.tau

    @cached_property
    def last(self) -> int:
        """The last round that has rows."""
        return int(self.rows["round"].max())

    @cached_property
    def split(self) -> str:
        """The split of the tests that are reported."""
        return evaluation_split(self.rows)

    @cached_property
    def _places(self) -> dict[str, NDArray[np.int32]]:
        """Where the rows of each name are: most measures want those of one, and none looks through the whole run."""
        return places_by(self.rows["name"])

    @cached_property
    def _nothing(self) -> pd.DataFrame:
        """No rows, plain."""
        return plain(self.rows.iloc[:0])

    def _of(self, name: str | tuple[str, ...]) -> pd.DataFrame:
        """The rows of a name, or of several, in their order; compact if the run's are and there are any."""
        names = (name,) if isinstance(name, str) else dict.fromkeys(name)
        found = [self._places[one] for one in names if one in self._places]
        if not found:
            return self._nothing
        return self.rows.take(found[0] if len(found) == 1 else np.sort(np.concatenate(found)))

    def picked(self, name: str | tuple[str, ...], split: str | None = None) -> pd.DataFrame:
        """The rows of a name, or of several, in one split or in all."""
        rows = self._of(name)
        return picked(rows, split=split, name=name) if len(rows) else rows

    @cached_property
    def _items(self) -> pd.DataFrame:
        """What a sample of a test stands for."""
        return items_of(self._of("test_items"))

    @cached_property
    def _tested(self) -> dict[tuple[str | tuple[str, ...], str], pd.DataFrame]:
        """What `measured` has found so far."""
        return {}

    def measured(self, name: str | tuple[str, ...], model: str = "global") -> pd.DataFrame:
        """Rows of the tests of a model, all rounds."""
        if (name, model) not in self._tested:
            names = (name,) if isinstance(name, str) else name
            found = self._nothing
            if self._places.keys() & set(names):
                rows = self._of(names)
                found = evaluation(rows, model=model, name=name, split=self.split, items=self._items)
            self._tested[name, model] = found
        return self._tested[name, model]

    def tested(self, name: str | tuple[str, ...], model: str = "global") -> pd.DataFrame:
        """The same; the frozen model, which asks nobody, may have been measured under `accuracy` only."""
        found = self.measured(name, model)
        return self.measured("accuracy", model) if found.empty and (model, name) == _SILENT else found

    def at_end(self, name: str | tuple[str, ...], model: str = "global") -> pd.DataFrame:
        """Rows of the last test of a model."""
        return latest(self.tested(name, model))

    @cached_property
    def _ends(self) -> dict[tuple[str | tuple[str, ...], str], pd.DataFrame]:
        """What `_sums_at_end` has found so far."""
        return {}

    def _sums_at_end(self, name: str | tuple[str, ...], model: str) -> pd.DataFrame:
        """By device, totals and weights of the last test of a model."""
        if (name, model) not in self._ends:
            self._ends[name, model] = user_sums(self.at_end(name, model))
        return self._ends[name, model]

    def value_at_end(self, name: str | tuple[str, ...], model: str = "global") -> pd.Series:
        """By device, its value at the last test of a model."""
        return value_of(self._sums_at_end(name, model))

    def trained(self, name: str | tuple[str, ...]) -> pd.DataFrame:
        """Rows of training of a name, or of several, all rounds."""
        rows = self._of(name)
        return training(rows, name=name) if len(rows) else rows

    @cached_property
    def _learned(self) -> dict[str | tuple[str, ...], pd.DataFrame]:
        """What `sums_of_training` has found so far."""
        return {}

    def sums_of_training(self, name: str | tuple[str, ...]) -> pd.DataFrame:
        """By device, totals and weights of a name, or of several, over all rounds of training."""
        if name not in self._learned:
            self._learned[name] = user_sums(self.trained(name))
        return self._learned[name]

    def by_stage(self, name: str) -> pd.DataFrame:
        """Rows of what the stage after aggregation reports of itself."""
        return self.picked(name, STAGE)

    def by_warmup(self, name: str) -> pd.DataFrame:
        """Rows of what a warm-up took."""
        return self.picked(name, WARMUP)

    @cached_property
    def whole(self) -> pd.DataFrame:
        """Rows of what the round loop measures of the whole fleet, all rounds and names."""
        return of_fleet(self.rows)

    @cached_property
    def accuracy(self) -> pd.Series:
        """By device, at the end, when it may ask."""
        return self.value_at_end("accuracy")

    @cached_property
    def classes(self) -> pd.Series:
        """By device, the class that it is of; empty without a system."""
        return classes_of(self.rows)

    @cached_property
    def continual(self) -> dict[str, pd.DataFrame]:
        """The measures of `flsim.metrics.continual` by device, with and without the cloud."""
        return {name: by_user(self.tested(name), self.phases) for name in ("accuracy", "alone_accuracy")}

    def anytime(self, name: str) -> pd.Series:
        """By device; a task counts from the phase on that first teaches it."""
        rows = self.tested(name)

        def taught(round_: int) -> list[str]:
            return sorted({task for phase in self.phases if phase.first_round <= round_ for task in phase.tasks})

        measured = sorted(set(rows["round"]) - {0})
        return pd.Series({k: anytime(v, taught) for k, v in user_matrices(rows, measured).items()}, dtype=float)

    def lost_by_aggregation(self) -> pd.Series:
        """By device, of accuracy without the cloud: what weights know, whoever answers the rest."""
        ends = [phase.last_round for phase in self.phases]
        own, merged = (user_matrices(self.tested("alone_accuracy", model), ends) for model in ("own", "global"))
        taught = [phase.tasks for phase in self.phases]
        both = sorted(own.keys() & merged.keys())
        return pd.Series({name: lost_by_aggregation(own[name], merged[name], taught) for name in both}, dtype=float)

    @cached_property
    def usage(self) -> pd.DataFrame:
        """Rows of training whose values are held against tau: requests, each as much as it counts in `budget.unit`."""
        weighed = self.trained(WEIGHED)
        return self.trained(ASKED) if weighed.empty else weighed

    def usage_by_round(self) -> pd.Series:
        """The share of training responses that ask, by (device, round), over the rounds in which it took part."""
        sums = self.usage.groupby(["device", "round"])[["total", "weight"]].sum()
        return (sums["total"] / sums["weight"].where(sums["weight"] > 0)).dropna()

    @cached_property
    def requests(self) -> pd.Series:
        """By device, how often it asked the cloud while training, granted or refused."""
        asked = [self.trained(name).groupby("device")["total"].sum() for name in ("cloud_calls", "cloud_refused")]
        return asked[0].add(asked[1], fill_value=0.0)

    @cached_property
    def training_calls(self) -> pd.Series:
        """By device, cloud calls granted while training for each training prompt that it met.

        A warm-up's calls were made for all devices, and count in equal parts for each that trained.
        """
        met = self.trained("difficulty").groupby("device")["weight"].sum()  # every prompt notes how hard it is
        calls = self.trained("cloud_calls").groupby("device")["total"].sum()
        before = total(self.by_warmup("cloud_calls"), empty=0.0)
        return (calls + before / len(met) if before else calls) / met.where(met > 0)

    @cached_property
    def served(self) -> pd.Series:
        """By device, what is right of its training responses; empty for a method that answers no prompt itself."""
        answers = self.trained("cloud_purchases").empty
        return value_of(self.sums_of_training("reward")) if answers else pd.Series(dtype=float)

    def over_life(self, training: pd.Series, test: pd.Series) -> pd.Series:
        """Means of a training prompt and of a test prompt, weighed 1 and H."""
        return (training + self.life.horizon * test) / (1 + self.life.horizon)

    @cached_property
    def left_for_test(self) -> pd.Series:
        """By device, the requests per test prompt that training leaves of S for every prompt."""
        spend = self.tau if self.life.spend is None else self.life.spend
        return share_left(spend, self.training_calls, self.life.horizon)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """What the asking rule claims at the last test: sums by device and tenth of the claim."""
        return calibration.from_rows(self.at_end(calibration.ROWS))

    @cached_property
    def claim_gaps(self) -> pd.DataFrame:
        """Claimed minus true by device and tenth, for each of the device's prompts."""
        return calibration.gaps_of_users(self.claims)

    @cached_property
    def traffic(self) -> pd.Series:
        """By device, the prompts that its stream brings in the run; empty in a run of the release before."""
        return user_facts(self._of("traffic"), "traffic").groupby("device")["total"].sum()

    @cached_property
    def items(self) -> pd.Series:
        """By device, how many test items its user has, tested or not; of generated tasks, how many are tested."""
        return self.weights("accuracy")

    @cached_property
    def tested_items(self) -> pd.Series:
        """By device, on how many of them it is tested."""
        known = user_facts(self._of("test_items"), "test_items").groupby("device")["weight"].sum()
        return self.items if known.empty else known

    def weights(self, name: str, model: str = "global") -> pd.Series:
        """By device, how many values the last test of that name stands for."""
        return self._sums_at_end(name, model)["weight"]

    def user_weights(self, weighting: Weighting) -> pd.Series | None:
        """By device, what a user weighs in measures that are made of several; None where nobody's weight is known."""
        if weighting == UNIFORM:
            return pd.Series(1.0, index=self.accuracy.index)
        found = {EXAMPLES: self.items, TRAFFIC: self.traffic, REQUESTS: self.requests}[weighting]
        return None if found.empty else found

    @cached_property
    def dips(self) -> list[float]:
        """Of every switch, how far the mean user falls on the tasks left behind, until the end of the new phase."""
        return [dip(curve, new.first_round, new.last_round) for curve, new in self._left_behind]

    @cached_property
    def recoveries(self) -> list[int | None]:
        """Of every switch, the rounds until the mean user is back; None where that was not before the phase's end."""
        return [recovery_rounds(curve, new.first_round, new.last_round) for curve, new in self._left_behind]

    @cached_property
    def settlings(self) -> list[int | None]:
        """Of every switch, the rounds until the mean user's usage is back at tau; empty if usage was not measured."""
        usage = over_rounds(self.usage)["mean"]
        if usage.empty:
            return []
        return [settling_rounds(usage.loc[new.first_round : new.last_round], self.tau) for _, new in self.switches]

    @cached_property
    def switches(self) -> list[tuple[Phase, Phase]]:
        """Neighbouring phases that teach other tasks, as (before, after)."""
        return [(one, other) for one, other in pairwise(self.phases) if set(one.tasks) != set(other.tasks)]

    @cached_property
    def _left_behind(self) -> list[tuple[pd.Series, Phase]]:
        """Of every switch with tests on both sides: the mean user on the tasks left behind, and the new phase."""
        tested, found = self.tested("accuracy"), []
        for old, new in self.switches:
            left = [task for task in old.tasks if task not in new.tasks]
            curve = over_rounds(tested[tested["task"].isin(left)])["mean"]
            if (curve.index < new.first_round).any() and (curve.loc[new.first_round : new.last_round]).size:
                found.append((curve, new))
        return found


def last_third(phase: Phase) -> int:
    """First round of the phase's last `ceil(rounds / 3)` rounds; 5 for a phase of rounds 1 to 6."""
    rounds = phase.last_round - phase.first_round + 1
    return phase.last_round - (-(-rounds // 3)) + 1


def total(rows: pd.DataFrame, *, empty: float = float("nan")) -> float:
    """Sum over rounds and devices; `empty` where it was never measured."""
    return float(rows["total"].sum()) if len(rows) else empty


def mean(values: Sequence[float]) -> float:
    """Of what is known; nan if nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
