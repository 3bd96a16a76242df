"""Trimmed mean of the factors, number by number (Yin et al. 2018, arXiv 1803.01498)."""

from typing import Any

from strategies import reducers
from strategies.fedavg import FedAvg


class TrimmedMean(FedAvg):
    """`FedAvg(reducer=reducers.TrimmedMean(...))`; takes its other parts, too."""

    def __init__(self, share: float = 0.2, **parts: Any) -> None:
        """Say how much to drop.

        Args:
            share: of the devices that is dropped at each end, at least 0 and below a half.
            parts: FedAvg's other ones.
        """
        super().__init__(reducer=reducers.TrimmedMean(share), **parts)
