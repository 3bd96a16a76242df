"""FedAvg on LoRA factors, also called FedIT: the mean of the devices' A and of their B, each weighted by examples.

McMahan et al. 2017 (arXiv 1602.05629), for LoRA Zhang et al. 2024 (arXiv 2305.05644). Averaging A and B apart differs
from averaging the products B A by the covariance of the two over the devices. With other parts it is FedAvgM, FedAdam
and so on in factor space, or a robust mean of factors.
"""

from collections.abc import Sequence

import numpy as np

from flsim.aggregation.grams import vector_gram
from flsim.flower.contract import Weight
from flsim.models.adapter import Adapter, lora_of
from strategies.base import Update
from strategies.mean import MeanStrategy, Tensors, combined, reduced_extras, shares_of
from strategies.parts.reducers import Combining, Coordinatewise, Mean
from strategies.parts.samplers import Sampler
from strategies.parts.server_optimizers import Average, ServerOptimizer


class FedAvg(MeanStrategy):
    """`adapter + server_lr * sum_k (n_k / n) delta_k`, summed exactly."""

    def __init__(
        self,
        server_lr: float = 1.0,
        *,
        reducer: Combining | Coordinatewise | None = None,
        optimizer: ServerOptimizer | None = None,
        weighter: Weight | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Choose the parts.

        Args:
            server_lr: 1 is the plain average of the devices' adapters; for `optimizer` None.
            reducer: how the updates become one, such as `strategies.parts.reducers:Median`; None is the weighted mean.
            optimizer: what is done with that, such as `strategies.parts.server_optimizers:Adam`; None goes `server_lr`
                along.
            weighter: how much say a device has; None goes by examples.
            sampler: which of the round's cohort learn; None means all of it.
        """
        super().__init__(weighter=weighter, sampler=sampler)
        self.reducer = reducer or Mean()
        self.optimizer = optimizer or Average(server_lr)

    @property
    def streams(self) -> bool:
        """A plain mean can be summed by the workers; other reducers look at the updates."""
        return super().streams and isinstance(self.reducer, Mean)

    def step(self, adapter: Adapter, mean: Tensors) -> Adapter:
        """What the server's optimizer makes of the mean."""
        return self.optimizer.step(adapter, mean)

    def mean(self, updates: Sequence[Update]) -> Tensors | None:
        """The exact weighted mean, or what another reducer makes of the deltas that have weight."""
        if isinstance(self.reducer, Mean):
            return super().mean(updates)
        self.shares = shares_of(updates, [self.weighter(update) for update in updates])
        heard = [update for update in updates if self.shares.get(update.device)]
        return self._reduced(heard) if heard else None

    def _reduced(self, updates: Sequence[Update]) -> Tensors:
        deltas = [self.in_full(update.delta, update.shape) for update in updates]
        if isinstance(self.reducer, Coordinatewise):
            return {
                name: self.reducer.reduce(np.stack([d[name].ravel() for d in deltas]).astype(np.float64)).reshape(
                    t.shape
                )
                for name, t in deltas[0].items()
            }
        shares = np.array([self.shares[update.device] for update in updates])  # (K,)
        factors = [lora_of(delta) for delta in deltas]
        coefficients = self.reducer.coefficients(lambda: vector_gram(factors), shares)  # (K,)
        self.shares = {**self.shares, **{u.device: float(c) for u, c in zip(updates, coefficients, strict=True)}}
        beside = reduced_extras(self.reducer, [update.extras for update in updates], shares)
        return combined(factors, coefficients) | beside
