"""The ledger of one device: what it asked the cloud, what it got, what it paid, and what its caps refused."""

from dataclasses import dataclass, field

from flsim.config.schema import BudgetConfig

MICRO = 1_000_000
"""Microjoules in a joule, and microseconds in a second: whole numbers, whose sums do not hang on their order."""


@dataclass(frozen=True)
class Trip:
    """What a question takes on its way to the cloud and back, beside what is paid for it."""

    bytes: int = 0
    """Up and down."""
    microjoules: int = 0
    """From the device's battery; 0 in a run without `system`."""
    microseconds: int = 0
    """From request to answer; likewise."""

    def beyond(self, other: "Trip") -> "Trip":
        """How much more than another; what is negative is less."""
        return Trip(
            self.bytes - other.bytes,
            self.microjoules - other.microjoules,
            self.microseconds - other.microseconds,
        )


NO_TRIP = Trip()
"""Of a question whose way nobody follows."""


@dataclass
class Account:
    """Sums over a stretch of time."""

    calls: int = 0
    tokens: int = 0
    money: float = 0.0
    refused: int = 0
    bytes: int = 0
    """Of trips, as far as they are followed; no device remembers those of earlier rounds, as no cap asks for them."""
    microjoules: int = 0
    """Likewise."""

    def book(self, tokens: int, money: float, trip: Trip = NO_TRIP) -> None:
        """Enter one call."""
        self.calls += 1
        self.add(tokens, money, trip)

    def add(self, tokens: int, money: float, trip: Trip) -> None:
        """Enter what a call takes, without the call."""
        self.tokens += tokens
        self.money += money
        self.bytes += trip.bytes
        self.microjoules += trip.microjoules

    def plus(self, other: "Account") -> "Account":
        """Both together."""
        refused, trips = self.refused + other.refused, self.bytes + other.bytes
        paid = self.calls + other.calls, self.tokens + other.tokens, self.money + other.money
        return Account(*paid, refused, trips, self.microjoules + other.microjoules)


@dataclass
class Ledger:
    """Grants or refuses each query of a device.

    No cap is ever passed: a query is granted only if its largest possible size fits under every cap, and what it did
    not use is given back.
    """

    budget: BudgetConfig
    total: Account = field(default_factory=Account)
    """Sums over the run so far; kept in the device's state."""
    round: Account = field(default_factory=Account)
    """Sums over this round."""
    held: Account = field(default_factory=Account)
    """What an earlier attempt at this round spent and this one has not met again (`flsim/cloud/journal.py`)."""

    def reserve(self, tokens: int, money: float, trip: Trip = NO_TRIP, *, again: bool = False) -> bool:
        """Book one more query of at most this size if that fits under every cap; otherwise book a refusal.

        Args:
            tokens: most that it can take.
            money: likewise.
            trip: likewise.
            again: whether an earlier attempt at this round has paid for it. It is then granted or refused as it was
                then; a query that is new to the round must also leave room for all that is held.
        """
        caps, held = self.budget, Account() if again else self.held
        joules = (self.round.microjoules + held.microjoules + trip.microjoules) / MICRO  # 0.6 is three times 0.2 here
        wanted = (
            (caps.calls_per_round, self.round.calls + held.calls + 1),
            (caps.calls_total, self.total.calls + held.calls + 1),
            (caps.tokens_per_round, self.round.tokens + held.tokens + tokens),
            (caps.tokens_total, self.total.tokens + held.tokens + tokens),
            (caps.money_per_round, self.round.money + held.money + money),
            (caps.money_total, self.total.money + held.money + money),
            (caps.bytes_per_round, self.round.bytes + held.bytes + trip.bytes),
            (caps.joules_per_round, joules),
            (caps.seconds_per_question, trip.microseconds / MICRO),
        )
        granted = all(cap is None or amount <= cap for cap, amount in wanted)
        for account in (self.round, self.total):
            if granted:
                account.book(tokens, money, trip)
            else:
                account.refused += 1
        return granted

    def give_back(self, tokens: int, money: float, trip: Trip = NO_TRIP) -> None:
        """Return what an answered query did not use of its reservation."""
        for account in (self.round, self.total):
            account.add(-tokens, -money, NO_TRIP.beyond(trip))

    def cancel(self, tokens: int, money: float, trip: Trip = NO_TRIP) -> None:
        """Take back a reservation: the cloud failed, and what it did not answer is not paid.

        Of the trip only what its request did not use: that it went out for nothing took bytes and joules all the same.
        """
        self.give_back(tokens, money, trip)
        for account in (self.round, self.total):
            account.calls -= 1
            if not account.calls:
                account.tokens, account.money = 0, 0.0  # nothing at all, not what rounding left of sums
