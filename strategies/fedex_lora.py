"""FedEx-LoRA: average the factors, and add to the frozen base what that misses (Singhal et al. 2025, arXiv 2410.09432).

With the residual `sum_k w_k s_k B_k A_k - s B A` merged into the base, the devices go on from the exact average of
their products. Nothing in the paper takes a residual back, so it collects the noise of every cohort; `decay` lets it
fade, `cap` and `residual_rank` bound it. These three are ours.
"""

import math
from collections.abc import Sequence

from flsim.aggregation.grams import gram
from flsim.aggregation.pairs import Pairs, pairs_of
from flsim.flower.contract import Weight
from flsim.models.adapter import Adapter
from strategies.base import Update
from strategies.fedavg import FedAvg
from strategies.parts.residual import Residual
from strategies.parts.samplers import Sampler


class FedExLora(FedAvg):
    """FedAvg on the factors plus the residual of the products."""

    by_products = True

    def __init__(
        self,
        decay: float = 1.0,
        cap: float | None = None,
        residual_rank: int | None = None,
        *,
        weighter: Weight | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Bound the residual, or not.

        Args:
            decay: what is left of the residual after a round, in [0, 1]; 1 is the paper's.
            cap: its largest norm over all layers, as a multiple of the adapter's own product; None is the paper's.
            residual_rank: most directions per layer that it keeps; None is the paper's.
            weighter: how much say a device has; None goes by examples.
            sampler: which of the round's cohort learn; None means all of it.
        """
        super().__init__(weighter=weighter, sampler=sampler)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay={decay} must be in [0, 1]: it is the share of the residual that a round leaves")
        if cap is not None and not cap > 0:
            raise ValueError(f"cap={cap} must be above 0; leave it out for none")
        self.decay = decay
        self.cap = cap
        self.kept = Residual(residual_rank)

    @property
    def residual(self) -> Adapter | None:
        """What the devices merge into their base."""
        return self.kept.adapter

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """The average of the factors; the residual moves along."""
        mean = super().mean(updates)
        if mean is None:
            return adapter
        new = self.step(adapter, mean)
        average = pairs_of(new, self.scale)
        server = pairs_of(adapter, self.scale)
        parts = [(self.shares[u.device] * part, pairs) for u in updates for part, pairs in u.products(server)]
        self.kept.add(
            {layer: [*((share, pairs[layer]) for share, pairs in parts), (-1.0, average[layer])] for layer in average},
            decay=self.decay,
        )
        self._hold_below(average)
        return new

    def _hold_below(self, average: Pairs) -> None:
        """Scale the residual down to `cap` times the norm of the adapter's product."""
        if self.cap is None:
            return
        most = self.cap * math.sqrt(gram([average])[0, 0])
        norm = math.sqrt(gram([self.kept.pairs])[0, 0])
        if norm > most:
            self.kept.scaled(most / norm)
