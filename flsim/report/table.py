"""A run in words and numbers for the terminal: how it ended, and where its time went; a sentence and a table each."""

from collections.abc import Mapping

from flsim.charts.breakdown import MEANING, Breakdown
from flsim.metrics.measures import MEASURES
from flsim.metrics.users import UserSummary
from flsim.report.findings import finding_lines
from flsim.report.summary import Summary, Tested, TestedAuc
from flsim.text import BAR, aligned, amount, bar, data_size, percent, seconds, wrapped

_LINES = (
    ("global", "accuracy", "global, may ask"),
    ("global", "alone_accuracy", "global, alone"),
    ("own", "accuracy", "device's own, may ask"),
    ("own", "alone_accuracy", "device's own, alone"),
    ("random", "accuracy", "frozen, asks at random"),
    ("frozen", "accuracy", "frozen, may ask"),
    ("frozen", "alone_accuracy", "frozen, alone"),
    ("base", "alone_accuracy", "bare base, alone"),
    ("cloud", "accuracy", "cloud LLM"),
    ("global", "cloud_grants", "cloud usage of global"),
)
"""Model, measure and label of every line, in the order of the tables."""


SPREAD = ("example_mean", "traffic_mean", "user_mean", "p10", "p50", "p90", "worst_decile_mean")
"""Fields of a summary that tables show, as shares."""


_HEADINGS = ("by examples", "by traffic", "uniform", "p10", "p50", "p90", "worst 10 %")
_AUCS = {
    "asking_auc": "asking AUC",
    "wrong_auc": "AUC of wrong alone",
    "task_auc": "task AUC",
    "class_auc": "class AUC",
}


def answer(summary: Summary) -> str:
    """Say in one sentence how the run ended: accuracy, gain over random asking, cloud usage against the budget.

    Args:
        summary: as `summarise_run` gives; whatever was not measured is left out of the sentence.
    """
    end = summary.at_end.get("global", {})
    if "accuracy" not in end:
        return f"After round {summary.rounds} the global adapter has not been evaluated yet."
    text = f"After round {end['accuracy'].round} the mean user is right on {percent(end['accuracy'].user_mean)}"
    gap = summary.headline.accuracy_over_random
    if gap is not None:
        side = "above" if gap.mean >= 0 else "below"
        text += f", {abs(100 * gap.mean):.1f} points {side} the frozen model asking at random"
    if "cloud_grants" in end:
        budget = "" if summary.tau is None else f" (budget τ = {percent(summary.tau, digits=0)})"
        text += f"; {percent(end['cloud_grants'].user_mean)} of prompts used the cloud{budget}"
    return text + "."


def tested_of(summary: Summary) -> str:
    """Of a run that tested some of its devices only, how many; "" where all are tested."""
    tested = summary.at_end.get("global", {}).get("accuracy")
    if tested is None or tested.users >= summary.devices:
        return ""
    return f"{tested.users} of {summary.devices} devices"


PANEL = (
    "Tests are of {tested}: means are unbiased for all of them if they were drawn as a panel; percentiles and the "
    "worst 10 % are those of the tested."
)
"""What is said of a run that tested some of its devices only."""


def fleet_facts(summary: Summary) -> list[tuple[str, str]]:
    """The fleet's budget as (what, value): what was charged of every cap, and the price; empty if there is none."""
    found = summary.fleet_budget
    if found is None:
        return []
    caps = (("calls", found.calls), ("tokens", found.tokens), ("money", found.money))
    facts = [(kind, f"{amount(cap.spent)} of {amount(cap.cap)}") for kind, cap in caps if cap is not None]
    return facts if found.price is None else [*facts, ("price λ", f"{found.price:.2f}")]


def model_lines(summary: Summary) -> list[tuple[str, Tested]]:
    """The lines of the models' table that were measured: label and summary."""
    end = summary.at_end
    found = [(label, end[model][name]) for model, name, label in _LINES if name in end.get(model, {})]
    if summary.tau is not None:
        return found
    return [(label.removesuffix(", may ask"), tested) for label, tested in found]  # there is nobody to ask


def spread_cells(found: UserSummary) -> list[str]:
    """How a measure is spread over users, as shares, in the order of `SPREAD`."""
    return [percent(getattr(found, field)) for field in SPREAD]


def auc_lines(summary: Summary) -> list[tuple[str, str, TestedAuc]]:
    """The user-level AUCs that were measured: name, model and what is known of them, the global model's first."""
    return [
        (title, model, models[name])
        for name, title in _AUCS.items()
        for model, models in summary.aucs.items()
        if name in models
    ]


def auc_cells(found: TestedAuc) -> list[str]:
    """By examples, traffic and requests, uniform, users with one, users without, and the share that these leave out."""
    means = (found.by_examples, found.by_traffic, found.by_requests, found.uniform)
    shown = ["-" if value is None else f"{value:.3f}" for value in means]
    return [*shown, str(found.users), str(found.one_class), percent(found.left_out)]


AUC_HEADINGS = ("by examples", "by traffic", "by requests", "uniform", "users", "one class", "left out")
"""Of `auc_cells`."""


