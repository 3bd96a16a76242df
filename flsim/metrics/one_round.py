"""One round of one device, and one of a whole cohort, as facts: what the rows of a run say of it, by what it is about.

Facts are plain data, as `flsim why --json` prints them; None is what the records do not have. What a device met comes
from the stream, which is a pure function of the config; all else from rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from flsim.config.schema import BudgetConfig, EvaluationConfig
from flsim.devices import device_index
from flsim.metrics.rows import ASKED, evaluation, of_fleet, training
from flsim.tasks.stream import TaskStream

Facts = dict[str, Any]
_OUT = ("set_aside", "late")  # rows of a device whose update was not used
_CAPS = ("calls", "tokens", "money")
_SYSTEM = (
    *("round_seconds", "compute_seconds", "link_seconds", "cloud_seconds", "waited_seconds"),
    *("joules", "compute_joules", "waiting_joules", "radio_joules", "cloud_joules"),
)
_TOKENS = ("read_tokens", "sampled_tokens", "learned_tokens", "cloud_prompt_tokens", "cloud_completion_tokens")


@dataclass(frozen=True)
class Records:
    """What a run has to say."""

    rows: pd.DataFrame
    stream: TaskStream
    budget: BudgetConfig
    evaluation: EvaluationConfig
    first_dual: float | None
    """What lambda starts from; None where it is not known."""
    log: Sequence[str] = ()
    """The lines of the run's log."""

    @cached_property
    def of_training(self) -> pd.DataFrame:
        """The training rows of devices."""
        rows: pd.DataFrame = self.rows[(self.rows["split"] == "train") & (self.rows["device"] != "")]
        return rows

    def of_round(self, round_: int) -> "OneRound":
        """One of its rounds."""
        return OneRound(self, round_, self.of_training[self.of_training["round"] == round_])


@dataclass(frozen=True)
class OneRound:
    """A round of a run."""

    records: Records
    round: int
    rows: pd.DataFrame
    """The training rows of its devices."""

    @cached_property
    def cohort(self) -> tuple[str, ...]:
        """The devices that were asked, by index."""
        return tuple(sorted(self.rows["device"].unique(), key=device_index))

    @cached_property
    def replied(self) -> tuple[str, ...]:
        """Those among them whose updates were used."""
        out = set(self.rows.loc[self.rows["name"].isin(_OUT), "device"])
        return tuple(device for device in self.cohort if device not in out)

    def sums(self, name: str | tuple[str, ...]) -> pd.DataFrame:
        """Total and weight of a name by device, all tasks together."""
        found = training(self.rows, name=name)
        return found.groupby("device")[["total", "weight"]].sum()

    def mean(self, name: str) -> float | None:
        """The mean over devices of a device's value; None where no device has one."""
        sums = self.sums(name)
        sums = sums[sums["weight"] > 0]
        return None if sums.empty else float((sums["total"] / sums["weight"]).mean())

    def of_device(self, device: str) -> "DeviceRound":
        """One of its devices."""
        return DeviceRound(self, device, self._by_device[device])

    @cached_property
    def _by_device(self) -> dict[str, pd.DataFrame]:
        return {str(device): rows for device, rows in self.rows.groupby("device")}


