"""Findings on devices as systems: transfers, stragglers, stale replies, who took part, and who had no charge left."""

import numpy as np
import pandas as pd

from flsim.diagnosis.finding import ABOVE, BELOW, NOTE, WARNING, Finding, Query, listed, rounds_text
from flsim.diagnosis.limits import limit
from flsim.diagnosis.seen import Seen, interval, points
from flsim.metrics.formulas import AtEnd
from flsim.metrics.rows import USER
from flsim.text import data_size, percent


def communication_bound(seen: Seen) -> list[Finding]:
    """Rounds that go into transfers, with what they bring for each point gained."""
    link, whole = (seen.by_round(name)["total"] for name in ("link_seconds", "round_seconds"))
    if len(link) < limit("rounds") or not whole.sum() > 0:
        return []
    share = float(link.sum() / whole.sum())
    if share <= limit("link"):
        return []
    sent = sum(float(seen.run.trained(name)["total"].sum()) for name in ("uplink_bytes", "downlink_bytes"))
    gain = (AtEnd("alone_accuracy")(seen.run) - AtEnd("alone_accuracy", "frozen")(seen.run)).mean()
    price = f", {data_size(sent / (100 * gain))} for each point gained alone" if gain > 0 else ""
    return [
        Finding(
            WARNING,
            "communication_bound",
            f"Devices spend {percent(share)} of their rounds on transfers ({data_size(sent)} in all{price}).",
            *(share, limit("link"), ABOVE),
            (seen.trained("link_seconds", "round_seconds", "uplink_bytes", "downlink_bytes"),),
            "Send less (model.rank, strategy.path=strategies.ffa_lora:FfaLora), or make rounds longer "
            "(client.steps, with fewer rounds).",
        )
    ]


def stragglers(seen: Seen) -> list[Finding]:
    """Rounds that wait for one device, and work that nobody aggregates."""
    return [*_waits(seen), *_waste(seen)]


def _waits(seen: Seen) -> list[Finding]:
    durations = seen.of_devices("round_seconds")
    by_round = durations.groupby("round")
    ratios = (by_round.max() / by_round.median())[by_round.size() > limit("straggler")]
    slow = ratios[ratios > limit("straggler")]
    if not seen.facts.waits_for_all or len(ratios) < limit("rounds") or 2 * len(slow) <= len(ratios):
        return []
    longest = durations[durations.index.get_level_values("round").isin(slow.index)]
    last = longest.groupby("round").idxmax().map(lambda place: str(place[0])).value_counts()
    return [
        Finding(
            WARNING,
            "stragglers",
            f"In {len(slow)} of {len(ratios)} rounds the slowest device took over {limit('straggler'):g} times the "
            f"median ({float(ratios.max()):.1f} times in round {ratios.idxmax()}), and all waited for it; most often "
            f"for {last.index[0]}.",
            *(float(ratios.median()), limit("straggler"), ABOVE),
            (seen.trained("round_seconds"),),
            "End rounds without the last (system.end.kind=first, deadline or buffered), or give slow classes a smaller "
            "rank (fleet.ranks).",
            tuple(map(str, last.index[:5])),
        )
    ]


def _waste(seen: Seen) -> list[Finding]:
    wasted = seen.whole("wasted_joules")
    sums = wasted.of(seen.rows)[["total", "weight"]].sum()
    share = float(sums["total"] / sums["weight"]) if sums["weight"] > 0 else 0.0
    if share <= limit("waste"):
        return []
    return [
        Finding(
            WARNING,
            "stragglers",
            f"{percent(share)} of all joules went into work that was not aggregated.",
            *(share, limit("waste"), ABOVE),
            (wasted,),
            "Invite fewer in excess (system.end.over), wait longer (system.end.deadline_s), or let late updates count "
            "(system.end.kind=buffered).",
        )
    ]


def stale(seen: Seen) -> list[Finding]:
    """Replies that come as late as they may, and those that are dropped."""
    rows, sums = seen.run.trained("staleness"), seen.whole("dropped").of(seen.rows)[["total", "weight"]].sum()
    if len(rows) < limit("requests"):
        return []
    findings = []
    versions = rows["total"] / rows["weight"].where(rows["weight"] > 0)
    high = float(np.nanquantile(versions, limit("stale")))
    most = seen.facts.max_staleness
    fewer = "Let fewer devices work at a time (system.end.in_flight), or aggregate more of them at once (fleet.cohort)"
    if most is not None and high >= most:
        findings.append(
            Finding(
                WARNING,
                "stale",
                f"The {percent(limit('stale'), digits=0)} quantile of staleness is {high:.3g} versions, and the "
                f"limit is {most}.",
                *(high, float(most), ABOVE),
                (seen.trained("staleness"),),
                f"{fewer}.",
            )
        )
    share = float(sums["total"] / sums["weight"]) if sums["weight"] > 0 else 0.0
    if share > limit("dropped"):
        findings.append(
            Finding(
                WARNING,
                "stale",
                f"{percent(share)} of the replies were too stale to count and were dropped.",
                *(share, limit("dropped"), ABOVE),
                (seen.whole("dropped"),),
                f"{fewer}, or keep older replies (system.end.max_staleness).",
            )
        )
    return findings


