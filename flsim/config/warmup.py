"""The part of the configuration that says what the small model is taught before the first round."""

import math
from dataclasses import dataclass

from flsim.config.ranges import Range, above, at_least, count, filled, limited, one_of, share, tupled

GOLD, CLOUD, OWN = "gold", "cloud", "own"
"""Whose answers are taught."""
ASKED_FOR = 0.25
"""The share of lessons that teach the request, of devices that ask by words, where no other is given."""
_RATE = Range(
    "above 0 and finite", lambda value: None if 0 < value < math.inf else "must be above 0 and finite: {meaning}"
)


@dataclass(frozen=True)
class WarmupConfig:
    """A few supervised steps at the server before round 1, which teach the form of an answer and of a request."""

    steps: int = at_least(0, 0)
    """Steps of Adam; 0 is no warm-up."""
    batch: int = count(8)
    """Lessons of a step, a question with its answer or with the request each."""
    lr: float = limited(5e-4, _RATE)
    """Largest learning rate; it rises linearly to it over `rise` steps and falls linearly to 0 at the last."""
    rise: int = at_least(0, 5)
    """Steps until the learning rate has risen."""
    clip_norm: float = above(0, 1.0)
    """Largest gradient norm."""
    request_share: float | None = share(None)
    """Of the lessons, how many teach the help request, whatever the question; None: a quarter where devices ask by
    words (`client.policy=token`, for instance), none where they ask by a head or a rule, or never."""
    source: str = one_of(GOLD, (GOLD, CLOUD, OWN))
    """Whose answers are taught: `gold`: those of the data; `cloud`: the cloud's, paid for; `own`: the model's own
    samples. Only answers that the task's verifier takes for right are taught."""
    samples: int = count(8)
    """For `own`: how often the model tries each question; its first right try is taught."""
    temperature: float = above(0, 1.0)
    """For `own`: of these tries."""
    tasks: tuple[str, ...] | None = filled(None, "[arithmetic]")
    """Tasks of the stream whose questions are taught; None: those of round 1. A task that comes later would not be new
    any more when it comes."""
    questions: int = count(64)
    """Most questions that are taught, of the train split and of no device in particular."""

    def __post_init__(self) -> None:
        """A list does as well as a tuple."""
        object.__setattr__(self, "tasks", tupled(self.tasks))
