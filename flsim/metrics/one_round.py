"""One round of one device as facts: what the rows of a run say of it, by what it is about.

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
from flsim.metrics.rows import ASKED, USER, evaluation, training
from flsim.tasks.stream import TaskStream

Facts = dict[str, Any]
_OUT = ("set_aside", "late")  # rows of a device whose update was not used
_SENT = ("downlink_bytes", "reward")  # rows that say who was asked
_CAPS = ("calls", "tokens", "money")
_TRIP_CAPS = {"bytes_per_round": "cloud_bytes", "joules_per_round": "asking_joules"}
_SYSTEM = (
    *("round_seconds", "compute_seconds", "link_seconds", "cloud_seconds", "waited_seconds"),
    *("joules", "compute_joules", "waiting_joules", "radio_joules", "cloud_joules"),
)
_HELP = (
    *("cloud_further_trips", "helped_read", "helped_drawn"),
    *("drafted_tokens", "accepted_tokens", "computed_again"),
)
_LOWER = ("lower_read", "lower_drawn")  # in tokens that pass through all layers
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
        """The devices that were asked to learn, by index."""
        return _sorted(self.rows[self.rows["name"].isin(_SENT)])

    @cached_property
    def landed(self) -> tuple[str, ...]:
        """Where updates are aggregated in later rounds: the devices whose updates were considered in this one."""
        return _sorted(self.rows[self.rows["name"] == "staleness"])

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

    @property
    def landing(self) -> "DeviceRound | None":
        """The round in which its update was aggregated, where updates may come rounds later; None if in none so far.

        Elsewhere it is this round.
        """
        rows = self.of.records.of_training
        rows = rows[rows["name"] == "staleness"]
        if rows.empty:
            return self
        mine = rows[(rows["device"] == self.name) & (rows["round"] - rows["total"] == self.of.round)]
        return None if mine.empty else self.of.records.of_round(int(mine["round"].iloc[0])).of_device(self.name)

    def facts(self) -> Facts:
        """All of it."""
        return {
            "round": self.of.round,
            "device": self.name,
            "learned": self.name in self.of.cohort,
            "set_aside": self.set_aside(),
            "met": self._met(),
            "sampled": self._sampled(),
            "asked": self._asked(),
            "granted": self._granted(),
            "helped": self._helped(),
            "earned": self._earned(),
            "dual": self._dual(),
            "cost": self._cost(),
            "weighed": self._weighed(),
            "changed": self._changed(),
        }

    def set_aside(self) -> Facts | None:
        """Why its update was not used, a word and what the log says of it; None if it was."""
        found = self.rows[self.rows["name"].isin(_OUT)]
        landing = self.landing
        if found.empty and landing is not None and landing is not self:
            found = landing.rows[landing.rows["name"].isin(_OUT)]  # too old, when it came
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
            "effective_groups": whole(self.total("effective_groups")),
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
            "granted": whole(self.total("cloud_calls")),
            "refused": whole(self.total("cloud_refused")),
            "refused_by": self._refused_by(),
            "failed": whole(self.total("cloud_failures")),
        }

    def _refused_by(self) -> list[Facts]:
        """The caps that can have refused: those that were reached, else those on tokens, money, bytes and joules.

        Nobody knows how long a question would have taken, so that one may also have been too long for its cap.
        """
        if not self.total("cloud_refused"):
            return []
        found = [
            {"cap": name, "spent": spent, "of": cap, "reached": spent >= cap}
            for name, spent, cap in self._caps()
            if cap is not None
        ]
        reached = [one for one in found if one["reached"]]
        longest = self.of.records.budget.seconds_per_question
        if longest is not None:
            found.append({"cap": "budget.seconds_per_question", "spent": None, "of": longest, "reached": False})
        return reached or [one for one in found if "calls" not in str(one["cap"])]

    def _caps(self) -> list[tuple[str, float, float | None]]:
        """Every cap: its key, what was spent of it, and itself, None if there is none."""
        budget, caps = self.of.records.budget, list[tuple[str, float, float | None]]()
        for kind in _CAPS:
            spent = self.total(f"cloud_{kind}") or 0.0
            caps.append((f"budget.{kind}_per_round", spent, getattr(budget, f"{kind}_per_round")))
            caps.append((f"budget.{kind}_total", self.so_far(f"cloud_{kind}"), getattr(budget, f"{kind}_total")))
            caps.append((f"its allotment of the fleet's {kind}", spent, self.total(f"allotment_{kind}")))
        for key, name in _TRIP_CAPS.items():
            caps.append((f"budget.{key}", self.total(name) or 0.0, getattr(budget, key)))
        return caps

    def _granted(self) -> Facts:
        own = self.total("target_usage")
        return {
            "tau": self.of.records.budget.tau if own is None else own,
            "allotment": {kind: amount for kind in _CAPS if (amount := self.total(f"allotment_{kind}")) is not None},
            "caps": {name: cap for name, _, cap in self._caps() if cap is not None and name.startswith("budget.")},
        }

    def _helped(self) -> Facts | None:
        """What its mode of help took; None where help is asking, or nothing was asked."""
        own: Facts = {name: whole(self.total(name)) for name in _HELP}
        own |= {name: self.value(name) for name in (*_LOWER, "help_share")}
        if all(value is None for value in own.values()):
            return None
        sent = {name: whole(self.total(name)) for name in ("cloud_trips", "cloud_up_bytes", "cloud_down_bytes")}
        return {**sent, **own, "unit": self.of.records.budget.unit}

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
        battery = self.pair("battery")
        found: Facts = {name: self.total(name) for name in (*names, *_TOKENS, *_SYSTEM)}
        found |= {"battery_wh": None, "capacity_wh": None}
        if battery is not None:
            found |= {"battery_wh": battery[0], "capacity_wh": battery[1]}
        return found | {kind: self._kind(kind) for kind in ("class", "link")}

    def _kind(self, kind: str) -> str | None:
        """Which class of devices, or link, it is of."""
        rows = self.of.records.rows
        mine = rows[(rows["split"] == USER) & (rows["device"] == self.name) & rows["name"].str.startswith(f"{kind}_")]
        return None if mine.empty else str(mine["name"].iloc[0]).removeprefix(f"{kind}_")

    def _weighed(self) -> Facts:
        """Of its own update; of a device that did not learn in this round, of the one that landed in it."""
        landing = self.landing if self.name in self.of.cohort else self
        if landing is None:
            return {"share": None, "devices": 0, "staleness": None, "round": None}
        shares = landing.of.sums("aggregation_share")
        return {
            "share": landing.total("aggregation_share"),
            "devices": len(shares) or len(self.of.replied),
            "staleness": whole(landing.total("staleness")),
            "round": landing.of.round,
        }

    def _changed(self) -> Facts:
        landing = self.landing
        return {
            "update_norm": None if landing is None else landing.total("update_norm"),
            "cohort_update_norm": None if landing is None else landing.of.mean("update_norm"),
            "mean_cosine": None if landing is None else landing.total("mean_cosine"),
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


def _sorted(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(rows["device"].unique(), key=device_index))


def whole(value: float | None) -> int | None:
    """A count as one."""
    return None if value is None else round(value)
