"""Geometric median over products (RFA, Pillutla et al. 2022, arXiv 1912.13445): half of the weight must be honest.

Distances are those of the products B A, found from r x r Grams.
"""

from typing import Any

from strategies import reducers
from strategies.flex_lora import FlexLora


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
