"""Read a sweep's arguments: `key=a,b,c` and `key=0..4` are axes, `key=value` is a setting of all runs."""

import re
from collections.abc import Sequence

from flsim.config.schema import ConfigError

METHOD, SEED = "method", "seed"
_ALWAYS = (METHOD, SEED)  # axes even with one value, so that a sweep can grow by these
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")


def read_axes(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Tell axes from settings.

    Args:
        arguments: such as `["method=da_grpo,alone", "seed=0..4", "rounds=12", "fleet.ranks=[8,4,2]"]`.

    Returns:
        Values by key of every axis, as they were written, and the settings as they were given.

    Raises:
        ConfigError: for an argument that cannot be read, a key given twice, or a value twice in an axis.
    """
    axes: dict[str, list[str]] = {}
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key or key.startswith("-"):
            raise ConfigError(f"cannot read {argument!r}: write key=value, key=a,b,c or key=0..4")
        if key in axes or key in settings:
            raise ConfigError(f"{key} is given twice; write all its values in one, such as seed=0..4,7")
        values = values_of(argument, text)
        if len(values) > 1 or key in _ALWAYS or _RANGE.fullmatch(text.strip()):
            axes[key] = values
        else:
            settings[key] = f"{key}={_unquoted(text)}"
    return axes, list(settings.values())


def values_of(argument: str, text: str) -> list[str]:
    """The values of an axis; ranges are counted out, both ends included.

    Raises:
        ConfigError: naming `argument`, for an empty value, an empty range, or a value given twice.
    """
    parts = split_values(argument, text)
    if len(parts) > 1 and "" in parts:
        raise ConfigError(f"{argument!r} has an empty value between its commas")
    values = [_unquoted(value) for part in parts for value in _counted(argument, part)]
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise ConfigError(f"{argument!r} holds the value {twice} twice")
    return values


def split_values(argument: str, text: str) -> list[str]:
    """Split at the commas that stand outside of brackets and quotes.

    Raises:
        ConfigError: naming `argument`, for a bracket or a quote without its partner.
    """
    parts, open_, quote = [""], "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and parts[-1].strip()[-1:] in ("", *"[{,:"):  # inside a word it is an apostrophe
            quote = letter
        elif letter in "[{":
            open_ += letter
        elif letter in "]}":
            if open_[-1:] + letter not in ("[]", "{}"):
                raise ConfigError(f"{argument!r} has a {letter} that nothing opens; quote the value if it is text")
            open_ = open_[:-1]
        if letter == "," and not quote and not open_:
            parts.append("")
        else:
            parts[-1] += letter
    if quote or open_:
        raise ConfigError(f"{argument!r} has a {quote or open_[-1]} that nothing closes; quote the value if it is text")
    return [part.strip() for part in parts]


def _unquoted(value: str) -> str:
    """A value without the quotes that hold its commas together; other quotes are part of a text."""
    text = value.strip()
    held = len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and "," in text
    return text[1:-1] if held else value


def _counted(argument: str, part: str) -> list[str]:
    """`0..4` as `0 1 2 3 4`, `0..8..4` as `0 4 8`; anything else as it is."""
    found = _RANGE.fullmatch(part)
    if found is None:
        return [part]
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if first > last or step == 0:
        raise ConfigError(f"{argument!r}: the range {part} is empty; write first..last or first..last..step")
    return [str(number) for number in range(first, last + 1, step)]
