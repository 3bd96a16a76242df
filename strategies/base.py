"""The comfortable way to write a strategy: Flower's hooks are written once, and one method is left to write.

    class Mean(DeltaStrategy):
        def aggregate(self, adapter, updates):
            mean = {name: sum(u.delta[name] for u in updates) / len(updates) for name in adapter}
            return {name: adapter[name] + mean[name] for name in adapter}

Updates come sorted by device and without the ones that failed or hold NaN, so a sum is the same in every run.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

import flsim.messages as wire
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
        received = sorted((wire.update_of(m) for m in replies if not m.has_error()), key=lambda update: update.device)
        updates = [
            Update(u.device, {n: u.adapter[n] - self._adapter[n] for n in self._adapter}, u.num_examples, u.reward)
            for u in received
        ]
        if not updates:
            return None, None
        total = sum(update.num_examples for update in updates)
        reward = sum(update.reward * update.num_examples for update in updates) / max(1, total)
        return wire.to_arrays(self.aggregate(self._adapter, updates)), MetricRecord({wire.REWARD: reward})

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
