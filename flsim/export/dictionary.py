"""The data dictionary of an export: every column, every name of rows and every measure, with its unit and meaning."""

import re

import pandas as pd

from flsim.metrics.measures import MEASURES, Measure
from flsim.metrics.users_frame import dictionary_of

COLUMNS = ("table", "name", "unit", "meaning", "measures")
"""Of the dictionary: the file without its ending, a column or, of rows, also a name; what it counts in; what it means;
and which measures of `flsim list measures` read rows of that name."""

_OF_ROWS = {
    "round": ("count", "The round after which it was measured; 0 is before training."),
    "device": ("text", "The device, which is one user; empty for what is measured of the whole fleet."),
    "task": ("text", "The task that it is of; all stands for all tasks together."),
    "split": ("text", "test or validation, train, user (facts of users), fleet, stage or warmup."),
    "model": (
        "text",
        "global: the aggregated adapter; own: a device's; frozen, random, cloud, base: what never learns.",
    ),
    "name": ("text", "What was measured; each name has a line of its own in this dictionary."),
    "total": ("number", "The sum of what was measured; total / weight is its mean."),
    "weight": ("number", "Over how many prompts, responses or devices the sum goes."),
}
_NAMES = (
    ("alone_reward|reward", "share", "Reward of training responses, with the cloud or alone."),
    ("difficulty", "share", "How hard training prompts are: 0 the easiest of their task, 1 the hardest."),
    (
        "claimed_\\d+",
        "share",
        "What the asking rule claims of being wrong alone, of prompts with a claim in this tenth.",
    ),
    ("wrong_claimed_\\d+", "share", "How often the device alone was wrong on prompts with a claim in this tenth."),
    ("test_items", "count", "Test prompts of the user that are tested, of all that it has."),
    ("traffic", "count", "Prompts that the user's stream brings in the whole run."),
    ("cloud_prompt_tokens", "tokens", "Tokens that were sent to the cloud."),
    ("cloud_completion_tokens", "tokens", "Tokens that the cloud answered."),
    ("cloud_trips", "count", "Requests to the cloud, those at which it failed among them."),
    ("decode_steps", "count", "Steps of decoding if each prompt's responses are drawn at once."),
    ("unanimous_groups|effective_groups", "count", "Groups of responses that are all alike in reward, or that differ."),
    ("aggregation_share", "share", "The weight of the device's update in the next adapter."),
    ("update_norm", "number", "How far the device's update moves the adapter, in the Frobenius norm of its product."),
    ("update_cosine|mean_cosine", "number", "How far updates point the same way: 1 alike, 0 at right angles."),
    ("effective_devices", "count", "Of how many devices of equal weight the aggregation is worth."),
    (
        "aggregation_bias|cut_energy",
        "share",
        "What an aggregation of factors adds to, or leaves out of, the exact mean.",
    ),
    ("set_aside", "count", "The device's update was set aside in this round; the task column says why, in one word."),
    ("seconds", "seconds", "Seconds of work; they differ between two equal runs."),
    ("class_.+", "count", "The class that the device is of."),
)
"""Names of rows that no measure is read from directly: a pattern, the unit, and what it is."""
_REST = "Reported by the run's client, strategy or stage, whose page in docs/ or docstring says more."


def dictionary(rows: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    """Everything that stands in the tables of an export.

    Args:
        rows: all rows of a run.
        users: as `users_frame` gives them.

    Returns:
        A line per column of rows, per name in them, and per column of users, with the columns of `COLUMNS`.
    """
    lines = [("rows", name, *_OF_ROWS[name], "") for name in rows.columns]
    lines += [("rows: name", name, *_told(name)) for name in sorted(rows["name"].unique())]
    told = dictionary_of(users).itertuples(index=False)
    lines += [("users", str(one.column), str(one.unit), str(one.meaning), "") for one in told]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _told(name: str) -> tuple[str, str, str]:
    """Unit, meaning and measures of a name of rows."""
    read = [one for one in MEASURES.values() if name in _read_by(one)]
    names = ", ".join(one.name for one in read)
    for pattern, unit, meaning in _NAMES:
        if re.fullmatch(pattern, name):
            return unit, meaning, names
    if not read:
        return "number", _REST, ""
    same = next((one for one in read if one.name == name), read[0])
    return same.unit, same.meaning, names


def _read_by(measure: Measure) -> tuple[str, ...]:
    """The names of rows that a measure reads; none for one that is made of several things."""
    named = getattr(measure.of, "name", ())
    return (named,) if isinstance(named, str) else tuple(named)
