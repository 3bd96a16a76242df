"""A device's own answers with asking disabled, and how sure it was of them: all that a rule may look at."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clients.asking.rule import TEXTS, Choice, Examined, Scores, named, right_alone
from clients.device.answering import Problems, answer_alone
from clients.device.counts import Drawn
from clients.device.head import Head
from clients.device.world import World
from flsim.config.model import AFTER
from flsim.learning.benefit import ALONE, benefit
from flsim.models.adapter import extras_of
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Reading, generate, read
from flsim.models.scoring import per_token, request_after, rest_of_request, unaided

_LEAST = 1e-12  # of the chance not to ask, so that its logarithm is finite


@dataclass(frozen=True)
class Alone:
    """What one device said to N questions when it could not ask; it does not hold what would be right."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    """Decoded greedily, without the ending token."""
    logprobs: Scores
    """Mean log-probability of the answer's tokens, the ending one included, in nats, at most 0, `(N,)`."""
    wish: Scores
    """Logarithm of the chance that it would have asked, or the benefit that its head expects, `(N,)`; see `wish_of`."""
    entropies: Scores
    """Mean entropy of the distributions that they were drawn from, in nats, `(N,)`; empty unless it was wanted."""
    wrong: Scores = field(default_factory=lambda: np.zeros(0))
    """Chance that the answer is wrong, as its benefit head has it, `1 - p_alone`, `(N,)`; empty without a head."""
    drawn: Drawn | None = None
    """What it read and drew for them; None of what nobody counted."""


@torch.no_grad()
def answers_alone(world: World, problems: Problems, *, entropies: bool = False) -> list[Alone]:
    """Every device's own greedy answers with asking disabled; the adapters in use are theirs.

    Args:
        world: the worker's.
        problems: of each device; their numbers may differ.
        entropies: whether to measure these, too, for one more pass over the answers.
    """
    questions = [[problem.question for problem in row] for row in problems]
    reading = read(world.base, world.encoded(problems))
    most = world.answer_tokens
    replies = generate(
        world.base,
        reading,
        group_size=1,
        max_new_tokens=most,
        temperature=0.0,
        may_ask=False,
        traced=world.head is not None,
    )
    sure = _means(replies.logprobs, replies)
    unsure = _means(_entropies(world.base, reading, replies), replies) if entropies else [np.zeros(0)] * len(problems)
    wishes = _rows_of(wish_of(world, reading, replies), problems)
    wrong = [np.zeros(0)] * len(problems)
    if world.head is not None:
        wrong = _rows_of(1 - _head_says(world, world.head, reading, replies)[..., ALONE], problems)
    drawn = Drawn.of(replies, reading.prompts.counts, reading.prompts)
    return [
        Alone(tuple(asked), tuple(group[0] for group in texts), *numbers)
        for asked, texts, *numbers in zip(questions, replies.texts, sure, wishes, unsure, wrong, drawn, strict=True)
    ]


def _rows_of(values: Tensor, problems: Problems) -> list[Scores]:
    """Of numbers `(K, P)` those of every device's real prompts `(N,)`."""
    return [row[: len(own)].double().cpu().numpy() for row, own in zip(values, problems, strict=True)]


def _head_says(world: World, head: Head, reading: Reading, replies: Completions) -> Tensor:
    """That each answer and that the cloud is right, `(K, P, 2)`."""
    return head.chances(head_in_use(world, head), replies, reading.prompts)[:, :, 0]  # (K, P, 2)


def head_in_use(world: World, head: Head) -> Tensor:
    """The weights of the heads of the adapters that are on, `(K, 2, F)`, or `(1, 2, F)` where all have one.

    A frozen base has the head that the fleet starts from.
    """
    if world.lora.on:
        return head.weights(world.lora.on)  # (K, 2, F)
    place = world.base.model.device
    first = {name: torch.from_numpy(value).to(place)[None] for name, value in extras_of(world.first).items()}
    return head.weights(first)  # (1, 2, F)


