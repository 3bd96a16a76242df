"""The comfortable way to write a strategy: Flower's hooks are written once, and one method is left to write.

    class Mean(DeltaStrategy):
        def aggregate(self, adapter, updates):
            mean = {name: sum(u.delta[name] for u in updates) / len(updates) for name in adapter}
            return {name: adapter[name] + mean[name] for name in adapter}

Updates come sorted by device and without the ones that failed or hold NaN, so a sum is the same in every run.

A strategy that takes a step along a weighted mean of the deltas is a `MeanStrategy`: the workers sum for it, exactly,
and the server's memory does not grow with the cohort.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

import flsim.messages as wire
from flsim.engine.streaming import Weight
from flsim.learning.exact_sum import ExactSum
from flsim.models.adapter import Adapter


@dataclass(frozen=True)
class Update:
    """What one device's round did."""

    device: int
    """Index of the device."""
    delta: Adapter
    """New adapter minus the one that was broadcast."""
    num_examples: int
    """Prompts that the device learned from."""
    reward: float
    """Mean reward of its responses in this round."""


class DeltaStrategy(Strategy):
    """A Flower strategy whose one question is how the devices' deltas become the next adapter."""

    def __init__(self) -> None:
        self._adapter: Adapter = {}

    @abstractmethod
    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """The next adapter.

        Args:
            adapter: the one that was broadcast, by tensor name.
            updates: at least one, sorted by device.

        Returns:
            Tensors of the same names and shapes.
        """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the adapter to every device that the grid shows: the cohort of the round."""
        self._adapter = wire.to_adapter(arrays)
        return self._to_all(server_round, arrays, config, grid, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Turn the usable replies into updates and aggregate them; (None, None) if there are none."""
        received = sorted((m for m in replies if not m.has_error()), key=wire.device_of)
        if not received:
            return None, None
        updates = [self._update(message) for message in received]
        return wire.to_arrays(self.aggregate(self._adapter, updates)), _reward_of(received)

    def _update(self, message: Message) -> Update:
        new = wire.adapter_of(message)
        delta = {name: new[name] - tensor for name, tensor in self._adapter.items()}
        return Update(wire.device_of(message), delta, *wire.measures_of(message))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Evaluate every device that the grid shows (under `flwr run`; flsim itself evaluates the whole fleet)."""
        return self._to_all(server_round, arrays, config, grid, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to learn from evaluation by default."""
        return None

    def summary(self) -> None:
        """Say which strategy runs."""
        print(type(self).__name__)

    def _to_all(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, kind: str
    ) -> list[Message]:
        config = ConfigRecord({**config, wire.ROUND: server_round})
        content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: config})
        return [Message(content, node, kind) for node in sorted(grid.get_node_ids())]


class MeanStrategy(DeltaStrategy):
    """A strategy that steps along a weighted mean of the deltas; override `step`, and `weight` if need be.

        class HalfWay(MeanStrategy):
            def step(self, adapter, mean):
                return {name: tensor + 0.5 * mean[name] for name, tensor in adapter.items()}

    flsim then has the workers sum the deltas of their packs, and the adapters stay where they are. The sum is exact, so
    the result is bit for bit that of `aggregate`, which serves where the adapters do arrive (under `flwr run`, or in
    Flower's privacy wrappers). A subclass that overrides `aggregate` or `aggregate_train` gets them as well.
    """

    @property
    def weight(self) -> Weight:
        """How much say a device has, by (num_examples, reward): a picklable function; at least 0."""
        return by_examples

    @abstractmethod
    def step(self, adapter: Adapter, mean: dict[str, NDArray[np.float64]]) -> Adapter:
        """The next adapter; not asked if no device has any weight, since then the adapter stays.

        Args:
            adapter: the one that was broadcast, by tensor name.
            mean: the weighted mean of the deltas, by tensor name.

        Returns:
            Tensors of the same names and shapes.
        """

    @property
    def streamed_weight(self) -> Weight | None:
        """`weight`, for the workers; None if a subclass looks at the updates itself."""
        own = type(self)
        looks = own.aggregate is not MeanStrategy.aggregate or own.aggregate_train is not MeanStrategy.aggregate_train
        return None if looks else self.weight

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """A step along the weighted mean of the updates' deltas."""
        total = ExactSum()
        for update in updates:
            total.add(self.weight(update.num_examples, update.reward), update.delta)
        return self._step(adapter, total)

    def aggregate_mean(
        self, server_round: int, replies: Iterable[Message], total: ExactSum
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The same from the workers' sum; (None, None) if there are no replies."""
        received = list(replies)
        if not received:
            return None, None
        return wire.to_arrays(self._step(self._adapter, total)), _reward_of(received)

    def _step(self, adapter: Adapter, total: ExactSum) -> Adapter:
        return self.step(adapter, total.mean()) if total.weight else adapter


def by_examples(num_examples: int, reward: float) -> float:
    """A device's number of examples: every example counts the same."""
    return float(num_examples)


def _reward_of(replies: Sequence[Message]) -> MetricRecord:
    """The mean reward over examples."""
    measures = [wire.measures_of(reply) for reply in replies]
    total = sum(num_examples for num_examples, _ in measures)
    reward = sum(num_examples * reward for num_examples, reward in measures) / max(1, total)
    return MetricRecord({wire.REWARD: reward})
