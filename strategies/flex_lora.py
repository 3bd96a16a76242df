"""FlexLoRA: average the products B A exactly, cut the average to each device's rank by SVD (Bai et al. 2024).

arXiv 2402.11505, for devices of any ranks and alphas. The average is never formed as a dense matrix where that costs
more (`flsim/aggregation/low_rank.py`). Two things are ours. The frame is fixed: of all factors with the same product
the server takes those nearest to its old ones, so that what devices and server optimizers keep per factor stays
meaningful. And by default it is the deltas of the products that are averaged, so a direction that small devices were
never sent is not diluted by their silence (raFLoRA, arXiv 2602.13486, calls that rank collapse); for equal ranks it is
the same.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from flsim.aggregation.frame import framed
from flsim.aggregation.grams import gram
from flsim.aggregation.layers import by_layer, threads_for
from flsim.aggregation.low_rank import truncated
from flsim.aggregation.pairs import Matrix, Pair, Pairs, Terms, adapter_of, difference, pairs_of
from flsim.config.model import LoraShape
from flsim.flower.contract import Weight
from flsim.models.adapter import Adapter, extras_of
from strategies.base import DeltaStrategy, Update
from strategies.mean import reduced_extras, shares_of
from strategies.parts.reducers import Combining, Coordinatewise, Mean
from strategies.parts.samplers import Sampler
from strategies.parts.server_optimizers import Average, ServerOptimizer

AVERAGES = ("deltas", "adapters")


class FlexLora(DeltaStrategy):
    """The best adapter of the server's rank for the exact average of the products, and of each device's rank for it."""

    by_products = True
    unequal_ranks = True

    def __init__(
        self,
        average: str = "deltas",
        *,
        reducer: Combining | Coordinatewise | None = None,
        optimizer: ServerOptimizer | None = None,
        weighter: Weight | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Choose the parts.

        Args:
            average: `deltas` of the products, added to the server's; or the `adapters`, as in the paper.
            reducer: how the products become one, such as `strategies.parts.reducers:MultiKrum`; None is the weighted
                mean.
            optimizer: what the server does with the way from its factors to the new ones; None goes all of it.
            weighter: how much say a device has; None goes by examples.
            sampler: which of the round's cohort learn; None means all of it.
        """
        super().__init__(weighter=weighter, sampler=sampler)
        if average not in AVERAGES:
            raise ValueError(f"average={average!r} must be one of: {', '.join(AVERAGES)}")
        self.average = average
        reducer = reducer or Mean()
        if not isinstance(reducer, Combining):
            raise ValueError(
                f"reducer={type(reducer).__name__} works number by number, which products in factored form do not "
                f"allow; take it with strategies.fedavg:FedAvg, or MultiKrum, GeometricMedian here"
            )
        self.reducer = reducer
        self.optimizer = optimizer or Average()
        self.frames: dict[LoraShape | None, Adapter] = {}
        """What each smaller shape was last sent: its frame, for the next time."""

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """Weigh, average, cut, fix the frame, step."""
        self.shares = shares_of(updates, [self.weighter(update) for update in updates])
        heard = [update for update in updates if self.shares.get(update.device)]
        if not heard:
            return adapter
        shares = np.array([self.shares[update.device] for update in heard])  # (K,)
        coefficients = self.reducer.coefficients(lambda: gram([_move(update) for update in heard]), shares)  # (K,)
        self.shares = {**self.shares, **{u.device: float(c) for u, c in zip(heard, coefficients, strict=True)}}
        exact = self.exact(adapter, heard, coefficients)
        target = self.cut(adapter, exact, threads=self._threads(heard))
        way = {name: new.astype(np.float64) - adapter[name] for name, new in target.items()}
        way |= reduced_extras(self.reducer, [update.extras for update in heard], shares)
        return self.optimizer.step(adapter, way)

    def exact(self, adapter: Adapter, updates: Sequence[Update], coefficients: Matrix) -> Callable[[str], Terms]:
        """The average of the products, layer by layer, as a function of the layer's name."""
        new = [pairs_of(update.adapter, update.scale) for update in updates]
        sent = [pairs_of(update.sent, update.scale) for update in updates]
        start = pairs_of(adapter, self.scale)
        # if all started from the server's own product, it cancels: half as many factors
        fresh = all(update.fade is None for update in updates)
        plain = fresh and (self.average == "adapters" or all(u.shape in (None, self.shape) for u in updates))
        parts = [c * (1.0 if u.fade is None else u.fade) for c, u in zip(coefficients.tolist(), updates, strict=True)]

        def of(layer: str) -> Terms:
            if plain:
                return [(c, pairs.factors(layer)) for c, pairs in zip(parts, new, strict=True)]
            moves = [
                (c * sign, pairs.factors(layer))
                for sign, of_all in ((1.0, new), (-1.0, sent))
                for c, pairs in zip(parts, of_all, strict=True)
            ]
            return [(1.0, start.factors(layer)), *moves]

        return of

    def deal(self, adapter: Adapter, shape: LoraShape) -> Adapter:
        """The nearest adapter of a device's rank, in the frame of what such devices were sent last."""
        first = super().deal(adapter, shape)
        if first is adapter:
            return adapter
        frame = pairs_of(self.frames.get(shape, first), shape.scale)
        pairs = {
            layer: framed(truncated(pair, shape.rank), frame[layer], scale=shape.scale)
            for layer, pair in pairs_of(adapter, self.scale).items()
        }
        return adapter_of(pairs, shape.scale) | extras_of(adapter)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send, and remember the frames."""
        sent = list(super().configure_train(server_round, arrays, config, grid))
        self.frames |= {shape: part for shape, part in self._round.sent.items() if shape not in (None, self.shape)}
        return sent

    def cut(self, adapter: Adapter, exact: Callable[[str], Terms], *, threads: int | None = None) -> Adapter:
        """The nearest adapter of the server's rank, in the frame of the present one; see `by_layer` for threads."""
        present = pairs_of(adapter, self.scale)

        def nearest(layer: str) -> tuple[Pair, float, float]:
            old = present[layer]
            low = truncated(exact(layer), old.rank, start=old.a)
            return framed(low, old, scale=self.scale), low.energy, low.cut

        found = by_layer(nearest, present, threads=threads)
        whole = left = 0.0
        for _, energy, cut in found.values():
            whole, left = whole + energy, left + cut
        self.cut_energy = left / whole if whole > 0 else 0.0
        return adapter_of({layer: pair for layer, (pair, *_) in found.items()}, self.scale)

    def _threads(self, updates: Sequence[Update]) -> int | None:
        """Of the processes that the run may use, which wait meanwhile; None for small work, or outside a run."""
        numbers = sum(tensor.size for update in updates for tensor in update.adapter.values())
        return None if self._config is None else threads_for(numbers, self._config.engine.processes)


def _move(update: Update) -> Pairs:
    """What a device's round did to its product."""
    return difference(pairs_of(update.adapter, update.scale), pairs_of(update.sent, update.scale))
