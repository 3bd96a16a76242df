"""Findings on what devices make of a round: updates that are none, groups without a signal, lengths, the aggregate."""

import pandas as pd

from flsim.diagnosis.finding import ABOVE, BELOW, FAULT, NOTE, WARNING, Finding, listed, rounds_text
from flsim.diagnosis.limits import limit
from flsim.diagnosis.seen import Seen, between, streaks
from flsim.metrics.rows import ASKED, FLEET
from flsim.text import percent


def dead_adapter(seen: Seen) -> list[Finding]:
    """Devices whose update is nothing, by its norm or since no token taught it anything.

    Rounds in which the whole fleet had nothing to learn from are not counted: these are `reward_collapse`.
    """
    rows = seen.run.trained("update_norm")
    is_module = not seen.run.trained(("loss", "learned_examples")).empty  # its adapter has no products to measure
    parts = []
    if len(rows) and not is_module:
        norms = seen.of_devices("update_norm")
        middle = norms.groupby("round").transform("median")
        parts.append((norms < limit("dead") * middle) | (norms < limit("still")))
    tokens = seen.of_devices("learned_tokens")
    if len(tokens) and not is_module:
        parts.append(tokens == 0)
    if not parts:
        return []
    without = _without_signal(seen)
    flags = pd.concat(parts).groupby(["device", "round"]).any()
    flags &= ~flags.index.get_level_values("round").isin(without.index[without > limit("no_signal")])
    held = streaks(flags).sort_values("first", kind="stable")
    if held.empty:
        return []
    devices = [str(name) for name in held.index]
    fleet = flags.index.get_level_values("device").nunique()
    share, lasts = len(devices) / fleet, bool(held["lasts"].any())
    first, last = int(held["first"].min()), int(held["last"].max())
    return [
        Finding(
            FAULT if lasts and share >= limit("fleet") else WARNING,
            "dead_adapter",
            f"{len(devices)} of {fleet} devices learned nothing for {limit('rounds'):g} rounds in a row or longer, "
            f"within {rounds_text(first, last)}: {listed(devices)}. Their updates are below {limit('dead'):g} of the "
            f"median of the round, or no token taught them anything.",
            *(_smallest(seen, devices), limit("dead"), BELOW),
            (seen.trained("update_norm", "learned_tokens", "effective_groups", first=first, last=last),),
            "Raise the learning rate (client.lr) or the size of a group (client.group_size, so that responses differ), "
            "look at client.clip_norm, or give such devices a rank of their own (fleet.ranks).",
            tuple(devices[:5]),
        )
    ]


def _smallest(seen: Seen, devices: list[str]) -> float:
    """The least norm of these devices as a part of the median of its round; 0 where there is none to be a part of."""
    norms = seen.of_devices("update_norm")
    if norms.empty:
        return 0.0
    parts = (norms / norms.groupby("round").transform("median")).dropna()
    own = parts[parts.index.get_level_values("device").isin(devices)]
    small = float(own.min()) if len(own) else 0.0
    return small if small < limit("dead") else 0.0


def _without_signal(seen: Seen) -> pd.Series:
    """By round, the share of the fleet's groups whose responses are all worth the same."""
    groups = seen.by_round("unanimous_groups")["weight"]  # one a prompt, of methods that sample groups
    useful = seen.by_round("effective_groups")["total"].reindex(groups.index)
    return (1 - useful / groups).dropna()


def reward_collapse(seen: Seen) -> list[Finding]:
    """Rounds in which nearly all groups are worth the same in themselves, so that nothing is learned from them."""
    dead, reward = _without_signal(seen), seen.by_round("reward")
    if dead.empty:
        return []
    held = streaks(pd.concat({"fleet": dead > limit("no_signal")}, names=["device"]))
    if held.empty:
        return []
    first, last, lasts = held.iloc[0]
    within, share = reward.loc[first:last], float(dead.loc[first:last].mean())
    mean = float(within["total"].sum() / within["weight"].sum()) if within["weight"].sum() else 0.0
    is_solved = mean >= limit("solved")
    severity = NOTE if is_solved else FAULT if lasts else WARNING
    why = "nearly all responses are right" if is_solved else "rewards within a group are all alike"
    return [
        Finding(
            severity,
            "reward_collapse",
            f"In {rounds_text(int(first), int(last))} {percent(share)} of the groups teach nothing, since {why} (mean "
            f"reward {mean:.2f}).",
            *(share, limit("no_signal"), ABOVE),
            (seen.trained("effective_groups", "unanimous_groups", "reward", first=int(first), last=int(last)),),
            "Take harder tasks (stream.phases)."
            if is_solved
            else "Take tasks that are right now and then (stream.phases), sample wider (client.temperature=1, "
            "client.group_size=16), shorten steps that ruined the model (client.lr), or practise what the cloud "
            "answers (client.imitate=8).",
        )
    ]


_LATE_MENDS = {
    "late": "Wait longer (system.end.deadline_s), or let late updates count (system.end.kind=buffered).",
    "left": "Give devices longer windows or more charge (system.availability, system.charge_w), or less to do.",
}


