"""Median of the factors, number by number (Yin et al. 2018, arXiv 1803.01498)."""

from typing import Any

from strategies import reducers
from strategies.fedavg import FedAvg


class Median(FedAvg):
    """`FedAvg(reducer=reducers.Median())`; takes its other parts, too."""

    def __init__(self, **parts: Any) -> None:
        """Take FedAvg's other parts."""
        super().__init__(reducer=reducers.Median(), **parts)