@dataclass(frozen=True)
class DeviceRound:
    """A round of a device."""

    of: OneRound
    name: str
    rows: pd.DataFrame
    """Its training rows of the round."""

    def pair(self, name: str | tuple[str, ...]) -> tuple[float, float] | None:
        """Total and weight of a name, all tasks together; None without such a row."""
        found = training(self.rows, name=name)
        return None if found.empty else (float(found["total"].sum()), float(found["weight"].sum()))

    def total(self, name: str) -> float | None:
        """The total of a name; None without such a row."""
        pair = self.pair(name)
        return None if pair is None else pair[0]

    def value(self, name: str | tuple[str, ...]) -> float | None:
        """Total over weight; None without such a row, or a weight of 0."""
        pair = self.pair(name)
        return None if pair is None or not pair[1] else pair[0] / pair[1]

    def earlier(self, name: str) -> float | None:
        """The last total of a name in the rounds before."""
        rows = self.of.records.of_training
        found = rows[(rows["device"] == self.name) & (rows["name"] == name) & (rows["round"] < self.of.round)]
        return None if found.empty else float(found.sort_values("round")["total"].iloc[-1])

    def so_far(self, name: str) -> float:
        """The sum of the totals of a name up to this round."""
        rows = self.of.records.of_training
        mine = (rows["device"] == self.name) & (rows["name"] == name) & (rows["round"] <= self.of.round)
        return float(rows.loc[mine, "total"].sum())

    def facts(self) -> Facts:
        """All of it."""
        return {
            "round": self.of.round,
            "device": self.name,
            "set_aside": self.set_aside(),
            "met": self._met(),
            "sampled": self._sampled(),
            "asked": self._asked(),
            "granted": self._granted(),
            "earned": self._earned(),
            "dual": self._dual(),
            "cost": self._cost(),
            "weighed": self._weighed(),
            "changed": self._changed(),
        }

    def set_aside(self) -> Facts | None:
        """Why its update was not used, a word and what the log says of it; None if it was."""
        found = self.rows[self.rows["name"].isin(_OUT)]
        if found.empty:
            return None
        word = str(found["task"].iloc[0])
        start = f"round {self.of.round}: {self.name} is set aside, "
        said = [line.partition(start)[2] for line in self.of.records.log if start in line]
        return {"reason": word, "detail": said[-1].partition(": ")[2] if said else None}

    def _met(self) -> Facts:
        stream, round_ = self.of.records.stream, self.of.round
        weights = stream.phase_weights(self.name, round_)
        now = [at for at, weight in enumerate(weights) if weight > 0]
        since = next((ago for ago in range(round_) if self._differs(weights, round_ - ago - 1)), None)
        prompts = self.rows[self.rows["name"] == "difficulty"].groupby("task", sort=False)["weight"].sum()
        return {
            "prompts": int(prompts.sum()) if len(prompts) else None,
            "by_task": {str(task): int(count) for task, count in prompts.items()},
            "mixture": {task: share for task, share in stream.mixture(self.name, round_).items() if share > 0},
            "phases": [
                {"name": stream.phases[at].name, "tasks": list(stream.phases[at].tasks), "share": weights[at]}
                for at in now
            ],
            "rounds_since_switch": since,
            "difficulty": self.value("difficulty"),
        }

    def _differs(self, weights: tuple[float, ...], round_: int) -> bool:
        return round_ > 0 and self.of.records.stream.phase_weights(self.name, round_) != weights

    def _sampled(self) -> Facts | None:
        alone, unanimous = self.pair("alone_reward"), self.pair("unanimous_groups")
        cut = self.pair("cut_responses")
        if alone is None and unanimous is None:
            return None
        return {
            "responses": None if alone is None else int(alone[1]),
            "right_alone": None if alone is None else int(alone[0]),
            "groups": None if unanimous is None else int(unanimous[1]),
            "unanimous_groups": None if unanimous is None else int(unanimous[0]),
            "effective_groups": _whole(self.total("effective_groups")),
            "cut_responses": None if cut is None else int(cut[0]),
        }

    def _asked(self) -> Facts | None:
        asked = self.pair(ASKED)
        if asked is None:
            return None
        bought = self.rows["name"].eq("cloud_purchases").any()
        return {
            "requests": int(asked[0]),
            "of": int(asked[1]),
            "unit": "prompts" if bought else "responses",
            "explored": None if (explored := self.pair("explored")) is None else int(explored[0]),
            "granted": _whole(self.total("cloud_calls")),
            "refused": _whole(self.total("cloud_refused")),
            "refused_by": self._refused_by(),
            "failed": _whole(self.total("cloud_failures")),
        }

    def _refused_by(self) -> list[Facts]:
        """The caps that can have refused: those on calls that were reached, else those on tokens and money."""
        if not self.total("cloud_refused"):
            return []
        found = [
            {"cap": name, "spent": spent, "of": cap, "reached": spent >= cap}
            for name, spent, cap in self._caps()
            if cap is not None
        ]
        reached = [one for one in found if one["reached"]]
        return reached or [one for one in found if "calls" not in str(one["cap"])]

    def _caps(self) -> list[tuple[str, float, float | None]]:
        """Every cap: its key, what was spent of it, and itself, None if there is none."""
        budget, caps = self.of.records.budget, list[tuple[str, float, float | None]]()
        for kind in _CAPS:
            spent = self.total(f"cloud_{kind}") or 0.0
            caps.append((f"budget.{kind}_per_round", spent, getattr(budget, f"{kind}_per_round")))
            caps.append((f"budget.{kind}_total", self.so_far(f"cloud_{kind}"), getattr(budget, f"{kind}_total")))
            caps.append((f"its allotment of the fleet's {kind}", spent, self.total(f"allotment_{kind}")))
        return caps

    def _granted(self) -> Facts:
        own = self.total("target_usage")
        return {
            "tau": self.of.records.budget.tau if own is None else own,
            "allotment": {kind: amount for kind in _CAPS if (amount := self.total(f"allotment_{kind}")) is not None},
            "caps": {name: cap for name, _, cap in self._caps() if cap is not None and name.startswith("budget.")},
        }

    def _earned(self) -> Facts:
        names = ("reward", "alone_reward", "loss")
        return {name: self.value(name) for name in names} | {f"cohort_{name}": self.of.mean(name) for name in names}

    def _dual(self) -> Facts | None:
        after = self.total("dual_variable")
        if after is None:
            return None
        if self.of.records.budget.fleet.rule == "price":
            return {"before": after, "after": after, "of_fleet": True}
        before = self.earlier("dual_variable")
        return {"before": self.of.records.first_dual if before is None else before, "after": after, "of_fleet": False}

    def _cost(self) -> Facts:
        names = (*(f"cloud_{kind}" for kind in _CAPS), "bought_calls", "downlink_bytes", "uplink_bytes", "seconds")
        return {name: self.total(name) for name in (*names, *_TOKENS, *_SYSTEM)}

    def _weighed(self) -> Facts:
        share, late = self.total("aggregation_share"), self.total("staleness")
        return {"share": share, "devices": len(self.of.replied), "staleness": _whole(late)}

    def _changed(self) -> Facts:
        return {
            "update_norm": self.total("update_norm"),
            "cohort_update_norm": self.of.mean("update_norm"),
            "mean_cosine": self.total("mean_cosine"),
            "own_accuracy": self._tested("own", self.of.round, self.of.round),
            "global_before": self._tested("global", 0, self.of.round - 1),
            "global_after": self._tested("global", self.of.round, self.of.round),
        }

    def _tested(self, model: str, first: int, last: int) -> Facts | None:
        """Accuracy of a model on the device's own tests in the last round of a window that has any."""
        rows = self.of.records.rows
        found = evaluation(rows[rows["device"] == self.name], model=model, name="accuracy")
        found = found[found["round"].between(first, last)]
        if found.empty:
            return None
        found = found[found["round"] == found["round"].max()]
        weight = float(found["weight"].sum())
        accuracy = float(found["total"].sum()) / weight if weight else None
        return {"round": int(found["round"].iloc[0]), "accuracy": accuracy}


