"""Work: the integer counts of what one device did in a round, read from its rows; seconds and joules follow from them.

Counts are the same for any number of workers, so that whatever is worked out from them is, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from flsim.config.ranges import ConfigError

MILLI = 1000
"""Parts of a token in which a device's work in the cloud's model is counted."""
COUNTED = {
    "read_tokens": "prompts",
    "sampled_tokens": "responses",
    "decode_steps": None,
    "learned_tokens": None,
    "cloud_prompt_tokens": None,
    "cloud_completion_tokens": None,
    "cloud_up_bytes": None,
    "cloud_down_bytes": None,
    "cloud_trips": None,
}
"""The rows that every client sends of its round, each with the count that its weight is; None: its weight is none."""

OPTIONAL = (
    *("learned_examples", "lower_read", "lower_drawn", "helped_read", "helped_drawn"),
    *("cloud_further_trips", "cloud_session_trips"),
)
"""Rows of some clients only."""


@dataclass(frozen=True)
class Work:
    """What a device did."""

    prompts: int = 0
    """Prompts read."""
    read_tokens: int = 0
    """Their tokens."""
    responses: int = 0
    """Responses sampled."""
    sampled_tokens: int = 0
    """Their tokens."""
    decode_steps: int = 0
    """Steps in which they are sampled where a group is sampled at once: the longest of each group, summed."""
    learned_tokens: int = 0
    """Tokens of responses that the gradient was taken of."""
    learned_examples: int = 0
    """The same of a module that reads no tokens: examples, each as often as it was learned from."""
    down_bytes: int = 0
    """Of the adapter and what came with it."""
    up_bytes: int = 0
    """Of what was sent back."""
    cloud_trips: int = 0
    """Requests to the cloud."""
    cloud_prompt_tokens: int = 0
    cloud_completion_tokens: int = 0
    cloud_up_bytes: int = 0
    """Of texts."""
    cloud_down_bytes: int = 0
    lower_read: int = 0
    """Tokens of prompts that the device passed through layers of the cloud's model, in thousandths of all its layers;
    0 but under a mode of help that cuts that model."""
    lower_drawn: int = 0
    """The same of tokens that were said, each in a step of its own."""
    helped_read: int = 0
    """Of `read_tokens`, those that a mode of help has the device read between its requests."""
    helped_drawn: int = 0
    """Of `sampled_tokens`, likewise those that it drew, one by one."""
    cloud_further_trips: int = 0
    """Of `cloud_trips`, those after the first of their question."""
    cloud_session_trips: int = 0
    """Of these, those that go on in a session that is open: no queue, and no bytes but their own."""

    @classmethod
    def counted(cls, rows: Iterable[tuple[str, float, float]], *, down: int, up: int, device: str) -> "Work":
        """That of a device's rows of one round.

        Args:
            rows: name, total and weight of its training rows.
            down: bytes that it was sent.
            up: bytes that it sent back.
            device: its name, for the error.

        Raises:
            ConfigError: if a count is missing: a duration without it would be too short and look right.
        """
        wanted = (*COUNTED, *OPTIONAL)
        found = {name: (total, weight) for name, total, weight in rows if name in wanted}
        missing = [name for name in COUNTED if name not in found]
        if missing:
            raise ConfigError(
                f"system is set, and {device} says nothing of {', '.join(missing)}, from which its seconds and joules "
                f"come; have the client send such rows (docs/systems.md), or leave system out"
            )
        counts = {name: round(total) for name, (total, _) in found.items()}
        counts |= {of: round(found[name][1]) for name, of in COUNTED.items() if of is not None}
        return cls(**counts, down_bytes=down, up_bytes=up)

    def plus(self, other: "Work") -> "Work":
        """Both together."""
        return Work(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})
