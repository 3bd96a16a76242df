"""FedPer: the body is shared, every device keeps its own head (Arivazhagan et al. 2019, arXiv 1912.00818).

A device that has never learned has the head that the run started from.
"""

from flsim.config.schema import ConfigError
from flsim.flower.contract import Weight
from flsim.models.adapter import Adapter
from strategies.fedavg import FedAvg
from strategies.parts.samplers import Sampler


class FedPer(FedAvg):
    """FedAvg on all tensors but those of the head."""

    def __init__(
        self,
        head: str = "head.",
        server_lr: float = 1.0,
        *,
        weighter: Weight | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Choose what stays on the devices.

        Args:
            head: what the names of the tensors begin with that each device keeps for itself.
            server_lr: as of FedAvg.
            weighter: as of FedAvg.
            sampler: as of FedAvg.
        """
        super().__init__(server_lr, weighter=weighter, sampler=sampler)
        self.head = head

    def carried(self, adapter: Adapter) -> Adapter:
        """All but the head.

        Raises:
            ConfigError: if there is no such head, or nothing else.
        """
        body = {name: tensor for name, tensor in adapter.items() if not name.startswith(self.head)}
        if not body or len(body) == len(adapter):
            raise ConfigError(
                f"strategy.head={self.head!r} begins the names of {len(adapter) - len(body)} of the {len(adapter)} "
                f"tensors that devices learn; there are {', '.join(list(adapter)[:8])}"
            )
        return body
