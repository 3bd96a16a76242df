"""What a question took that was helped by more than one request and its answer: requests, bytes, and the device's part.

All are whole numbers, so that sums and all that follows from them are the same for any number of workers.
"""

from dataclasses import dataclass, fields
from typing import Self

MILLI = 1000
"""Parts of a token in which a device's work in the cloud's model is counted."""


@dataclass(frozen=True)
class Exchange:
    """One question's, or the sums over several."""

    trips: int = 0
    """Requests to the cloud."""
    up_bytes: int = 0
    """Of all that went up: texts in UTF-8, ids of tokens, hidden states."""
    down_bytes: int = 0
    """Of all that came down."""
    read: int = 0
    """Tokens that the device's own model read for it and did not draw."""
    drawn: int = 0
    """Tokens that it drew for it."""
    drafted: int = 0
    """Of these, tokens that were sent to be verified."""
    accepted: int = 0
    """Of the drafted ones, those that the cloud would have said as well."""
    again: int = 0
    """Places that the cloud computed again, alone, since rounding might have decided them."""
    lower_read: int = 0
    """Tokens of prompts that the device passed through layers of the cloud's model, in thousandths of all its layers:
    10 tokens through a quarter of the layers are 2,500."""
    lower_drawn: int = 0
    """The same of tokens that were said, each in a step of its own."""

    def plus(self, other: "Exchange") -> Self:
        """Both together."""
        return type(self)(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))
