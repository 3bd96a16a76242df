"""RoLoRA: devices learn A and B in turn, one factor a round (Chen et al. 2025, arXiv 2502.01755).

The other factor is the same on all devices, so averaging is exact in every round; half of the parameters move a round,
and half of the bytes go up.
"""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from flsim.config.schema import Config, ConfigError
from flsim.config.system import BUFFERED
from strategies.fedavg import FedAvg


class RoLora(FedAvg):
    """FedAvg on B in odd rounds, on A in even ones: B is zero at first, so A alone could not learn. Same parts."""

    def begin(self, config: Config) -> None:
        """As every strategy.

        Raises:
            ConfigError: for rounds that are buffered, where an update may be of the factor that is not learned now.
        """
        super().begin(config)
        if config.system is not None and config.system.end.kind == BUFFERED:
            raise ConfigError(
                "RoLora has devices learn A and B in turn, and with system.end.kind=buffered an update of A could come "
                "while B is learned; take another end, or strategies.fedavg:FedAvg"
            )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Say which factor it is in this round."""
        self.learns = "B" if server_round % 2 else "A"
        return super().configure_train(server_round, arrays, config, grid)
