"""The ledger of one device: what it asked the cloud, what it got, what it paid, and what its caps refused."""

from dataclasses import dataclass, field

from flsim.config.schema import BudgetConfig


@dataclass
class Account:
    """Sums over a stretch of time."""

    calls: int = 0
    tokens: int = 0
    money: float = 0.0
    refused: int = 0

    def book(self, tokens: int, money: float) -> None:
        """Enter one call."""
        self.calls += 1
        self.tokens += tokens
        self.money += money

    def plus(self, other: "Account") -> "Account":
        """Both together."""
        refused = self.refused + other.refused
        return Account(self.calls + other.calls, self.tokens + other.tokens, self.money + other.money, refused)


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

    def reserve(self, tokens: int, money: float, *, again: bool = False) -> bool:
        """Book one more query of at most this size if that fits under every cap; otherwise book a refusal.

        Args:
            tokens: most that it can take.
            money: likewise.
            again: whether an earlier attempt at this round has paid for it. It is then granted or refused as it was
                then; a query that is new to the round must also leave room for all that is held.
        """
        caps, held = self.budget, Account() if again else self.held
        wanted = (
            (caps.calls_per_round, self.round.calls + held.calls + 1),
            (caps.calls_total, self.total.calls + held.calls + 1),
            (caps.tokens_per_round, self.round.tokens + held.tokens + tokens),
            (caps.tokens_total, self.total.tokens + held.tokens + tokens),
            (caps.money_per_round, self.round.money + held.money + money),
            (caps.money_total, self.total.money + held.money + money),
        )
        granted = all(cap is None or amount <= cap for cap, amount in wanted)
        for account in (self.round, self.total):
            account.calls += granted
            account.refused += not granted
            account.tokens += tokens if granted else 0
            account.money += money if granted else 0.0
        return granted

    def give_back(self, tokens: int, money: float) -> None:
        """Return what an answered query did not use of its reservation."""
        for account in (self.round, self.total):
            account.tokens -= tokens
            account.money -= money

    def cancel(self, tokens: int, money: float) -> None:
        """Take back a whole reservation: the cloud failed, and what it did not answer is not paid."""
        self.give_back(tokens, money)
        for account in (self.round, self.total):
            account.calls -= 1
            if not account.calls:
                account.tokens, account.money = 0, 0.0  # nothing at all, not what rounding left of sums
