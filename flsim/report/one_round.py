"""One round of one device in plain words: sentences from the facts of `flsim/metrics/one_round.py`, part by part.

What the records lack is said to be not recorded, with the setting by which it would be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flsim.config.schema import EvaluationConfig
from flsim.text import amount, data_size, percent, seconds

Facts = Mapping[str, Any]


def told(facts: Facts, evaluation: EvaluationConfig) -> list[tuple[str, str]]:
    """A device's round: what each part is about, and its sentences.

    Args:
        facts: of `DeviceRound.facts`.
        evaluation: of the run, which says why something was not tested.
    """
    if not facts["learned"]:
        return [("Landed", _landed(facts))]
    parts = [
        ("Set aside", _set_aside(facts["set_aside"])),
        ("Met", _met(facts["met"])),
        ("Sampled", _sampled(facts["sampled"])),
        ("Asked", _asked(facts["asked"])),
        ("Granted", _granted(facts["granted"], facts["asked"])),
        ("Helped", _helped(facts["helped"])),
        ("Earned", _earned(facts["earned"])),
        ("Lambda", _dual(facts["dual"])),
        ("Cost", _cost(facts["cost"])),
        ("Weighed", _weighed(facts["weighed"], facts["set_aside"], facts["round"])),
        ("Changed", _changed(facts["changed"], facts["round"], evaluation)),
    ]
    return [(about, text) for about, text in parts if text]


def _set_aside(found: Facts | None) -> str:
    if found is None:
        return ""
    detail = f": {found['detail']}" if found["detail"] else ""
    return f"Its update was not used, {found['reason']}{detail}. Of what it did, the rows have what it spent alone."


def _landed(facts: Facts) -> str:
    """Of a device that was not asked in this round: what came of an earlier one."""
    found, out = facts["weighed"], facts["set_aside"]
    before = facts["round"] - (found["staleness"] or 0)
    said = f"It was not asked to learn in this round. What it learned in round {before} came in now"
    if out is not None:
        return f"{said}, {many(found['staleness'] or 0, 'version')} old, and was not used: {out['reason']}."
    share = "" if found["share"] is None else f" and had a share of {percent(found['share'])} in the aggregation"
    return f"{said}, {many(found['staleness'] or 0, 'version')} old,{share}."


def _met(met: Facts) -> str:
    by_task = [f"{count} of {task}" for task, count in met["by_task"].items()]
    if met["prompts"] is None:
        said = ["What it met is not recorded, as its reply was not used."]
    elif len(by_task) == 1:
        said = [f"It met {many(met['prompts'], 'prompt')}, all of {next(iter(met['by_task']))}."]
    else:
        said = [f"It met {many(met['prompts'], 'prompt')}: {joined(by_task)}."]
    phases = [
        f"{phase['name']} ({', '.join(phase['tasks'])})" + (f" at {percent(phase['share'], digits=0)}" if mixed else "")
        for mixed in [len(met["phases"]) > 1]
        for phase in met["phases"]
    ]
    said.append(f"It was in {'phases' if len(phases) > 1 else 'phase'} {joined(phases)}, {_since(met)}.")
    if met["difficulty"] is not None:
        said.append(
            f"Their mean difficulty was {met['difficulty']:.2f}, where 0 is the easiest level and 1 the hardest."
        )
    return " ".join(said)


def _since(met: Facts) -> str:
    ago = met["rounds_since_switch"]
    if ago is None:
        return "and no switch had come yet"
    return "and what it meets had just switched" if ago == 0 else f"and the last switch was {many(ago, 'round')} before"


def _sampled(found: Facts | None) -> str:
    if found is None:
        return "How it sampled is not recorded: its method samples no groups, or its reply was not used."
    said = []
    if found["responses"]:
        share = percent(found["right_alone"] / found["responses"])
        said.append(
            f"It sampled {many(found['responses'], 'response')}, of which {found['right_alone']:,} ({share}) were "
            f"right without the cloud."
        )
    if found["groups"]:
        said.append(
            f"In {found['unanimous_groups']} of {found['groups']} groups all responses agreed on whether to ask."
        )
    if found["effective_groups"]:
        taught = many(found["effective_groups"], "group")
        said.append(f"{taught} taught something: there, not all responses were worth the same.")
    elif found["effective_groups"] == 0:
        said.append("No group taught anything: in each, all responses were worth the same.")
    if found["cut_responses"] is not None:
        cut = many(found["cut_responses"], "response")
        said.append(f"{cut[0].upper()}{cut[1:]} reached the limit without an end.")
    return " ".join(said)


def _asked(found: Facts | None) -> str:
    if found is None:
        return "Whether it asked is not recorded: its method never asks, or its reply was not used."
    share = percent(found["requests"] / found["of"]) if found["of"] else "-"
    said = [f"It asked for help with {found['requests']:,} of {found['of']:,} {found['unit']} ({share})."]
    if found["explored"]:
        said.append(f"{found['explored']:,} of these stand for prompts that were sent to explore.")
    if found["granted"] is not None:
        said.append(f"The cloud was called {_times(found['granted'])}.")
    if found["refused"]:
        said.append(f"{many(found['refused'], 'prompt')} more were refused {_refusing(found['refused_by'])}.")
    elif found["refused"] == 0 and found["requests"]:
        said.append("No request was refused.")
    if found["failed"]:
        said.append(f"At {many(found['failed'], 'question')} the cloud failed.")
    return " ".join(said)


def _refusing(caps: Sequence[Facts]) -> str:
    """By which cap: one that is on calls is known, of others any may be it in which the next question did not fit."""
    if not caps:
        return "by a cap that is not recorded"
    named = [
        f"{one['cap']}={amount(one['of'])}"
        if one["spent"] is None
        else f"{one['cap']} ({amount(one['spent'])} of {amount(one['of'])} were spent)"
        for one in caps
    ]
    return f"by {joined(named, 'or')}"


def _granted(found: Facts, asked: Facts | None) -> str:
    own = [
        f"{amount(value)} {kind.removesuffix('s') if value == 1 else kind}"
        for kind, value in found["allotment"].items()
    ]
    said = [f"Its tau, the share of its prompts that may ask, was {found['tau']:.3g}."]
    if own:
        said.append(f"Of the fleet's budget it was allotted {joined(own)}.")
    if found["caps"]:
        caps = [f"{name}={amount(cap)}" for name, cap in found["caps"].items()]
        said.append(f"It was capped by {joined(caps)}.")
    elif not own:
        said.append("No cap held it.")
    return " ".join(said) if asked is not None or own else ""


def _helped(found: Facts | None) -> str:
    """What a mode of help took."""
    if found is None:
        return ""
    moved = f"{data_size(found['cloud_up_bytes'] or 0)} up and {data_size(found['cloud_down_bytes'] or 0)} down"
    said = [f"Its mode of help took {many(found['cloud_trips'] or 0, 'request')} to the cloud, with {moved}."]
    if found["helped_read"] or found["helped_drawn"]:
        drawn = f"read {amount(found['helped_read'] or 0)} tokens and drew {amount(found['helped_drawn'] or 0)}"
        said.append(f"Between them its own model {drawn}.")
    if found["drafted_tokens"]:
        accepted = f"{amount(found['accepted_tokens'])} ({percent(found['accepted_tokens'] / found['drafted_tokens'])})"
        again = f"; {amount(found['computed_again'])} places were computed again, alone" * bool(found["computed_again"])
        said.append(f"Of {amount(found['drafted_tokens'])} drafted tokens the cloud accepted {accepted}{again}.")
    if found["lower_read"] or found["lower_drawn"]:
        parts = f"{amount(found['lower_read'] or 0)} tokens read and {amount(found['lower_drawn'] or 0)} said"
        said.append(f"It passed as much as {parts} through all layers of the cloud's model.")
    if found["help_share"] is not None:
        share = percent(found["help_share"])
        said.append(f"A question took {share} of what asking takes at most, in {found['unit']}.")
    return " ".join(said)


def _earned(found: Facts) -> str:
    said = [
        f"{what} {found[name]:.3f}, and the cohort's mean {found[f'cohort_{name}']:.3f}."
        for name, what in (
            ("reward", "Its mean reward was"),
            ("alone_reward", "Without the cloud it was"),
            ("loss", "Its mean loss was"),
        )
        if found[name] is not None
    ]
    return " ".join(said) or "What it earned is not recorded, as its reply was not used."


def _dual(found: Facts | None) -> str:
    if found is None:
        return ""
    if found["of_fleet"]:
        return f"Lambda, the price of asking, was the fleet's: {found['after']:.3f}."
    if found["before"] is None:
        start = "what it began with is not recorded, as client.dual_init is not in the config"
        return f"Lambda, its price of asking, was {found['after']:.3f} afterwards; {start}."
    return f"Lambda, its price of asking, went from {found['before']:.3f} to {found['after']:.3f}."


def _cost(found: Facts) -> str:
    said = []
    if found["cloud_calls"] is not None:
        money = (
            f" and {found['cloud_money']:.3g} of money, in the unit of cloud.price_*" if found["cloud_money"] else ""
        )
        said.append(
            f"The cloud cost it {many(found['cloud_calls'], 'call')}, {amount(found['cloud_tokens'])} tokens{money}."
        )
    if found["bought_calls"] is not None:
        said.append(f"{amount(found['bought_calls'])} of the calls were really sent; a cache had the others.")
    tokens = [
        f"{amount(found[name])} {what}"
        for name, what in (
            *(("read_tokens", "read"), ("sampled_tokens", "sampled"), ("learned_tokens", "learned from")),
            *(("cloud_prompt_tokens", "sent to the cloud"), ("cloud_completion_tokens", "received from it")),
        )
        if found[name] is not None
    ]
    if tokens:
        said.append(f"Its tokens were {joined(tokens)}.")
    else:
        said.append("Its tokens are not recorded: the run is older than these counts, or its reply was not used.")
    if found["downlink_bytes"] is not None:
        up = "" if found["uplink_bytes"] is None else f" and sent {data_size(found['uplink_bytes'])} back"
        said.append(f"It received {data_size(found['downlink_bytes'])}{up}.")
    return " ".join([*said, _time(found)])


def _time(found: Facts) -> str:
    """Seconds of the simulation, and seconds and joules of the device, which are another matter."""
    here = "" if found["seconds"] is None else f"The simulation took {seconds(found['seconds'])} for it. "
    if found["round_seconds"] is None:
        return f"{here}Seconds and joules of the device are not recorded: the section `system` has them followed."
    parts = [
        f"{seconds(found[f'{part}_seconds'])} {what}"
        for part, what in (
            *(("compute", "of arithmetic"), ("link", "of transfers"), ("cloud", "of the cloud")),
            ("waited", "until it was there"),
        )
        if found[f"{part}_seconds"]
    ]
    held = f" ({joined(parts)})" if parts else ""
    drawn = "" if found["joules"] is None else f", and {amount(found['joules'])} J"
    kind = "" if found["class"] is None else f", of class {found['class']} on {found['link']},"
    said = f"{here}The device itself{kind} took {seconds(found['round_seconds'])} in virtual time{held}{drawn}."
    if found["battery_wh"] is None:
        return said
    return f"{said} Its battery held {found['battery_wh']:.3g} of {found['capacity_wh']:.3g} Wh afterwards."


def _weighed(found: Facts, set_aside: Facts | None, round_: int) -> str:
    if set_aside is not None:
        return ""
    if found["round"] is None:
        return "Its update had not come to the server when the run ended."
    stale = "" if not found["staleness"] else f", {many(found['staleness'], 'version')} old"
    late = "" if found["round"] == round_ else f" It was aggregated in round {found['round']}{stale}."
    if found["share"] is None:
        return f"Its share in the aggregation is not recorded: the strategy does not tell shares.{late}"
    equal = f"equal shares of {many(found['devices'], 'device')} would be {percent(1 / found['devices'])}"
    return f"Its update had a share of {percent(found['share'])} in the aggregation; {equal}.{late}"


def _changed(found: Facts, round_: int, evaluation: EvaluationConfig) -> str:
    said = []
    if found["update_norm"] is None:
        said.append("How far it moved is not recorded: engine.stream at least as large as the cohort has it measured.")
    else:
        said.append(
            f"Its product B A moved by {found['update_norm']:.3g} in Frobenius norm, and that of the mean device by "
            f"{found['cohort_update_norm']:.3g}."
        )
    if found["mean_cosine"] is not None:
        said.append(f"The cosine between its move and the cohort's mean move was {found['mean_cosine']:.2f}.")
    return " ".join([*said, *_accuracies(found, round_, evaluation)])


def _accuracies(found: Facts, round_: int, evaluation: EvaluationConfig) -> list[str]:
    own, before, after = found["own_accuracy"], found["global_before"], found["global_after"]
    if before is None and after is None and own is None:
        return [f"Nothing was tested on it: it is not of the panel (evaluation.devices={evaluation.devices})."]
    said = []
    if before is not None:
        said.append(
            f"On its tests the global model was right on {percent(before['accuracy'])} after round {before['round']}."
        )
    if own is not None:
        said.append(f"After its local steps its own model was right on {percent(own['accuracy'])}.")
    elif after is not None and evaluation.own != "always":
        said.append(
            f"Its own model is not recorded: evaluation.own is {evaluation.own}, and evaluation.own=always tests it."
        )
    if after is not None:
        said.append(f"After the aggregation the global model was right on {percent(after['accuracy'])}.")
    else:
        said.append(
            f"Nothing was tested in round {round_}: evaluation.every_rounds is {evaluation.every_rounds}, and "
            f"evaluation.every_rounds=1 tests in each."
        )
    return said


def many(count: float, what: str) -> str:
    """`3 prompts`, `1 prompt`, `no prompt`."""
    number = f"{count:,.0f}" if count else "no"
    return f"{number} {what}" + ("s" if count > 1 else "")


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count:,} times")


def joined(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else "nothing"
