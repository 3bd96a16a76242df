"""FedAvg on LoRA factors, also called FedIT: the mean of the deltas, weighted by examples.

McMahan et al. 2017 (arXiv 1602.05629), for LoRA Zhang et al. 2023 (arXiv 2305.05644). Averaging A and B apart differs
from averaging the products B A by the covariance of the two over the devices.
"""

from collections.abc import Sequence

import numpy as np

from flsim.models.adapter import Adapter
from strategies.base import DeltaStrategy, Update


class FedAvg(DeltaStrategy):
    """`adapter + server_lr * sum_k (n_k / n) delta_k`, accumulated in float64."""

    def __init__(self, server_lr: float = 1.0) -> None:
        """Set the step.

        Args:
            server_lr: 1 is the plain average of the devices' adapters.
        """
        super().__init__()
        self.server_lr = server_lr

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """The weighted mean; updates without examples have no say, and if none has any the adapter stays."""
        total = sum(update.num_examples for update in updates)
        if total == 0:
            return adapter
        result = {}
        for name, tensor in adapter.items():
            mean = np.zeros(tensor.shape)
            for update in updates:
                mean += update.num_examples / total * update.delta[name].astype(np.float64)
            result[name] = (tensor + self.server_lr * mean).astype(np.float32)
        return result
