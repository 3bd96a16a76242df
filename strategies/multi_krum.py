"""Multi-Krum over products: the mean of the devices that lie closest together.

Blanchard et al. 2017 (arXiv 1703.02757). Distances are those of the products B A, found from r x r Grams; a device
cannot hide behind another frame of its factors.
"""

from typing import Any

from strategies import reducers
from strategies.flex_lora import FlexLora


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
