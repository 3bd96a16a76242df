"""How a run stands: running, done, stopped, failed or waiting, and why; from what its folder holds and nothing else.

Law: whatever the signs are, there is exactly one state, and only a run that somebody works on is running.
"""

import re
from dataclasses import dataclass

RUNNING, DONE, STOPPED, FAILED, WAITING = "running", "done", "stopped", "failed", "waiting"
STATES = (RUNNING, WAITING, FAILED, STOPPED, DONE)
"""In the order in which one looks at them."""
_DATED = re.compile(r"\d{4}-\d\d-\d\d \S+ ([A-Z]+) (.*)")
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
_PACE = 5  # rounds whose mean length is taken for that of those to come


@dataclass(frozen=True)
class Signs:
    """What a run's folder says of it; None stands for what is not known."""

    rounds: int | None
    """That the run is to have; None if its config cannot be read."""
    newest: int | None
    """The last that has rows; None before round 0 has."""
    owner: str | None = None
    """Whoever has the folder, or had it and did not let it go; None if nobody."""
    lives: bool = False
    """Whether the owner is still at work."""
    is_paused: bool = False
    """Whether it is, and its process is stopped."""
    error: str | None = None
    """Why the run ended, as the last start in its log tells; None if it does not."""
    reported: int | None = None
    """The round that its report is of; None if it has none."""


@dataclass(frozen=True)
class Standing:
    """A state, and why in a few words."""

    state: str
    """Of `STATES`."""
    why: str = ""
    """Empty where there is nothing to say."""


def standing_of(signs: Signs) -> Standing:
    """What the signs mean."""
    newest, rounds = signs.newest, signs.rounds
    if signs.owner is not None and signs.lives:
        return Standing(RUNNING, _doing(signs))
    is_through = newest is not None and rounds is not None and newest >= rounds
    if is_through and signs.reported == newest:
        return Standing(DONE)
    if signs.error is not None:
        return Standing(FAILED, signs.error)
    if signs.owner is not None:
        return Standing(FAILED, f"{signs.owner}, ended without a word: it was killed, or ran out of memory")
    if is_through:
        return Standing(STOPPED, "all rounds are done, and the report is not; flsim resume writes it")
    if newest is not None and signs.reported == newest:
        return Standing(STOPPED, f"its report is of round {newest}; flsim resume goes on")
    return Standing(STOPPED, "flsim resume goes on")


def _doing(signs: Signs) -> str:
    """What a run does besides its rounds."""
    if signs.is_paused:
        return f"paused: {signs.owner}"
    if signs.newest is None:
        return "before its first round"
    if signs.rounds is not None and signs.newest >= signs.rounds and signs.reported != signs.newest:
        return "writing its report"
    return ""


def last_error(log: str) -> str | None:
    """Why the last start of a run ended, from the lines of its log; None if they do not say that it did.

    Args:
        log: the end of `run.log`, whole lines such as `2026-11-29 11:24:54,591 ERROR text`, and tracebacks.
    """
    found: str | None = None
    traced = False
    for line in log.splitlines():
        dated = _DATED.match(line)
        if dated is None:
            found = line.strip() if traced and _RAISED.match(line) else found
            continue
        level, text = dated.groups()
        traced = False
        if level == "INFO" and text.startswith("rounds "):
            found = None  # it was begun again
        elif level == "ERROR" and found is None:
            found, traced = text.removeprefix("the run failed: "), text == "the run failed"
    return found


def troubles_of(log: str, most: int = 12) -> list[str]:
    """The last lines of a log that are more than information, such as devices that were set aside; the newest first."""
    lines = [line for line in log.splitlines() if " WARNING " in line[:40] or " ERROR " in line[:40]]
    return lines[: -most - 1 : -1]


def ends_at(wall_s: list[float], left: int, since: float) -> float | None:
    """When a run that goes on will have done its rounds, by the pace of its last ones.

    By hand: rounds of 9, 3 and 3 s after round 0, two more to go and the last done at 100: the mean of three is 5 s, so
    at 110.

    Args:
        wall_s: seconds of the rounds so far, in order, without round 0, which only measures.
        left: rounds that are still to do.
        since: when the last of them was done, in seconds since 1970.

    Returns:
        Seconds since 1970; None before there is a pace.
    """
    late = wall_s[-_PACE:]
    return since + left * sum(late) / len(late) if late else None
