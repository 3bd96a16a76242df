"""A fixed price of asking: DA-GRPO whose lambda stays where it is put, the shaped reward `r - price * asked`.

The usage that results is the data's to choose, not tau's: it is the baseline that shows what moving lambda is for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clients.da_grpo import DaGrpo
from flsim.config.schema import Config


@dataclass(frozen=True)
class FixedPrice(DaGrpo):
    """DA-GRPO without what moves lambda."""

    price: float = 0.3
    """lambda, at least 0, in units of the reward of a right answer."""
    policy: str = "token"
    """Who asks, as of DA-GRPO; here the paper's help request, a `token`, whose reward the price shapes."""
    imitate: float = 0.0
    """Weight of what was bought, as of DA-GRPO; here 0: the shaped reward alone teaches."""
    replay: int = 0
    """Answers of the cloud that a device keeps, as of DA-GRPO, or without `imitate` questions; here none."""
    replay_share: float = 0.25
    """Of a step's prompts, how many kept answers it learns besides, or without `imitate` how many are met again."""
    dual_init: float = field(default=0.0, init=False)
    dual_lr: float = field(default=0.0, init=False)
    dual_gain: float = field(default=0.0, init=False)
    dual_max: float = field(default=math.inf, init=False)
    dual_bias: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if not self.price >= 0:
            raise ValueError(f"price={self.price} must be at least 0")

    @classmethod
    def check(cls, config: Config, settings: Mapping[str, Any]) -> None:
        """Refuse whatever would move lambda."""
        moving = sorted(name for name in settings if name.startswith("dual_"))
        if moving:
            raise ValueError(
                f"{', '.join(moving)} would move lambda, which is fixed here; set `price`, or take "
                f"clients.da_grpo:DaGrpo"
            )
        if config.budget.fleet.rule == "price":
            raise ValueError(
                "budget.fleet.division=price has one dual variable that moves; a fixed price needs another share"
            )
        super().check(config, settings)

    @property
    def first_dual(self) -> float:
        """The price, at which lambda stays."""
        return self.price
