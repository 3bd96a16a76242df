"""What a strategy offers that deals adapters of unequal ranks, or parts of adapters, and keeps account of it."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message

from flsim.config import Config, ConfigError
from flsim.models.adapter import Adapter
from flsim.server import ServerStage


@runtime_checkable
class Deals(Protocol):
    """A strategy that says itself what each device gets; `strategies/base.py` has all of it."""

    carries: str
    """The factors that travel."""
    learns: str
    """The factors that devices learn."""
    shares: Mapping[int, float]
    """The weight of each device in the last aggregation."""
    cut_energy: float | None
    """Share of the squared norm of the last exact aggregate that was left out; None if nothing is cut."""

    def begin(self, config: Config) -> None:
        """Get to know the fleet, before the first round or after a resume."""
        ...

    def messages(self, arrays: ArrayRecord, config: ConfigRecord, nodes: Sequence[int], kind: str) -> list[Message]:
        """The adapter as these nodes get it, in training and in evaluation alike."""
        ...

    @property
    def residual(self) -> Adapter | None:
        """What devices merge into their base."""
        ...


def begin(strategy: object, stage: ServerStage | None, config: Config) -> None:
    """Introduce a strategy and the server's stage to the fleet and to each other.

    Raises:
        ConfigError: if they cannot serve it: no stock Flower strategy can serve unequal ranks, and a stage needs the
            whole adapter.
    """
    if isinstance(strategy, Deals):
        strategy.begin(config)
        if stage is not None and set(strategy.learns) - set(strategy.carries):
            raise ConfigError(
                f"{type(stage).__name__} needs the whole adapter at the server, but with {type(strategy).__name__} the "
                f"devices keep a part of it for themselves; set server=null, or choose another strategy"
            )
    elif isinstance(inner := getattr(strategy, "strategy", None), Deals) and set(inner.carries) != set("AB"):
        raise ConfigError(
            f"{type(strategy).__name__} wraps {type(inner).__name__}, whose devices keep a part of the adapter for "
            f"themselves, which a wrapper cannot deal out; wrap a strategy that sends whole adapters"
        )
    elif config.has_unequal_shapes:
        raise ConfigError(
            f"{type(strategy).__name__} sends every device the same adapter, but fleet.ranks={list(config.fleet.ranks)}"
            f" differ from model.rank={config.model.rank}; leave fleet.ranks out, or choose a strategy of the folder "
            f"strategies/, such as strategies.flex_lora:FlexLora"
        )
    if stage is not None:
        stage.begin(config)
