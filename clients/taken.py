"""What a question takes at a test: what its device reads and draws, and of the cloud where the question was granted."""

from collections.abc import Sequence

import numpy as np

from clients.asking.alone import drawn_alone
from clients.asking.rule import Choice, Examined, Flags, Scores
from clients.device.counts import Drawn
from clients.orders import Order


def drawn_by(pack: Examined, choices: Sequence[Choice]) -> list[Drawn]:
    """What each device read and drew until its rule had decided."""
    silent_rules = any(choice.drawn is None for choice in choices)
    alone = drawn_alone(pack) if silent_rules else [Drawn.none(0) for _ in choices]
    return [own if choice.drawn is None else choice.drawn for choice, own in zip(choices, alone, strict=True)]


def taken_by(order: Order, granted: Flags, drawn: Drawn, again: Drawn | None, *, spared: bool) -> dict[str, Scores]:
    """What each question took `(N,)`, by the names of rows: of the device, and of the cloud where that was granted.

    A device answers with asking disabled, or drafts until it asks; where a request is granted it goes on after a hint,
    if it is given one, and where none is granted it answers by itself, if it has not yet. What it says to set a
    threshold is no part of a question.

    Args:
        order: what it asked of the cloud.
        granted: what its budget granted, `(N,)`.
        drawn: what it read and drew until its rule had decided.
        again: and besides, where nothing came of its request; None for nothing.
        spared: whether it need not say anything to what it sends, as its rule looks at the question alone.
    """
    came = np.zeros(len(granted), dtype=bool)
    came[list(order.answers)] = True
    helped = granted & came  # (N,)
    own = drawn.where(~helped) if spared else drawn
    own = own if again is None else own.plus(again.where(~helped))
    own = own if order.after is None else own.plus(order.after.where(helped))
    cloud = np.zeros(len(granted))  # (N,)
    for place in np.flatnonzero(helped).tolist():
        cloud[place] = order.answers[place].tokens
    counts = {"read_tokens": own.read, "sampled_tokens": own.tokens, "cut_responses": own.cut}
    return {name: each.astype(np.float64) for name, each in counts.items()} | {"cloud_test_tokens": cloud}