def participation_bias(seen: Seen) -> list[Finding]:
    """Few devices that do most of the work, and classes of devices that are served unequally."""
    return [*_busiest(seen), *_classes(seen)]


def _updates(seen: Seen) -> pd.Series:
    """By device, how many of its updates counted; 0 for a device that is known of and never came."""
    rows = seen.run.trained("aggregation_share")
    rows = seen.run.trained("uplink_bytes") if rows.empty else rows[rows["total"] > 0]
    return rows.groupby("device")["round"].nunique()


def _busiest(seen: Seen) -> list[Finding]:
    counts = _updates(seen).sort_values(ascending=False, kind="stable")
    devices = max(len(counts), seen.facts.devices or 0)
    if not devices or counts.sum() / devices < limit("turns"):
        return []
    many = max(1, round(limit("busiest") * devices))
    share = float(counts.iloc[:many].sum() / counts.sum())
    if share <= limit("work"):
        return []
    return [
        Finding(
            WARNING,
            "participation_bias",
            f"The busiest {many} of {devices} devices sent {percent(share)} of the updates that counted, most of all "
            f"{listed([str(name) for name in counts.index[:many]])}.",
            *(share, limit("work"), ABOVE),
            (seen.trained("aggregation_share", "uplink_bytes"),),
            "Draw devices fairly (strategy.sampler.path; flsim list samplers), or invite more in excess "
            "(system.end.over).",
            tuple(map(str, counts.index[:5])),
        )
    ]


def _classes(seen: Seen) -> list[Finding]:
    """The classes with the highest and the lowest mean, where the intervals of these lie apart."""
    class_of = seen.run.classes.astype(str)
    if class_of.empty or not seen.is_tested_enough:
        return []
    found = {
        str(name): interval(own) for name, own in seen.run.accuracy.groupby(class_of.reindex(seen.run.accuracy.index))
    }
    known = {name: own for name, own in found.items() if own is not None}
    if len(known) < 2:
        return []
    best, worst = max(known, key=lambda name: known[name].mean), min(known, key=lambda name: known[name].mean)
    gap = known[best].mean - known[worst].mean
    if gap <= limit("classes") or known[best].low <= known[worst].high:
        return []
    return [
        Finding(
            WARNING,
            "participation_bias",
            f"Users of class {worst} are {points(gap)} less accurate than those of class {best}.",
            *(gap, limit("classes"), ABOVE),
            (seen.tests("global", "accuracy"), Query((f"class_{best}", f"class_{worst}"), USER, USER, 0, 0)),
            "Draw classes fairly (strategy.sampler.path; flsim list samplers), wait for slow ones (system.end), or let "
            "devices keep a part for themselves (strategy.path=strategies.fedsa_lora:FedSaLora).",
        )
    ]


def absent(seen: Seen) -> list[Finding]:
    """Batteries that ran empty, and devices that nobody ever met."""
    findings = []
    battery = seen.run.trained("battery")
    empty = battery[(battery["weight"] > 0) & (battery["total"] <= limit("empty") * battery["weight"])]
    if len(empty):
        worst = empty.groupby("device")["round"].nunique().sort_values(ascending=False, kind="stable")
        first, last = int(empty["round"].min()), int(empty["round"].max())
        findings.append(
            Finding(
                WARNING,
                "absent",
                f"{len(worst)} devices had an empty battery within {rounds_text(first, last)}: "
                f"{listed([str(name) for name in worst.index])}.",
                *(float((empty["total"] / empty["weight"]).min()), limit("empty"), BELOW),
                (seen.trained("battery", first=first, last=last),),
                "Charge more (system.charge_w, system.availability), give the class a larger battery "
                "(system.classes), or a device less to do (client.steps, client.group_size).",
                tuple(map(str, worst.index[:5])),
            )
        )
    return [*findings, *_never_met(seen)]


def _never_met(seen: Seen) -> list[Finding]:
    """Devices without an update where a fair draw would have met them all."""
    devices, counts = seen.facts.devices, seen.run.trained("downlink_bytes").groupby("device")["round"].nunique()
    if devices is None or counts.empty or seen.fleet("virtual_seconds").empty:
        return []
    lacking, rounds = devices - len(counts), seen.last
    share = min(1.0, float(counts.sum()) / (devices * rounds))
    if lacking <= 0 or devices * (1 - share) ** rounds >= limit("chance"):
        return []
    return [
        Finding(
            NOTE if lacking < limit("fleet") * devices else WARNING,
            "absent",
            f"{lacking} of {devices} devices never took part, though a fair draw would have met them all.",
            *(float(lacking), 0.0, ABOVE),
            (seen.trained("downlink_bytes"),),
            "See when they are there (system.availability), or draw those first that seldom are "
            "(strategy.sampler.path; flsim list samplers).",
        )
    ]
