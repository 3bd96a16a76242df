"""Findings on modes of help: drafts that the cloud seldom accepts, and help that takes more than asking would."""

from flsim.diagnosis.finding import ABOVE, BELOW, NOTE, WARNING, Finding, rounds_text
from flsim.diagnosis.limits import limit
from flsim.diagnosis.seen import Seen
from flsim.text import amount, percent


def poor_help(seen: Seen) -> list[Finding]:
    """Over the last third of the rounds, help that is not worth its requests or its cost."""
    return [*_rejected(seen), *_dearer(seen)]


def _late(seen: Seen, name: str) -> tuple[float, float]:
    """Total and weight over the fleet."""
    first, last = seen.late
    sums = seen.by_round(name).loc[first:last].sum()
    return float(sums["total"]), float(sums["weight"])


def _rejected(seen: Seen) -> list[Finding]:
    (accepted, drafted), (first, last) = _late(seen, "accepted_tokens"), seen.late
    if drafted < limit("drafted") or accepted / drafted >= limit("accepted"):
        return []
    share = accepted / drafted
    return [
        Finding(
            NOTE,
            "poor_help",
            f"Of {amount(drafted)} tokens that devices drafted in {rounds_text(first, last)} the cloud accepted "
            f"{percent(share)}: a request brings {1 / (1 - share):.2g} tokens at most, however many are drafted.",
            *(share, limit("accepted"), BELOW),
            (seen.trained("accepted_tokens", first=first, last=last),),
            "Draft less (client.helping.k, client.helping.length=confident), teach devices to draft as the cloud says "
            "it (stage.path=strategies.stages.distillation:Distillation), or ask (client.helping.path).",
        )
    ]


def _dearer(seen: Seen) -> list[Finding]:
    (shares, helped), (first, last) = _late(seen, "help_share"), seen.late
    if helped < limit("requests") or shares / helped <= limit("dearer"):
        return []
    return [
        Finding(
            WARNING,
            "poor_help",
            f"In {rounds_text(first, last)} help took {shares / helped:.3g} times what asking for the same answers "
            f"would have, in budget.unit, in the mean of {amount(helped)} questions.",
            *(shares / helped, limit("dearer"), ABOVE),
            (seen.trained("help_share", first=first, last=last),),
            "Ask whole questions (client.helping.path=clients.helping.helping:Ask), or take a mode that sends less "
            "(docs/collaboration.md).",
        )
    ]
