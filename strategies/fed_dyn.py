"""FedDyn: devices are regularised so that where each settles is where all do (Acar et al. 2021, arXiv 2111.04263).

Algorithm 1: a device adds `alpha / 2 ||x - x_sent||^2 - <h_k, x>` to its loss and then moves its h_k by
`-alpha (x_k - x_sent)`. The server keeps the mean h of all m devices, and takes of the P that learned

    h <- h - alpha (P / m) mean(x_k - x_sent)        x <- mean(x_k) - h / alpha
"""

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType

import flsim.flower.messages as wire
from flsim.config.schema import Config, ConfigError
from flsim.models.adapter import Adapter
from strategies.mean import MeanStrategy, Tensors
from strategies.parts.samplers import Sampler
from strategies.parts.weighters import Uniform


class FedDyn(MeanStrategy):
    """Devices count alike; for clients that train modules (`clients.supervised:Supervised`)."""

    unequal_ranks = False

    def __init__(self, alpha: float = 0.01, *, sampler: Sampler | None = None) -> None:
        """Choose the regularisation.

        Args:
            alpha: above 0; the paper takes 0.1, 0.01 or 0.001.
            sampler: which of the round's cohort learn; None means all of it.

        Raises:
            ValueError: if alpha is not above 0.
        """
        super().__init__(weighter=Uniform(), sampler=sampler)
        if not 0 < alpha < np.inf:
            raise ValueError(
                f"alpha={alpha} must be above 0 and finite; with none it would be strategies.fedavg:FedAvg"
            )
        self.alpha = alpha
        self.mean_h: Tensors = {}
        """h by tensor name; empty as long as it is zero."""

    def begin(self, config: Config) -> None:
        """As every strategy; language models under LoRA keep no h.

        Raises:
            ConfigError: for a client whose devices would pass over the terms.
        """
        super().begin(config)
        path = str(config.client["path"])
        if path.startswith("clients.") and path != "clients.supervised:Supervised":
            raise ConfigError(
                f"FedDyn needs devices that add its terms to their loss, and client.path={path} does not; take "
                f"clients.supervised:Supervised, or Flower's FedProx, which every client knows"
            )

    def _messages(self, dealt: object, config: ConfigRecord, nodes: object, kind: str) -> list[Message]:
        more = {wire.DYNAMIC: self.alpha} if kind == MessageType.TRAIN else {}
        return super()._messages(dealt, ConfigRecord({**config, **more}), nodes, kind)  # type: ignore[arg-type]

    def step(self, adapter: Adapter, mean: Tensors) -> Adapter:
        """Along the mean, and back by the server's h."""
        assert self._config is not None, "a run has begun"
        part = self.alpha * len(self.shares) / self._config.fleet.devices
        before = self.mean_h or {name: np.zeros_like(tensor) for name, tensor in mean.items()}
        self.mean_h = {name: before[name] - part * tensor for name, tensor in mean.items()}
        return {
            name: (tensor + mean[name] - self.mean_h[name] / self.alpha).astype(np.float32)
            for name, tensor in adapter.items()
        }
