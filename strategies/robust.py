"""Median of the factors, number by number (Yin et al. 2018, arXiv 1803.01498)."""

from typing import Any

from strategies.fedavg import FedAvg
from strategies.flex_lora import FlexLora
from strategies.parts import reducers


class Median(FedAvg):
    """`FedAvg(reducer=reducers.Median())`; takes its other parts, too."""

    def __init__(self, **parts: Any) -> None:
        """Take FedAvg's other parts."""
        super().__init__(reducer=reducers.Median(), **parts)


# FOLDED strategies/robust.py
# Trimmed mean of the factors, number by number (Yin et al. 2018, arXiv 1803.01498).


class TrimmedMean(FedAvg):
    """`FedAvg(reducer=reducers.TrimmedMean(...))`; takes its other parts, too."""

    def __init__(self, share: float = 0.2, **parts: Any) -> None:
        """Say how much to drop.

        Args:
            share: of the devices that is dropped at each end, at least 0 and below a half.
            parts: FedAvg's other ones.
        """
        super().__init__(reducer=reducers.TrimmedMean(share), **parts)


# FOLDED strategies/robust.py
# Multi-Krum over products: the mean of the devices that lie closest together.
#
# Blanchard et al. 2017 (arXiv 1703.02757). Distances are those of the products B A, found from r x r Grams; a
# device
# cannot hide behind another frame of its factors.


class MultiKrum(FlexLora):
    """`FlexLora(reducer=reducers.MultiKrum(...))`; takes its other parts, too."""

    def __init__(self, byzantine: float = 0.2, keep: int | None = None, **parts: Any) -> None:
        """Say how many to fear.

        Args:
            byzantine: share of devices that may be malicious, at least 0 and below a half.
            keep: how many updates are averaged; 1 is Krum; None keeps all but as many as may be malicious.
            parts: FlexLoRA's other ones.
        """
        super().__init__(reducer=reducers.MultiKrum(byzantine, keep), **parts)


# FOLDED strategies/robust.py
# Geometric median over products (RFA, Pillutla et al. 2022, arXiv 1912.13445): half of the weight must be
# honest.
#
# Distances are those of the products B A, found from r x r Grams.


class GeometricMedian(FlexLora):
    """`FlexLora(reducer=reducers.GeometricMedian(...))`; takes its other parts, too."""

    def __init__(self, iterations: int = 100, smoothing: float = 1e-6, **parts: Any) -> None:
        """Say how exactly.

        Args:
            iterations: of Weiszfeld's algorithm.
            smoothing: distances below it count as that.
            parts: FlexLoRA's other ones.
        """
        super().__init__(reducer=reducers.GeometricMedian(iterations, smoothing), **parts)
