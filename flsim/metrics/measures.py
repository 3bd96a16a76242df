"""What one run says: measures of each user, curves over rounds, the matrices R, and what was spent, all from its rows.

Rows that a run lacks (older runs, other clients) give nan, never an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pandas as pd

from flsim.metrics.continual import Continual, by_user, lost_by_aggregation, user_matrices
from flsim.metrics.offloading import settling_rounds, violation
from flsim.metrics.rows import STAGE, evaluation, latest, training
from flsim.metrics.switches import anytime, dip, recovery_rounds
from flsim.metrics.users import over_rounds, per_user
from flsim.tasks.stream import Phase
from flsim.text import amount, points, share

SENDING = tuple(range(10, 100, 10))
"""Percentages of prompts sent at which accuracy is known, from `accuracy_sending_10` to `accuracy_sending_90`."""


CURVES = ("accuracy", "local_accuracy", "cloud_usage", "dual_variable")
"""Followed over rounds: tests with and without the cloud; usage while training, and the price of asking."""


_AT_END = (  # measure of a user -> model and name of its rows, at the model's last evaluation
    ("accuracy", "global", "accuracy"),
    ("local_accuracy", "global", "local_accuracy"),
    ("cloud_usage", "global", "cloud_usage"),
    ("kept_accuracy", "global", "kept_accuracy"),
    ("asking_auc", "global", "asking_auc"),
    ("task_auc", "global", "task_auc"),
    ("random_accuracy", "random", "accuracy"),
    ("frozen_accuracy", "frozen", "local_accuracy"),
    ("cloud_accuracy", "cloud", "accuracy"),
)


_SUMS = {"calls": "cloud_calls", "refused": "cloud_refused", "tokens": "cloud_tokens", "money": "cloud_money"}


@dataclass(frozen=True)
class Measured:
    """One run."""

    users: pd.DataFrame
    """A line per device, a column per measure; nan where it was not measured."""
    curves: pd.DataFrame
    """Columns `measure, round, mean, p10, p90, users`: the mean user and its band."""
    matrices: pd.DataFrame
    """R of every device: columns `device, round, task, accuracy, local_accuracy`, a line per phase end."""
    facts: dict[str, float]
    """What is of the whole run: sums spent, and what switches did to the mean user; nan where not measured."""


def measure(rows: pd.DataFrame, phases: Sequence[Phase], *, tau: float) -> Measured:
    """Measure a run.

    Args:
        rows: all of it.
        phases: of its stream.
        tau: its budget.
    """
    return Measured(_users(rows, phases, tau), _curves(rows), _matrices(rows, phases), _facts(rows, phases, tau))


def switches(phases: Sequence[Phase]) -> list[tuple[Phase, Phase]]:
    """Neighbouring phases that teach other groups, as (before, after)."""
    return [(one, other) for one, other in pairwise(phases) if set(one.tasks) != set(other.tasks)]


def _users(rows: pd.DataFrame, phases: Sequence[Phase], tau: float) -> pd.DataFrame:
    """All measures of users: at the end, over the phases, and while training."""
    found = {column: per_user(_end(rows, model, name)) for column, model, name in _AT_END}
    found |= {f"sending_{share}": per_user(_end(rows, "global", f"accuracy_sending_{share}")) for share in SENDING}
    found["cloud_gain"] = found["accuracy"] - found["local_accuracy"]
    tested = {name: evaluation(rows, model="global", name=name) for name in ("accuracy", "local_accuracy")}
    for prefix, own in (("", tested["accuracy"]), ("local_", tested["local_accuracy"])):
        measures = by_user(own, phases)
        found |= {f"{prefix}{field.name}": measures[field.name] for field in fields(Continual)}
        found[f"{prefix}anytime"] = _anytime(own, phases)
    found["forgetting_by_aggregation"] = _by_aggregation(rows, phases)
    found["violation"] = _violation(rows, tau)
    found["training_usage"] = per_user(training(rows, name="cloud_usage"))
    asked = [training(rows, name=name).groupby("device")["total"].sum() for name in ("cloud_calls", "cloud_refused")]
    found["requests"] = asked[0].add(asked[1], fill_value=0.0)
    found["test_prompts"] = _end(rows, "global", "accuracy").groupby("device")["weight"].sum()
    found["scored_prompts"] = _end(rows, "global", "positives").groupby("device")["weight"].sum()
    table = pd.DataFrame({name: values.astype(float) for name, values in found.items()})
    return table.reindex(sorted(found["accuracy"].index)).rename_axis("device")


def _end(rows: pd.DataFrame, model: str, name: str) -> pd.DataFrame:
    """The last evaluation of a model; the frozen model may have been measured under `accuracy` only."""
    found = latest(evaluation(rows, model=model, name=name))
    if found.empty and (model, name) == ("frozen", "local_accuracy"):
        return latest(evaluation(rows, model=model, name="accuracy"))
    return found


def _anytime(rows: pd.DataFrame, phases: Sequence[Phase]) -> pd.Series:
    """By user; a group counts from the phase on that first teaches it."""

    def taught(round_: int) -> list[str]:
        return sorted({task for phase in phases if phase.first_round <= round_ for task in phase.tasks})

    measured = sorted(set(rows["round"]) - {0})
    return pd.Series({k: anytime(v, taught) for k, v in user_matrices(rows, measured).items()}, dtype=float)


def _by_aggregation(rows: pd.DataFrame, phases: Sequence[Phase]) -> pd.Series:
    """By user, of accuracy without the cloud: what weights know, whoever answers the rest."""
    ends = [phase.last_round for phase in phases]
    own, merged = (user_matrices(evaluation(rows, model=m, name="local_accuracy"), ends) for m in ("local", "global"))
    taught = [phase.tasks for phase in phases]
    both = sorted(own.keys() & merged.keys())
    return pd.Series({name: lost_by_aggregation(own[name], merged[name], taught) for name in both}, dtype=float)


def _violation(rows: pd.DataFrame, tau: float) -> pd.Series:
    """By user, over the rounds in which it took part."""
    sums = training(rows, name="cloud_usage").groupby(["device", "round"])[["total", "weight"]].sum()
    usage = (sums["total"] / sums["weight"].where(sums["weight"] > 0)).dropna()
    return usage.groupby("device").agg(lambda own: violation(own.tolist(), tau))


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    tested = {name: evaluation(rows, model="global", name=name) for name in CURVES[:2]}
    trained = {name: training(rows, name=name) for name in CURVES[2:]}
    parts = [over_rounds(own).reset_index().assign(measure=name) for name, own in {**tested, **trained}.items()]
    return pd.concat(parts, ignore_index=True)[["measure", "round", "mean", "p10", "p90", "users"]]


def _matrices(rows: pd.DataFrame, phases: Sequence[Phase]) -> pd.DataFrame:
    ends = [phase.last_round for phase in phases]
    parts = []
    for name in ("accuracy", "local_accuracy"):
        tested = evaluation(rows, model="global", name=name)
        tested = tested[tested["round"].isin([0, *ends]) & (tested["weight"] > 0)].set_index(
            ["device", "round", "task"]
        )
        parts.append((tested["total"] / tested["weight"]).rename(name))
    return pd.concat(parts, axis=1).sort_index().reset_index()


def _facts(rows: pd.DataFrame, phases: Sequence[Phase], tau: float) -> dict[str, float]:
    """Sums over rounds and devices, and the means over switches of what the mean user met."""
    facts = {fact: _sum(training(rows, name=name)) for fact, name in _SUMS.items()}
    facts["server_money"] = _sum(rows[(rows["split"] == STAGE) & (rows["name"] == "cloud_money")], empty=0.0)
    facts |= {f"{way}_mb": _sum(training(rows, name=f"{way}_bytes")) / 1e6 for way in ("uplink", "downlink")}
    facts["price_per_call"] = facts["money"] / facts["calls"] if facts["calls"] > 0 else float("nan")
    usage = over_rounds(training(rows, name="cloud_usage"))["mean"]
    back = [settling_rounds(usage.loc[new.first_round : new.last_round], tau) for _, new in switches(phases)]
    dips, recoveries = _dips(evaluation(rows, model="global", name="accuracy"), phases)
    measured = len(usage) > 0
    return {
        **facts,
        "dip": _mean(dips),
        "recovery_rounds": _mean([rounds for rounds in recoveries if rounds is not None]),
        "unrecovered": _mean([float(rounds is None) for rounds in recoveries]),
        "settling_rounds": _mean([rounds for rounds in back if rounds is not None and measured]),
        "unsettled": _mean([float(rounds is None) for rounds in back if measured]),
    }


def _dips(rows: pd.DataFrame, phases: Sequence[Phase]) -> tuple[list[float], list[int | None]]:
    """Of every switch: the mean user's accuracy on the groups left behind, until the end of the new phase."""
    dips, recoveries = [], []
    for old, new in switches(phases):
        left = [task for task in old.tasks if task not in new.tasks]
        curve = over_rounds(rows[rows["task"].isin(left)])["mean"]
        where = (curve, new.first_round, new.last_round)
        if (curve.index < new.first_round).any() and (curve.loc[new.first_round : new.last_round]).size:
            dips.append(dip(*where))
            recoveries.append(recovery_rounds(*where))
    return dips, recoveries


