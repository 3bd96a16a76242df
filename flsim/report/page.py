"""The report of a run as one HTML page that needs nothing else: the answer, tables, figures and how it was made."""

import json
from pathlib import Path
from typing import Any

from flsim.files import write_atomically
from flsim.report.markup import folded, page_of, paragraph, picture, table
from flsim.report.table import SPREAD, amount, answer, data_size, model_lines, points, share

_FIGURES = (
    (
        "accuracy.png",
        "Accuracy over rounds",
        "Share of test prompts that are right, evaluated on every device's own test set. The line is the mean user, the "
        "band reaches from the 10th to the 90th percentile of users. Dashed lines are references that do not learn. "
        "Above, a device may ask the cloud within its budget; below, asking is disabled, so only what the small model "
        "learned counts. Dotted verticals are switches of the stream: a fall there that later phases do not mend is "
        "forgetting.",
    ),
    (
        "usage.png",
        "Asking the cloud",
        "Above: the share of training responses that ask the cloud, per device; it should settle at the budget τ, not "
        "above it. Below: the dual variable λ, the price of a request that each device learns. λ rises while a device "
        "asks more than its budget allows and falls otherwise.",
    ),
    (
        "matrix.png",
        "Accuracy by task group",
        "Mean user's accuracy of the global adapter on each task group (columns) at the end of each phase (rows). Framed "
        "cells are the groups that the phase taught. Read a column downwards: a fall after the framed cell is forgetting.",
    ),
    (
        "users.png",
        "Users",
        "Left: every user's accuracy at the end, sorted from the worst-off to the best, each model by itself; a curve "
        "that lies higher at the left treats its worst-off users better. Right: the worst-off users by name.",
    ),
    (
        "stream.png",
        "The stream",
        "What the devices met: each device's row is coloured by its mix of task groups in each round (with many devices, "
        "by the largest group; grey: no prompts). Below, how hard the prompts were, from 0, the easiest level of their "
        "group, to 1.",
    ),
    (
        "cost.png",
        "Cost per round",
        "Sums over all devices of a round: bytes of adapters sent, cloud requests while training, and seconds of work.",
    ),
)
"""File, heading and caption of every figure, in the order of the page."""
_TOTALS = (
    ("cloud_calls", "cloud requests granted while training", amount),
    ("cloud_refused", "cloud requests refused", amount),
    ("cloud_tokens", "cloud tokens", amount),
    ("cloud_money", "money (in units of the price list)", amount),
    ("uplink_bytes", "sent by devices", data_size),
    ("downlink_bytes", "sent to devices", data_size),
    ("seconds", "seconds of work, summed over devices", amount),
)


def write_report(run_dir: Path, *, summary: dict[str, Any]) -> Path:
    """Write `report.html` from the summary and what lies in the run's folder.

    Args:
        run_dir: holds `plots/` and, where present, `config.yaml` and `environment.json`.
        summary: as `finish_run` gives.

    Returns:
        The page.
    """
    run_dir = Path(run_dir)
    name = str(summary.get("run", run_dir.name))
    body = [*_opening(summary, name), *_models(summary)]
    for file, heading, caption in _FIGURES:
        if (run_dir / "plots" / file).is_file():
            body += [_heading(heading), picture(run_dir / "plots" / file, caption)]
        body += _beside(file, summary)
    body += [*_costs(summary), *_making(run_dir)]
    path = run_dir / "report.html"
    write_atomically(path, page_of(f"{name}: report", body).encode())
    return path


def _heading(text: str) -> str:
    return f"<h2>{text}</h2>"


def _beside(file: str, summary: dict[str, Any]) -> list[str]:
    """The tables that belong to a figure."""
    tables = {"usage.png": _usage, "matrix.png": _forgetting, "users.png": _worst_users}
    return tables[file](summary) if file in tables else []


def _opening(summary: dict[str, Any], name: str) -> list[str]:
    facts = f"{summary['rounds']} rounds, {summary['devices']} devices, {len(summary['tasks'])} task groups"
    facts += "" if summary["tau"] is None else f", budget τ = {share(summary['tau'], digits=0)} of prompts"
    facts += f", evaluated on each device's own {summary['split']} prompts"
    pieces = [
        f"<h1>{paragraph(name)[3:-4]}</h1>",
        paragraph(facts, kind="facts"),
        paragraph(answer(summary), kind="answer"),
    ]
    return [*pieces, *(paragraph(text) for text in _differences(summary))]


def _differences(summary: dict[str, Any]) -> list[str]:
    """The two headline differences, paired user by user."""
    texts = []
    for key, what in (
        (
            "accuracy_over_random",
            "With the cloud at hand, the global adapter against the frozen model asking at random",
        ),
        ("local_accuracy_over_frozen", "With asking disabled, the global adapter against the frozen model"),
    ):
        gap = summary["headline"][key]
        if gap is not None:
            error = (
                ""
                if gap["standard_error"] is None
                else f" ± {100 * gap['standard_error']:.1f} (standard error over users)"
            )
            counts = f"{gap['higher']} of {gap['users']} users gained, {gap['lower']} lost"
            texts.append(f"{what}: {points(gap['mean'])}{error} percentage points for the mean user; {counts}.")
    return texts


