"""The figures of a run's page in their order, and how to read each: also their text for who does not see them."""

from flsim.report.system_figures import SYSTEM_FIGURES

FIGURES = (
    (
        "accuracy.png",
        "Accuracy over rounds",
        "Share of test prompts that are right, on every device's own test set. The line is the mean user, the band "
        "reaches from the 10th to the 90th percentile of users. Dashed lines are references that do not learn. Who may "
        "ask has the cloud within the budget; where asking is disabled, only what the small model learned counts. "
        "Dotted verticals are switches of the stream.",
    ),
    (
        "usage.png",
        "Asking the cloud",
        "First the share of training responses that ask the cloud, per device; it should settle at the budget τ, not "
        "above it. Then the dual variable λ, the price of a request that each device learns. λ rises while a device "
        "asks more than its budget allows and falls otherwise.",
    ),
    (
        "reliability.png",
        "What the wish claims",
        "What the asking rule claims of the device alone being wrong, and how often it was, of all test prompts at the "
        "end. A dot is a tenth of the claims, as large as it holds many prompts; on the dashed line claims come true, "
        "above it the device is wrong more often than it claims. Columns say how many prompts each tenth holds.",
    ),
    (
        "matrix.png",
        "Accuracy by task",
        "Mean user's accuracy of the global adapter on each task (columns) at the end of each phase (rows). "
        "Framed cells are the tasks that the phase taught. Read a column downwards: a fall below a framed cell is "
        "forgetting.",
    ),
    (
        "users.png",
        "Users",
        "Every user's accuracy at the end, sorted from the worst-off to the best, each model by itself; a curve that "
        "lies higher at the left treats its worst-off users better. Bars are the worst-off users by name.",
    ),
    (
        "stream.png",
        "The stream",
        "What the devices met: each device's row is coloured by its mix of tasks in each round (with many "
        "devices, by the largest task; grey: no prompts). Below, how hard the prompts were, from 0, the easiest level "
        "of their task, to 1.",
    ),
    (
        "cost.png",
        "Cost per round",
        "Sums over all devices of a round: bytes of adapters sent, cloud requests while training, and seconds of work.",
    ),
    *SYSTEM_FIGURES,
    (
        "time.png",
        "Where the time went",
        "A column is a round, as high as its wall-clock time, divided as the workers spent it; parts below 1 % are in "
        "other. Bars are the parts of the mean round. Round 0 only measures, and the first round of training also "
        "warms up: neither is in the mean.",
    ),
)
"""The figures of the page in their order: file in `plots/`, heading, and a caption that says how to read it."""
