"""Summarise a run: from its rows alone to the `Summary` that report, table and figures are made of."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from flsim.charts.users import WORST_USERS
from flsim.diagnosis.finding import Finding
from flsim.metrics.calibration import expected_calibration_error, of_all
from flsim.metrics.continual import accuracy_matrix, backward_transfer, forgetting
from flsim.metrics.formulas import IMPRESSIONS, Spent, auc_over_users
from flsim.metrics.measures import MEASURES
from flsim.metrics.rows import (
    FLEET,
    LEARNERS,
    REFERENCES,
    STAGE,
    in_rounds,
    latest,
    picked,
)
from flsim.metrics.run_rows import RunRows, last_third
from flsim.metrics.users import paired_difference, per_user, summarise
from flsim.metrics.weighting import EXAMPLES, REQUESTS, TRAFFIC, UNIFORM, WEIGHTINGS
from flsim.report.summary import (
    Aucs,
    Charged,
    Course,
    Drop,
    FleetBudget,
    Headline,
    Models,
    PhaseEnd,
    PhaseUsage,
    Reliability,
    SetAside,
    StageRound,
    Summary,
    Switch,
    Tenth,
    Tested,
    TestedAuc,
    Transfer,
    Used,
    WorstUser,
)
from flsim.report.system_summary import SHOWN, classes_of_devices, measured_of
from flsim.tasks.stream import Phase

AT_END = ("accuracy", "alone_accuracy", "cloud_grants")
"""Measures that are summarised of every model."""


def ordered_tasks(phases: Sequence[Phase], found: Sequence[str]) -> list[str]:
    """Tasks in the order in which phases bring them, then the other `found` ones by name.

    Args:
        phases: the run's phases.
        found: tasks that were measured; the others are left out.
    """
    brought = dict.fromkeys(task for phase in phases for task in phase.tasks if task in found)
    return [*brought, *sorted(set(found) - set(brought))]


def summarise_run(
    rows: pd.DataFrame,
    phases: Sequence[Phase],
    *,
    name: str = "",
    tau: float | None = None,
    findings: tuple[Finding, ...] = (),
) -> Summary:
    """Summarise a run, whole or partial, into what `summary.json` holds.

    Args:
        rows: all rows of the run.
        phases: the stream's phases, in order; those not yet begun are left out.
        name: of the run.
        tau: the allowed share of prompts that may ask the cloud; None when the run has no budget.
        findings: of its diagnosis (`flsim.diagnosis.table.findings_of`).
    """
    return summary_from(RunRows.under(rows, phases, tau), name=name, findings=findings)


def summary_from(run: RunRows, *, name: str = "", findings: tuple[Finding, ...] = ()) -> Summary:
    """The same of rows that measures read, too: what several take is then taken once.

    Args:
        run: its rows, phases and tau, which is nan when the run has no budget.
        name: of the run.
        findings: of its diagnosis.
    """
    begun = [phase for phase in run.phases if phase.first_round <= run.last]
    tested = run.picked(AT_END, run.split)
    return Summary(
        run=name,
        rounds=run.last,
        devices=len(set(run.rows["device"].unique()) - {FLEET}),
        split=run.split,
        tasks=tuple(ordered_tasks(run.phases, sorted(tested["task"].unique()))),
        tau=run.budget,
        phases=tuple(run.phases),
        headline=_headline(run),
        at_end=_models_at(run, first=0, last=run.last),
        aucs=_aucs(run),
        reliability=_reliability(run),
        at_switches=tuple(
            Switch(p.name, p.last_round, _models_at(run, first=p.first_round, last=p.last_round)) for p in begun[:-1]
        ),
        continual={name: _course(run, begun, name) for name in ("accuracy", "alone_accuracy")},
        usage=tuple(_usage(run, phase) for phase in begun),
        worst_users=_worst_users(run),
        totals=_totals(run),
        fleet_budget=_fleet_budget(run),
        set_aside=_set_aside(run),
        stage=_stage(run),
        measured=measured_of(run),
        classes=classes_of_devices(run),
        findings=findings,
    )


def evaluated_ends(run: RunRows, phases: Sequence[Phase], name: str) -> list[tuple[Phase, int]]:
    """The last evaluated round of every phase that has one, for the global adapter.

    Args:
        run: its rows.
        phases: the phases to look at.
        name: such as `accuracy`.
    """
    rounds = run.measured(name)["round"].unique()
    within = [(phase, rounds[(rounds >= phase.first_round) & (rounds <= phase.last_round)]) for phase in phases]
    return [(phase, int(found.max())) for phase, found in within if len(found)]


def _models_at(run: RunRows, *, first: int, last: int) -> Models:
    """Summaries by model and name: learners at their last evaluated round of the window, references at round 0."""
    found: Models = {}
    for model in (*LEARNERS, *REFERENCES):
        for name in AT_END:
            window_first = 0 if model in REFERENCES else first
            measured = latest(run.measured(name, model), first=window_first, last=last)
            if measured["weight"].sum() > 0:
                users = summarise(measured, MEASURES[name].higher_is_better, **_weights(run))
                found.setdefault(model, {})[name] = Tested(**vars(users), round=int(measured["round"].iloc[0]))
    return found


def _weights(run: RunRows) -> dict[str, pd.Series | None]:
    """What users weigh beside their examples."""
    return {"traffic": run.user_weights(TRAFFIC), "requests": run.user_weights(REQUESTS)}


def _aucs(run: RunRows) -> Aucs:
    """User-level weighted AUCs at the end, of the models that have one."""
    found: Aucs = {}
    for model in (*LEARNERS, *REFERENCES):
        for name in IMPRESSIONS:
            by = {weighting: auc_over_users(run, name, weighting, model) for weighting in WEIGHTINGS.values()}
            main = by[EXAMPLES]
            if main is not None and main.users + main.one_class:
                means = {one: None if own is None or np.isnan(own.value) else own.value for one, own in by.items()}
                round_ = int(run.at_end(name, model)["round"].iloc[0])
                found.setdefault(model, {})[name] = TestedAuc(
                    means[EXAMPLES], means[TRAFFIC], means[REQUESTS], means[UNIFORM],
                    main.users, main.one_class, main.dropped, round_,
                )  # fmt: skip
    return found


def _reliability(run: RunRows) -> Reliability | None:
    """Of all users' prompts together."""
    sums = of_all(run.claims)
    prompts = float(sums["prompts"].sum())
    if not prompts:
        return None
    error = expected_calibration_error(((sums["claimed"] - sums["wrong"]) / prompts).to_numpy(dtype=float))
    tenths = tuple(Tenth(int(str(tenth)), *map(float, line)) for tenth, line in sums.iterrows())
    claimed, wrong = (float(sums[name].sum()) / prompts for name in ("claimed", "wrong"))
    return Reliability(error, claimed, wrong, prompts, tenths)


