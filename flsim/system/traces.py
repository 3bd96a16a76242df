"""Traces of who was there when: the forms of FLASH and of FedScale as JSON, and CSV.

FLASH (Yang et al. 2021, arXiv 2006.06983), `state_traces.json`: by user a table with `messages`, lines of
    `2020-01-28 23:10:05<tab>battery_charged_on`. As there, one is there while charging, on Wi-Fi and locked; a state
    holds until it changes, and what is not over at the last line is left out, as are users who are never there.
FedScale (Lai et al. 2022, arXiv 2105.11367): by client `{active: [...], inactive: [...], finish_time: ...}`, the
    seconds at which windows begin and end, and after which they come again.
CSV: `device,from_s,until_s`, a window a line, and all come again after the last `until_s` of the file.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsim.config.ranges import ConfigError
from flsim.system.seconds import MICROSECONDS

COLUMNS = ("device", "from_s", "until_s")
_LONGEST = 1e12  # seconds; in microseconds well within 63 bits
_SWITCHES = {
    "battery_charged_on": ("charging", True),
    "battery_charged_off": ("charging", False),
    "wifi": ("wifi", True),
    **dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), ("wifi", False)),
    "screen_lock": ("locked", True),
    "screen_unlock": ("locked", False),
    "screen_on": ("lit", True),  # FLASH reads it and goes by the lock
    "screen_off": ("lit", False),
}
"""FLASH's states: which of what it follows each sets, and to what."""
_NEEDED = {"charging", "wifi", "locked"}


@dataclass(frozen=True, eq=False)
class Traces:
    """Windows of U users, W in all, in microseconds of each user's own period."""

    starts: NDArray[np.int64]
    """Of each window, (W,); those of a user are sorted, and do not touch."""
    ends: NDArray[np.int64]
    """Of each window, (W,), outside of it."""
    first: NDArray[np.int64]
    """Of each user, the place of the first window, (U + 1,)."""
    periods: NDArray[np.int64]
    """Of each user, after which windows come again, (U,)."""
    offsets: NDArray[np.int64]
    """Of each user, how far into the period the run begins, (U,)."""
    left_out: int = 0
    """How many users could not be read, or are never there, of a form that says to leave these out."""

    def windows(self, device: int) -> tuple[int, int, int]:
        """The user whose trace a device has, the place of the first window, and that after the last."""
        user = device % len(self.periods)
        return user, int(self.first[user]), int(self.first[user + 1])


@dataclass(frozen=True)
class _User:
    """One user's trace, in microseconds."""

    windows: list[tuple[int, int]]
    period: int
    offset: int = 0


def read_traces(path: Path) -> Traces:
    """The traces of a file; a file that did not change is read once in a process.

    Raises:
        ConfigError: saying what is wrong where, what is expected, and the mend.
    """
    try:
        found = path.stat()
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ConfigError(
            f"system.availability.path={path}: cannot be read ({error.strerror}); a relative path is looked for in the "
            f"current folder ({Path.cwd()}), then beside the config file that names it"
        ) from error
    if head[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        raise ConfigError(
            f"{path}: is a pickle, which may hold code that runs when it is opened, so it is not; if you trust whoever "
            f"made it, convert it yourself: python -c 'import json, pickle; json.dump(pickle.load(open("
            f'"{path.name}", "rb")), open("traces.json", "w"))\''
        )
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, changed: int, size: int) -> Traces:
    """The traces of a file as it was when it last changed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8 ({error}); save it as JSON or CSV in UTF-8") from error
    if text.lstrip()[:1] not in ("{", "["):
        return _joined(_of_csv(path, text))
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); get it anew, or give a CSV of {','.join(COLUMNS)}") from error
    first = next(iter(table.values()), None) if isinstance(table, dict) else None
    if isinstance(first, dict) and "messages" in first:
        users, left_out = _of_flash(path, table)
        return _joined(users, left_out)
    if isinstance(first, dict) and "active" in first:
        return _joined([_of_fedscale(f"{path}, client {name!r}", one) for name, one in table.items()])
    raise ConfigError(
        f"{path}: is JSON in a form that is not known; expected are users by name, each with messages (FLASH) or with "
        f"active, inactive and finish_time (FedScale); write any other as a CSV of {','.join(COLUMNS)}"
    )


def _joined(users: Iterable[_User], left_out: int = 0) -> Traces:
    """The users' windows behind each other, sorted, cut to the period, and without those that touch."""
    users = list(users)
    merged = [_merged(one) for one in users]
    flat = np.array([window for windows in merged for window in windows], np.int64).reshape(-1, 2)  # (W, 2)
    first = np.cumsum([0, *map(len, merged)], dtype=np.int64)  # (U + 1,)
    periods = np.array([one.period for one in users], np.int64)  # (U,)
    offsets = np.array([one.offset for one in users], np.int64)  # (U,)
    return Traces(flat[:, 0].copy(), flat[:, 1].copy(), first, periods, offsets, left_out)


