"""Findings on how a budget is kept: usage against tau, requests that caps refuse, a price that lies at its bound."""

import pandas as pd

from flsim.diagnosis.finding import ABOVE, BELOW, NOTE, WARNING, Finding, Query, listed, rounds_text
from flsim.diagnosis.limits import limit
from flsim.diagnosis.seen import Seen, between, in_phase, interval, spread
from flsim.metrics.rows import ASKED, WEIGHED, WHOLE
from flsim.metrics.run_rows import last_third
from flsim.metrics.users import per_user
from flsim.tasks.stream import Phase
from flsim.text import amount, percent


def budget(seen: Seen) -> list[Finding]:
    """Usage far from tau in the last third of a phase, and caps that refuse much of what is asked."""
    return [*_usage(seen), *_refused(seen)]


def _usage(seen: Seen) -> list[Finding]:
    tau, usage = seen.facts.tau, seen.run.usage
    if tau is None or usage.empty or not (seen.facts.learns_to_ask or (usage["name"] == "cloud_purchases").any()):
        return []
    is_weighed = bool((usage["name"] == WEIGHED).any())
    names = (WEIGHED,) if is_weighed else ASKED
    asks = "takes {} of what asking everything would take" if is_weighed else "asks on {} of its responses"
    over: list[tuple[float, Phase, str]] = []
    under: list[tuple[float, Phase, str]] = []
    for phase in seen.begun:
        found = interval(per_user(in_phase(usage, phase)) - tau)
        if found is None or last_third(phase) > seen.last or _length(phase) < limit("settled"):
            continue
        mean, text = tau + found.mean, spread(found)
        if found.low > 0 and found.mean > limit("over_tau"):
            over.append((mean, phase, text))
        elif found.high < 0 and limit("asks") * tau < mean < limit("under_tau") * tau:
            under.append((mean, phase, text))
    findings = []
    if over:
        mean, phase, text = max(over, key=lambda one: one[0])
        findings.append(
            Finding(
                WARNING,
                "budget",
                f"Usage does not settle at tau={tau:g}: in the last third of phase {phase.name} (rounds "
                f"{last_third(phase)} to {min(phase.last_round, seen.last)}) the mean device "
                f"{asks.format(percent(mean))} (difference to tau: {text}){_more(over)}.",
                *(mean - tau, limit("over_tau"), ABOVE),
                (seen.trained(*names, first=last_third(phase), last=phase.last_round),),
                "Move lambda faster (client.dual_lr, client.dual_solve=1), with policy=token hold the request back by "
                "it (client.dual_bias=10), or set a cap (budget.calls_per_round).",
            )
        )
    if under:
        mean, phase, text = min(under, key=lambda one: one[0])
        findings.append(
            Finding(
                NOTE,
                "budget",
                f"The budget is not used: in the last third of phase {phase.name} the mean device "
                f"{asks.format(percent(mean))}, of tau={tau:g} (difference: {text}){_more(under)}.",
                *(mean / tau, limit("under_tau"), BELOW),
                (seen.trained(*names, first=last_third(phase), last=phase.last_round),),
                "If the cloud would help (compare accuracy of the models cloud and global), let lambda fall faster "
                "(client.dual_lr), explore the request (client.explore=0.5), or lower budget.tau.",
            )
        )
    return findings


def _length(phase: Phase) -> int:
    return phase.last_round - phase.first_round + 1


def _more(found: list[tuple[float, Phase, str]]) -> str:
    return f", and likewise in {len(found) - 1} more of the phases" if len(found) > 1 else ""


