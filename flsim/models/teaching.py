"""Teach one adapter some responses, by a few supervised steps: cross-entropy on the tokens that it is to say.

What counts is the likelihood under the distribution that responses are drawn from, with the help request where it may
stand and without it where nobody asks by words, so that what is taught is what will be said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from flsim.learning.adam import Adam, fresh_state
from flsim.models.base import BaseModel
from flsim.models.decoding import encode, given, read
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora
from flsim.seeding import generator


@dataclass(frozen=True)
class Lesson:
    """A question, and what is to be said to it."""

    prompt: str
    """As the model reads it."""
    answer: tuple[int, ...]
    """Tokens of an answer, the ending one included."""
    request: tuple[int, ...]
    """Those of a response that asks for help."""


@dataclass(frozen=True)
class Course:
    """The settings of the steps."""

    steps: int
    batch: int
    """Lessons of a step."""
    lr: float
    rise: int
    """Steps until the learning rate is `lr`; from then on it falls."""
    clip_norm: float
    request_share: float
    """Of all lessons, how many teach the request."""
    may_ask: bool
    """Whether responses may hold the request."""
    seed: int
    """Root of the order of the lessons."""

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: linear up, and linear down to 0 after the last."""
        return self.lr * min(1.0, (step + 1) / max(1, self.rise)) * (1 - step / self.steps)

    def asks(self, number: int) -> bool:
        """Whether lesson `number`, from 0, teaches the request: after each, their share is met up to one lesson."""
        return _whole(self.request_share * (number + 1)) > _whole(self.request_share * number)

    def place(self, number: int, count: int) -> int:
        """Which of `count` questions lesson `number` is about: all of them in turn, in a new order each time."""
        epoch, place = divmod(number, count)
        return int(generator(self.seed, "order", epoch).permutation(count)[place])


@dataclass(frozen=True)
class Taught:
    """What the steps came to."""

    tokens: int
    """That were read, of questions and responses."""
    lessons: int
    requests: int
    """Lessons that taught the request."""


def lesson_of(base: BaseModel, prompt: str, answer: str, *, most: int, after: bool, asks: bool = True) -> Lesson | None:
    """A question with a right answer, in tokens; None if a response of at most `most` tokens has no room for it.

    Args:
        base: the model that is taught.
        prompt: as it reads the question.
        answer: what is right.
        most: tokens of the longest response.
        after: whether the model asks after its answer, which is then its draft, and else in place of it.
        asks: whether the request is taught, too, and needs room.
    """
    spelt = tuple(base.spell(answer))
    request = (*(spelt[:-1] if after else ()), *base.help.ids)
    return None if max(len(spelt), len(request) if asks else 0) > most else Lesson(prompt, spelt, request)


def teach(
    base: BaseModel,
    lora: StackedLora,
    theta: Tensor,
    lessons: Sequence[Lesson],
    course: Course,
    told: Callable[[], object] = lambda: None,
) -> Taught:
    """Move `theta` `(1, n)`, in place.

    Args:
        base: the model.
        lora: its slots for one adapter.
        theta: the adapter.
        lessons: at least one; the same questions come again as often as the steps have room for them.
        course: the settings.
        told: called after every step.
    """
    moments, tokens, asked = fresh_state(1, theta.shape[1]), 0, 0
    for step in range(course.steps):
        numbers = range(step * course.batch, (step + 1) * course.batch)
        chosen = [(lessons[course.place(number, len(lessons))], course.asks(number)) for number in numbers]
        said = [one.request if asks else one.answer for one, asks in chosen]
        gradient, read_ = _gradient(base, lora, theta, [one.prompt for one, _ in chosen], said, course.may_ask)
        Adam(lr=course.rate(step), clip_norm=course.clip_norm).step(theta, gradient, moments)
        tokens, asked = tokens + read_, asked + sum(asks for _, asks in chosen)
        told()
    return Taught(tokens, course.steps * course.batch, asked)


def _gradient(
    base: BaseModel, lora: StackedLora, theta: Tensor, prompts: Sequence[str], said: Sequence[Sequence[int]], asks: bool
) -> tuple[Tensor, int]:
    """Of minus the mean log-probability of what is to be said, `(1, n)`, and how many tokens were read for it."""
    lora.attach(theta, train=True)
    reading = read(base, encode(base, [prompts]))
    completions = given(base, [said])  # (1, P, 1, T)
    pull = -(completions.mask / completions.mask.sum())  # (1, P, 1, T)
    gradient = pull_back(base, lora, reading, completions, pull, temperature=1.0, may_ask=asks)  # (1, n)
    return gradient, int(reading.prompts.mask.sum()) + int(completions.mask.sum())


def _whole(number: float) -> int:
    """Its whole part; what is a whole number but for rounding counts as one."""
    return int(number + 1e-9)
