"""Every column of a comparison: its title, how its numbers are written, and what it means, so that nobody guesses."""

from dataclasses import dataclass

import numpy as np

from flsim.report.table import amount, points, share


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
