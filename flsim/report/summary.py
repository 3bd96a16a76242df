"""The summary of a run: every number that the report, the table and comparisons show, from rows alone."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from flsim.metrics.continual import accuracy_matrix, backward_transfer, forgetting
from flsim.metrics.rows import (
    ASKED,
    FLEET,
    LEARNERS,
    REFERENCES,
    STAGE,
    evaluation,
    evaluation_split,
    in_rounds,
    latest,
    of_fleet,
    training,
)
from flsim.metrics.users import paired_difference, per_user, summarise
from flsim.tasks.stream import Phase

# FOLDED flsim/report/summary.py
# What the report asks of a stream's phases: the order of their task groups, and where their last third begins.


def last_third(phase: Phase) -> int:
    """First round of the phase's last `ceil(rounds / 3)` rounds; 5 for a phase of rounds 1 to 6."""
    rounds = phase.last_round - phase.first_round + 1
    return phase.last_round - (-(-rounds // 3)) + 1


def ordered_tasks(phases: Sequence[Phase], found: Sequence[str]) -> list[str]:
    """Task groups in the order in which phases bring them, then the other `found` ones by name.

    Args:
        phases: the run's phases.
        found: task groups that were measured; the others are left out.
    """
    brought = dict.fromkeys(task for phase in phases for task in phase.tasks if task in found)
    return [*brought, *sorted(set(found) - set(brought))]


MEASURES = ("accuracy", "alone_accuracy", "cloud_grants")
"""What evaluation measures: with the cloud, without it, and how often it was asked."""


TOTALS = (
    *("cloud_calls", "cloud_refused", "cloud_failures", "cloud_tokens", "cloud_money", "bought_money"),
    *("uplink_bytes", "downlink_bytes", "seconds"),
)
"""Training rows that are summed over rounds and devices."""


WORST_USERS = 5


def summarise_run(rows: pd.DataFrame, phases: Sequence[Phase], *, tau: float | None = None) -> dict[str, Any]:
    """Summarise a run, whole or partial, into what `summary.json` holds.

    Args:
        rows: all rows of the run.
        phases: the stream's phases, in order; those not yet begun are left out.
        tau: the allowed share of prompts that may ask the cloud; None when the run has no budget.

    Returns:
        Plain dicts, lists, strings and finite numbers; None stands for what was not measured.
    """
    last_round = int(rows["round"].max())
    begun = [phase for phase in phases if phase.first_round <= last_round]
    tested = rows[rows["split"] == evaluation_split(rows)]
    tested = tested[tested["name"].isin(MEASURES)]
    return {
        "rounds": last_round,
        "devices": int(rows.loc[rows["device"] != FLEET, "device"].nunique()),
        "split": evaluation_split(rows),
        "tasks": ordered_tasks(phases, sorted(tested["task"].unique())),
        "tau": tau,
        "phases": [{**asdict(phase), "tasks": list(phase.tasks)} for phase in phases],
        "headline": _headline(rows),
        "at_end": _models_at(rows, first=0, last=last_round),
        "at_switches": [
            {
                "phase": phase.name,
                "round": phase.last_round,
                "models": _models_at(rows, first=phase.first_round, last=phase.last_round),
            }
            for phase in begun[:-1]
        ],
        "continual": {name: _continual(rows, begun, name) for name in ("accuracy", "alone_accuracy")},
        "usage": [_usage(rows, phase, tau) for phase in begun],
        "worst_users": _worst_users(rows),
        "totals": {name: _total(rows, name) for name in TOTALS},
        "fleet_budget": _fleet_budget(rows),
        "set_aside": _set_aside(rows),
        "server": _server(rows),
    }


def own_accuracy_name(rows: pd.DataFrame, model: str) -> str:
    """`alone_accuracy`, or `accuracy` for a model that was only measured so (the frozen model may never ask)."""
    return "accuracy" if evaluation(rows, model=model, name="alone_accuracy").empty else "alone_accuracy"


def evaluated_ends(rows: pd.DataFrame, phases: Sequence[Phase], name: str) -> list[tuple[Phase, int]]:
    """The last evaluated round of every phase that has one, for the global adapter.

    Args:
        rows: all rows of the run.
        phases: the phases to look at.
        name: such as `accuracy`.
    """
    measured = evaluation(rows, model="global", name=name)
    ends = [(phase, latest(measured, first=phase.first_round, last=phase.last_round)) for phase in phases]
    return [(phase, int(end["round"].iloc[0])) for phase, end in ends if not end.empty]


def _models_at(rows: pd.DataFrame, *, first: int, last: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Summaries by model and name: learners at their last evaluated round of the window, references at round 0."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for model in (*LEARNERS, *REFERENCES):
        for name in MEASURES:
            window_first = 0 if model in REFERENCES else first
            measured = latest(evaluation(rows, model=model, name=name), first=window_first, last=last)
            if measured["weight"].sum() > 0:
                summary = asdict(summarise(measured, higher_is_better=name != "cloud_grants"))
                found.setdefault(model, {})[name] = {"round": int(measured["round"].iloc[0]), **summary}
    return found


def _at_end(rows: pd.DataFrame, model: str, name: str) -> pd.Series:
    """Values by device at the model's last evaluated round."""
    return per_user(latest(evaluation(rows, model=model, name=name)))


def _headline(rows: pd.DataFrame) -> dict[str, Any]:
    """The two differences that answer whether learning and learning to ask paid off, paired user by user."""
    over_random = paired_difference(_at_end(rows, "global", "accuracy"), _at_end(rows, "random", "accuracy"))
    frozen = _at_end(rows, "frozen", own_accuracy_name(rows, "frozen"))
    over_frozen = paired_difference(_at_end(rows, "global", "alone_accuracy"), frozen)
    return {
        "accuracy_over_random": None if over_random is None else asdict(over_random),
        "alone_accuracy_over_frozen": None if over_frozen is None else asdict(over_frozen),
    }


def _continual(rows: pd.DataFrame, phases: Sequence[Phase], name: str) -> dict[str, Any]:
    """Accuracy matrix by phase end, forgetting at every phase end after the first, and backward transfer.

    The mean of forgetting is over the groups left behind, those that an earlier phase taught and this one does not;
    None where there are none.
    """
    measured = evaluation(rows, model="global", name=name)
    tasks = ordered_tasks(phases, sorted(measured["task"].unique()))
    ends = evaluated_ends(rows, phases, name)
    stages = [stage for _, stage in ends]
    learned = {task: stage for phase, stage in reversed(ends) for task in phase.tasks}
    matrix = accuracy_matrix(measured, stages, tasks=tasks)
    transfer = backward_transfer(matrix, learned) if stages else pd.Series(dtype=float)
    return {
        "stages": [{"phase": phase.name, "round": stage} for phase, stage in ends],
        "tasks": tasks,
        "matrix": [[None if pd.isna(cell) else float(cell) for cell in line] for line in matrix.to_numpy()],
        "forgetting": [_forgotten(matrix, ends[:count]) for count in range(2, len(ends) + 1)],
        "backward_transfer": {"mean": _mean(transfer), "by_task": _floats(transfer)},
    }


def _forgotten(matrix: pd.DataFrame, ends: Sequence[tuple[Phase, int]]) -> dict[str, Any]:
    """Forgetting at the last of `ends`, for all groups and as the mean over those left behind."""
    phase, stage = ends[-1]
    drops = forgetting(matrix.loc[[earlier for _, earlier in ends]])
    taught = {task for earlier, _ in ends[:-1] for task in earlier.tasks}
    left = [task for task in drops.index if task in taught and task not in phase.tasks]
    mean = _mean(drops.loc[left])
    return {"phase": phase.name, "round": stage, "left_behind": left, "mean": mean, "by_task": _floats(drops)}


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None


def _floats(values: pd.Series) -> dict[str, float]:
    return {str(key): float(value) for key, value in values.items()}


def _usage(rows: pd.DataFrame, phase: Phase, tau: float | None) -> dict[str, Any]:
    """The fleet's training cloud usage in one phase, whole and in its last third of rounds; None without rows."""
    usage = training(rows, name=ASKED)
    found: dict[str, Any] = {
        "phase": phase.name,
        "first_round": phase.first_round,
        "last_round": phase.last_round,
        "tau": tau,
    }
    for part, first in (("whole", phase.first_round), ("last_third", last_third(phase))):
        window = in_rounds(usage, first, phase.last_round)
        if not window["weight"].sum() > 0:
            found[part] = None
            continue
        above = None if tau is None else int((per_user(window) > tau).sum())
        found[part] = {**asdict(summarise(window, higher_is_better=False)), "users_above_tau": above}
    return found


def _worst_users(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The users with the lowest accuracy at the end, worst first, and what the references give them."""
    accuracy = _at_end(rows, "global", "accuracy")
    others = {
        "alone_accuracy": _floats(_at_end(rows, "global", "alone_accuracy")),
        "random": _floats(_at_end(rows, "random", "accuracy")),
        "frozen": _floats(_at_end(rows, "frozen", own_accuracy_name(rows, "frozen"))),
    }
    worst = accuracy.sort_values(kind="stable").head(WORST_USERS)
    users = []
    for device, value in _floats(worst).items():
        line: dict[str, Any] = {"device": device, "accuracy": value}
        line.update({name: values.get(device) for name, values in others.items()})
        line["over_random"] = None if line["random"] is None else line["accuracy"] - line["random"]
        users.append(line)
    return users


def _total(rows: pd.DataFrame, name: str) -> float | None:
    """Sum over rounds and devices; None when it was never measured."""
    found = training(rows, name=name)
    return None if found.empty else float(found["total"].sum())


def _fleet_budget(rows: pd.DataFrame) -> dict[str, Any] | None:
    """What the fleet's budget was charged so far, of its caps, and its price; None without a fleet budget."""
    last = latest(of_fleet(rows)).set_index("name")
    spent = {
        kind: {"spent": float(last["total"][f"spent_{kind}"]), "cap": float(last["weight"][f"spent_{kind}"])}
        for kind in ("calls", "tokens", "money")
        if f"spent_{kind}" in last.index
    }
    price = float(last["total"]["dual_variable"]) if "dual_variable" in last.index else None
    return None if price is None and not spent else {**spent, "price": price}


def _set_aside(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Updates that were set aside, by round and device, with the reason word that stands in `task`."""
    found = rows[rows["name"] == "set_aside"].sort_values(["round", "device"], kind="stable")
    return [
        {"round": int(number), "device": str(device), "reason": str(reason)}
        for number, device, reason in zip(found["round"], found["device"], found["task"], strict=True)
    ]


def _server(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What the server's stage reported, by round: its own values, and its effect on the users that it looked at."""
    own = rows[rows["split"] == STAGE]
    users = own[own["device"] != FLEET]
    lines = []
    for number, part in own[own["device"] == FLEET].groupby("round"):
        now = users[users["round"] == number]
        after, before = (per_user(now[now["model"] == model]) for model in ("distilled", "aggregated"))
        gain = paired_difference(after, before)
        values = dict(zip(part["name"], part["total"] / part["weight"], strict=True))
        lines.append({"round": int(str(number)), **values, "users": None if gain is None else asdict(gain)})
    return lines
