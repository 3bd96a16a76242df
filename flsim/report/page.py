"""The report of a run as one HTML page that needs nothing else: the answer, tables, figures and how it was made."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flsim.charts.breakdown import break_down
from flsim.charts.chart import Chart
from flsim.charts.pieces import hint
from flsim.files import write_atomically
from flsim.metrics.measures import MEASURES
from flsim.metrics.users import PairedDifference
from flsim.metrics.weighting import EXAMPLES, TRAFFIC, UNIFORM, Weighting
from flsim.report.captions import FIGURES
from flsim.report.findings import finding_pieces
from flsim.report.html import charted_page, figure_of, folded, heading, paragraph, picture, table
from flsim.report.partition_figure import partition_pieces
from flsim.report.summary import Summary, Tenth
from flsim.report.system_pieces import system_pieces
from flsim.report.table import (
    AUC_HEADINGS,
    answer,
    auc_cells,
    auc_lines,
    fleet_facts,
    model_lines,
    spread_cells,
    tested_of,
    time_rows,
    time_sentence,
)
from flsim.text import amount, percent, points
from flsim.timing import RoundTiming

_LATEST = 12  # rounds of the stage after aggregation that are shown


def write_report(
    run_dir: Path, *, summary: Summary, timings: Sequence[RoundTiming] = (), charts: Sequence[Chart] = ()
) -> Path:
    """Write `report.html` from the summary, the run's charts and what lies in the run's folder.

    Args:
        run_dir: holds `plots/` and, where present, `config.yaml` and `environment.json`.
        summary: as `finish_run` gives.
        timings: of the run's rounds; if empty, the page says nothing of where the time went.
        charts: of the run, which the page draws; a figure that has none is shown as its picture.

    Returns:
        The page.
    """
    run_dir = Path(run_dir)
    name = summary.run
    body = [*_opening(summary, name), *_models(summary), *([hint()] if charts else [])]
    for file, title, caption in FIGURES:
        if file == "time.png" and not timings:
            continue
        body += _figure(run_dir, file, title, caption, charts)
        body += _beside(file, summary)
        body += partition_pieces(run_dir, summary.partitions) if file == "stream.png" else []
    body += [*_stage(summary), *(_time(timings) if timings else []), *_set_aside(summary), *_making(run_dir)]
    path = run_dir / "report.html"
    write_atomically(path, charted_page(f"{name}: report", body, charts).encode(), what="the report")
    return path


def _figure(run_dir: Path, file: str, title: str, caption: str, charts: Sequence[Chart]) -> list[str]:
    """A figure of the page: its charts, or its picture where a browser draws none; nothing where there is neither."""
    drawn = [chart for chart in charts if f"{chart.group}.png" == file]
    at = run_dir / "plots" / file
    if drawn:
        return [heading(title), figure_of(drawn, caption, picture=f"plots/{file}" if at.is_file() else "")]
    return [heading(title), picture(at, caption)] if at.is_file() else []


def _beside(file: str, summary: Summary) -> list[str]:
    """The tables that belong to a figure."""
    tables = {
        "accuracy.png": _switches,
        "usage.png": _usage,
        "reliability.png": _claims,
        "matrix.png": _forgetting,
        "users.png": _worst_users,
        "cost.png": _costs,
    }
    return tables[file](summary) if file in tables else []


def _opening(summary: Summary, name: str) -> list[str]:
    facts = f"{summary.rounds} rounds, {summary.devices} devices, {len(summary.tasks)} tasks"
    facts += "" if summary.tau is None else f", budget τ = {percent(summary.tau, digits=0)} of prompts"
    whose = f" on {tested_of(summary)}, each on its" if tested_of(summary) else " on each device's"
    facts += f", evaluated{whose} own {summary.split} prompts"
    pieces = [heading(name, 1), paragraph(facts, kind="facts"), paragraph(answer(summary), kind="answer")]
    return [*pieces, *finding_pieces(summary.findings), *(paragraph(text) for text in _differences(summary))]


def _differences(summary: Summary) -> list[str]:
    """The two headline differences, paired user by user."""
    gaps = (
        (
            summary.headline.accuracy_over_random,
            "With the cloud at hand, the global adapter against the model that the run started from, asking at random",
        ),
        (
            summary.headline.alone_accuracy_over_frozen,
            "With asking disabled, the global adapter against the model that the run started from",
        ),
    )
    return [_difference(gap, what) for gap, what in gaps if gap is not None]


def _difference(gap: PairedDifference, what: str) -> str:
    error = "" if gap.standard_error is None else f" ± {100 * gap.standard_error:.1f} (standard error over users)"
    counts = f"{gap.higher} of {gap.users} users gained, {gap.lower} lost"
    return f"{what}: {points(gap.mean)}{error} percentage points for the mean user; {counts}."


def _models(summary: Summary) -> list[str]:
    lines = model_lines(summary)
    if not lines:
        return []
    rows = [[label, *spread_cells(found), str(found.users)] for label, found in lines]
    headings = ["", "by examples", "by traffic", "uniform over users", "p10", "median", "p90", "worst 10 %", "users"]
    note = (
        f"{_meanings(EXAMPLES, TRAFFIC, UNIFORM)} p10 to p90: percentiles over users, each counting once. Worst 10 %: "
        "mean of the worst-off tenth of users (for cloud usage, of those who used most)."
    )
    pieces = [heading("At the end"), table(headings, rows, strong=[0]), paragraph(note, kind="note")]
    return [*pieces, *_aucs(summary)]


def _aucs(summary: Summary) -> list[str]:
    """User-level AUCs, and who has none."""
    rows = [[f"{title}, {model}", *auc_cells(found)] for title, model, found in auc_lines(summary)]
    if not rows:
        return []
    note = (
        "User-level weighted AUC (GAUC): the mean over users of each user's own AUC, ties counting half, each weighed "
        "by the items that it is of, by traffic, by requests, or all alike. Asking AUC: how well the asking score "
        "tells the prompts apart that only the cloud gets right; of wrong alone: that the device gets wrong. Task AUC: "
        "the answer with score label 1 against the other. Class AUC: of more labels, mean over pairs. A user whose "
        "items are all of one class has none and is left out; the last column is the share of all items that are "
        "theirs."
    )
    return [table(["user-level AUC", *AUC_HEADINGS], rows), paragraph(note, kind="note")]


def _meanings(*weightings: Weighting) -> str:
    """What the titles of weightings mean, a sentence or two each."""
    return " ".join(f"{one.title.capitalize()}: {one.meaning}" for one in weightings)


def _usage(summary: Summary) -> list[str]:
    rows = []
    for phase in summary.usage:
        whole, late = phase.whole, phase.last_third
        if whole is None:
            continue
        late_mean = None if late is None else late.user_mean
        above = "-" if late is None or late.users_above_tau is None else f"{late.users_above_tau} of {late.users}"
        gap = None if late_mean is None or phase.tau is None else late_mean - phase.tau
        span = f"{phase.first_round} to {phase.last_round}"
        means = [percent(mean) for mean in (whole.example_mean, whole.traffic_mean, whole.user_mean, late_mean)]
        means.append(percent(phase.tau, digits=0))
        rows.append([f"phase {phase.phase}", span, *means, points(gap), above])
    if not rows:
        return []
    headings = [
        "training",
        "rounds",
        "usage by examples",
        "by traffic",
        "uniform",
        "last third, uniform",
        "τ",
        "last third - τ",
        "devices above τ",
    ]
    return [table(headings, rows)]


def _claims(summary: Summary) -> list[str]:
    """The mean claim against how often the device is wrong, and by how much claims of a tenth are off."""
    found = summary.reliability
    if found is None:
        return []
    means = f"{percent(found.claimed)} claimed in the mean and {percent(found.wrong)} wrong"
    note = f"Expected calibration error (ECE, ten bins of equal width): {percent(found.error)}; {means}."
    rows = [
        [f"{one.begins} to {one.begins + 10} %", amount(one.prompts), *map(percent, _rates(one))]
        for one in found.tenths
        if one.prompts
    ]
    return [table(["claimed chance", "prompts", "mean claim", "wrong alone"], rows), paragraph(note)]


def _rates(one: Tenth) -> tuple[float, float]:
    return one.claimed / one.prompts, one.wrong / one.prompts


def _switches(summary: Summary) -> list[str]:
    """The global adapter at every switch and at the end: user mean and worst tenth, with the cloud and alone."""
    stages = [(f"end of {switch.phase}", switch.models) for switch in summary.at_switches]
    rows = []
    for label, models in [*stages, ("latest", summary.at_end)]:
        tested = models.get("global", {})
        found = [tested[name] for name in ("accuracy", "alone_accuracy") if name in tested]
        if len(found) == 2:
            numbers = [percent(mean) for users in found for mean in (users.user_mean, users.worst_decile_mean)]
            rows.append([label, str(found[0].round), *numbers])
    headings = ["global adapter", "round", "may ask: mean user", "worst 10 %", "alone: mean user", "worst 10 %"]
    return [table(headings, rows)] if rows else []


def _forgetting(summary: Summary) -> list[str]:
    """Forgetting at each later phase end and backward transfer at the end, with the cloud and alone."""
    asking, alone = (summary.continual[name] for name in ("accuracy", "alone_accuracy"))
    means = {(drop.phase, drop.round): drop.mean for drop in alone.forgetting}
    rows = [
        [
            f"forgotten at the end of {drop.phase}, round {drop.round}",
            ", ".join(drop.left_behind),
            points(drop.mean),
            points(means.get((drop.phase, drop.round))),
        ]
        for drop in asking.forgetting
        if drop.left_behind
    ]
    if not rows:
        return []
    transfer = [points(course.backward_transfer.mean) for course in (asking, alone)]
    rows.append(["backward transfer at the end", ", ".join(asking.backward_transfer.by_task), *transfer])
    note = (
        "In percentage points of the mean user, averaged over the tasks named. Forgotten: the best value at an "
        "earlier phase end minus the value now, for tasks that this phase does not teach; negative means they grew. "
        "Backward transfer: the value at the end minus the value right after the phase that first taught the task."
    )
    return [table(["", "tasks", "may ask", "alone"], rows), paragraph(note, kind="note")]


def _worst_users(summary: Summary) -> list[str]:
    rows = [
        [
            user.device,
            *(percent(value) for value in (user.accuracy, user.alone_accuracy, user.random, user.frozen)),
            points(user.over_random),
        ]
        for user in summary.worst_users
    ]
    if not rows:
        return []
    headings = [
        "worst-off user",
        "global, may ask",
        "global, alone",
        "asks at random",
        "frozen, alone",
        "may ask - random",
    ]
    return [table(headings, rows)]


def _costs(summary: Summary) -> list[str]:
    """What the run spent and sent, and what its devices took."""
    totals = ((MEASURES[name], value) for name, value in summary.totals.items() if value is not None)
    rows = [[one.meaning.removesuffix("."), one.written(value)] for one, value in totals]
    rows += [[f"fleet's budget, {what}", value] for what, value in fleet_facts(summary)]
    return [table(["total over the run", ""], rows), *system_pieces(summary)]


def _time(timings: Sequence[RoundTiming]) -> list[str]:
    """The mean round's parts from the largest, and of which rounds it is the mean."""
    found = break_down(timings)
    headings = ["part of the mean round", "wall-clock seconds", "worker-seconds", "share"]
    rows = [[f"{name}: {meaning}" if meaning else name, *cells] for name, *cells, meaning in time_rows(found)]
    return [paragraph(time_sentence(found)), table(headings, rows, strong=[len(rows) - 1])]


