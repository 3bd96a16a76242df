r"""Inequalities of one variable as intervals: `x<-1 or x>3` as `(-\infty,-1)\cup(3,\infty)`, `5>x>-2` as `-2<x<5`."""

import re
from dataclasses import dataclass

_OR = re.compile(r"\s*(?:\\text\s*\{\s*or\s*\}|\\lor|\\vee|\bor\b)\s*")
_AND = re.compile(r"\s*(?:\\text\s*\{\s*and\s*\}|\\land|\\wedge|\band\b)\s*")
_BELOW = r"\s*(<=|<|\\le(?:q|qslant)?(?![A-Za-z]))\s*"
_ABOVE = r"\s*(>=|>|\\ge(?:q|qslant)?(?![A-Za-z]))\s*"
_SIDE = r"([^<>=]{1,60}?)"
_RISING = re.compile(rf"{_SIDE}{_BELOW}([A-Za-z]){_BELOW}{_SIDE}")
_FALLING = re.compile(rf"{_SIDE}{_ABOVE}([A-Za-z]){_ABOVE}{_SIDE}")
_LESS = re.compile(rf"{_SIDE}{_BELOW}{_SIDE}")
_MORE = re.compile(rf"{_SIDE}{_ABOVE}{_SIDE}")
_INFINITE = r"\infty"


@dataclass(frozen=True)
class _Interval:
    """The values of a variable between two ends."""

    low: str = f"-{_INFINITE}"
    low_closed: bool = False
    high: str = _INFINITE
    high_closed: bool = False

    def __str__(self) -> str:
        return f"{'[' if self.low_closed else '('}{self.low},{self.high}{']' if self.high_closed else ')'}"


def in_intervals(text: str) -> str:
    """The text, with inequalities that `or` or `and` joins as intervals, and a falling chain as a rising one."""
    falling = _FALLING.fullmatch(text)
    if falling:
        high, first, name, second, low = falling.groups()
        return f"{low}{_turned(second)}{name}{_turned(first)}{high}"
    for joint in (_OR, _AND):
        parts = [_interval(part) for part in joint.split(text)]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts) > 1:
            joined = "\\cup ".join(map(str, found)) if joint is _OR else _meeting(found)
            return joined or text
    return text


def _meeting(intervals: list[_Interval]) -> str | None:
    """What a bound from below and one from above have in common; None for others."""
    lows = [one for one in intervals if one.high == _INFINITE]
    highs = [one for one in intervals if one.low == f"-{_INFINITE}"]
    if len(intervals) != 2 or len(lows) != 1 or len(highs) != 1:
        return None
    return str(_Interval(lows[0].low, lows[0].low_closed, highs[0].high, highs[0].high_closed))


def _interval(text: str) -> _Interval | None:
    chain = _RISING.fullmatch(text)
    if chain:
        low, first, _, second, high = chain.groups()
        return _Interval(low, first != "<", high, second != "<")
    less, more = _LESS.fullmatch(text), _MORE.fullmatch(text)
    match = less or more
    if match is None:
        return None
    left, sign, right = match.groups()
    closed = sign not in ("<", ">")
    first, second = (left, right) if less else (right, left)  # first < second
    if len(first) == 1 and first.isalpha():
        return _Interval(high=second, high_closed=closed)
    if len(second) == 1 and second.isalpha():
        return _Interval(low=first, low_closed=closed)
    return None


def _turned(sign: str) -> str:
    return "<" if sign == ">" else "\\le "