def facts_of_round(records: Records, round_: int) -> Facts:
    """A round of the whole cohort, and a line of each of its devices."""
    of = records.of_round(round_)
    fleet = of_fleet(records.rows)
    fleet = fleet[fleet["round"] == round_].set_index("name")
    told = {str(name): float(row["total"]) for name, row in fleet.iterrows()}
    return {
        "round": round_,
        "cohort": len(of.cohort),
        "phases": _phases(of),
        "fleet": told,
        "mean": {name: of.mean(name) for name in ("reward", "alone_reward", "loss", "update_norm", "dual_variable")},
        "accuracy": {
            "before": _mean_accuracy(records, 0, round_ - 1),
            "after": _mean_accuracy(records, round_, round_),
        },
        "devices": [_line(of, device) for device in of.cohort],
    }


def _phases(of: OneRound) -> list[str]:
    """The names of the phases that its devices were in."""
    stream = of.records.stream
    weights = [stream.phase_weights(device, of.round) for device in of.cohort]
    return [phase.name for at, phase in enumerate(stream.phases) if any(own[at] > 0 for own in weights)]


def _line(of: OneRound, device: str) -> Facts:
    """A device in a table."""
    own = of.of_device(device)
    prompts = own.pair("difficulty")
    return {
        "device": device,
        "prompts": None if prompts is None else int(prompts[1]),
        "alone_reward": own.value("alone_reward"),
        "reward": own.value("reward"),
        "usage": own.value(ASKED),
        "calls": _whole(own.total("cloud_calls")),
        "refused": _whole(own.total("cloud_refused")),
        "dual": own.total("dual_variable"),
        "share": own.total("aggregation_share"),
        "update_norm": own.total("update_norm"),
        "mean_cosine": own.total("mean_cosine"),
        "set_aside": own.set_aside(),
    }


def _mean_accuracy(records: Records, first: int, last: int) -> Facts | None:
    """The global model's, of the mean user, in the last round of a window that has any."""
    found = evaluation(records.rows, model="global", name="accuracy")
    found = found[found["round"].between(first, last)]
    if found.empty:
        return None
    found = found[found["round"] == found["round"].max()]
    sums = found.groupby("device")[["total", "weight"]].sum()
    sums = sums[sums["weight"] > 0]
    return {"round": int(found["round"].iloc[0]), "accuracy": float((sums["total"] / sums["weight"]).mean())}


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