def _headline(run: RunRows) -> Headline:
    return Headline(
        paired_difference(run.accuracy, run.value_at_end("accuracy", "random")),
        paired_difference(run.value_at_end("alone_accuracy"), run.value_at_end("alone_accuracy", "frozen")),
    )


def _course(run: RunRows, phases: Sequence[Phase], name: str) -> Course:
    """Accuracy matrix by phase end, forgetting at every phase end after the first, and backward transfer."""
    measured = run.measured(name)
    tasks = ordered_tasks(phases, sorted(measured["task"].unique()))
    ends = evaluated_ends(run, phases, name)
    stages = [stage for _, stage in ends]
    learned = {task: stage for phase, stage in reversed(ends) for task in phase.tasks}
    matrix = accuracy_matrix(measured, stages, tasks=tasks)
    transfer = backward_transfer(matrix, learned) if stages else pd.Series(dtype=float)
    return Course(
        stages=tuple(PhaseEnd(phase.name, stage) for phase, stage in ends),
        tasks=tuple(tasks),
        matrix=tuple(tuple(None if pd.isna(cell) else float(cell) for cell in line) for line in matrix.to_numpy()),
        forgetting=tuple(_forgotten(matrix, ends[:count]) for count in range(2, len(ends) + 1)),
        backward_transfer=Transfer(_mean(transfer), _floats(transfer)),
    )


