"""What a run's config says that its rows do not, as its diagnosis takes it; nothing long is imported for it."""

from typing import Any

from flsim.config.schema import Config
from flsim.config.system import EVERYBODY
from flsim.diagnosis.seen import Facts
from flsim.tasks.stream import TaskStream

OF_THE_CLASS = ("may_ask", "dual_max", "dual_lr")
"""Attributes of a client's class that a diagnosis looks at; what it lacks is None."""
_CARRIES_REST = ("strategies.fedex_lora:", "strategies.flora:")


def facts_with(config: Config, *, learns_to_ask: bool, dual_max: Any, dual_lr: Any) -> Facts:
    """The facts of a run whose client is known that far.

    Args:
        config: of the run.
        learns_to_ask: whether asking is part of what its devices learn.
        dual_max: the default of its client, over which goes what the config says; None if it has none.
        dual_lr: likewise.
    """
    settings = {"dual_max": dual_max, "dual_lr": dual_lr}
    settings |= {name: config.client[name] for name in settings if name in config.client}
    highest = settings["dual_max"] if settings["dual_lr"] else None
    if config.budget.fleet.rule == "price":
        highest = config.budget.fleet.price_max
    end = None if config.system is None else config.system.end
    return Facts(
        phases=TaskStream(config.stream, config.rounds).phases,
        tau=config.budget.tau,
        devices=config.fleet.devices,
        learns_to_ask=learns_to_ask,
        highest_price=None if highest is None else float(highest),
        carries_rest=str(config.strategy["path"]).startswith(_CARRIES_REST),
        waits_for_all=end is None or end.kind == EVERYBODY,
        max_staleness=None if end is None else end.max_staleness,
    )
