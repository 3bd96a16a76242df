"""Measures of what devices learn and forget: accuracy at the end, over phases, and after switches of the stream."""

from flsim.metrics.formulas import AtEnd
from flsim.metrics.measure import Measure
from flsim.metrics.run_rows import RunRows, mean


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


OF_LEARNING = (
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
)  # fmt: skip
