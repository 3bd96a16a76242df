"""What was paid to a cloud, and what really went there: a cache lies between the two."""

from dataclasses import dataclass, field

from flsim.cloud.cloud import Answer
from flsim.cloud.ledger import Account
from flsim.config import CloudConfig


@dataclass
class Basket:
    """The sums of one buyer over a stretch of time."""

    charged: Account = field(default_factory=Account)
    """As the ledger has it: calls, tokens and money of an empty cache, and what the caps refused."""
    cached: Account = field(default_factory=Account)
    """The part of it that lay in the cache already."""
    bought: Account = field(default_factory=Account)
    """What really went to the cloud."""
    failures: int = 0
    """Questions at which the cloud failed, however often it was asked; nothing of them is charged."""
    retries: int = 0
    """Requests that had failed before an answer came."""

    def add(self, answer: Answer | None, prices: CloudConfig) -> None:
        """Enter what became of one question; None is a failure."""
        if answer is None:
            self.failures += 1
            return
        for account in (self.charged, self.cached if answer.cached else self.bought):
            account.book(answer.tokens, answer.money(prices))
        self.retries += answer.retries

    def bought_facts(self) -> dict[str, float]:
        """What depends on the cache and on the weather, by the names that rows have for it."""
        return {
            "bought_calls": self.bought.calls,
            "bought_tokens": self.bought.tokens,
            "bought_money": self.bought.money,
            "cached_tokens": self.cached.tokens,
        }