def _refused(seen: Seen) -> list[Finding]:
    first, last = seen.late
    sums = {}
    for name in ("cloud_refused", "cloud_calls"):
        rows = seen.run.trained(name)
        sums[name] = rows[rows["round"].between(first, last)].groupby("device")["total"].sum()
    refused, calls = sums["cloud_refused"], sums["cloud_calls"]
    asked = float(refused.sum() + calls.sum())
    if asked < limit("requests") or refused.sum() / asked <= limit("refused"):
        return []
    share, worst = float(refused.sum()) / asked, refused[refused > 0].sort_values(ascending=False, kind="stable")
    return [
        Finding(
            WARNING,
            "budget",
            f"Caps refuse {percent(share)} of the requests of {rounds_text(first, last)} ({amount(refused.sum())} of "
            f"{amount(asked)}, on {len(worst)} devices), most on {listed([str(name) for name in worst.index])}: what a "
            f"policy learns of asking is then no longer what asking brings.",
            *(share, limit("refused"), ABOVE),
            (seen.trained("cloud_refused", "cloud_calls", first=first, last=last),),
            "Bring caps and tau together: lower budget.tau, or raise the caps (budget.calls_per_round, "
            "budget.calls_total, budget.tokens_total, budget.money_total, budget.bytes_per_round, "
            "budget.joules_per_round, budget.seconds_per_question, budget.fleet).",
            tuple(map(str, worst.index[:5])),
        )
    ]


def dual_stuck(seen: Seen) -> list[Finding]:
    """A lambda that lies at 0 or at its maximum for half a phase: it steers nothing there."""
    highest = seen.facts.highest_price
    if highest is None or not seen.facts.learns_to_ask:
        return []
    fleet = seen.fleet("dual_variable")
    of_fleet = len(fleet) > 0
    price = pd.concat({"the fleet": fleet}, names=["device"]) if of_fleet else seen.of_devices("dual_variable")
    usage = _usage_by_round(seen)
    top, bottom = dict[str, Phase](), dict[str, Phase]()
    for phase in seen.begun:
        within = between(price, phase.first_round, phase.last_round)
        counts = within.groupby("device").size()
        enough = counts >= limit("rounds")
        for flags, found in ((within >= highest, top), (within <= 0, bottom)):
            held = flags.groupby("device").mean()
            for device in held[(held >= limit("at_bound")) & enough].index:
                found.setdefault(str(device), phase)
    over = {
        device: phase
        for device, phase in top.items()
        if _mean(between(usage, phase.first_round, phase.last_round), None if of_fleet else device)
        > (seen.facts.tau or 0.0)
    }
    query = (
        Query(("dual_variable",), WHOLE, WHOLE, 1, seen.last)
        if of_fleet
        else seen.trained("dual_variable", "cloud_requests")
    )
    devices = max(1, price.index.get_level_values("device").nunique())
    findings = []
    if over:
        share = len(over) / devices
        findings.append(
            Finding(
                WARNING if share >= limit("fleet") else NOTE,
                "dual_stuck",
                f"Lambda lies at its maximum of {highest:g} for half a phase or longer while usage is above tau, so "
                f"nothing limits asking: on {len(over)} of {devices}, {listed(list(over))}, first in phase "
                f"{next(iter(over.values())).name}.",
                *(highest, highest, ABOVE),
                (query,),
                "Let lambda go higher (client.dual_max, budget.fleet.price_max), hold the request back by it "
                "(client.dual_bias=10), or ask less of it (budget.tau).",
                tuple(list(over)[:5]),
            )
        )
    if bottom:
        findings.append(
            Finding(
                NOTE,
                "dual_stuck",
                f"Lambda lies at 0 for half a phase or longer, so asking is free and still below tau: on {len(bottom)} "
                f"of {devices}, {listed(list(bottom))}, first in phase {next(iter(bottom.values())).name}.",
                *(0.0, 0.0, BELOW),
                (query,),
                "The budget does not bind there: lower budget.tau, or see whether the cloud is any better than these "
                "devices (accuracy of the model cloud).",
                tuple(list(bottom)[:5]),
            )
        )
    return findings


def _usage_by_round(seen: Seen) -> pd.Series:
    """Usage by device and round, with names on both levels."""
    usage = seen.run.usage_by_round()
    return usage if len(usage) else usage.reindex(pd.MultiIndex.from_arrays([[], []], names=["device", "round"]))


def _mean(usage: pd.Series, device: str | None) -> float:
    """Of a device, or of all; 0 where nothing was measured."""
    own = usage if device is None else usage[usage.index.get_level_values("device") == device]
    return float(own.mean()) if len(own) else 0.0
