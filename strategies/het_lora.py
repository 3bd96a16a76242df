"""HetLoRA: adapters of unequal ranks padded with zeros, weighed by the norm of their products, cut for each device.

Cho et al. 2024 (arXiv 2401.06432), section 3. The paper's pruning of its own rank by a device is not part of it: here a
device's rank is given and stays.
"""

from collections.abc import Sequence

import numpy as np

from flsim.aggregation.grams import gram
from flsim.aggregation.pairs import pairs_of
from flsim.models.adapter import Adapter
from strategies.base import Update
from strategies.fedavg import FedAvg
from strategies.mean import shares_of
from strategies.parts.samplers import Sampler
from strategies.parts.server_optimizers import ServerOptimizer


class HetLora(FedAvg):
    """Weights are `||s_k B_k A_k||_F` over all layers; padding counts as zeros, so it dilutes what few devices have.

    Of FedAvg's parts it takes the optimizer and the sampler: it is its own weighter and reducer.
    """

    def __init__(
        self, server_lr: float = 1.0, *, optimizer: ServerOptimizer | None = None, sampler: Sampler | None = None
    ) -> None:
        """Choose the parts.

        Args:
            server_lr: 1 goes all the way to the mean; for `optimizer` None.
            optimizer: what is done with the way to the mean; None goes `server_lr` along.
            sampler: which of the round's cohort learn; None means all of it.
        """
        super().__init__(server_lr, optimizer=optimizer, sampler=sampler)

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """A step to the weighted mean of the padded adapters."""
        norms = [float(np.sqrt(gram([pairs_of(u.adapter, u.scale)])[0, 0])) * (u.num_examples > 0) for u in updates]
        self.shares = shares_of(updates, norms)
        if not self.shares:
            return adapter
        padded = [(self.shares[u.device], self.in_full(u.adapter, u.shape)) for u in updates]
        mean = {name: np.sum([share * full[name].astype(np.float64) for share, full in padded], 0) for name in adapter}
        return self.step(adapter, {name: mean[name] - old for name, old in adapter.items()})
