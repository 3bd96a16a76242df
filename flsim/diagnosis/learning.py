"""Findings on what the mean user learns, keeps and gets, and what a merge takes; of them the three failure signatures.

The signatures are those of a survey of federated continual learning: a gap between local and global models, forgetting
in local steps, and communication or slow convergence. All means are over users, with their intervals.
"""

import numpy as np
import pandas as pd

from flsim.diagnosis.finding import ABOVE, BELOW, NOTE, WARNING, Finding
from flsim.diagnosis.limits import limit
from flsim.diagnosis.seen import Seen, between, interval, points, spread
from flsim.metrics.continual import accuracy_matrix, continual, user_matrices
from flsim.metrics.formulas import AtEnd
from flsim.metrics.users import per_user
from flsim.tasks.stream import Phase
from flsim.text import percent


def local_global_gap(seen: Seen) -> list[Finding]:
    """What merging takes of what a device has just learned.

    Updates that hardly point the same way are named beside it, and are no finding by themselves: those of the demo,
    which loses nothing by merging, have a mean cosine of 0.02.
    """
    lost = seen.run.lost_by_aggregation().dropna()
    found = interval(lost)
    if not seen.is_tested_enough or found is None or found.low <= 0 or found.mean <= limit("gap"):
        return []
    worst = lost.sort_values(ascending=False, kind="stable")
    cosine = between(seen.fleet("update_cosine"), *seen.late).mean()
    apart = f" Updates of two devices have a mean cosine of {cosine:.2f}." if cosine < limit("cosine") else ""
    return [
        Finding(
            WARNING,
            "local_global_gap",
            f"Merging takes {points(found.mean)} of accuracy alone from the mean user, on the tasks just learned "
            f"({spread(found)}, {len(lost)} users), most from {worst.index[0]} ({points(worst.iloc[0])}).{apart}",
            *(found.mean, limit("gap"), ABOVE),
            (
                seen.tests("own", "alone_accuracy", first=1),
                seen.tests("global", "alone_accuracy", first=1),
                *([seen.whole("update_cosine", first=seen.late[0])] if apart else []),
            ),
            "Take fewer local steps (client.steps), keep a factor on the device "
            "(strategy.path=strategies.fedsa_lora:FedSaLora), or average products "
            "(strategy.path=strategies.flex_lora:FlexLora).",
            tuple(map(str, worst.index[:5])),
        )
    ]


def _past(seen: Seen) -> list[tuple[Phase, list[str]]]:
    """The phases that left tasks behind, with these."""
    found = []
    for place, phase in enumerate(seen.begun):
        before = {task for earlier in seen.begun[:place] for task in earlier.tasks}
        if left := sorted(before - set(phase.tasks)):
            found.append((phase, left))
    return found


def forgetting_in_local_steps(seen: Seen) -> list[Finding]:
    """A device's own model on past tasks, minus the merged one when it was last tested before."""
    own, merged = (seen.run.tested("alone_accuracy", model) for model in ("own", "global"))
    tested = sorted(set(merged["round"]))
    parts: list[pd.Series] = []
    for phase, left in _past(seen):
        for round_ in sorted(set(own["round"])):
            before = [one for one in tested if one < round_]
            if phase.first_round <= round_ <= phase.last_round and before:
                now = own[(own["round"] == round_) & own["task"].isin(left)]
                then = merged[(merged["round"] == before[-1]) & merged["task"].isin(left)]
                parts.append((per_user(now) - per_user(then)).dropna())
    if not parts:
        return []
    change = pd.concat(parts).groupby(level=0).mean()
    found = interval(change)
    if not seen.is_tested_enough or found is None or found.high >= 0 or found.mean >= -limit("local_forgetting"):
        return []
    worst = change.sort_values(kind="stable")
    phases = ", ".join(dict.fromkeys(phase.name for phase, _ in _past(seen)))
    return [
        Finding(
            WARNING,
            "forgetting_in_local_steps",
            f"Local steps cost the mean user {points(-found.mean)} of accuracy alone on past tasks in phases {phases} "
            f"({spread(found)}, {len(change)} users), against the last test of the merged model before; most of all "
            f"{worst.index[0]} ({points(-worst.iloc[0])}).",
            *(found.mean, -limit("local_forgetting"), BELOW),
            (seen.tests("own", "alone_accuracy", first=1), seen.tests("global", "alone_accuracy")),
            "Keep past questions (client.replay=128), hold updates to their start (client.kl=0.05), or take fewer "
            "local steps (client.steps).",
            tuple(map(str, worst.index[:5])),
        )
    ]