def wish_of(world: World, reading: Reading, replies: Completions) -> Tensor:
    """Logarithm of the chance of a help request `(K, P)`, where the device's own greedy answers leave a place for it.

    As the model has it, without rule or bias, but with the offset by the answer's surprise (`World.surprise`). With
    `model.request: before`, and with `anywhere` for models that ask before they answer, it is the chance that an answer
    begins with it; with `after` that it follows the answer, in place of the ending token; with `anywhere` for a model
    that has learned both (`ModelConfig.drafts`) that it does one or the other: p + (1 - p) q, with the chances p at the
    beginning and q after the answer. Of devices with a benefit head it is no chance, but the benefit that the head
    expects after the answer.

    Args:
        world: the worker's.
        reading: the prompts.
        replies: one greedy answer to each, `(K, P, 1, T)`.
    """
    base, model = world.base, world.config.model
    if world.head is not None:
        return benefit(_head_says(world, world.head, reading, replies))  # (K, P)
    first = torch.log_softmax(reading.logits.float(), -1)[:, base.help.ids[0]]  # (K * P,)
    before = first.view(replies.mask.shape[:2]) + rest_of_request(base, reading)  # (K, P)
    if not model.drafts:
        return before
    after = request_after(base, reading, replies, surprise=world.surprise)  # (K, P)
    if model.request == AFTER:
        return after
    silent = torch.log1p(-before.double().exp().clamp(max=1 - _LEAST))  # (K, P)
    return torch.logaddexp(before.double(), silent + after.double())  # (K, P)


def hear(pack: Examined, problems: Problems, *, entropies: bool = False) -> list[Alone]:
    """`answers_alone` of a pack that is measured; what another rule has heard already is not asked again.

    Args:
        pack: whose adapters are in use.
        problems: of each device.
        entropies: whether to measure these, too.
    """
    key = named(problems), entropies
    if key not in pack.heard:
        pack.heard[key] = answers_alone(pack.world, problems, entropies=entropies)
    found: list[Alone] = pack.heard[key]
    return found


def drawn_alone(pack: Examined) -> list[Drawn]:
    """What the devices read and drew for their tests with asking disabled, whoever has heard them."""
    found = pack.heard.get((named(pack.tests), True)) or hear(pack, pack.tests)
    drawn = [own.drawn for own in found]
    assert all(own is not None for own in drawn), "who hears a device counts what it says"
    return [own for own in drawn if own is not None]


def texts_alone(pack: Examined) -> list[list[str]]:
    """The devices' own greedy answers to their tests with asking disabled, `[device][prompt]`, whoever has heard them.

    They are asked only if no rule has.
    """
    names = named(pack.tests)
    for found in (pack.heard.get((names, False)), pack.heard.get((names, True))):
        if found is not None:
            return [list(own.answers) for own in found]
    if (TEXTS, names) not in pack.heard:
        pack.heard[TEXTS, names] = answer_alone(pack.world, pack.tests, pack.world.answer_tokens)
    texts: list[list[str]] = pack.heard[TEXTS, names]
    return texts


def all_alike(pack: Examined, *, wish: bool) -> list[Choice]:
    """A wish for every prompt or for none; all score alike, so that the curve is that of asking at random."""
    tried = hear(pack, pack.tests)
    return [
        Choice(right_alone(tests, own.answers), np.full(len(tests), wish), np.zeros(len(tests)))
        for tests, own in zip(pack.tests, tried, strict=True)
    ]


def _entropies(base: BaseModel, reading: Reading, replies: Completions) -> Tensor:
    """Entropy of the next token at each place of the answers, the help request ruled out, `(K, P, 1, T)`."""
    alone = unaided(base, replies)

    def entropy(logits: Tensor, places: Tensor) -> Tensor:
        each: Tensor = torch.special.entr(alone(logits, places).exp())  # (n, V)
        return each.sum(-1)  # (n,)

    return per_token(base, reading, replies, entropy)


def _means(values: Tensor, replies: Completions) -> list[Scores]:
    """The mean over each answer's tokens of numbers `(K, P, 1, T)`; of every device's real prompts `(N,)`."""
    mask = replies.mask[:, :, 0]  # (K, P, T)
    means = (values[:, :, 0] * mask).sum(-1) / mask.sum(-1).clamp(min=1)  # (K, P)
    return [row[: len(texts)].double().cpu().numpy() for row, texts in zip(means, replies.texts, strict=True)]
