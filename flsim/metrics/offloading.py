"""How a budget was used: usage against tau over time, and what the cloud's help brought for its price.

Names follow RouteLLM (Ong et al. 2024, arXiv 2406.18665) for the curves of accuracy over the share of prompts sent.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

T = TypeVar("T", float, pd.Series)


def violation(usage: Sequence[float], tau: float) -> float:
    """Mean over rounds of what usage is above the budget, `mean max(0, c_t - tau)`; what is below does not make up."""
    return float(np.maximum(np.asarray(usage, dtype=float) - tau, 0.0).mean())


def settling_rounds(usage: pd.Series, tau: float, *, tolerance: float = 0.05) -> int | None:
    """Rounds from the first of a phase until usage is within tau +- tolerance and stays there to its last.

    Args:
        usage: the share of responses that asked, by round, of one phase.
        tau: the budget.
        tolerance: half the width of the band.

    Returns:
        0 if it never left the band; None if it was outside in the last round.
    """
    outside = usage[(usage - tau).abs() > tolerance + 1e-12]
    if outside.empty:
        return 0
    later = usage[usage.index > outside.index[-1]]
    return None if later.empty else int(later.index[0]) - int(usage.index[0])


def performance_gap_recovered(accuracy: float, weak: float, strong: float) -> float:
    """PGR: the share of the gap between the device alone and the cloud alone that is closed; nan without a gap."""
    return (accuracy - weak) / (strong - weak) if strong > weak else float("nan")


def average_gap_recovered(shares: Sequence[float], accuracies: Sequence[float], weak: float, strong: float) -> float:
    """APGR: the mean of PGR over the share of prompts sent, from 0 to 1, by the trapezoid rule.

    The ends (0, weak) and (1, strong) are added, so that APGRs of curves measured at different shares compare.

    Args:
        shares: of prompts sent, in (0, 1), in any order.
        accuracies: at these shares.
        weak: accuracy of the device alone.
        strong: accuracy of the cloud alone; above `weak`.
    """
    places, values = _curve(shares, accuracies, weak, strong)
    gaps = np.array([performance_gap_recovered(value, weak, strong) for value in values])
    return float(((gaps[1:] + gaps[:-1]) / 2 * np.diff(places)).sum())


def call_performance_threshold(
    share_of_gap: float, shares: Sequence[float], accuracies: Sequence[float], weak: float, strong: float
) -> float:
    """CPT(x): the least share of prompts to send so that the share x of the gap is closed, between measured points.

    Args:
        share_of_gap: x in [0, 1]; 0.5 gives CPT(50).
        shares: as for `average_gap_recovered`; a dip of the curve is filled up by what fewer calls reach.
        accuracies: at these shares.
        weak: accuracy of the device alone.
        strong: accuracy of the cloud alone.
    """
    places, values = _curve(shares, accuracies, weak, strong)
    best = np.maximum.accumulate(values)
    wanted = weak + share_of_gap * (strong - weak)
    at = int(np.argmax(best >= wanted - 1e-12))
    if at == 0:
        return float(places[0])
    rise = (wanted - best[at - 1]) / (best[at] - best[at - 1])
    return float(places[at - 1] + rise * (places[at] - places[at - 1]))


def share_left(spend: float, training: T, horizon: float) -> T:
    """Requests per test prompt that are left if training and test together may make `spend` for every prompt.

    `((1 + H) S - t) / H`, below 0 where training alone has made more. By hand, S = 0.3, H = 1: 0.2 requests per
    training prompt leave 0.4 per test prompt, and none leave 0.6.

    Args:
        spend: S, requests per prompt of both kinds.
        training: t, requests per training prompt, of one learner or of each user.
        horizon: H > 0, test prompts for each training prompt.
    """
    return ((1 + horizon) * spend - training) / horizon


def accuracy_at(
    share: float, shares: Sequence[float], accuracies: Sequence[float], weak: float, strong: float
) -> float:
    """Accuracy if that share of prompts is sent, between measured points by straight lines; above 1 it is 1.

    Args:
        share: nan if it is below 0: there is nothing left to send, nor to give back.
        shares: of prompts sent, in (0, 1), in any order.
        accuracies: at these shares.
        weak: accuracy of the device alone.
        strong: accuracy of the cloud alone; it may be below `weak`.
    """
    if share < -1e-9:
        return float("nan")
    inner = sorted(zip(shares, accuracies, strict=True))
    places, values = zip((0.0, weak), *inner, (1.0, strong), strict=True)
    return float(np.interp(share, places, values))


def cost_per_correct(money: float, correct: float) -> float:
    """Money per right answer; inf if none is right."""
    return money / correct if correct > 0 else float("inf")


def _curve(
    shares: Sequence[float], accuracies: Sequence[float], weak: float, strong: float
) -> tuple[np.ndarray, np.ndarray]:
    """The measured curve by rising share, with its two ends."""
    if not strong > weak:
        raise ValueError(
            f"the cloud's accuracy {strong} must be above the device's own {weak}: there is no gap to close"
        )
    inner = sorted((s, a) for s, a in zip(shares, accuracies, strict=True) if 0 < s < 1)
    points = np.array([(0.0, weak), *inner, (1.0, strong)])
    return points[:, 0], points[:, 1]