def _sum(rows: pd.DataFrame, *, empty: float = float("nan")) -> float:
    return float(rows["total"].sum()) if len(rows) else empty


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


# FOLDED flsim/metrics/measures.py
# Every column of a comparison: its title, how its numbers are written, and what it means, so that nobody
# guesses.


@dataclass(frozen=True)
class Column:
    """One measure in tables."""

    name: str
    title: str
    form: str
    """`share` in percent, `points` of percent with a sign, `plain`, `number` or `money`."""
    meaning: str


COLUMNS = (
    Column("accuracy", "accuracy", "share",
           "Share of the user's own test prompts that are right at the end of the run, all task groups, when the "
           "device may ask the cloud within its budget."),
    Column("local_accuracy", "alone", "share", "The same with asking disabled: what the device's own model knows."),
    Column("cloud_gain", "gain by the cloud", "points", "accuracy minus alone, user by user."),
    Column("worst_decile_mean", "worst 10 %", "share", "Mean accuracy of the worst-off ceil(users / 10) users."),
    Column("during_task", "during task", "share",
           "Accuracy on the groups that a phase teaches, at its end; mean over phases (DA-GRPO's during-task "
           "accuracy)."),
    Column("post_switch", "post switch", "share",
           "Accuracy on the groups of a phase at the end of the next phase, where that does not teach them; mean over "
           "switches."),
    Column("forgetting_max", "forgets", "points",
           "Forgetting over time: the best accuracy at an earlier end of a phase minus that at the end of the last, "
           "mean over groups (Chaudhry 2018); below 0 it grew."),
    Column("forgetting_learned", "forgets since learned", "points",
           "Accuracy when first taught minus at the end; minus backward transfer."),
    Column("forgetting_relative", "forgets, relative", "share",
           "(during - after the next phase) / during: the share of what was learned that the next phase costs; mean "
           "over groups it does not teach (DA-GRPO's)."),
    Column("forgetting_by_aggregation", "lost by aggregation", "points",
           "Alone: the device's own adapter after its local steps minus the adapter it is sent after aggregation, in "
           "the same round, on the groups just taught; mean over ends of phases. Below 0 the other devices helped."),
    Column("backward_transfer", "backward transfer", "points",
           "Accuracy at the end minus that at the end of the phase that first taught the group, mean over groups "
           "taught before the last phase."),
    Column("forward_transfer", "forward transfer", "points",
           "Accuracy on a group just before it is first taught minus that before training."),
    Column("plasticity", "plasticity", "points", "What a phase adds to the groups that it teaches."),
    Column("anytime", "any time", "share", "Mean over all evaluations of the accuracy on the groups taught so far."),
    Column("dip", "dip", "points",
           "After a switch, how far the mean user's accuracy on the groups left behind falls below its last value "
           "before the switch; mean over switches."),
    Column("recovery_rounds", "recovers in", "number",
           "Rounds until it is back within 2 points for good, 0 if it never was below; mean over the switches after "
           "which it came back."),
    Column("unrecovered", "not back", "share",
           "Share of switches after which it was not back by the end of the phase."),
    Column("cloud_usage", "test usage", "share",
           "Share of test prompts that the cloud answered, at the end; at most tau."),
    Column("training_usage", "usage", "share", "Share of training responses that ask, over the whole run, per user."),
    Column("violation", "violation", "share",
           "Mean over rounds of max(0, usage - tau), per user; rounds below tau do not make up for it."),
    Column("settling_rounds", "settles in", "number",
           "Rounds after a switch until the mean user's usage stays within tau +- 5 points to the end of the phase; "
           "mean over the switches after which it did."),
    Column("unsettled", "not settled", "share", "Share of switches after which it did not."),
    Column("kept_accuracy", "kept", "share",
           "Conditional local accuracy: right among the test prompts that were not sent."),
    Column("pgr", "PGR", "share", "Performance gap recovered: (accuracy - alone) / (cloud - alone) of the mean user."),
    Column("apgr", "APGR", "share",
           "PGR averaged over the share of prompts sent, from 0 to 1, when the prompts with the highest asking score "
           "are sent (RouteLLM); 50 % is what random asking gives."),
    Column("cpt_50", "CPT(50)", "share", "Least share of prompts to send to close half of the gap to the cloud."),
    Column("cpt_80", "CPT(80)", "share", "The same for 80 % of the gap."),
    Column("cost_per_correct", "money per right answer", "money",
           "Test usage times the mean price of a training call, over accuracy: the cloud's price of one right test "
           "answer."),
    Column("calls", "calls", "plain", "Cloud calls granted while training, all devices; mean over seeds."),
    Column("refused", "refused", "plain", "Cloud calls refused by a cap while training, all devices."),
    Column("tokens", "tokens", "plain", "Cloud tokens while training, all devices."),
    Column("money", "money", "money",
           "Money spent on the cloud while training, all devices, in the unit of cloud.price_*."),
    Column("server_money", "server's money", "money", "Money that the server's stage spent on the cloud."),
    Column("uplink_mb", "MB up", "plain", "Megabytes of adapters sent by the devices in the whole run."),
    Column("downlink_mb", "MB down", "plain", "Megabytes of adapters sent to the devices in the whole run."),
    Column("user_mean", "by users", "share", "Mean accuracy, each user counting once."),
    Column("example_mean", "by examples", "share", "Mean accuracy, each test prompt counting once."),
    Column("request_mean", "by requests", "share",
           "Mean accuracy, each user counting as often as it asked the cloud while training, granted or refused."),
    Column("p10", "p10", "share", "10th percentile of users' accuracy."),
    Column("p50", "p50", "share", "Median of users' accuracy."),
    Column("p90", "p90", "share", "90th percentile of users' accuracy."),
    Column("gini_of_error", "Gini of error", "index",
           "Gini coefficient of 1 - accuracy over users: 0 if all err alike."),
    Column("jain", "Jain", "index", "Jain's index of accuracy: 1 if all users are equal, 1 / users if one has all."),
    Column("harm_rate", "harmed", "share",
           "Share of users with a lower accuracy than alone (which is named beside the table)."),
    Column("asking_auc", "asking AUC by users", "index",
           "How well the asking score tells the test prompts that only the cloud gets right from the user's others: "
           "mean over the users whose prompts are not all alike in that (only in the CSV files)."),
    Column("weighted_auc", "asking AUC", "index",
           "User-level weighted AUC: the same with each user weighed by its test prompts."),
    Column("weighted_auc_dropped", "AUC dropped", "share",
           "Share of that weight which belongs to users whose prompts are all alike, for whom there is no AUC."),
    Column("task_auc", "task AUC by users", "index",
           "Of data sets with score labels: how well the device's chance of the one answer against the other tells the "
           "user's test prompts apart; mean over the users with both labels (only in the CSV files)."),
    Column("weighted_task_auc", "task AUC", "index",
           "User-level weighted AUC of data sets with score labels: the same with each user weighed by its scored test "
           "prompts."),
    Column("weighted_task_auc_dropped", "task AUC dropped", "share",
           "Share of that weight which belongs to users with one label only, for whom there is no AUC."),
)  # fmt: skip
"""All of them."""


BY_NAME = {column.name: column for column in COLUMNS}


def of_alone(name: str) -> Column:
    """A measure of accuracy, taken of accuracy without the cloud: `local_` before its name."""
    own = BY_NAME[name]
    return Column(f"local_{name}", own.title, own.form, f"{own.meaning} Alone.")


def written(value: float | None, form: str) -> str:
    """A number as tables show it; a dash for what was not measured."""
    if value is None or np.isnan(value):
        return "-"
    if form == "share":
        return share(value)
    if form == "points":
        return points(value)
    if form == "plain":
        return amount(value)
    return f"{value:.1f}" if form == "number" else f"{value:.3f}" if form == "index" else f"{value:#.3g}"
