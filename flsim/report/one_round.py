"""One round of one device in plain words: sentences from the facts of `flsim/metrics/one_round.py`, part by part.

What the records lack is said to be not recorded, with the setting by which it would be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flsim.config.schema import EvaluationConfig
from flsim.text import aligned, amount, data_size, percent, seconds

Facts = Mapping[str, Any]
_MOST = 20
"""Devices of a table; of a larger cohort those that are set aside and those that earned least are shown."""


def told(facts: Facts, evaluation: EvaluationConfig) -> list[tuple[str, str]]:
    """A device's round: what each part is about, and its sentences.

    Args:
        facts: of `DeviceRound.facts`.
        evaluation: of the run, which says why something was not tested.
    """
    parts = [
        ("Set aside", _set_aside(facts["set_aside"])),
        ("Met", _met(facts["met"])),
        ("Sampled", _sampled(facts["sampled"])),
        ("Asked", _asked(facts["asked"])),
        ("Granted", _granted(facts["granted"], facts["asked"])),
        ("Earned", _earned(facts["earned"])),
        ("Lambda", _dual(facts["dual"])),
        ("Cost", _cost(facts["cost"])),
        ("Weighed", _weighed(facts["weighed"], facts["set_aside"])),
        ("Changed", _changed(facts["changed"], facts["round"], evaluation)),
    ]
    return [(about, text) for about, text in parts if text]


def _set_aside(found: Facts | None) -> str:
    if found is None:
        return ""
    detail = f": {found['detail']}" if found["detail"] else ""
    return f"Its update was not used, {found['reason']}{detail}. Of what it did, the rows have what it spent alone."


def _met(met: Facts) -> str:
    by_task = [f"{count} of {task}" for task, count in met["by_task"].items()]
    if met["prompts"] is None:
        said = ["What it met is not recorded, as its reply was not used."]
    elif len(by_task) == 1:
        said = [f"It met {_many(met['prompts'], 'prompt')}, all of {next(iter(met['by_task']))}."]
    else:
        said = [f"It met {_many(met['prompts'], 'prompt')}: {_list(by_task)}."]
    phases = [
        f"{phase['name']} ({', '.join(phase['tasks'])})" + (f" at {percent(phase['share'], digits=0)}" if mixed else "")
        for mixed in [len(met["phases"]) > 1]
        for phase in met["phases"]
    ]
    said.append(f"It was in {'phases' if len(phases) > 1 else 'phase'} {_list(phases)}, {_since(met)}.")
    if met["difficulty"] is not None:
        said.append(
            f"Their mean difficulty was {met['difficulty']:.2f}, where 0 is the easiest level and 1 the hardest."
        )
    return " ".join(said)


def _since(met: Facts) -> str:
    ago = met["rounds_since_switch"]
    if ago is None:
        return "and no switch had come yet"
    return (
        "and what it meets had just switched" if ago == 0 else f"and the last switch was {_many(ago, 'round')} before"
    )


def _sampled(found: Facts | None) -> str:
    if found is None:
        return "How it sampled is not recorded: its method samples no groups, or its reply was not used."
    said = []
    if found["responses"]:
        share = percent(found["right_alone"] / found["responses"])
        said.append(
            f"It sampled {_many(found['responses'], 'response')}, of which {found['right_alone']:,} ({share}) were "
            f"right without the cloud."
        )
    if found["groups"]:
        said.append(
            f"In {found['unanimous_groups']} of {found['groups']} groups all responses agreed on whether to ask."
        )
    if found["effective_groups"] is not None:
        said.append(
            f"{_many(found['effective_groups'], 'group')} taught something, as their responses differed in worth."
        )
    if found["cut_responses"] is not None:
        said.append(f"{_many(found['cut_responses'], 'response')} reached the limit without an end.")
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
        said.append(f"{_many(found['refused'], 'prompt')} more were refused {_refusing(found['refused_by'])}.")
    elif found["refused"] == 0 and found["requests"]:
        said.append("No request was refused.")
    if found["failed"]:
        said.append(f"At {_many(found['failed'], 'question')} the cloud failed.")
    return " ".join(said)


def _refusing(caps: Sequence[Facts]) -> str:
    """By which cap: one that is on calls is known, of others any may be it in which the next question did not fit."""
    if not caps:
        return "by a cap that is not recorded"
    named = [f"{one['cap']} ({amount(one['spent'])} of {amount(one['of'])} were spent)" for one in caps]
    return f"by {_list(named, 'or')}"


def _granted(found: Facts, asked: Facts | None) -> str:
    own = [f"{amount(value)} {kind}" for kind, value in found["allotment"].items()]
    said = [f"Its tau, the share of its prompts that may ask, was {found['tau']:.3g}."]
    if own:
        said.append(f"Of the fleet's budget it was allotted {_list(own)}.")
    if found["caps"]:
        caps = [f"{name}={amount(cap)}" for name, cap in found["caps"].items()]
        said.append(f"It was capped by {_list(caps)}.")
    elif not own:
        said.append("No cap held it.")
    return " ".join(said) if asked is not None or own else ""


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
            f"The cloud cost it {_many(found['cloud_calls'], 'call')}, {amount(found['cloud_tokens'])} tokens{money}."
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
        said.append(f"Its tokens were {_list(tokens)}.")
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
    held = f" ({_list(parts)})" if parts else ""
    drawn = "" if found["joules"] is None else f", and {amount(found['joules'])} J"
    return f"{here}The device itself would have taken {seconds(found['round_seconds'])}{held}{drawn}."


def _weighed(found: Facts, set_aside: Facts | None) -> str:
    if set_aside is not None:
        return ""
    stale = found["staleness"]
    late = "" if not stale else f" It was {_many(stale, 'version')} old when it was aggregated."
    if found["share"] is None:
        return f"Its share in the aggregation is not recorded: the strategy does not tell shares.{late}"
    equal = f"equal shares of {_many(found['devices'], 'device')} would be {percent(1 / found['devices'])}"
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


def told_of_round(facts: Facts) -> list[tuple[str, str]]:
    """A whole round: what each part is about, and its sentences."""
    out = [line for line in facts["devices"] if line["set_aside"] is not None]
    reasons = _list([f"{line['device']} ({line['set_aside']['reason']})" for line in out[:_MOST]])
    used = facts["cohort"] - len(out)
    who = f"{_many(facts['cohort'], 'device')} learned in it, and the updates of {used} were aggregated."
    if out:
        who += f" Set aside were {reasons}{'' if len(out) <= _MOST else ' and more'}."
    phases = f" They were in {'phases' if len(facts['phases']) > 1 else 'phase'} {_list(facts['phases'])}."
    mean, fleet = facts["mean"], facts["fleet"]
    earned = [
        f"{what} {mean[name]:.3f}"
        for name, what in (("reward", "reward"), ("alone_reward", "reward without the cloud"), ("loss", "loss"))
        if mean[name] is not None
    ]
    parts = [("Who", who + phases)]
    parts += [("Earned", f"The mean device had {_list(earned)}.")] if earned else []
    return [*parts, *_of_fleet(fleet), ("Accuracy", _before_and_after(facts))]


def _of_fleet(fleet: Facts) -> list[tuple[str, str]]:
    """What the server says of the aggregation and of the fleet's budget."""
    said = []
    if "effective_devices" in fleet:
        said.append(f"The updates counted as much as {fleet['effective_devices']:.3g} equally weighted ones.")
    if "update_cosine" in fleet:
        said.append(f"The mean cosine between two of them was {fleet['update_cosine']:.2f}.")
    if "aggregation_bias" in fleet:
        said.append(f"Averaging factors and not products would be off by {percent(fleet['aggregation_bias'])}.")
    spent = [
        f"{amount(fleet[f'spent_{kind}'])} {kind}" for kind in ("calls", "tokens", "money") if f"spent_{kind}" in fleet
    ]
    found = [("Aggregated", " ".join(said))] if said else []
    return [*found, *([("Budget", f"The fleet has spent {_list(spent)} so far.")] if spent else [])]


