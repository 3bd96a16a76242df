"""Weighters: how much say a device has in the mean, by what its reply reports.

A weighter is called with a device's `Measures` and gives a weight, finite and at least 0; only the ratios count. Any
picklable function will do. One that has `observe(measures)` is told after each round what the devices reported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from flsim.flower.messages import Measures


@dataclass(frozen=True)
class ByExamples:
    """Every prompt counts the same: n_k (McMahan et al. 2017, arXiv 1602.05629)."""

    def __call__(self, measures: Measures) -> float:
        """n_k."""
        return float(measures.num_examples)


@dataclass(frozen=True)
class Uniform:
    """Every device that learned from anything counts the same."""

    def __call__(self, measures: Measures) -> float:
        """1, or 0 for a device without examples."""
        return float(measures.num_examples > 0)


@dataclass(frozen=True)
class EffectiveGroups:
    """Prompts whose group of responses had a non-zero advantage: the others taught the device nothing."""

    def __call__(self, measures: Measures) -> float:
        """Their number."""
        return float(measures.effective_groups)


@dataclass(frozen=True)
class QFair:
    """More say to devices that do badly: `n_k F_k^q` with the loss F_k = 1 - reward.

    The gradient of q-FFL's objective `sum n_k F_k^(q+1) / (q+1)` weighs devices so (Li et al. 2020, arXiv 1905.10497,
    eq. 2); unlike q-FedAvg it does not set the step by an estimated Lipschitz constant.
    """

    q: float = 1.0
    """0 is the plain mean; larger is fairer."""

    def __post_init__(self) -> None:
        """Refuse a q that would favour devices that do well."""
        if not 0 <= self.q < math.inf:
            raise ValueError(f"q={self.q} must be at least 0 and finite; 0 weighs by examples alone")

    def __call__(self, measures: Measures) -> float:
        """`n_k (1 - reward)^q`; a reward above 1 counts as 1."""
        return measures.num_examples * float(max(0.0, 1.0 - measures.reward) ** self.q)


@dataclass
class RewardGain:
    """More say to devices whose reward rose against their own history, as in FGRPO (arXiv 2606.03094).

    `n_k exp(clip((r_k - h_k) / temperature, -most, most))`, h_k being the device's own exponential mean of earlier
    rewards; smoothing and clip keep one lucky batch from ruling a round. Only the paper's abstract was at hand: the
    form of the weight is ours.
    """

    temperature: float = 0.1
    """Gain in reward that multiplies the weight by e."""
    most: float = 1.0
    """Largest magnitude of the exponent."""
    smoothing: float = 0.3
    """Share of the newest reward in the history, in (0, 1]."""
    history: dict[int, float] = field(default_factory=dict)
    """h_k by device."""

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        for name, good, allowed in (
            ("temperature", 0 < self.temperature < math.inf, "above 0 and finite"),
            ("most", 0 <= self.most <= 100, "in [0, 100]; 0 weighs by examples alone"),
            ("smoothing", 0 < self.smoothing <= 1, "above 0 and at most 1"),
        ):
            if not good:
                raise ValueError(f"{name}={getattr(self, name)} of RewardGain must be {allowed}")

    def __call__(self, measures: Measures) -> float:
        """The weight; n_k for a device without history."""
        gain = (measures.reward - self.history.get(measures.device, measures.reward)) / self.temperature
        return measures.num_examples * math.exp(max(-self.most, min(self.most, gain)))

    def observe(self, measures: Sequence[Measures]) -> None:
        """Move the histories."""
        for one in measures:
            old = self.history.get(one.device, one.reward)
            self.history[one.device] = old + self.smoothing * (one.reward - old)