def forgetting_over_time(seen: Seen) -> list[Finding]:
    """What share of a task the mean user loses by the end of the next phase, of accuracy alone."""
    rows = seen.run.tested("alone_accuracy")
    ends = [phase.last_round for phase in seen.begun]
    falls: dict[str, float] = {}
    for device, matrix in user_matrices(rows, ends).items():
        r = matrix.to_numpy(dtype=float)  # (S, J)
        pairs = [
            r[i, j] - r[i + 1, j]
            for i, (phase, after) in enumerate(zip(seen.begun, seen.begun[1:], strict=False))
            for j, task in enumerate(matrix.columns)
            if task in phase.tasks and task not in after.tasks
        ]
        falls[device] = float(np.mean(pairs)) if pairs else float("nan")
    found = interval(pd.Series(falls, dtype=float))
    if found is None or found.low <= 0 or not seen.is_tested_enough:
        return []
    matrix = accuracy_matrix(rows, ends)
    before = pd.Series(np.nan, index=matrix.columns)
    share = continual(matrix, [phase.tasks for phase in seen.begun], before).forgetting_relative
    if not share > limit("forgotten"):
        return []
    return [
        Finding(
            WARNING,
            "forgetting_over_time",
            f"By the end of the next phase the mean user has lost {percent(share)} of a task's accuracy alone "
            f"({points(found.mean)}, {spread(found)}, {len(falls)} users).",
            *(share, limit("forgotten"), ABOVE),
            (seen.tests("global", "alone_accuracy", first=1),),
            "Keep past questions (client.replay=128 client.replay_share=0.5), hold updates to their start "
            "(client.kl=0.05), or make phases shorter (stream.phase_rounds).",
        )
    ]


