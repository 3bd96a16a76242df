"""A round of a whole cohort in plain words, with its devices in a table; one of them is told in `one_round.py`."""

from flsim.report.one_round import Facts, joined, many
from flsim.text import aligned, amount, percent

_MOST = 20
"""Devices of a table; of a larger cohort those that are set aside and those that earned least are shown."""


def told_of_round(facts: Facts) -> list[tuple[str, str]]:
    """A whole round: what each part is about, and its sentences."""
    out = [line for line in facts["devices"] if line["set_aside"] is not None]
    reasons = joined([f"{line['device']} ({line['set_aside']['reason']})" for line in out[:_MOST]])
    used = facts["cohort"] - len(out)
    who = f"{many(facts['cohort'], 'device')} learned in it, and the updates of {used} were aggregated."
    if facts["landed"]:
        dropped = int(facts["fleet"].get("dropped", 0))
        late = f"; {dropped} of them {'was' if dropped == 1 else 'were'} too many versions late" if dropped else ""
        who = (
            f"The server asked {many(facts['cohort'], 'device')}, and {many(facts['landed'], 'update')} came in{late}."
        )
    if out:
        who += f" Set aside were {reasons}{'' if len(out) <= _MOST else ' and more'}."
    phases = f" They were in {'phases' if len(facts['phases']) > 1 else 'phase'} {joined(facts['phases'])}."
    mean, fleet = facts["mean"], facts["fleet"]
    earned = [
        f"{what} {mean[name]:.3f}"
        for name, what in (("reward", "reward"), ("alone_reward", "reward without the cloud"), ("loss", "loss"))
        if mean[name] is not None
    ]
    parts = [("Who", who + phases)]
    parts += [("Earned", f"The mean device had {joined(earned)}.")] if earned else []
    return [*parts, *_of_fleet(fleet, facts["caps"]), ("Accuracy", _before_and_after(facts))]


def _of_fleet(fleet: Facts, caps: Facts) -> list[tuple[str, str]]:
    """What the server says of the aggregation and of the fleet's budget."""
    said = []
    if "effective_devices" in fleet:
        said.append(f"The updates counted as much as {fleet['effective_devices']:.3g} equally weighted ones.")
    if "update_cosine" in fleet:
        said.append(f"The mean cosine between two of them was {fleet['update_cosine']:.2f}.")
    if "aggregation_bias" in fleet:
        said.append(f"Averaging factors and not products would be off by {percent(fleet['aggregation_bias'])}.")
    spent = [f"{amount(fleet[f'spent_{kind}'])} of {amount(cap)} {kind}" for kind, cap in caps.items()]
    found = [("Aggregated", " ".join(said))] if said else []
    return [*found, *([("Budget", f"The fleet has spent {joined(spent)} so far.")] if spent else [])]


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
