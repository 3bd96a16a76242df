"""The rows in which a distillation says what it did: how near it came, what it took, and what it was to users."""

from collections.abc import Iterable

from flsim.cloud.protocol import Basket
from flsim.metrics.rows import FLEET, STAGE, Row
from strategies.stages.lessons import Outcome


def row(round_: int, name: str, total: float, weight: float = 1.0) -> Row:
    """One number of the stage itself."""
    return Row(round_, FLEET, "all", STAGE, STAGE, name, float(total), float(weight))


def learned(round_: int, method: str, outcome: Outcome) -> list[Row]:
    """How far student and teacher were apart, and how many answers could be used.

    The tokens are apart in nats for each of them, under the name of the loss; the hidden states as their loss says.
    """
    found = (
        (f"{method}_before", outcome.before),
        (f"{method}_after", outcome.after),
        ("features_before", outcome.features_before),
        ("features_after", outcome.features_after),
    )
    rows = [row(round_, name, *apart) for name, apart in found if apart is not None]
    return [*rows, *([row(round_, "accepted", outcome.accepted, outcome.answers)] if outcome.answers else [])]


def costs(round_: int, basket: Basket, *, features: bool) -> list[Row]:
    """`cloud_*` as the ledger has it; `bought_*` and `cached_tokens` depend on what the cache held.

    Args:
        round_: of the distillation.
        basket: its sums.
        features: whether hidden states were asked for, whose bytes are then among the rows.
    """
    charged = basket.charged
    facts = {
        "cloud_calls": charged.calls,
        "cloud_refused": charged.refused,
        "cloud_tokens": charged.tokens,
        "cloud_money": charged.money,
        **({"cloud_feature_bytes": basket.feature_bytes} if features else {}),
        **basket.bought_facts(),
    }
    return [row(round_, name, value) for name, value in facts.items()]


def effect(round_: int, model: str, verdicts: Iterable[tuple[str, str, bool]]) -> list[Row]:
    """How often devices are right alone, by task.

    Args:
        round_: of the distillation.
        model: `aggregated` or `distilled`.
        verdicts: device, task, and whether the answer was right.
    """
    found: dict[tuple[str, str], list[bool]] = {}
    for name, task, right in verdicts:
        found.setdefault((name, task), []).append(right)
    return [
        Row(round_, name, task, STAGE, model, "alone_accuracy", float(sum(own)), float(len(own)))
        for (name, task), own in found.items()
    ]