def _stage(summary: Summary) -> list[str]:
    """What the stage after aggregation reported in its last rounds, one column for each."""
    lines = summary.stage[-_LATEST:]
    if not lines:
        return []
    names = dict.fromkeys(name for line in lines for name in line.values)
    rows = [[name.replace("_", " "), *(amount(line.values.get(name)) for line in lines)] for name in names]
    gains = [line.users for line in lines]
    if any(gains):
        rows.append(["mean user alone, change in points", *(points(gain.mean if gain else None) for gain in gains)])
        counts = (f"{gain.higher} / {gain.lower}" if gain else "-" for gain in gains)
        rows.append(["users that gained / lost", *counts])
    headings = ["the stage after aggregation", *(f"round {line.round}" for line in lines)]
    return [heading("What the stage did with the adapter"), table(headings, rows)]


def _set_aside(summary: Summary) -> list[str]:
    if not summary.set_aside:
        return [heading("Updates set aside"), paragraph("None: every update of every round was aggregated.")]
    lines = [[one.device, str(one.round), one.reason] for one in summary.set_aside]
    return [heading("Updates set aside"), table(["device", "round", "reason"], lines, kind="words")]


def _making(run_dir: Path) -> list[str]:
    """How the run was made: its config and environment, where the folder has them."""
    pieces = [heading("How this run was made")]
    environment = run_dir / "environment.json"
    with suppress(OSError, ValueError, AttributeError):  # damaged or not there, it holds up no page
        pieces.append(table(["environment", ""], _facts(json.loads(environment.read_text())), kind="words"))
    with suppress(OSError, ValueError):
        pieces.append(folded("resolved config (config.yaml)", (run_dir / "config.yaml").read_text()))
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


@dataclass(frozen=True)
class Section:
    """A part of the page, for pages that put it together in another way."""

    name: str
    """Of its figure without ending, such as `accuracy`, whose charts are of that group; else what it is about."""
    title: str
    caption: str
    """How to read its figure; empty if it has none."""
    pieces: tuple[str, ...]
    """HTML, already escaped: tables and paragraphs."""


def sections_of(summary: Summary, timings: Sequence[RoundTiming] = ()) -> list[Section]:
    """What the page says, in its order, without pictures and without how the run was made."""
    found = [
        Section("opening", "", "", tuple(_opening(summary, summary.run)[1:])),
        Section("models", "At the last test", "", tuple(_models(summary)[1:])),
    ]
    for file, title, caption in FIGURES:
        beside = _time(timings) if file == "time.png" and timings else _beside(file, summary)
        found.append(Section(file.removesuffix(".png"), title, caption, tuple(beside)))
    stage = Section("stage", "What the stage did with the adapter", "", tuple(_stage(summary)[1:]))
    return [*found, stage, Section("set_aside", "Updates set aside", "", tuple(_set_aside(summary)[1:]))]
