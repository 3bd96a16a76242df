"""What a strategy offers whose workers may sum the deltas for it, so that no adapter has to reach the driver."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, Message, MetricRecord

from flsim.learning.exact_sum import ExactSum
from flsim.messages import Measures

Weight = Callable[[Measures], float]
"""How much say a device has, at least 0; where workers sum it travels to them, so it must be picklable."""


@runtime_checkable
class TakesMean(Protocol):
    """A strategy that needs nothing of the adapters but a weighted mean of their deltas."""

    @property
    def streamed_weight(self) -> Weight | None:
        """The weight that the workers sum with; None if the strategy wants the adapters after all."""
        ...

    def aggregate_mean(
        self, server_round: int, replies: Iterable[Message], total: ExactSum
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's `aggregate_train`, but the replies carry no adapters.

        Args:
            server_round: the round.
            replies: the usable ones, by device.
            total: the weighted sum of their deltas, each against what that device was sent.
        """
        ...
