"""Turn what a teacher says into lessons, and take the steps of one distillation: from its answers, or from one's own.

From the teacher's answers (`sequence`, `forward_kl`): all are bought first, those that fail the task's verifier are
kept out, and the steps go over the rest. From the student's own (`reverse_kl`): every step samples anew and buys the
teacher's scores of what was sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flsim.cloud.protocol import Reply
from flsim.cloud.purchases import Purchases, Request
from flsim.cloud.teacher import SCORES, TEXT, TOP_LOGPROBS
from flsim.learning.adam import Adam, fresh_state
from flsim.learning.distillation import Target, forward_kl, reverse_kl, reverse_kl_loss, sequence_loss
from flsim.models.adapter import Adapter
from flsim.models.decoding import given
from flsim.models.stacked_lora import ranks_of
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import generator, seed_for
from strategies.stages.features import Features, Matcher
from strategies.stages.student import Lesson, Student

SEQUENCE, FORWARD_KL, REVERSE_KL = "sequence", "forward_kl", "reverse_kl"
NEEDS = {SEQUENCE: TEXT, FORWARD_KL: TOP_LOGPROBS, REVERSE_KL: SCORES}
"""The access that a loss needs at least."""

Apart = tuple[float, float]  # a divergence summed over tokens, and how many


@dataclass(frozen=True)
class Plan:
    """The settings of one distillation."""

    loss: str
    level: str
    """The access that is used."""
    steps: int
    batch: int
    """Questions of a step."""
    adam: Adam
    top: int
    """Likeliest tokens that the teacher tells at each place."""
    clip: float
    anchor: float
    seed: int
    """Root of all random choices."""
    features: Features | None = None
    """What counts of the teacher's hidden states; None is nothing."""


@dataclass(frozen=True)
class Outcome:
    """What one distillation did."""

    adapter: Adapter | None
    """What was learned; None where there was nothing to learn from."""
    before: Apart | None
    after: Apart | None
    answers: int
    """Answers that the teacher gave; 0 where it only scored."""
    accepted: int
    """Those among them that passed the verifier."""
    features_before: Apart | None = None
    """The same of hidden states; None where they do not count."""
    features_after: Apart | None = None


class Learner:
    """The adapter on its way from where it was."""

    def __init__(self, student: Student, adapter: Adapter, plan: Plan) -> None:
        self.student = student
        self.plan = plan
        self.ranks = ranks_of([adapter])
        self.theta = student.lora.stack([adapter])  # (1, n)
        self.origin = self.theta.clone()  # (1, n)
        self._moments = fresh_state(1, self.theta.shape[1])
        self._given = adapter
        self._matcher: Matcher | None = None

    def match(self, lesson: Lesson) -> None:
        """From now on hidden states count, if they are to, by maps that are fitted to a lesson."""
        if self.plan.features is not None:
            self._matcher = Matcher.fitted(self.student, self.plan.features, self.theta, self.ranks, lesson)

    def step(self, lesson: Lesson) -> None:
        """One step of Adam on a lesson."""
        parts = self.theta, self.ranks, lesson
        gradient = self.student.gradient(*parts, origin=self.origin, anchor=self.plan.anchor)  # (1, n)
        if self._matcher is not None:
            gradient = gradient + self._matcher.gradient(*parts)  # (1, n)
        self.plan.adam.step(self.theta, gradient, self._moments)

    def apart(self, lesson: Lesson) -> Apart:
        """How far it is from the teacher."""
        return self.student.divergence(self.theta, self.ranks, lesson)

    def features_apart(self, lesson: Lesson) -> Apart | None:
        """The same of hidden states; None where they do not count."""
        return None if self._matcher is None else self._matcher.apart(self.theta, self.ranks, lesson)

    def adapter(self) -> Adapter:
        """As it is now; what devices learn beside LoRA is theirs, and stays as it was."""
        (adapter,) = self.student.lora.unstack(self.theta, self.ranks)
        return self._given | adapter


def teach(student: Student, adapter: Adapter, problems: Sequence[Problem], shop: Purchases, plan: Plan) -> Outcome:
    """Learn from a teacher.

    Args:
        student: the model that learns.
        adapter: where it starts, and what it is anchored to.
        problems: the proxy questions.
        shop: where the teacher's words are bought; what its caps refuse is left out.
        plan: the settings.
    """
    learner = Learner(student, adapter, plan)
    return (_from_samples if plan.loss == REVERSE_KL else _from_answers)(learner, problems, shop)


