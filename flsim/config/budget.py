"""The part of the configuration that says how much devices may ask of the cloud."""

from dataclasses import dataclass, field

from flsim.config.ranges import ConfigError, above, at_least, one_of, share

DIVISIONS = ("equally", "traffic", "price")
CALLS, TOKENS, MONEY, BYTES, JOULES, SECONDS = "calls", "tokens", "money", "bytes", "joules", "seconds"
UNITS = (CALLS, TOKENS, MONEY, BYTES, JOULES, SECONDS)


@dataclass(frozen=True)
class FleetBudgetConfig:
    """One cloud budget for all devices together, which the server shares out before every round; None means no cap."""

    division: str | None = one_of(None, DIVISIONS)
    """`equally`: as many calls for every device; `traffic`: by the prompts it meets; `price`: one dual variable for
    all, and by how much a device asks at that price. None: `equally` if there is a cap, else no fleet budget."""
    calls_total: int | None = at_least(0, None)
    """Cloud queries of the fleet in the whole run."""
    calls_per_round: int | None = at_least(0, None)
    """Cloud queries of the fleet in one round; None spreads `calls_total` evenly over the rounds."""
    tokens_total: int | None = at_least(0, None)
    """Cloud tokens (prompt and completion) of the fleet in the whole run."""
    money_total: float | None = at_least(0, None, finite=True)
    """Money (in the unit of `cloud.price_*`) of the fleet in the whole run."""
    price_init: float = at_least(0, 0.5)
    """The fleet's dual variable at the start, for `division=price`."""
    price_lr: float = at_least(0, 0.2)
    """Its step per round and unit of usage above `budget.tau`."""
    price_gain: float = at_least(0, 2.0)
    """Proportional gain beside the integral: a policy follows the price slowly, and the integral alone would swing."""
    price_max: float = at_least(0, 1.0)
    """Its upper clip: the largest reward that the cloud can bring."""

    @property
    def rule(self) -> str | None:
        """How the budget is shared; None if there is no fleet budget."""
        caps = (self.calls_total, self.calls_per_round, self.tokens_total, self.money_total)
        return "equally" if self.division is None and any(cap is not None for cap in caps) else self.division


@dataclass(frozen=True)
class BudgetConfig:
    """Every device's cloud budget: `tau` steers the learning, the caps refuse what goes beyond. None means no cap."""

    tau: float = share(0.3)
    """Allowed share of prompts that are sent to the cloud."""
    calls_per_round: int | None = at_least(0, None)
    """Cloud queries of one device in one round."""
    calls_total: int | None = at_least(0, None)
    """Cloud queries of one device in the whole run."""
    tokens_per_round: int | None = at_least(0, None)
    """Cloud tokens (prompt and completion) of one device in one round."""
    tokens_total: int | None = at_least(0, None)
    """Cloud tokens of one device in the whole run."""
    money_per_round: float | None = at_least(0, None)
    """Money (in the unit of `cloud.price_*`) of one device in one round."""
    money_total: float | None = at_least(0, None)
    """Money of one device in the whole run."""
    bytes_per_round: int | None = at_least(0, None)
    """Bytes of one device's questions and of their answers in one round, with `system.cloud.request_bytes` each way
    where there is a system, else texts alone."""
    joules_per_round: float | None = at_least(0, None)
    """Joules of one device's battery for asking in one round, radio and waiting; needs `system`."""
    seconds_per_question: float | None = above(0, None)
    """Longest that a question may take from request to answer, in virtual time; one that could take longer is not
    asked. Needs `system`."""
    unit: str = one_of(CALLS, UNITS)
    """In what tau, and the dual variable with it, count what a device asks while it learns: as `calls`, all alike, or
    each question by what asking it can take at most: `tokens`, `money`, `bytes`, `joules` of the battery or `seconds`;
    tau is then the share of what asking all of a step's questions would take."""
    fleet: FleetBudgetConfig = field(default_factory=FleetBudgetConfig)

    @property
    def of_server(self) -> "BudgetConfig":
        """What the server may buy for all devices together: the fleet's totals as caps."""
        own = self.fleet
        return BudgetConfig(calls_total=own.calls_total, tokens_total=own.tokens_total, money_total=own.money_total)

    @property
    def follows_trips(self) -> bool:
        """Whether it asks for the bytes, joules and seconds of questions."""
        caps = (self.bytes_per_round, self.joules_per_round, self.seconds_per_question)
        return self.unit in (BYTES, JOULES, SECONDS) or any(cap is not None for cap in caps)

    @property
    def needs_system(self) -> list[str]:
        """Its settings that mean nothing without devices and links, such as `joules_per_round=3`."""
        caps = {name: getattr(self, name) for name in ("joules_per_round", "seconds_per_question")}
        found = [f"{name}={cap:g}" for name, cap in caps.items() if cap is not None]
        return [*found, f"unit={self.unit}"] if self.unit in (JOULES, SECONDS) else found


def refuse_unit(budget: BudgetConfig, weighs: bool, learner: str) -> None:
    """Refuse a unit that a learner would pass over.

    Args:
        budget: of the run.
        weighs: whether the learner reads it.
        learner: its name.

    Raises:
        ConfigError: naming both.
    """
    if budget.unit != CALLS and not weighs:
        raise ConfigError(
            f"budget.unit={budget.unit} has no effect with {learner}, whose learning weighs no request; leave it out, "
            f"or take DaGrpo, FixedPrice or Gapg"
        )


PAID_CAPS = tuple(f"{paid}_{span}" for paid in (CALLS, TOKENS, MONEY) for span in ("per_round", "total"))
"""The caps on what is paid, which a server's purchases may have, too; the others are on what a device's link takes."""