def end_table(summary: Summary) -> str:
    """Lay the end of a run out as plain text of at most 100 columns.

    Args:
        summary: as `summarise_run` or `finish_run` gives.
    """
    lines = [wrapped(answer(summary)), ""]
    rows: list[tuple[str, ...]] = [("at the end", *_HEADINGS)]
    rows += [(label, *spread_cells(found)) for label, found in model_lines(summary)]
    lines += aligned(rows)
    lines += [wrapped(PANEL.format(tested=tested_of(summary)))] if tested_of(summary) else []
    aucs: list[tuple[str, ...]] = [("user-level AUC", "of", *AUC_HEADINGS)]
    aucs += [(title, model, *auc_cells(found)) for title, model, found in auc_lines(summary)]
    if len(aucs) > 1:
        lines += ["", *aligned(aucs)]
    usage: list[tuple[str, ...]] = [("training cloud usage", "rounds", "whole", "last third", "τ")]
    usage += [
        (
            f"phase {phase.phase}",
            f"{phase.first_round} to {phase.last_round}",
            *(percent(None if part is None else part.user_mean) for part in (phase.whole, phase.last_third)),
            percent(phase.tau, digits=0),
        )
        for phase in summary.usage
    ]
    if len(usage) > 1 and summary.tau is not None:
        lines += ["", *aligned(usage)]
    totals, aside = summary.totals, len(summary.set_aside)
    facts = ", ".join(f"{what} {value}" for what, value in fleet_facts(summary))
    lines += [
        "",
        *_cloud(totals),
        *_before(totals),
        *([f"fleet's budget: {facts}"] if facts else []),
        f"sent: {data_size(totals['uplink_bytes'])} up, {data_size(totals['downlink_bytes'])} down; "
        f"work: {amount(totals['seconds'])} device-seconds; updates set aside: {aside}",
        *_systems(summary.measured),
        *finding_lines(summary.findings),
    ]
    return "\n".join(lines)


def _systems(measured: Mapping[str, float]) -> list[str]:
    """How long responses are; what the run took in virtual time and joules, where it has a system."""
    written = {name: MEASURES[name].written(value) for name, value in measured.items()}
    lines = []
    if "response_length" in written:
        cut = f", {written['cut_share']} cut at the limit" if "cut_share" in written else ""
        lines.append(f"responses: {written['response_length']} tokens in the mean{cut}")
    named = {
        "virtual_end": "virtual time",
        "joules": "devices' joules",
        "waste_share": "wasted",
        "question_seconds": "a test question",
        "within_2s": "within 2 s",
    }
    facts = [f"{what} {written[name]}" for name, what in named.items() if name in written]
    return [*lines, *([", ".join(facts)] if "virtual_end" in written else [])]


def _cloud(totals: Mapping[str, float | None]) -> list[str]:
    """What training asked of the cloud, where devices may."""
    if totals["calls"] is None:
        return []
    return [
        f"cloud: {amount(totals['calls'])} calls, {amount(totals['refused'])} refused, "
        f"{_failed(totals['failures'])}{amount(totals['tokens'])} tokens, money {amount(totals['money'])}"
    ]


def _before(totals: Mapping[str, float | None]) -> list[str]:
    """What a warm-up took, where there was one."""
    learned, sampled = totals["warmup_learned_tokens"], totals["warmup_sampled_tokens"]
    if learned is None:
        return []
    calls, tokens, money = (amount(totals[f"warmup_{name}"]) for name in ("calls", "tokens", "money"))
    own = f", {amount(sampled)} sampled" if sampled else ""
    return [
        f"warm-up: {calls} cloud calls, {tokens} cloud tokens, money {money}; {amount(learned)} tokens learned{own}"
    ]


def _failed(failures: float | None) -> str:
    """Where the cloud can fail, how often it did."""
    return "" if failures is None else f"{amount(failures)} failed, "


def time_sentence(found: Breakdown) -> str:
    """Say how long the mean round took, of which rounds it is the mean, and what stands outside it."""
    first, last = found.rounds[0], found.rounds[-1]
    which = f"mean of rounds {first} to {last}" if last > first else f"round {first} alone"
    which += ", warm-up included" if found.warm_up is None and first > 0 else ""
    crew = " or ".join(str(number) for number in found.workers)
    text = f"A round took {seconds(found.wall_s)} ({which}) on {crew} worker{'s' * (found.workers != (1,))}"
    text += f"; {found.evaluated} of {len(found.rounds)} held an evaluation"
    named = (("the warm-up", found.warm_up), ("the measurement before training", found.start))
    apart = [f"{what} (round {one.round}, {seconds(one.wall_s)})" for what, one in named if one is not None]
    return f"{text}. Not in the mean: {' and '.join(apart)}." if apart else f"{text}."


def time_rows(found: Breakdown) -> list[tuple[str, str, str, str, str]]:
    """Every part from the largest: name, wall-clock seconds, worker-seconds, share and meaning; at last the sum."""
    ranked = sorted(found.parts, key=lambda part: -part.share)
    rows = [
        (part.name, f"{part.wall_s:.3f}", f"{part.worker_s:.3f}", percent(part.share), MEANING.get(part.name, ""))
        for part in ranked
    ]
    sums = [sum(column) for column in zip(*((part.wall_s, part.worker_s) for part in ranked), strict=True)]
    return [*rows, ("all", f"{sums[0]:.3f}", f"{sums[1]:.3f}", percent(sum(part.share for part in ranked)), "")]


def time_table(found: Breakdown) -> str:
    """Lay the mean round out as plain text of at most 100 columns, with a bar for every part.

    Args:
        found: as `break_down` gives.
    """
    largest = max(part.share for part in found.parts) or 1.0
    bars = [bar(part.share / largest) for part in sorted(found.parts, key=lambda part: -part.share)]
    *rows, whole = time_rows(found)
    numbers: list[tuple[str, ...]] = [("part", "wall s", "worker-s", "share"), *(row[:4] for row in rows), whole[:4]]
    heading, rule, *lines, last = aligned(numbers)
    lines = [f"{line}  {bar:<{BAR}}  {row[4]}".rstrip() for line, bar, row in zip(lines, bars, rows, strict=True)]
    return "\n".join([wrapped(time_sentence(found)), "", heading, rule, *lines, rule, last])