def _models(summary: dict[str, Any]) -> list[str]:
    lines = model_lines(summary)
    if not lines:
        return []
    rows = [[label, *(share(values[field]) for field in SPREAD), str(values["users"])] for label, values in lines]
    headings = ["", "example mean", "user mean", "p10", "median", "p90", "worst 10 %", "users"]
    note = (
        "Example mean: every prompt counts once. User mean: every user counts once. p10 to p90: percentiles over users. "
        "Worst 10 %: mean of the worst-off tenth of users (for cloud usage, of those who used most)."
    )
    return [_heading("At the end"), table(headings, rows, strong=[0]), paragraph(note, kind="note")]


def _usage(summary: dict[str, Any]) -> list[str]:
    rows = []
    for phase in summary["usage"]:
        whole, late = phase["whole"], phase["last_third"]
        if whole is None:
            continue
        late_mean = None if late is None else late["user_mean"]
        above = (
            "–" if late is None or late["users_above_tau"] is None else f"{late['users_above_tau']} of {late['users']}"
        )
        gap = None if late_mean is None or phase["tau"] is None else late_mean - phase["tau"]
        span = f"{phase['first_round']} to {phase['last_round']}"
        means = [share(whole["user_mean"]), share(late_mean), share(phase["tau"], digits=0)]
        rows.append([f"phase {phase['phase']}", span, *means, points(gap), above])
    if not rows:
        return []
    headings = [
        "training",
        "rounds",
        "usage, whole phase",
        "usage, last third",
        "τ",
        "last third − τ",
        "devices above τ",
    ]
    return [table(headings, rows)]


def _forgetting(summary: dict[str, Any]) -> list[str]:
    """Forgetting at each later phase end, with the cloud and alone, and backward transfer at the end."""
    rows = []
    for name, label in (("accuracy", "may ask"), ("local_accuracy", "alone")):
        found = summary["continual"][name]
        stages = {(drop["phase"], drop["round"]): drop["mean"] for drop in found["forgetting"]}
        rows += [[f"after {phase}, round {stage}", label, points(mean)] for (phase, stage), mean in stages.items()]
        if found["backward_transfer"]["mean"] is not None:
            rows.append(["backward transfer at the end", label, points(found["backward_transfer"]["mean"])])
    if not rows:
        return []
    note = (
        "Forgetting is the best value at an earlier phase end minus the value now, averaged over task groups; negative "
        "means that the groups grew. Backward transfer is the value at the end minus the value right after the phase that "
        "first taught the group."
    )
    return [table(["forgetting", "global adapter", "percentage points"], rows), paragraph(note, kind="note")]


def _worst_users(summary: dict[str, Any]) -> list[str]:
    users = summary["worst_users"]
    if not users:
        return []
    rows = [
        [
            user["device"],
            *(share(user[key]) for key in ("accuracy", "local_accuracy", "random", "frozen")),
            points(user["over_random"]),
        ]
        for user in users
    ]
    headings = [
        "worst-off user",
        "global, may ask",
        "global, alone",
        "asks at random",
        "frozen, alone",
        "may ask − random",
    ]
    return [table(headings, rows)]


def _costs(summary: dict[str, Any]) -> list[str]:
    rows = [[label, form(summary["totals"][name])] for name, label, form in _TOTALS]
    aside = summary["set_aside"]
    pieces = [table(["total over the run", ""], rows), _heading("Updates set aside")]
    if not aside:
        return [*pieces, paragraph("None: every update of every round was aggregated.")]
    lines = [[item["device"], str(item["round"]), item["reason"]] for item in aside]
    return [*pieces, table(["device", "round", "reason"], lines)]


def _making(run_dir: Path) -> list[str]:
    """How the run was made: its config and environment, where the folder has them."""
    pieces = [_heading("How this run was made")]
    environment = run_dir / "environment.json"
    if environment.is_file():
        pieces.append(table(["environment", ""], _facts(json.loads(environment.read_text()))))
    config = run_dir / "config.yaml"
    if config.is_file():
        pieces.append(folded("resolved config (config.yaml)", config.read_text()))
    return pieces if len(pieces) > 1 else []


def _facts(values: dict[str, Any]) -> list[list[str]]:
    """One line per fact; a nested dict becomes one line of its own facts."""
    lines = []
    for key, value in values.items():
        text = (
            ", ".join(f"{name} {version}" for name, version in value.items()) if isinstance(value, dict) else str(value)
        )
        lines.append([str(key), text])
    return lines