def nobody_counts(seen: Seen) -> list[Finding]:
    """Rounds in which every device that was asked was set aside: the adapter stays as it is, and all is paid for."""
    asked = seen.run.trained("downlink_bytes").groupby("round")["device"].nunique()
    aside = seen.run.trained("set_aside")
    aside = aside[aside["device"] != FLEET]
    lost = aside.groupby("round")["device"].nunique().reindex(asked.index, fill_value=0)
    flags = (lost >= asked) & (asked > 0)
    held = streaks(pd.concat({"fleet": flags}, names=["device"])) if len(flags) else pd.DataFrame()
    if held.empty:
        return []
    first, last, lasts = held.iloc[0]
    words = aside[aside["round"].between(first, last)]["task"].value_counts()
    count = int(lost[lost.index.to_series().between(first, last)].sum())
    return [
        Finding(
            FAULT if lasts else WARNING,
            "nobody_counts",
            f"In {rounds_text(int(first), int(last))} no update counted: all {count} devices that were asked were set "
            f"aside, most of them as {words.index[0]!r}.",
            *(float(last - first + 1), limit("rounds"), ABOVE),
            (seen.trained("set_aside", "downlink_bytes", first=int(first), last=int(last)),),
            _LATE_MENDS.get(str(words.index[0]), "See why in run.log, or by flsim replay of one of them."),
        )
    ]


def length_collapse(seen: Seen) -> list[Finding]:
    """Responses that are cut at the limit, or that say nothing."""
    cut = seen.by_round("cut_responses")
    shares = (cut["total"] / cut["weight"])[cut["weight"] > 0]
    sampled, asked = seen.by_round("sampled_tokens"), seen.by_round(ASKED)["total"]
    others = sampled["weight"] - asked.reindex(sampled.index).fillna(0.0)  # who asked may have said no more than that
    said = sampled["total"] - seen.by_round("helped_drawn")["total"].reindex(sampled.index).fillna(0.0)
    lengths = (said / others)[others > 0]
    findings = list[Finding]()
    for values, flags, is_cut in (
        (shares, shares > limit("cut"), True),
        (lengths, lengths < limit("short"), False),
    ):
        held = streaks(pd.concat({"fleet": flags}, names=["device"])) if len(flags) else pd.DataFrame()
        if held.empty or findings:  # what has no room cannot be long
            continue
        first, last = int(held["first"].iloc[0]), int(held["last"].iloc[0])
        mean = float(values.loc[first:last].mean())
        text = (
            f"{percent(mean)} of the responses reach the limit without an ending"
            if is_cut
            else f"responses that did not ask have at most {mean:.1f} tokens in the mean, endings included"
        )
        findings.append(
            Finding(
                WARNING,
                "length_collapse",
                f"In {rounds_text(first, last)} {text}.",
                *(mean, limit("cut" if is_cut else "short"), ABOVE if is_cut else BELOW),
                (seen.trained("cut_responses" if is_cut else "sampled_tokens", first=first, last=last),),
                "Give responses more room (client.max_new_tokens), mask the cut ones from the loss "
                "(client.mask_cut=true), or have answers end sooner (model.stop)."
                if is_cut
                else "Look at what is right for the verifier (flsim judge), shorten steps that ruined the model "
                "(client.lr), or hold it to its start (client.kl=0.05).",
            )
        )
    return findings


def aggregation_loses(seen: Seen) -> list[Finding]:
    """What the server's merge drops: products that factors do not average to, energy beyond the rank, devices."""
    first, last = seen.late
    own: list[tuple[str, float, str, str, str]] = []
    energy = between(seen.fleet("cut_energy"), first, last)
    bias = between(seen.fleet("aggregation_bias"), first, last)
    if len(bias) >= limit("rounds") and seen.fleet("cut_energy").empty and not seen.facts.carries_rest:
        value = float(bias.mean())
        text = f"averaging factors misses {percent(value)} of the mean product"
        own.append(("aggregation_bias", value, ABOVE, text, "bias"))
    if len(energy) >= limit("rounds"):
        kept = 1 - float(energy.mean())
        text = f"the cut to the server's rank keeps {percent(kept)} of the aggregate's squared norm"
        own.append(("cut_energy", kept, BELOW, text, "kept_energy"))
    effective = between(seen.fleet("effective_devices"), first, last)
    cohort = (seen.of_devices("aggregation_share") > 0).groupby("round").sum().reindex(effective.index)
    if len(effective) >= limit("rounds"):
        part = float((effective / cohort).mean())
        text = f"after weighting {effective.mean():.1f} of {cohort.mean():.1f} devices count"
        own.append(("effective_devices", part, BELOW, text, "effective"))
    mends = {
        "aggregation_bias": "Average products (strategy.path=strategies.flex_lora:FlexLora), or share one A "
        "(strategy.path=strategies.ffa_lora:FfaLora).",
        "cut_energy": "Raise the rank (model.rank), or carry the rest along "
        "(strategy.path=strategies.fedex_lora:FedExLora).",
        "effective_devices": "Weigh devices more alike (strategy.weighter.path=strategies.parts.weighters:Uniform).",
    }
    return [
        Finding(
            NOTE if name == "effective_devices" else WARNING,
            "aggregation_loses",
            f"In {rounds_text(first, last)} {text}.",
            *(value, limit(of), side),
            (seen.whole(name, first=first, last=last),),
            mends[name],
        )
        for name, value, side, text, of in own
        if (value > limit(of) if side == ABOVE else value < limit(of))
    ]
