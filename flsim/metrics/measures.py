"""THE table of measures: each is declared once, and every report, table, study and results page takes names of it.

A measure of your own is one more declaration, given by object or as `module:NAME` wherever names are taken
(docs/comparing.md):

    REWARD = Measure("reward", "reward", "share", "The mean reward of a user's training responses.", Trained("reward"))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.metrics.calibration import TENTHS
from flsim.metrics.fairness import gini, jain
from flsim.metrics.formulas import (
    SENDING,
    AtEnd,
    MeanUser,
    Read,
    Spent,
    SpentAnywhere,
    SpentInWarmup,
    Trained,
    accuracy_by,
    at_equal_spend,
    auc_part,
    calibration_error,
    calls_to_recover,
    claim_gap,
    gap_recovered_on_average,
    harmed,
    over_accuracies,
    price_per_call,
)
from flsim.metrics.offloading import cost_per_correct, performance_gap_recovered, violation
from flsim.metrics.rows import ASKED
from flsim.metrics.run_rows import RunRows, mean, total
from flsim.metrics.users import worst_decile_mean
from flsim.metrics.weighting import EXAMPLES, REQUESTS, TRAFFIC
from flsim.text import amount, data_size, percent, points

UNITS: dict[str, Callable[[float], str]] = {
    "share": percent,
    "points": points,
    "count": amount,
    "rounds": lambda value: f"{value:.1f}",
    "index": lambda value: f"{value:.3f}",
    "money": lambda value: f"{value:#.3g}",
    "bytes": data_size,
}
"""How numbers are written, by unit: `share` in percent, `points` of percent with a sign, the others as they are."""
TABLES = {
    "end": "at the end",
    "learning": "may ask the cloud",
    "learning alone": "alone",
    "transfer": "may ask the cloud",
    "transfer alone": "alone",
    "switches": "after switches",
    "training": "cloud, while training",
    "test": "cloud, at test",
    "life": "cloud, training and test together",
    "wish": "the wish as a forecast",
    "traffic": "stage and transfer",
    "users": "accuracy over users",
    "fairness": "how equal, and for whom",
    "files": "only in the CSV files",
}
"""Measures that one table of a comparison's page shows, and what stands in the table's corner."""

Formula = Callable[[RunRows], pd.Series | float] | MeanUser
"""From the rows of a run, a value per device or one number; or a ratio of the mean user over all seeds."""


@dataclass(frozen=True)
class Measure:
    """One measure: what it is called, what it means, and how it is taken.

    Raises:
        ValueError: for a unit or a table that there is not.
    """

    name: str
    """As it is given, and as columns of frames and files are called."""
    title: str
    """Of its column in tables."""
    unit: str
    """Of `UNITS`."""
    meaning: str
    """In a sentence or two."""
    of: Formula
    """Its formula; a mean over users and seeds has an interval, a number of the whole run is a mean over seeds."""
    table: str = "files"
    """Of `TABLES`."""
    followed: bool = False
    """Whether it is followed over rounds; its formula is then one that reads rows."""
    higher_is_better: bool = True
    """Whether the worst-off users are those with the lowest values."""

    def __post_init__(self) -> None:
        """Refuse what no table could show."""
        for what, value, allowed in (("unit", self.unit, UNITS), ("table", self.table, TABLES)):
            if value not in allowed:
                raise ValueError(f"measure {self.name!r}: {what}={value!r} is none of: {', '.join(allowed)}")
        if self.followed and not isinstance(self.of, Read):
            raise ValueError(f"measure {self.name!r} cannot be followed over rounds: its formula reads no single rows")

    def rows(self, run: RunRows) -> pd.DataFrame:
        """The rows that it is read from, of all rounds.

        Raises:
            ValueError: if its formula reads no rows of one kind, so that there is nothing to follow.
        """
        if not isinstance(self.of, Read):
            raise ValueError(f"measure {self.name!r} is made of other measures; there are no rows of it alone")
        return self.of.rows(run)

    def written(self, value: float | None) -> str:
        """A number of it as tables show it; a dash for what was not measured."""
        return "-" if value is None or np.isnan(value) else UNITS[self.unit](value)


def _twice(name: str, title: str, unit: str, meaning: str, table: str) -> tuple[Measure, Measure]:
    """A measure of `flsim.metrics.continual`, of accuracy when the device may ask, and alone."""
    return (
        Measure(name, title, unit, meaning, lambda run: run.continual["accuracy"][name], table),
        Measure(
            *(f"alone_{name}", title, unit, f"{meaning} Alone."),
            of=lambda run: run.continual["alone_accuracy"][name],
            table=f"{table} alone",
        ),
    )


def _gauc(name: str, of: str, title: str, meaning: str, without: str) -> tuple[Measure, Measure, Measure]:
    """A user-level weighted AUC, and what stands beside it of the users who have none."""
    return (
        Measure(name, title, "index", f"User-level weighted AUC (GAUC), {meaning}.", auc_part(of, "value"), "fairness"),
        Measure(
            *(f"{name}_dropped", f"{title} dropped", "share"),
            f"Share of that weight which belongs to {without}, for whom there is no AUC.",
            auc_part(of, "dropped"),
            "fairness",
        ),
        Measure(
            *(f"{name}_one_class", f"{title} without", "count", f"How many these are: {without}."),
            auc_part(of, "one_class"),
            "fairness",
        ),
    )


_TABLE = (
    Measure("accuracy", "accuracy", "share",
            "Share of the user's own test prompts that are right at the end of the run, all tasks, when the device may "
            "ask the cloud within its budget.",
            AtEnd("accuracy"), "end", followed=True),
    Measure("alone_accuracy", "alone", "share",
            "The same with asking disabled: what the device's own model knows.",
            AtEnd("alone_accuracy"), "end", followed=True),
    *_twice("during_task", "during task", "share",
            "Accuracy on the tasks that a phase teaches, at its end; mean over phases (DA-GRPO's during-task "
            "accuracy).", "learning"),
    *_twice("post_switch", "post switch", "share",
            "Accuracy on the tasks of a phase at the end of the next phase, where that does not teach them; mean over "
            "switches.", "learning"),
    *_twice("forgetting_max", "forgets", "points",
            "Forgetting over time: the best accuracy at an earlier end of a phase minus that at the end of the last, "
            "mean over tasks (Chaudhry 2018); below 0 it grew.", "learning"),
    *_twice("forgetting_learned", "forgets since learned", "points",
            "Accuracy when first taught minus at the end; minus backward transfer.", "learning"),
    *_twice("forgetting_relative", "forgets, relative", "share",
            "(during - after the next phase) / during: the share of what was learned that the next phase costs; mean "
            "over tasks it does not teach (DA-GRPO's).", "learning"),
    Measure("forgetting_by_aggregation", "lost by aggregation", "points",
            "Alone: the device's own adapter after its local steps minus the adapter it is sent after aggregation, in "
            "the same round, on the tasks just taught; mean over ends of phases. Below 0 the other devices helped.",
            RunRows.lost_by_aggregation, "learning alone"),
    *_twice("backward_transfer", "backward transfer", "points",
            "Accuracy at the end minus that at the end of the phase that first taught the task, mean over tasks taught "
            "before the last phase.", "transfer"),
    *_twice("forward_transfer", "forward transfer", "points",
            "Accuracy on a task just before it is first taught minus that before training.", "transfer"),
    *_twice("plasticity", "plasticity", "points", "What a phase adds to the tasks that it teaches.", "transfer"),
    Measure("anytime", "any time", "share", "Mean over all tests of the accuracy on the tasks taught so far.",
            lambda run: run.anytime("accuracy"), "transfer"),
    Measure("alone_anytime", "any time", "share",
            "Mean over all tests of the accuracy on the tasks taught so far. Alone.",
            lambda run: run.anytime("alone_accuracy"), "transfer alone"),
    Measure("dip", "dip", "points",
            "After a switch, how far the mean user's accuracy on the tasks left behind falls below its last value "
            "before the switch; mean over switches.",
            lambda run: mean(run.dips), "switches"),
    Measure("recovery_rounds", "recovers in", "rounds",
            "Rounds until it is back within 2 points for good, 0 if it never was below; mean over the switches after "
            "which it came back.",
            lambda run: mean([rounds for rounds in run.recoveries if rounds is not None]), "switches"),
    Measure("unrecovered", "not back", "share",
            "Share of switches after which it was not back by the end of the phase.",
            lambda run: mean([float(rounds is None) for rounds in run.recoveries]), "switches"),
    Measure("training_usage", "usage", "share",
            "Share of training responses that ask, over the whole run, per user.",
            Trained(ASKED), "training", followed=True, higher_is_better=False),
    Measure("violation", "violation", "share",
            "Mean over rounds of max(0, usage - tau), per user; rounds below tau do not make up for it.",
            lambda run: run.usage_by_round().groupby("device").agg(lambda own: violation(own.tolist(), run.tau)),
            "training", higher_is_better=False),
    Measure("settling_rounds", "settles in", "rounds",
            "Rounds after a switch until the mean user's usage stays within tau +- 5 points to the end of the phase; "
            "mean over the switches after which it did.",
            lambda run: mean([rounds for rounds in run.settlings if rounds is not None]), "training"),
    Measure("unsettled", "not settled", "share", "Share of switches after which it did not.",
            lambda run: mean([float(rounds is None) for rounds in run.settlings]), "training"),
    Measure("dual_variable", "price of asking", "index",
            "The dual variable lambda, the price of a request that the device learns: mean over rounds, per user.",
            Trained("dual_variable"), "training", followed=True),
    Measure("calls", "calls", "count", "Cloud calls granted while training, all devices.",
            Spent("cloud_calls"), "training"),
    Measure("refused", "refused", "count", "Cloud calls refused by a cap while training, all devices.",
            Spent("cloud_refused"), "training"),
    Measure("failures", "failures", "count",
            "Cloud calls that failed while training, all devices; paid only where the server billed them all the same.",
            Spent("cloud_failures"), "training"),
    Measure("tokens", "tokens", "count", "Cloud tokens while training, all devices.",
            Spent("cloud_tokens"), "training"),
    Measure("money", "money", "money",
            "Money spent on the cloud while training, all devices, in the unit of cloud.price_*.",
            Spent("cloud_money"), "training"),
    Measure("bought_money", "really paid", "money",
            "Money really paid while training, all devices; the rest lay in the cache.",
            Spent("bought_money")),
    Measure("lost_calls", "lost calls", "count",
            "Cloud calls whose answers were lost with a process that was ended, though they may have been paid; they "
            "count under every cap.",
            SpentAnywhere("lost_calls")),
    Measure("unkept_answers", "not kept", "count",
            "Answers that were paid and that the cache could not keep (run.log says why): another run buys them again.",
            SpentAnywhere("unkept_answers")),
    *(Measure(f"warmup_{name}", f"warm-up's {title}", unit, f"{meaning} by the server's warm-up before round 1.",
              SpentInWarmup(of))
      for name, of, title, unit, meaning in (
          ("calls", "cloud_calls", "calls", "count", "Cloud calls made"),
          ("tokens", "cloud_tokens", "cloud tokens", "count", "Cloud tokens bought"),
          ("money", "cloud_money", "money", "money", "Money spent on the cloud, in the unit of cloud.price_*,"),
          ("learned_tokens", "learned_tokens", "tokens learned", "count",
           "Tokens of questions and responses, as often as they were read, learned from"),
          ("sampled_tokens", "sampled_tokens", "tokens sampled", "count",
           "Tokens read and drawn for tries of the model's own"),
      )),
    Measure("cloud_grants", "test usage", "share",
            "Share of test prompts that the cloud answered, at the end; at most tau.",
            AtEnd("cloud_grants"), "test", higher_is_better=False),
    Measure("cloud_gain", "gain by the cloud", "points", "accuracy minus alone, user by user.",
            lambda run: run.accuracy - AtEnd("alone_accuracy")(run), "test"),
    Measure("alone_gain", "learned", "points",
            "alone minus that of the model that the run started from, user by user.",
            lambda run: AtEnd("alone_accuracy")(run) - AtEnd("alone_accuracy", "frozen")(run), "transfer alone"),
    Measure("kept_accuracy", "kept", "share",
            "Conditional local accuracy: right among the test prompts that were not sent.",
            AtEnd("kept_accuracy"), "test"),
    Measure("pgr", "PGR", "share", "Performance gap recovered: (accuracy - alone) / (cloud - alone) of the mean user.",
            MeanUser(("accuracy", "alone_accuracy", "cloud_accuracy"),
                     lambda v: performance_gap_recovered(v[0], v[1], v[2])), "test"),
    Measure("apgr", "APGR", "share",
            "PGR averaged over the share of prompts sent, from 0 to 1, when the prompts with the highest asking score "
            "are sent (RouteLLM); 50 % is what random asking gives.",
            gap_recovered_on_average(), "test"),
    Measure("cpt_50", "CPT(50)", "share", "Least share of prompts to send to close half of the gap to the cloud.",
            calls_to_recover(0.5), "test"),
    Measure("cpt_80", "CPT(80)", "share", "The same for 80 % of the gap.", calls_to_recover(0.8), "test"),
    Measure("cost_per_correct", "money per right answer", "money",
            "Test usage times the mean price of a training call, over accuracy: the cloud's price of one right test "
            "answer.",
            MeanUser(("test_money", "accuracy"), lambda v: cost_per_correct(v[0], v[1])), "test"),
    Measure("training_calls", "calls in training", "share",
            "Cloud calls granted while training, for each training prompt: one if any response of its group asks. A "
            "warm-up's calls count in equal parts for every device that trained.",
            lambda run: run.training_calls, "life", higher_is_better=False),
    Measure("total_spend", "calls in all", "share",
            "(calls in training + H test usage) / (1 + H), at H test prompts for each training prompt (--horizon).",
            lambda run: run.over_life(run.training_calls, AtEnd("cloud_grants")(run)), "life", higher_is_better=False),
    Measure("served", "right in training", "share",
            "Share of the device's training responses that are right, with the help that was granted. Not known of a "
            "method that answers no prompt itself.", lambda run: run.served, "life"),
    Measure("lifetime_accuracy", "right over its life", "share", "(right in training + H accuracy) / (1 + H).",
            lambda run: run.over_life(run.served, run.accuracy), "life"),
    Measure("left_for_test", "left for test", "share",
            "Calls per test prompt that training leaves, if both may make S (--spend, else tau) per prompt: "
            "((1 + H) S - calls in training) / H.", lambda run: run.left_for_test),
    Measure("accuracy_at_equal_spend", "accuracy at equal spend", "share",
            "Accuracy of the mean user if what training leaves of S goes to the test prompts with the highest asking "
            "scores; none where training alone has made more.", at_equal_spend(), "life"),
    Measure("ece", "ECE", "share",
            "Expected calibration error of the chance of being wrong alone that the asking rule claims, in ten bins of "
            "equal width (Guo et al. 2017); none where scores are no chances.", calibration_error(), "wish"),
    Measure("claimed", "claims to be wrong", "share", "Mean chance of being wrong alone that the rule claims.",
            lambda run: 1 - AtEnd("alone_accuracy")(run) + run.claim_gaps.sum(axis=1), "wish"),
    Measure("wrong_auc", "AUC of wrong alone", "index",
            "How well the asking score tells the test prompts that the device alone gets wrong from the user's others, "
            "over the users who have both; 0.5 at random.", AtEnd("wrong_auc"), "wish"),
    *(Measure(f"claim_gap_{tenth}", f"claim from {tenth} %", "points",
              f"Of the claims from {tenth} to {tenth + 10} %: sum minus how many came true, per test prompt of a user.",
              claim_gap(tenth)) for tenth in TENTHS),
    Measure("stage_money", "stage's money", "money", "Money that the stage after aggregation spent on the cloud.",
            lambda run: total(run.by_stage("cloud_money"), empty=0.0), "traffic"),
    Measure("uplink_bytes", "sent up", "bytes", "Adapters sent by the devices in the whole run.",
            Spent("uplink_bytes"), "traffic"),
    Measure("downlink_bytes", "sent down", "bytes", "Adapters sent to the devices in the whole run.",
            Spent("downlink_bytes"), "traffic"),
    Measure("seconds", "seconds", "count", "Seconds of work while training, summed over devices.", Spent("seconds")),
    Measure("user_mean", "uniform over users", "share", "Mean accuracy, each user counting once.",
            over_accuracies(lambda values: values.mean()), "users"),
    *(Measure(f"{kind}_mean", weighting.title, "share", f"Mean accuracy. {weighting.meaning}",
              accuracy_by(weighting), "users")
      for kind, weighting in (("example", EXAMPLES), ("traffic", TRAFFIC), ("request", REQUESTS))),
    Measure("p10", "p10", "share", "10th percentile of users' accuracy.",
            over_accuracies(lambda values: np.quantile(values, 0.1)), "users"),
    Measure("p50", "p50", "share", "Median of users' accuracy.",
            over_accuracies(lambda values: np.quantile(values, 0.5)), "users"),
    Measure("p90", "p90", "share", "90th percentile of users' accuracy.",
            over_accuracies(lambda values: np.quantile(values, 0.9)), "users"),
    Measure("worst_decile_mean", "worst 10 %", "share", "Mean accuracy of the worst-off ceil(users / 10) users.",
            over_accuracies(worst_decile_mean), "users"),
    Measure("gini_of_error", "Gini of error", "index",
            "Gini coefficient of 1 - accuracy over users: 0 if all err alike.",
            over_accuracies(lambda values: gini(np.maximum(1.0 - values, 0.0))), "fairness"),
    Measure("jain", "Jain", "index", "Jain's index of accuracy: 1 if all users are equal, 1 / users if one has all.",
            over_accuracies(jain), "fairness"),
    Measure("harm_rate", "harmed", "share",
            "Share of users with a lower accuracy than alone (which is named beside the table).", harmed, "fairness"),
    *_gauc("weighted_auc", "asking_auc", "asking AUC",
           "the asking AUC of users, each weighed by its test items",
           "users whose prompts are all alike"),
    *_gauc("weighted_task_auc", "task_auc", "task AUC",
           "of data sets with two score labels: the task AUC of users, each weighed by its scored test items",
           "users with one label only"),
    *_gauc("weighted_class_auc", "class_auc", "class AUC",
           "of data sets with more score labels: the class AUC of users, each weighed by its scored test items",
           "users with one label only"),
    Measure("asking_auc", "asking AUC by users", "index",
            "How well the asking score tells the test prompts that only the cloud gets right from the user's others: "
            "mean over the users whose prompts are not all alike in that.", AtEnd("asking_auc")),
    Measure("task_auc", "task AUC by users", "index",
            "Of data sets with score labels: how well the device's chance of the one answer against the other tells "
            "the user's test prompts apart; mean over the users with both labels.", AtEnd("task_auc")),
    Measure("class_auc", "class AUC by users", "index",
            "Of data sets with more score labels: how well the device's chances of the answers tell the user's test "
            "prompts apart, mean over pairs of labels (Hand and Till 2001); mean over the users with several.",
            AtEnd("class_auc")),
    Measure("random_accuracy", "frozen, asks at random", "share",
            "Accuracy of the model that the run starts from, asking at random within the budget.",
            AtEnd("accuracy", "random")),
    Measure("frozen_accuracy", "frozen, alone", "share",
            "Accuracy of the model that the run starts from (after a warm-up or with model.adapter), with asking "
            "disabled.", AtEnd("alone_accuracy", "frozen")),
    Measure("base_accuracy", "bare base, alone", "share",
            "Accuracy of the base without an adapter, with asking disabled, where the run starts from another model.",
            AtEnd("alone_accuracy", "base")),
    Measure("cloud_accuracy", "cloud LLM", "share", "Accuracy of the cloud.", AtEnd("accuracy", "cloud")),
    *(Measure(f"sending_{percent}", f"sending {percent} %", "share",
              f"Accuracy when the {percent} % of the user's test prompts with the highest asking score are sent.",
              AtEnd(f"accuracy_sending_{percent}")) for percent in SENDING),
    Measure("requests", "requests", "count", "Cloud requests of a user while training, granted or refused.",
            lambda run: run.requests),
    Measure("traffic", "traffic", "count",
            "Prompts that the stream of a user brings in the run, if it takes part in every round.",
            lambda run: run.traffic),
    Measure("test_items", "test items", "count",
            "Test items that a user has, tested or not; of a generated task, how many are tested.",
            lambda run: run.items),
    Measure("test_prompts", "test prompts", "count", "Test prompts of a user: how many of its items are tested.",
            lambda run: run.tested_items),
    Measure("scored_prompts", "scored items", "count", "Test items of a user that have two score labels to tell apart.",
            lambda run: run.weights("positives")),
    Measure("price_per_call", "price of a call", "money", "Mean price of a cloud call while training.", price_per_call),
    Measure("test_money", "money per test prompt", "money", "Test usage times the mean price of a training call.",
            lambda run: AtEnd("cloud_grants")(run) * price_per_call(run)),
)  # fmt: skip

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _TABLE}
"""All of them by name, in the order in which tables show them."""


def of_table(table: str) -> list[Measure]:
    """The measures of one table."""
    return [measure for measure in MEASURES.values() if measure.table == table]


def chosen(given: Sequence[str | Measure]) -> list[Measure]:
    """The measures that a caller named.

    Args:
        given: names of `MEASURES`, measures, or paths of measures such as `my_measures.py:REWARD`.

    Raises:
        ConfigError: for a name that there is not, a path that names no measure, or a measure of one's own that is
            called as another.
    """
    found = [_found(one) for one in given]
    for one in found:
        if MEASURES.get(one.name, one) is not one or [other.name for other in found].count(one.name) > 1:
            raise ConfigError(f"measures: there are two that are called {one.name!r}; call your own differently")
    return found


def _found(given: str | Measure) -> Measure:
    if isinstance(given, Measure):
        return given
    if ":" in given:
        found = resolve("measures", given)
        if not isinstance(found, Measure):
            raise ConfigError(f"measures={given!r} names {found!r}, which is no flsim.metrics.measures.Measure")
        return found
    if given not in MEASURES:
        near = ", ".join(get_close_matches(given, MEASURES, n=3)) or ", ".join(MEASURES)
        raise ConfigError(f"measures={given!r} is not known; did you mean {near}? One of your own is module:NAME")
    return MEASURES[given]
