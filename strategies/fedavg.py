"""FedAvg on LoRA factors, also called FedIT: the mean of the deltas, weighted by examples.

McMahan et al. 2017 (arXiv 1602.05629), for LoRA Zhang et al. 2023 (arXiv 2305.05644). Averaging A and B apart differs
from averaging the products B A by the covariance of the two over the devices.
"""

import numpy as np
from numpy.typing import NDArray

from flsim.models.adapter import Adapter
from strategies.base import MeanStrategy


class FedAvg(MeanStrategy):
    """`adapter + server_lr * sum_k (n_k / n) delta_k`, summed exactly."""

    def __init__(self, server_lr: float = 1.0) -> None:
        """Set the step.

        Args:
            server_lr: 1 is the plain average of the devices' adapters.
        """
        super().__init__()
        self.server_lr = server_lr

    def step(self, adapter: Adapter, mean: dict[str, NDArray[np.float64]]) -> Adapter:
        """The whole way along the mean, or part of it."""
        return {n: (tensor + self.server_lr * mean[n]).astype(np.float32) for n, tensor in adapter.items()}