def _from_answers(learner: Learner, problems: Sequence[Problem], shop: Purchases) -> Outcome:
    plan = learner.plan
    layers = () if plan.features is None else tuple(layer for _, layer in plan.features.pairs)
    top = plan.top if plan.loss == FORWARD_KL else int(bool(layers))  # with hidden states come at least the tokens
    replies = shop.buy([Request(plan.level, problem, top, layers=layers) for problem in problems])
    answered = [(problem, reply) for problem, reply in zip(problems, replies, strict=True) if reply is not None]
    readouts = are_right([(problem, reply.answer.text) for problem, reply in answered])
    accepted = [pair for pair, right in zip(answered, readouts, strict=True) if right]
    if not accepted:
        return Outcome(None, None, None, len(answered), 0)
    build = forward_lesson if plan.loss == FORWARD_KL else sequence_lesson

    def lesson(places: Sequence[int]) -> Lesson:
        chosen = [accepted[place] for place in places]
        told = [reply for _, reply in chosen]
        built = build(learner.student, [problem for problem, _ in chosen], told)
        return replace(built, shown=told) if layers else built

    whole = lesson(range(len(accepted)))
    learner.match(whole)
    before, features_before = learner.apart(whole), learner.features_apart(whole)
    for step in range(plan.steps):
        learner.step(lesson(_batch(len(accepted), plan, step)))
    return Outcome(
        learner.adapter(),
        before,
        learner.apart(whole),
        len(answered),
        len(accepted),
        features_before=features_before,
        features_after=learner.features_apart(whole),
    )


def _from_samples(learner: Learner, problems: Sequence[Problem], shop: Purchases) -> Outcome:
    """The divergence is measured on the questions of the first step, with the same random numbers before and after."""
    plan = learner.plan

    def lesson(step: int) -> Lesson | None:
        return _sampled(learner, [problems[place] for place in _batch(len(problems), plan, step)], step, shop)

    first = lesson(0)
    if first is None:
        return Outcome(None, None, None, 0, 0)
    before = learner.apart(first)
    learner.step(first)
    for step in range(1, plan.steps):
        later = lesson(step)
        if later is None:
            break
        learner.step(later)
    last = lesson(0)
    return Outcome(learner.adapter(), before, None if last is None else learner.apart(last), 0, 0)


def _sampled(learner: Learner, problems: Sequence[Problem], step: int, shop: Purchases) -> Lesson | None:
    """The student's answers to some questions, as far as the caps let the teacher score them; None if not at all."""
    seed = seed_for(learner.plan.seed, "samples", step)
    drawn = learner.student.sample(learner.theta, learner.ranks, problems, seed)
    rows = zip(drawn.tokens[0, :, 0], drawn.mask[0, :, 0], strict=True)  # (T,) each
    spoken = [tuple(tokens[mask].tolist()) for tokens, mask in rows]
    replies = shop.buy([Request(SCORES, p, tokens=tokens) for p, tokens in zip(problems, spoken, strict=True)])
    scored = [(problem, reply) for problem, reply in zip(problems, replies, strict=True) if reply is not None]
    if not scored:
        return None
    return reverse_lesson(
        learner.student, [problem for problem, _ in scored], [reply for _, reply in scored], clip=learner.plan.clip
    )


def _batch(count: int, plan: Plan, step: int) -> list[int]:
    """Which of `count` items a step takes."""
    order = generator(plan.seed, "batch", step).permutation(count)
    return sorted(int(place) for place in order[: plan.batch])


def sequence_lesson(student: Student, problems: Sequence[Problem], replies: Sequence[Reply]) -> Lesson:
    """Memorise the teacher's answers, in the student's own tokens."""
    completions = given(student.base, [[student.base.spell(reply.answer.text) for reply in replies]])
    tokens = completions.tokens.flatten()  # (P T,)

    def loss(logprobs: Tensor, places: Tensor) -> Tensor:
        return sequence_loss(logprobs, tokens[places])

    return Lesson(student.base.prompts([problems])[0], completions, loss, loss)


def forward_lesson(student: Student, problems: Sequence[Problem], replies: Sequence[Reply]) -> Lesson:
    """Learn the teacher's distribution at every token of its answers."""
    completions = given(student.base, [[reply.tokens.tolist() for reply in replies]])
    longest = completions.tokens.shape[-1]
    ids = _padded([reply.ids for reply in replies], longest).long()  # (P T, k)
    known = _padded([reply.logprobs for reply in replies], longest)  # (P T, k)

    def loss(logprobs: Tensor, places: Tensor) -> Tensor:
        return forward_kl(logprobs, Target(ids[places], known[places]))

    return Lesson(student.base.prompts([problems])[0], completions, loss, loss)


def reverse_lesson(student: Student, problems: Sequence[Problem], replies: Sequence[Reply], *, clip: float) -> Lesson:
    """Learn from the teacher's scores of what the student wrote."""
    completions = given(student.base, [[reply.tokens.tolist() for reply in replies]])
    tokens = completions.tokens.flatten()  # (P T,)
    scores = _padded([reply.logprobs for reply in replies], completions.tokens.shape[-1])[:, 0]  # (P T,)

    def loss(logprobs: Tensor, places: Tensor) -> Tensor:
        return reverse_kl_loss(logprobs, tokens[places], scores[places], clip=clip)

    def divergence(logprobs: Tensor, places: Tensor) -> Tensor:
        return reverse_kl(logprobs, tokens[places], scores[places])

    return Lesson(student.base.prompts([problems])[0], completions, loss, divergence)


def _padded(parts: Sequence[np.ndarray], longest: int) -> Tensor:
    """Arrays `(T_p, k)` one below the other, each filled up with zeros to `longest` rows, `(P * longest, k)`."""
    filled = [np.pad(part, ((0, longest - len(part)), (0, 0))) for part in parts]
    return torch.from_numpy(np.concatenate(filled))