def _forgotten(matrix: pd.DataFrame, ends: Sequence[tuple[Phase, int]]) -> Drop:
    """Forgetting at the last of `ends`, for all tasks and as the mean over those left behind."""
    phase, stage = ends[-1]
    drops = forgetting(matrix.loc[[earlier for _, earlier in ends]])
    taught = {task for earlier, _ in ends[:-1] for task in earlier.tasks}
    left = [task for task in drops.index if task in taught and task not in phase.tasks]
    return Drop(phase.name, stage, tuple(left), _mean(drops.loc[left]), _floats(drops))


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None


def _floats(values: pd.Series) -> dict[str, float]:
    return {str(key): float(value) for key, value in values.items()}


def _usage(run: RunRows, phase: Phase) -> PhaseUsage:
    """The fleet's training usage in one phase, whole and in its last third of rounds."""
    usage, tau = run.usage, run.budget
    parts: list[Used | None] = []
    for first in (phase.first_round, last_third(phase)):
        window = in_rounds(usage, first, phase.last_round)
        if window["weight"].sum() > 0:
            above = None if tau is None else int((per_user(window) > tau).sum())
            users = summarise(window, higher_is_better=False, **_weights(run))
            parts.append(Used(**vars(users), users_above_tau=above))
        else:
            parts.append(None)
    return PhaseUsage(phase.name, phase.first_round, phase.last_round, tau, *parts)


def _worst_users(run: RunRows) -> tuple[WorstUser, ...]:
    """The users with the lowest accuracy at the end, worst first, and what the references give them."""
    alone = _floats(run.value_at_end("alone_accuracy"))
    random = _floats(run.value_at_end("accuracy", "random"))
    frozen = _floats(run.value_at_end("alone_accuracy", "frozen"))
    worst = run.accuracy.sort_values(kind="stable").head(WORST_USERS)
    return tuple(
        WorstUser(
            device, value, alone.get(device), random.get(device), frozen.get(device),
            value - random[device] if device in random else None,
        )
        for device, value in _floats(worst).items()
    )  # fmt: skip


def _totals(run: RunRows) -> dict[str, float | None]:
    """The measures that are sums; None for what was never measured."""
    sums = {n: one.of(run) for n, one in MEASURES.items() if isinstance(one.of, Spent) and one.table not in SHOWN}
    return {name: None if np.isnan(value) else value for name, value in sums.items()}


def _fleet_budget(run: RunRows) -> FleetBudget | None:
    """What the fleet's budget was charged so far, of its caps, and its price; None without a fleet budget."""
    last = latest(run.whole).set_index("name")
    calls, tokens, money = (
        Charged(float(last["total"][name]), float(last["weight"][name])) if name in last.index else None
        for name in ("spent_calls", "spent_tokens", "spent_money")
    )
    price = float(last["total"]["dual_variable"]) if "dual_variable" in last.index else None
    found = FleetBudget(calls, tokens, money, price)
    return None if found == FleetBudget(None, None, None, None) else found


def _set_aside(run: RunRows) -> tuple[SetAside, ...]:
    """Updates that were set aside, by round and device, with the reason word that stands in `task`."""
    found = run.picked("set_aside").sort_values(["round", "device"], kind="stable")
    return tuple(
        SetAside(int(number), str(device), str(reason))
        for number, device, reason in zip(found["round"], found["device"], found["task"], strict=True)
    )


def _stage(run: RunRows) -> tuple[StageRound, ...]:
    """What the stage after aggregation reported, by round: its own values, and its effect on users."""
    own = picked(run.rows, split=STAGE)
    users = own[own["device"] != FLEET]
    lines = []
    for number, part in own[own["device"] == FLEET].groupby("round"):
        now = users[users["round"] == number]
        after, before = (per_user(now[now["model"] == model]) for model in ("distilled", "aggregated"))
        values = dict(zip(part["name"], part["total"] / part["weight"], strict=True))
        lines.append(StageRound(int(str(number)), values, paired_difference(after, before)))
    return tuple(lines)
