"""FLoRA: merge the exact average of the products into the base, and begin a fresh adapter every round.

Wang et al. 2024 (arXiv 2409.05976): the stacked factors of all devices are the average, at any ranks, so nothing is
lost; what travels down grows with it. Fresh factors have B = 0 and a new random A, and the devices' optimizers begin
anew. What devices learn beside LoRA can be merged into nothing: it is averaged and goes on.
"""

from collections.abc import Sequence

import numpy as np

from flsim.aggregation.pairs import pairs_of
from flsim.flower.contract import Weight
from flsim.models.adapter import Adapter, factor_of, lora_of
from flsim.seeding import generator
from strategies.base import DeltaStrategy, Update
from strategies.mean import combined, shares_of
from strategies.parts.residual import Residual
from strategies.parts.samplers import Sampler
from strategies.parts.server_optimizers import Average


class Flora(DeltaStrategy):
    """The average goes into the base; the adapter only carries one round's learning."""

    by_products = True
    unequal_ranks = True
    fresh_optimizer = True

    def __init__(
        self,
        residual_rank: int | None = None,
        *,
        weighter: Weight | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Bound what is merged, or not.

        Args:
            residual_rank: most directions per layer that the merged part keeps; None is the paper's.
            weighter: how much say a device has; None goes by examples.
            sampler: which of the round's cohort learn; None means all of it.
        """
        super().__init__(weighter=weighter, sampler=sampler)
        self.kept = Residual(residual_rank)

    @property
    def residual(self) -> Adapter | None:
        """What the devices merge into their base."""
        return self.kept.adapter

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """Merge the average, return fresh factors."""
        self.shares = shares_of(updates, [self.weighter(update) for update in updates])
        if not self.shares:
            return adapter
        # an update of an earlier version began with B = 0 as well: its product is its move
        fades = [1.0 if u.fade is None else u.fade for u in updates]
        parts = [
            (self.shares[u.device] * fade, pairs_of(u.adapter, u.scale)) for u, fade in zip(updates, fades, strict=True)
        ]
        self.kept.add({layer: [(share, pairs[layer]) for share, pairs in parts] for layer in parts[0][1]})
        mean = combined([update.extras for update in updates], np.array([self.shares[u.device] for u in updates]))
        return Average().step(adapter | self._fresh(lora_of(adapter)), mean)

    def _fresh(self, adapter: Adapter) -> Adapter:
        """B = 0 and A uniform in +-1 / sqrt(in), as peft draws it (Kaiming with a = sqrt(5))."""
        seed, round_ = 0 if self._config is None else self._config.seed, self._round.number
        fresh = {}
        for name, tensor in adapter.items():
            bound = 1 / np.sqrt(tensor.shape[1]) if factor_of(name) == "A" else 0.0
            fresh[name] = generator(seed, "flora", round_, name).uniform(-bound, bound, tensor.shape).astype(np.float32)
        return fresh
