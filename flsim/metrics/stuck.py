"""Whether asking is stuck: a fleet that learns to ask, and for some rounds has asked nowhere, or everywhere.

What is never sampled cannot be learned, so a policy that asks nowhere stays there however low its price falls, and one
that asks everywhere never sees what it would have said itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flsim.metrics.rows import FLEET, Row

STUCK = "stuck_asking"
"""Name of the row of the whole fleet in the round that shows it; its value is the usage."""
ROUNDS = 3
"""How long it must last."""
LEAST = 0.02
"""Usage up to this part of tau is asking nowhere, and one that lacks this part of 1 - tau of all is everywhere."""
MARGIN = 0.05
"""A tau below it says that nobody is to ask, and one above 1 minus it that everybody may: then nothing is stuck."""


@dataclass(frozen=True)
class Asked:
    """How often a fleet asked in one round, of its own accord."""

    asked: float
    """Responses that asked."""
    all: float
    """Responses."""

    @property
    def usage(self) -> float:
        """Share of responses that asked; 0 without any."""
        return self.asked / self.all if self.all else 0.0


def asked_in(rows: Iterable[Row]) -> Asked:
    """What a round's rows say, without prompts that were explored, where nobody could ask."""
    asked = all_ = 0.0
    for row in rows:
        if row.split == "train" and row.device != FLEET and row.name in ("cloud_requests", "explored"):
            sign = 1.0 if row.name == "cloud_requests" else -1.0
            asked += sign * row.total
            all_ += row.weight if row.name == "cloud_requests" else -row.total
    return Asked(asked, all_)


def is_stuck(rounds: Sequence[Asked], tau: float) -> bool:
    """Whether the last `ROUNDS` rounds with responses show it.

    Args:
        rounds: of a run, in order.
        tau: of its budget.
    """
    last = [one.usage for one in rounds if one.all > 0][-ROUNDS:]
    if len(last) < ROUNDS or not MARGIN <= tau <= 1 - MARGIN:
        return False
    return max(last) <= LEAST * tau or min(last) >= 1 - LEAST * (1 - tau)


def told(usage: float, round_: int, tau: float, *, explores: bool) -> str:
    """The sentence that the screen and the page have, with what to do.

    Args:
        usage: of the last of these rounds.
        round_: the last of them.
        tau: of the budget.
        explores: whether the help request is explored already.
    """
    asked = "(almost) no response" if usage < 0.5 else "(almost) every response"
    seen = (
        f"Asking is stuck: by round {round_}, {asked} had asked the cloud for {ROUNDS} rounds, with budget.tau={tau:g}."
    )
    if not explores:
        return (
            f"{seen} A policy does not come back from there by itself: set client.explore=0.5, or for DA-GRPO "
            f"client.policy=head"
        )
    why = (
        "seldom right where devices are wrong, or its price is high" if usage < 0.5 else "nearly always worth its price"
    )
    return f"{seen} It is explored, so the cloud is {why}: look at cloud accuracy and lambda, or raise client.explore"
