"""A stage of the server: what it does with the adapter after the strategy has aggregated, before anyone measures it."""

from collections.abc import Sequence
from typing import Protocol

from flwr.app import Message

from flsim.config import Config
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter


class ServerStage(Protocol):
    """Anything that `server.path` may name; it goes with any strategy, since it sees only what came of it.

    Its attributes are saved with every checkpoint and restored on resume, as a strategy's are, but for cached
    properties: they hold what can be worked out again, such as a loaded model.

        class Shrink:
            def __init__(self, by=0.01):
                self.by = by

            def begin(self, config):
                pass

            def after_round(self, round_, adapter, replies, residual):
                return {name: (1 - self.by) * tensor for name, tensor in adapter.items()}, []
    """

    def begin(self, config: Config) -> None:
        """Learn the run's settings, before anything is written.

        Raises:
            ConfigError: if the stage cannot work with them.
        """
        ...

    def after_round(
        self, round_: int, adapter: Adapter, replies: Sequence[Message], residual: Adapter | None
    ) -> tuple[Adapter, list[Row]]:
        """Take the round's result, and make of it what the next round and the evaluation get.

        Args:
            round_: from 1.
            adapter: as the strategy left it.
            replies: the training replies that it was made of, by device; their tensors may be gone.
            residual: what devices merge into their base beside it, under its names and with scale 1; None is nothing.

        Returns:
            The adapter to go on with, and what was measured: rows of the split `server`, which no user's mean counts.
        """
        ...
