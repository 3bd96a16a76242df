"""Whether asking is stuck: a fleet that learns to ask, and for some rounds has asked nowhere, or everywhere.

What is never sampled cannot be learned, so a policy that asks nowhere stays there however low its price falls, and one
that asks everywhere never sees what it would have said itself. A run looks at it while it goes on, too
(`flsim/loop/watch.py`), so that nobody waits for its end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from flsim.diagnosis.finding import ABOVE, BELOW, FAULT, WARNING, Finding, rounds_text
from flsim.diagnosis.limits import limit
from flsim.diagnosis.seen import Seen, streaks
from flsim.metrics.rows import FLEET, WEIGHED, Row

STUCK = "stuck_asking"
"""Name of the row of the whole fleet in the round that shows it; its value is the usage."""


@dataclass(frozen=True)
class Asked:
    """How often a fleet asked in one round, of its own accord."""

    asked: float
    """Responses that asked."""
    all: float
    """Responses."""
    taken: float | None = None
    """What all requests took, of what asking everything would take in `budget.unit`; None where each counts 1."""

    @property
    def usage(self) -> float:
        """Share of responses that asked; 0 without any."""
        return self.asked / self.all if self.all else 0.0

    @property
    def spent(self) -> float:
        """The same as far as it is paid: who asks everywhere for help that takes little has kept the budget."""
        return self.usage if self.taken is None else min(self.usage, self.taken)


def asked_in(rows: Iterable[Row]) -> Asked:
    """What a round's rows say, without prompts that were explored, where nobody could ask."""
    asked = all_ = weighed = whole = 0.0
    for row in rows:
        if row.split != "train" or row.device == FLEET:
            continue
        if row.name in ("cloud_requests", "explored"):
            sign = 1.0 if row.name == "cloud_requests" else -1.0
            asked += sign * row.total
            all_ += row.weight if row.name == "cloud_requests" else -row.total
        elif row.name == WEIGHED:
            weighed, whole = weighed + row.total, whole + row.weight
    return Asked(asked, all_, weighed / whole if whole else None)


def is_stuck(rounds: Sequence[Asked], tau: float) -> bool:
    """Whether the last rounds with responses show it, as many as a state must last.

    Args:
        rounds: of a run, in order.
        tau: of its budget.
    """
    most = int(limit("rounds"))
    last = [one for one in rounds if one.all > 0][-most:]
    if len(last) < most or not limit("asking_margin") <= tau <= 1 - limit("asking_margin"):
        return False
    return max(one.usage for one in last) <= _silent(tau) or min(one.spent for one in last) >= _loud(tau)


def told(usage: float, round_: int, tau: float) -> str:
    """What was seen, in a sentence.

    Args:
        usage: of the last of these rounds.
        round_: the last of them.
        tau: of the budget.
    """
    asked = "(almost) no response" if usage < 0.5 else "(almost) every response"
    return (
        f"Asking is stuck: by round {round_}, {asked} had asked the cloud for {limit('rounds'):g} rounds, with "
        f"budget.tau={tau:g}."
    )


def mend(usage: float, *, explores: bool) -> str:
    """What to do about it.

    Args:
        usage: of the last of these rounds.
        explores: whether the help request is explored already.
    """
    if not explores:
        return (
            "A policy does not come back from there by itself: set client.explore=0.5, or for DA-GRPO "
            "client.policy=head."
        )
    why = (
        "seldom right where devices are wrong, or its price is high" if usage < 0.5 else "nearly always worth its price"
    )
    return f"It is explored, so the cloud is {why}: look at cloud accuracy and lambda, or raise client.explore."


def asks_always_or_never(seen: Seen) -> list[Finding]:
    """The same of a whole run: a fault if it lasts to its end, a warning if the policy came back."""
    tau = seen.facts.tau
    if tau is None or not seen.facts.learns_to_ask:
        return []
    if not limit("asking_margin") <= tau <= 1 - limit("asking_margin"):
        return []
    found = seen.run.picked(("cloud_requests", "explored"), "train")
    found = found[found["device"] != FLEET]
    requests = found[found["name"] == "cloud_requests"].groupby("round")[["total", "weight"]].sum()
    explored = found[found["name"] == "explored"].groupby("round")["total"].sum()
    own = requests.sub(explored.reindex(requests.index).fillna(0.0), axis=0)
    usage = (own["total"] / own["weight"])[own["weight"] > 0]
    weighed = seen.by_round(WEIGHED)
    taken = (weighed["total"] / weighed["weight"]).reindex(usage.index).fillna(usage)  # equal where each counts 1
    loud = (usage >= _loud(tau)) & (taken >= _loud(tau))
    for flags, is_above in ((usage <= _silent(tau), False), (loud, True)):
        held = streaks(pd.concat({"fleet": flags}, names=["device"])) if len(flags) else pd.DataFrame()
        if held.empty:
            continue
        first, last, lasts = held.iloc[0]
        seen_in = usage.loc[first:last]
        since = told(float(seen_in.iloc[-1]), int(seen_in.index[int(limit("rounds")) - 1]), tau)
        goes_on = "It lasts to the end" if lasts else "It came back"
        return [
            Finding(
                FAULT if lasts else WARNING,
                "asks_always_or_never",
                f"{since} {goes_on} ({rounds_text(int(first), int(last))}).",
                *(float(seen_in.mean()), _loud(tau) if is_above else _silent(tau), ABOVE if is_above else BELOW),
                (seen.trained("cloud_requests", "explored", first=int(first), last=int(last)),),
                mend(float(seen_in.iloc[-1]), explores=bool(len(explored))),
            )
        ]
    return []


def _silent(tau: float) -> float:
    """Usage up to which a fleet asks nowhere."""
    return limit("asks") * tau


def _loud(tau: float) -> float:
    """Usage from which on it asks everywhere."""
    return 1 - limit("asks") * (1 - tau)
