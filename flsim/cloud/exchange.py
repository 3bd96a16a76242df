"""What a question took that was helped by more than one request and its answer: requests, bytes, and the device's part.

All are whole numbers, so that sums and all that follows from them are the same for any number of workers.
"""

from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Self

from flsim.system.work import Work


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
    in_session: int = 0
    """Of the requests, those that go on in a session that an earlier one opened: they wait in no queue of the cloud's,
    and carry nothing beside their own bytes. Of a quote, those of the most requests."""

    @property
    def further(self) -> int:
        """Requests after the first; of one question's exchange alone, and not of sums."""
        return max(self.trips - 1, 0)

    def plus(self, other: "Exchange") -> Self:
        """Both together."""
        return type(self)(*map(add, _NUMBERS(self), _NUMBERS(other)))


_NUMBERS = attrgetter(*(one.name for one in fields(Exchange)))


def work_of(took: Exchange, prompt: int, completion: int) -> Work:
    """What one question's exchange is to a device and its link, with the tokens that the cloud bills."""
    return Work(
        prompts=int(took.read > 0),
        read_tokens=took.read,
        responses=int(took.drawn > 0),
        sampled_tokens=took.drawn,
        decode_steps=took.drawn,
        cloud_trips=took.trips,
        cloud_prompt_tokens=prompt,
        cloud_completion_tokens=completion,
        cloud_up_bytes=took.up_bytes,
        cloud_down_bytes=took.down_bytes,
        lower_read=took.lower_read,
        lower_drawn=took.lower_drawn,
        helped_read=took.read,
        helped_drawn=took.drawn,
        cloud_further_trips=took.further,
        cloud_session_trips=took.in_session,
    )