def _merged(user: _User) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted((start, min(end, user.period)) for start, end in user.windows):
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _of_csv(path: Path, text: str) -> list[_User]:
    """Users in the order in which they first appear."""
    lines = csv.reader(text.splitlines())
    head = [name.strip() for name in next(lines, [])]
    if head != list(COLUMNS):
        raise ConfigError(
            f"{path}, line 1: is {','.join(head)!r}, and must be {','.join(COLUMNS)!r}, the columns of a CSV of windows"
        )
    windows: dict[str, list[tuple[int, int]]] = {}
    for row in lines:
        if not row:
            continue
        start, end = (_time(value) for value in row[1:]) if len(row) == len(COLUMNS) else (None, None)
        if start is None or end is None or start > end:
            raise ConfigError(
                f"{path}, line {lines.line_num}: {','.join(row)!r} is no window; write a device, the second at which "
                f"it comes (at least 0) and the one at which it goes, such as 7,79200,104400"
            )
        windows.setdefault(row[0].strip(), []).append((start, end))
    period = max((end for ends in windows.values() for _, end in ends), default=0)
    if not period:
        raise ConfigError(f"{path}: holds no window; write some below {','.join(COLUMNS)}, such as 7,79200,104400")
    return [_User(found, period) for found in windows.values()]


def _of_fedscale(where: str, client: Any) -> _User:
    """One client."""
    form = "expected is {active: [seconds], inactive: [seconds], finish_time: seconds} as FedScale has it"
    if not isinstance(client, Mapping) or not {"active", "inactive", "finish_time"} <= client.keys():
        raise ConfigError(f"{where}: {form}; mend this client, or take it out")
    active, inactive, period = client["active"], client["inactive"], _time(client["finish_time"])
    if not period:
        raise ConfigError(f"{where}: finish_time={client['finish_time']!r} must be above 0 seconds; {form}")
    if not isinstance(active, list) or not isinstance(inactive, list) or len(active) != len(inactive):
        raise ConfigError(f"{where}: active and inactive must be lists of one length, a window each; {form}")
    windows = list[tuple[int, int]]()
    for start, end in zip(map(_time, active), map(_time, inactive), strict=True):
        if start is None or end is None or start > end:
            raise ConfigError(f"{where}: window {len(windows)} does not begin at 0 or later and end after it; {form}")
        windows.append((start, end))
    return _User(windows, period)


def _of_flash(path: Path, table: Mapping[str, Any]) -> tuple[list[_User], int]:
    """The users that are there at some time, and how many are left out; midnight before all of them is time 0."""
    said = [_flash_windows(one.get("messages") if isinstance(one, Mapping) else None) for one in table.values()]
    found = [one for one in said if one is not None]
    if not found:
        raise ConfigError(
            f"{path}: of {len(table)} users in FLASH's form none is ever there, that is charging, on Wi-Fi and locked; "
            f"messages must be lines of a time, a tab and a state, such as '2020-01-28 23:10:05\\tbattery_charged_on'"
        )
    midnight = min(begin for begin, _, _ in found).replace(hour=0, minute=0, second=0, microsecond=0)
    users = []
    for begin, end, windows in found:
        since = _since(begin)
        inside = [(since(start), since(stop)) for start, stop in windows]
        users.append(_User(inside, since(end), since(midnight)))
    return users, len(table) - len(found)


def _since(begin: datetime) -> Callable[[datetime], int]:
    """Microseconds from `begin` to a moment."""
    return lambda moment: (moment - begin) // timedelta(microseconds=1)


def _flash_windows(messages: Any) -> tuple[datetime, datetime, list[tuple[datetime, datetime]]] | None:
    """First and last moment of a user's lines and the windows between them; None if there are none to be had."""
    try:
        lines = [line.split("\t") for line in messages.splitlines() if line.strip()]
        changes = [(datetime.fromisoformat(moment.strip()[:19]), state.strip().lower()) for moment, state in lines]
        changes.sort(key=lambda change: change[0])
    except (AttributeError, TypeError, ValueError):
        return None
    holds, windows, start = set[str](), list[tuple[datetime, datetime]](), None
    for moment, state in changes:
        if state.endswith("%"):  # the battery's level, by which FLASH does not go
            continue
        if state not in _SWITCHES:
            return None
        what, on = _SWITCHES[state]
        holds = holds | {what} if on else holds - {what}
        if holds >= _NEEDED:
            start = start or moment
        elif start is not None:
            windows += [(start, moment)] if start < moment else []
            start = None
    return (changes[0][0], changes[-1][0], windows) if windows else None


def _time(value: Any) -> int | None:
    """Seconds, as a number or a text, in microseconds; None if they are no time."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return round(seconds * MICROSECONDS) if math.isfinite(seconds) and 0 <= seconds <= _LONGEST else None
