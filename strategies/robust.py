"""Strategies that stand some malicious devices: robust reducers in the place of the mean.

Number by number, on the factors, work the median and the trimmed mean (Yin et al. 2018, arXiv 1803.01498). Over the
products B A work Multi-Krum (Blanchard et al. 2017, arXiv 1703.02757), the mean of the devices that lie closest
together, and the geometric median (RFA, Pillutla et al. 2022, arXiv 1912.13445), for which half of the weight must be
honest; their distances are found from r x r Grams, and no device can hide behind another frame of its factors.
"""

from typing import Any

from strategies.fedavg import FedAvg
from strategies.flex_lora import FlexLora
from strategies.parts import reducers


class Median(FedAvg):
    """`FedAvg(reducer=reducers.Median())`."""

    def __init__(self, **parts: Any) -> None:
        """Take FedAvg's other parts."""
        super().__init__(reducer=reducers.Median(), **parts)


class TrimmedMean(FedAvg):
    """`FedAvg(reducer=reducers.TrimmedMean(share))`."""

    def __init__(self, share: float = 0.2, **parts: Any) -> None:
        """Say how much to drop at each end, and take FedAvg's other parts."""
        super().__init__(reducer=reducers.TrimmedMean(share), **parts)


class MultiKrum(FlexLora):
    """`FlexLora(reducer=reducers.MultiKrum(byzantine, keep))`."""

    def __init__(self, byzantine: float = 0.2, keep: int | None = None, **parts: Any) -> None:
        """Say how many to fear and to average, and take FlexLoRA's other parts."""
        super().__init__(reducer=reducers.MultiKrum(byzantine, keep), **parts)


class GeometricMedian(FlexLora):
    """`FlexLora(reducer=reducers.GeometricMedian(iterations, smoothing))`."""

    def __init__(self, iterations: int = 100, smoothing: float = 1e-6, **parts: Any) -> None:
        """Say how exactly, and take FlexLoRA's other parts."""
        super().__init__(reducer=reducers.GeometricMedian(iterations, smoothing), **parts)
