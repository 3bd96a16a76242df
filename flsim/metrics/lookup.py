"""Find a round and a device of a run by what a person types, and say what there is where there is no such thing."""

import pandas as pd

from flsim.config.ranges import ConfigError
from flsim.devices import device_index, device_name

_SHOWN = 8  # names in a sentence


def round_of(rows: pd.DataFrame, asked: str | None, run: object) -> int:
    """The round that is meant, one in which devices learned.

    Args:
        rows: all of the run.
        asked: as it was typed; None is the last.
        run: its folder, for the error.

    Raises:
        ConfigError: if there is no such round.
    """
    there = sorted(int(number) for number in rows["round"].unique() if number > 0)
    if not there:
        raise ConfigError(f"{run} has no round in which a device learned: its rows end at round 0")
    if asked is None:
        return there[-1]
    number = int(asked) if asked.isdecimal() else None
    if number not in there:
        why = "round 0 only measures, and " if number == 0 else ""
        raise ConfigError(f"round={asked} is no round of {run}: {why}devices learned in rounds 1 to {there[-1]}")
    return number


def device_of(rows: pd.DataFrame, asked: str, round_: int, run: object) -> int:
    """The index of the device that is meant, which took part in a round.

    Args:
        rows: all of the run.
        asked: its name or its index, as it was typed.
        round_: the round.
        run: its folder, for the error.

    Raises:
        ConfigError: if there is no such device, or it was not part of the round.
    """
    of_training = rows[(rows["split"] == "train") & (rows["device"] != "")]
    try:
        name = device_name(device_index(asked))
    except ValueError:
        name = asked
    mine = of_training[of_training["device"] == name]
    if (mine["round"] == round_).any():
        return device_index(name)
    if len(mine):
        rounds = sorted(int(number) for number in mine["round"].unique())
        raise ConfigError(f"{name} took no part in round {round_} of {run}; it did in rounds {_few(rounds)}")
    there = sorted(of_training.loc[of_training["round"] == round_, "device"].unique(), key=device_index)
    raise ConfigError(f"device={asked} took part in no round of {run}; in round {round_} there were {_few(there)}")


def _few(names: list[int] | list[str]) -> str:
    """The first of them, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
