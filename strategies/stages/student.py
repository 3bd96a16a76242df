"""The SLM as the server trains it: one adapter, one thread, and answers given without asking for help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flsim.cloud.protocol import Reply
from flsim.config.model import ModelConfig
from flsim.learning.distillation import Target, forward_kl
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.base import load_model
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.scoring import per_token, pull_back_readouts, top_logprobs, unaided
from flsim.models.stacked_lora import StackedLora, ranks_of
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem

ANCHOR_TOP = 64  # tokens of the aggregated adapter's distribution that an anchor names; the tail holds the others

PerToken = Callable[[Tensor, Tensor], Tensor]
"""One number `(n,)` per token from the student's log-probabilities `(n, V)` and the tokens' places `(n,)`."""


@dataclass(frozen=True)
class Lesson:
    """Completions of some questions, and what is to be learned at each of their tokens."""

    prompts: Sequence[str]
    """As the student reads them."""
    completions: Completions
    """`(1, P, 1, T)`, without filling."""
    loss: PerToken
    """Whose mean over tokens is made smaller."""
    divergence: PerToken
    """Whose mean over tokens says how far student and teacher are apart."""
    shown: Sequence[Reply] = ()
    """The teacher's answers with its hidden states, one for each prompt; none where they do not count."""


class Student:
    """The base model with slots for one adapter, on the CPU of the driver."""

    def __init__(self, config: ModelConfig, seed: int, max_new_tokens: int) -> None:
        """Load the base; `seed` is the run's, and `max_new_tokens` bounds its answers, the ending token included."""
        self.base = load_model(config)
        like = initial_adapter(self.base.model, config, seed)
        self.lora = StackedLora(self.base.model, like, config.shape.scale)
        self.max_new_tokens = max_new_tokens

    @torch.no_grad()
    def right(self, adapter: Adapter, problems: Sequence[Problem]) -> list[bool]:
        """Whether its greedy answers are right."""
        self.lora.attach(self.lora.stack([adapter]), ranks_of([adapter]))
        reading = read(self.base, encode(self.base, self.base.prompts([problems])))
        said = generate(
            self.base, reading, group_size=1, max_new_tokens=self.max_new_tokens, temperature=0.0, may_ask=False
        )
        return are_right([(p, texts[0]) for p, texts in zip(problems, said.texts[0], strict=True)])

    def sample(self, theta: Tensor, ranks: Sequence[int], problems: Sequence[Problem], seed: int) -> Completions:
        """One answer to each problem, drawn at temperature 1, `(1, P, 1, T)`."""
        self.lora.attach(theta, ranks)
        with torch.no_grad():
            reading = read(self.base, encode(self.base, self.base.prompts([problems])))
        return generate(
            self.base,
            reading,
            group_size=1,
            max_new_tokens=self.max_new_tokens,
            temperature=1.0,
            generators=[torch.Generator().manual_seed(seed)],
            may_ask=False,
        )

    @torch.no_grad()
    def divergence(self, theta: Tensor, ranks: Sequence[int], lesson: Lesson) -> tuple[float, float]:
        """How far it is from the teacher: the sum over the lesson's tokens, and their number."""
        self.lora.attach(theta, ranks)
        reading = read(self.base, encode(self.base, [lesson.prompts]))
        apart = per_token(
            self.base, reading, lesson.completions, self._verdict(lesson.divergence, lesson.completions)
        )  # (1, P, 1, T)
        return float(apart.double().sum()), float(lesson.completions.mask.sum())

    def gradient(self, theta: Tensor, ranks: Sequence[int], lesson: Lesson, *, origin: Tensor, anchor: float) -> Tensor:
        """Of the loss per token, and `anchor` times the KL of theta from `origin` at the same places, `(1, n)`.

        Args:
            theta: the adapter that learns, `(1, n)`.
            ranks: its rank.
            lesson: what it learns.
            origin: the aggregated adapter `(1, n)`, of the same rank.
            anchor: weight of `KL(p_origin || p_theta)`.
        """
        held = self._held(origin, ranks, lesson) if anchor > 0 else None

        def loss(student: Tensor, places: Tensor) -> Tensor:
            learned = lesson.loss(student, places)  # (n,)
            if held is None:
                return learned
            return learned + anchor * forward_kl(student, Target(held.tokens[places], held.logprobs[places]))  # (n,)

        self.lora.attach(theta, ranks, train=True)
        reading = read(self.base, encode(self.base, [lesson.prompts]))
        mask = lesson.completions.mask
        pull = mask / mask.sum()  # (1, P, 1, T): the mean over tokens
        readout = self._verdict(loss, lesson.completions)
        return pull_back_readouts(self.base, self.lora, reading, lesson.completions, readout, pull)

    @torch.no_grad()
    def _held(self, origin: Tensor, ranks: Sequence[int], lesson: Lesson) -> Target:
        """What the aggregated adapter says at every place of the lesson, one row for each."""
        self.lora.attach(origin, ranks)
        reading = read(self.base, encode(self.base, [lesson.prompts]))
        ids, logprobs = top_logprobs(self.base, reading, lesson.completions, ANCHOR_TOP)  # (1, P, 1, T, k) each
        return Target(ids.flatten(0, 3), logprobs.flatten(0, 3))

    def _verdict(self, of: PerToken, completions: Completions) -> PerToken:
        alone = unaided(self.base, completions)
        return lambda logits, places: of(alone(logits, places), places)
