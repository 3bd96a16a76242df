"""Measures of what is sent, of how users differ, and what other measures stand on: references, curves, counts."""

import numpy as np

from flsim.metrics.fairness import gini, jain
from flsim.metrics.formulas import (
    SENDING,
    AtEnd,
    Spent,
    accuracy_by,
    auc_part,
    harmed,
    over_accuracies,
    price_per_call,
)
from flsim.metrics.measure import Measure
from flsim.metrics.run_rows import total
from flsim.metrics.users import worst_decile_mean
from flsim.metrics.weighting import EXAMPLES, REQUESTS, TRAFFIC


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


OF_USERS = (
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
