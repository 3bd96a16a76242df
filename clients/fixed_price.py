"""A fixed price of asking: DA-GRPO whose lambda stays where it is put, the shaped reward `r - price * asked`.

The usage that results is the data's to choose, not tau's: it is the baseline that shows what moving lambda is for.
"""

import math
from typing import Any

from clients.app import DeviceApp
from clients.da_grpo import DaGrpo
from clients.learner import learner_app
from flsim.config.schema import Config


def client_app(config: Config, price: float = 0.3, **settings: Any) -> DeviceApp:
    """The plug-in that `client.path=clients.fixed_price:client_app` names.

    Args:
        config: of the run.
        price: lambda, at least 0, in units of the reward of a right answer.
        settings: the other fields of `DaGrpo`.

    Raises:
        ValueError: for a setting that there is not, one that would move lambda, or a negative price.
    """
    moving = sorted(name for name in settings if name.startswith("dual_"))
    if moving:
        raise ValueError(
            f"{', '.join(moving)} would move lambda, which is fixed here; set `price`, or take clients.da_grpo"
        )
    if config.budget.fleet.rule == "price":
        raise ValueError("budget.fleet.share=price has one dual variable that moves; a fixed price needs another share")
    if not price >= 0:
        raise ValueError(f"price={price} must be at least 0")
    return learner_app(config, DaGrpo, dual_init=price, dual_lr=0.0, dual_gain=0.0, dual_max=math.inf, **settings)