def _before_and_after(facts: Facts) -> str:
    before, after = facts["accuracy"]["before"], facts["accuracy"]["after"]
    said = []
    if before is not None:
        said.append(f"The mean user's was {percent(before['accuracy'])} after round {before['round']}.")
    said.append(
        "It was not tested in this round." if after is None else f"It was {percent(after['accuracy'])} afterwards."
    )
    return " ".join(said)


def table_of_round(facts: Facts) -> tuple[list[str], int]:
    """The lines of a table of the devices, and how many of them it leaves out."""
    lines = facts["devices"]
    shown = lines
    if len(lines) > _MOST:
        worst = sorted(lines, key=lambda one: (one["set_aside"] is None, one["reward"] is None, one["reward"] or 0.0))
        kept = {one["device"] for one in worst[:_MOST]}
        shown = [one for one in lines if one["device"] in kept]
    head = (
        "device",
        "prompts",
        "right alone",
        "reward",
        "asked",
        "calls",
        "refused",
        "lambda",
        "share",
        "norm",
        "cosine",
    )
    cells = [[*head, ""]]
    for one in shown:
        cells.append(
            [
                one["device"],
                _cell(one["prompts"], "d"),
                *(percent(one[name]) for name in ("alone_reward", "reward", "usage")),
                *(_cell(one[name], "d") for name in ("calls", "refused")),
                _cell(one["dual"], ".2f"),
                percent(one["share"]),
                _cell(one["update_norm"], ".3g"),
                _cell(one["mean_cosine"], ".2f"),
                "" if one["set_aside"] is None else one["set_aside"]["reason"],
            ]
        )
    used = [at for at in range(len(head) + 1) if at < 1 or any(row[at] not in ("-", "") for row in cells[1:])]
    return aligned([[row[at] for at in used] for row in cells]), len(lines) - len(shown)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _many(count: float, what: str) -> str:
    """`3 prompts`, `1 prompt`, `no prompt`."""
    number = f"{count:,.0f}" if count else "no"
    return f"{number} {what}" + ("s" if count > 1 else "")


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _list(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else "nothing"
