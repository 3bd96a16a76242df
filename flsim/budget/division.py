"""Divide what is left of a cap over rounds and over devices: exact arithmetic, so that no rounding creates a call.

Shares are `Fraction`s. Floats would make the result depend on the order of a sum, and could deal out a little more than
there is.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

_STEP = Fraction(618034, 1_000_000)  # about 1 / golden ratio: its multiples modulo 1 lie evenly however many are taken


def whole_part(cap: int, spent: int, round_: int, rounds: int) -> int:
    """A round's part of a cap on the whole run, in whole units; what is left over rounds left, without a remainder.

    The cap lies on a straight line over the rounds. A round gets its piece of the line, and an even part of what
    earlier rounds left over. By hand: of 10 calls in 4 rounds that all get spent, the rounds get 2, 3, 2 and 3; if
    nothing was spent, the third gets its 2 and half of the 5 left over, 4 in all, and the last all that is left.

    Args:
        cap: of the run.
        spent: before this round.
        round_: from 1.
        rounds: of the run.
    """
    before, after = cap * (round_ - 1) // rounds, cap * round_ // rounds
    saved = max(0, before - spent) // (rounds - round_ + 1)
    return min(after - before + saved, max(0, cap - spent))


def exact_part(cap: float, spent: Fraction, round_: int, rounds: int) -> Fraction:
    """A round's part of a cap that need not be a whole number: what is left over rounds left."""
    return max(Fraction(0), Fraction(cap) - spent) / (rounds - round_ + 1)


def even(weights: Mapping[int, Fraction]) -> dict[int, Fraction]:
    """Weights of at least 0 as shares that sum to 1; equal ones if all weights are 0."""
    total = sum(weights.values(), Fraction(0))
    return {key: weight / total if total else Fraction(1, len(weights)) for key, weight in weights.items()}


def split_whole(pool: int, shares: Mapping[int, Fraction], turn: int) -> dict[int, int]:
    """Deal out a whole number by shares: everyone gets its exact part rounded down or up, together exactly `pool`.

    Systematic sampling (Madow 1949): the exact parts lie in a row, and everyone gets the whole numbers, shifted by an
    offset, that fall into its piece. The offset moves with `turn`, so that over the rounds everyone comes to its exact
    part. Largest remainders would favour the same devices in every round: of five calls for sixteen devices of nearly
    equal shares, five would always get one and eleven never.

    Args:
        pool: what there is.
        shares: by device; they sum to 1. Their order does not matter.
        turn: such as the round.
    """
    offset = turn * _STEP % 1
    dealt, end = {}, offset
    for key in sorted(shares):
        start, end = end, end + pool * shares[key]
        dealt[key] = math.floor(end) - math.floor(start)
    return dealt


def split_exact(pool: Fraction, shares: Mapping[int, Fraction]) -> dict[int, float]:
    """Deal out an amount by shares, each rounded down to a float, so that together they are never above the pool."""
    return {key: below(pool * share) for key, share in shares.items()}


def below(value: Fraction) -> float:
    """The largest float that is not above a value of at least 0."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, 0.0)
