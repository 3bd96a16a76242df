"""A step along a weighted mean of the deltas, which the workers of a large fleet can sum for the server.

    class HalfWay(MeanStrategy):
        def step(self, adapter, mean):
            return {name: tensor + 0.5 * mean[name] for name, tensor in adapter.items()}

The mean is float64 and holds the tensors that were learned.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

import flsim.flower.messages as wire
from flsim.aggregation.grams import vector_gram
from flsim.devices import device_name
from flsim.flower.contract import Weight
from flsim.flower.messages import Measures
from flsim.flower.returned import StrategyError, next_adapter
from flsim.learning.exact_sum import ExactSum, OutOfRangeError
from flsim.models.adapter import Adapter
from strategies.base import DeltaStrategy, Update
from strategies.parts.reducers import Combining, Floats

Tensors = dict[str, NDArray[np.float64]]


class MeanStrategy(DeltaStrategy):
    """A strategy that steps along a weighted mean of the deltas; override `step`.

    For a cohort above `engine.stream` flsim has the workers sum the deltas of their packs, and the adapters stay where
    they are. The sum is exact, so the result is bit for bit that of `aggregate`. A subclass that overrides `aggregate`
    or `aggregate_train` gets the updates in any case.

    Deltas of unequal ranks are padded with zeros, scale folded in: what few devices have moves less.
    """

    unequal_ranks = True

    @abstractmethod
    def step(self, adapter: Adapter, mean: Tensors) -> Adapter:
        """The next adapter; not asked if no device has any weight, since then the adapter stays.

        Args:
            adapter: the one that was broadcast, by tensor name.
            mean: the weighted mean of the deltas, by tensor name; of the tensors that were learned only.

        Returns:
            Tensors of the same names and shapes as `adapter`.
        """

    @property
    def streams(self) -> bool:
        """Whether a sum is all that is needed, and not the updates themselves."""
        own = type(self)
        return own.aggregate is MeanStrategy.aggregate and own.aggregate_train is MeanStrategy.aggregate_train

    @property
    def streamed_weight(self) -> Weight | None:
        """The weighter, for the workers; None if the updates are needed themselves, or have unequal ranks."""
        padded = self._config is not None and self._config.has_unequal_shapes
        return self.weighter if self.streams and not padded else None

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """A step along the weighted mean of the updates' deltas."""
        mean = self.mean(updates)
        return adapter if mean is None else self.step(adapter, mean)

    def mean(self, updates: Sequence[Update]) -> Tensors | None:
        """The weighted mean of the deltas by tensor name; None if no update has any weight."""
        total, weights, left_out = ExactSum(), list[float](), dict[int, str]()
        for update in updates:
            weight = self.weighter(update)
            try:
                total.add(weight, self.in_full(update.delta, update.shape))
            except OutOfRangeError as error:  # where workers sum, they set it aside
                left_out[update.device] = str(error)
                weight = 0.0
            weights.append(weight)
        self.shares, self.left_out = shares_of(updates, weights), left_out
        return total.mean() if total.weight else None

    def aggregate_mean(
        self, server_round: int, replies: Iterable[Message], total: ExactSum
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The same from the workers' sum; (None, None) if there are no replies."""
        measures = [wire.measures_of(reply) for reply in replies]
        if not measures:
            return None, None
        self.shares = shares_of(measures, [self.weighter(one) for one in measures])
        adapter = self._round.adapter
        new = self.step(adapter, total.mean()) if total.weight else adapter
        return self._finish(next_adapter(self, new, like=adapter), measures)


def combined(tensors: Sequence[Adapter], coefficients: Floats) -> Tensors:
    """`sum_k c_k x_k` by tensor name, of one shape on all devices."""
    return {
        name: np.tensordot(coefficients, np.stack([of[name] for of in tensors]).astype(np.float64), 1)
        for name in tensors[0]
    }


def reduced_extras(reducer: Combining, extras: Sequence[Adapter], shares: Floats) -> Tensors:
    """The moves of what devices learn beside LoRA as one, by the reducer that LoRA is reduced with.

    It gives them coefficients of their own: else a device could hide a poisoned head behind honest factors, and a long
    move of a head would say whose factors count.

    Args:
        reducer: of the strategy.
        extras: of each device that has a share (`Update.extras`).
        shares: the weights `(K,)`, adding up to 1.
    """
    return combined(extras, reducer.coefficients(lambda: vector_gram(extras), shares)) if extras[0] else {}


def shares_of(measures: Sequence[Measures], weights: Sequence[float]) -> dict[int, float]:
    """The weights by device, scaled to add up to 1; empty if there is no weight at all.

    Raises:
        StrategyError: for a weight that is negative or not finite.
    """
    for one, weight in zip(measures, weights, strict=True):
        if not 0 <= weight < math.inf:
            raise StrategyError(
                f"{device_name(one.device)} has the weight {weight}; a weighter must return finite numbers, at least 0"
            )
    total = math.fsum(weights)
    return {one.device: weight / total for one, weight in zip(measures, weights, strict=True)} if total > 0 else {}