def slow_convergence(seen: Seen) -> list[Finding]:
    """Whether the latest phase hardly gains any more, though the cloud is far better."""
    if not seen.begun or not seen.is_tested_enough:
        return []
    phase = seen.begun[-1]
    rows = seen.run.tested("accuracy")
    rows = rows[rows["task"].isin(phase.tasks)]
    cloud = seen.run.tested("accuracy", "cloud")
    sums = rows.groupby(["device", "round"])[["total", "weight"]].sum()
    curve = (sums["total"] / sums["weight"].where(sums["weight"] > 0)).unstack("round")  # a line per user
    measured = sorted(int(one) for one in set(rows["round"]))
    before = [one for one in measured if one < phase.first_round]
    rounds = [*before[-1:], *(one for one in measured if phase.first_round <= one <= phase.last_round)]
    if len(rounds) < limit("tests"):
        return []
    curve = curve[rounds].dropna()
    best = per_user(cloud[cloud["task"].isin(phase.tasks)]).reindex(curve.index)
    part = -(-len(rounds) // 3)
    gap, late = interval(best - curve[rounds[-1]]), interval(_slopes(curve[rounds[-part:]]))
    if gap is None or late is None or gap.low <= 0 or gap.mean <= limit("below_cloud"):
        return []
    start, end, cloud_mean = curve[rounds[0]].mean(), curve[rounds[-1]].mean(), best.mean()
    needed = (cloud_mean - start) / (rounds[-1] - rounds[0])
    early = float(_slopes(curve[rounds[:part]]).mean())
    reference = max(early, needed)
    if reference <= 0 or late.high >= limit("slope") * reference:
        return []
    closed = (end - start) / (cloud_mean - start) if cloud_mean > start else 1.0
    stalls = closed < limit("closed")
    return [
        Finding(
            WARNING if stalls else NOTE,
            "slow_convergence",
            f"In rounds {rounds[-part]} to {rounds[-1]} of phase {phase.name} the mean user gains "
            f"{100 * late.mean:.2f} points a round (at most {100 * late.high:.2f}), and is {points(gap.mean)} below "
            f"the cloud; it gained {100 * early:.2f} in the first third, and {100 * needed:.2f} would have reached the "
            f"cloud. The phase closed {percent(max(0.0, closed), digits=0)} of the gap.",
            *(late.mean / reference, limit("slope"), BELOW),
            (seen.tests("global", "accuracy", first=rounds[0]), seen.tests("cloud", "accuracy", last=0)),
            "Raise the learning rate (client.lr) or the rank (model.rank), let runs be longer (rounds), or practise "
            "what the cloud answers (client.imitate).",
        )
    ]


def _slopes(curve: pd.DataFrame) -> pd.Series:
    """Of every user's line over rounds, the least-squares slope."""
    at = np.asarray(curve.columns, dtype=float)
    at = at - at.mean()
    return pd.Series(curve.to_numpy(dtype=float) @ at / (at @ at), index=curve.index)


def worst_off(seen: Seen) -> list[Finding]:
    """Users far below the mean, and users who lost by the run; neither counts what tests of few prompts scatter."""
    accuracy, items = seen.run.accuracy, seen.run.tested_items
    found = []
    if len(accuracy) >= limit("percentile_users"):
        seen_variance = float(accuracy.var())
        noise = float((accuracy * (1 - accuracy) / items.reindex(accuracy.index)).mean())
        real = np.sqrt(max(0.0, 1 - noise / seen_variance)) if seen_variance > 0 else 0.0
        low = float((np.quantile(accuracy.to_numpy(dtype=float), 0.1) - accuracy.mean()) * real)
        if low < -limit("tenth"):
            worst = accuracy.sort_values(kind="stable")
            found.append(
                Finding(
                    WARNING,
                    "worst_off",
                    f"The worst tenth of the users lies {points(-low)} below the mean of {percent(accuracy.mean())}, "
                    f"beyond what {items.mean():.0f} test prompts a user scatter; worst is {worst.index[0]} "
                    f"({percent(worst.iloc[0])}).",
                    *(low, -limit("tenth"), BELOW),
                    (seen.tests("global", "accuracy"),),
                    "Let devices keep a part for themselves (strategy.path=strategies.fedsa_lora:FedSaLora), or weigh "
                    "weak users more (strategy.weighter.path=strategies.parts.weighters:QFair).",
                    tuple(map(str, worst.index[:5])),
                )
            )
    return [*found, *_harmed(seen)]


def _harmed(seen: Seen) -> list[Finding]:
    """Users clearly less accurate than with the model that the run began with, asking at random."""
    accuracy, before = seen.run.accuracy, AtEnd("accuracy", "random")(seen.run)
    items = seen.run.tested_items.reindex(accuracy.index)
    both = pd.DataFrame({"now": accuracy, "before": before, "items": items}).dropna()
    if len(both) < limit("users"):
        return []
    counts = both[["now", "before"]].mul(both["items"], axis=0)
    smooth = counts.add(1).div(both["items"] + 2, axis=0)  # else a user with no right answer at all would be certain
    noise = (smooth * (1 - smooth)).sum(axis=1) / both["items"]
    loss = both["before"] - both["now"]
    harmed = loss[(loss > 0) & (loss > limit("clearly") * np.sqrt(noise))].sort_values(ascending=False, kind="stable")
    share = len(harmed) / len(both)
    if share <= limit("harmed") or len(harmed) < limit("harmed_users"):
        return []
    return [
        Finding(
            WARNING,
            "worst_off",
            f"{len(harmed)} of {len(both)} users are clearly less accurate than with the model that the run began "
            f"with, asking at random; {harmed.index[0]} has lost most ({points(harmed.iloc[0])}).",
            *(share, limit("harmed"), ABOVE),
            (seen.tests("global", "accuracy"), seen.tests("random", "accuracy", last=0)),
            "Let devices keep a part for themselves (strategy.path=strategies.fedsa_lora:FedSaLora), or take shorter "
            "steps (client.lr, client.steps).",
            tuple(map(str, harmed.index[:5])),
        )
    ]


def cannot_tell(seen: Seen) -> list[Finding]:
    """Whether the headline difference could be chance: who the users are decides it."""
    run = seen.run
    pairs = (
        (run.accuracy, AtEnd("accuracy", "random")(run), "accuracy", "random", "asking at random"),
        (
            *(AtEnd("alone_accuracy")(run), AtEnd("alone_accuracy", "frozen")(run)),
            *("alone_accuracy", "frozen", "asking nobody"),
        ),
    )
    for now, before, name, model, how in pairs:
        gaps = (now - before).dropna() if len(before) else pd.Series(dtype=float)
        if gaps.empty:
            continue
        found = interval(gaps)
        if found is not None and found.excludes_zero:
            return []
        why = f"only {len(gaps)} users are tested" if found is None else f"{spread(found)}, {len(gaps)} users"
        against = (float(len(gaps)), limit("users")) if found is None else (found.low, 0.0)
        return [
            Finding(
                NOTE,
                "cannot_tell",
                f"Whether the run beats the model that it began with, {how}, cannot be told: the mean user differs by "
                f"{100 * gaps.mean():+.1f} points ({why}).",
                *(*against, BELOW),
                (seen.tests("global", name), seen.tests(model, "accuracy", "alone_accuracy", last=0)),
                "Run more seeds (seed=1, then flsim compare), or test more users and prompts (evaluation.devices, "
                "evaluation.prompts_per_task).",
            )
        ]
    return []
