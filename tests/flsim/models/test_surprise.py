"""The help request raised by a draft's surprise: sampled, scored and pulled back alike, and what its limits are."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.help_request import NEVER, HelpRequest
from flsim.models.sampling import CALM
from flsim.models.scoring import pull_back, raised_logprob, request_after, score
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [["59+6=", "'ihbd'[::-1]="], ["max([17,9,32])="]]
T, HEAT, KAPPA, SHARPER = 6, 1.2, 2.5, 6.0
BIAS = torch.tensor([[-4.0, -torch.inf], [-3.0, 0.0]])  # (K, P); at one prompt the request must not be made


def base_of(checkpoint: Path, tokens: int, stands: str = "after") -> BaseModel:
    """The request is the pair of tokens that the model says most often, or the first of them."""
    base = load_base(str(checkpoint))
    said = sample(replace(base, help=NEVER), group_size=100)
    pairs = Counter(pair for row in said.tokens[said.mask.any(-1)].tolist() for pair in pairwise(row))
    pair = next(pair for pair, _ in pairs.most_common() if not {base.pad_id, base.eos_id} & set(pair))
    return replace(base, help=HelpRequest("no text spells this", pair[:tokens], stands))


def sample(base: BaseModel, **settings: Any) -> Completions:
    seeds = [torch.Generator().manual_seed(k + 1) for k in range(len(QUESTIONS))]
    settings = {"group_size": 60, "max_new_tokens": T, "temperature": HEAT, "generators": seeds, **settings}
    with torch.no_grad():
        return generate(base, read(base, encode(base, QUESTIONS)), **settings)


def surprises(base: BaseModel, logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Of each token, by the model's logits `(T, V)`, from the rule's own words."""
    ids, found = list(base.help.ids), []
    for t, token in enumerate(tokens):
        here = logits[t].clone()
        if [*tokens[:t], ids[-1]][-len(ids) :] == ids:
            here[ids[-1]] = -torch.inf
        found.append(-float(torch.log_softmax(here, -1)[token]))
    return found


def by_hand(base: BaseModel, said: Completions, bias: Tensor | None) -> Tensor:
    """Log-probabilities of the tokens `(K, P, G, T)`, token by token."""
    ids, found = list(base.help.ids), torch.zeros(said.logprobs.shape)
    for k, row in enumerate(QUESTIONS):
        for p, question in enumerate(row):
            prompt, more = base.tokenizer(question)["input_ids"], 0.0 if bias is None else float(bias[k, p])
            for g in range(said.tokens.shape[2]):
                tokens = said.tokens[k, p, g][said.mask[k, p, g]].tolist()
                with torch.no_grad():
                    logits = base.model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 :]
                doubt = surprises(base, logits, tokens)
                for t, token in enumerate(tokens):
                    here = logits[t].clone()
                    if t > 0 and more > -math.inf:
                        here[ids[0]] += more + KAPPA * (sum(doubt[:t]) / t - 0.3)
                    elif t == 0 and len(ids) == 1 and more > -math.inf:
                        here[ids[0]] += more
                    out = more == -math.inf or (base.help.stands == "after" and t == len(ids) - 1)
                    if out and [*tokens[:t], ids[-1]][-len(ids) :] == ids:
                        here[ids[-1]] = -torch.inf
                    found[k, p, g, t] = torch.log_softmax(here / HEAT, -1)[token]
    return found


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize(("tokens", "stands"), [(1, "after"), (1, "anywhere"), (2, "after")])
def test_tokens_are_drawn_and_scored_by_the_rule(
    tiny_checkpoint: Path, tokens: int, stands: str, bias: Tensor | None
) -> None:
    """A request of one token, or of two, with each device's bias as well; nowhere where asking is ruled out."""
    base = base_of(tiny_checkpoint, tokens, stands)
    said = sample(base, help_bias=bias, surprise=KAPPA)
    torch.testing.assert_close(said.logprobs, by_hand(base, said, bias), atol=2e-5, rtol=0)
    with torch.no_grad():
        scores = score(base, read(base, encode(base, QUESTIONS)), said, temperature=HEAT, help_bias=bias)
    torch.testing.assert_close(scores, said.logprobs, atol=1e-5, rtol=0)
    assert said.asked.any()
    assert not said.asked.all(-1)[0, 0]
    if bias is not None:
        assert said.offsets is not None
        assert not said.asked[bias.isneginf()].any()
        assert not said.offsets[bias.isneginf()].any()


def test_no_surprise_changes_no_bit_and_a_device_that_may_not_ask_has_none(tiny_checkpoint: Path) -> None:
    base = base_of(tiny_checkpoint, 1)
    plain, none = sample(base), sample(base, surprise=0.0)
    assert none.offsets is None
    assert torch.equal(plain.tokens, none.tokens)
    assert torch.equal(plain.logprobs, none.logprobs)
    barred = sample(base, may_ask=False, surprise=KAPPA)
    assert barred.offsets is None
    assert torch.equal(barred.logprobs, sample(base, may_ask=False).logprobs)


def test_without_end_it_asks_exactly_where_the_draft_has_surprised_it(tiny_checkpoint: Path) -> None:
    """After the first token up to which the mean surprise is above 0.3 nats, whatever the model thinks of asking."""
    base = base_of(tiny_checkpoint, 1)
    with torch.no_grad():
        base.model.get_output_embeddings().weight.mul_(SHARPER)  # so that some drafts surprise nobody
    said = sample(base, surprise=1e7)
    lengths = Counter[int]()
    for k, row in enumerate(QUESTIONS):
        for p, question in enumerate(row):
            prompt = base.tokenizer(question)["input_ids"]
            for g in range(said.tokens.shape[2]):
                tokens = said.tokens[k, p, g][said.mask[k, p, g]].tolist()
                draft = tokens[: -1 if said.asked[k, p, g] else None]
                with torch.no_grad():
                    logits = base.model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 :]
                doubt = surprises(base, logits, draft)
                over = [sum(doubt[:t]) / t > CALM for t in range(1, len(draft) + 1)]
                if said.asked[k, p, g]:
                    assert over == [*[False] * (len(draft) - 1), True]
                    lengths[len(draft)] += 1
                else:
                    assert not any(over[:-1])  # the last ends the response: nothing comes after it
                    lengths[0] += 1
    assert all(lengths[length] > 5 for length in range(3))


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_pull_is_that_of_the_scores_with_the_offsets_held(tiny_checkpoint: Path, tokens: int) -> None:
    """No gradient goes through the offset: autograd of scores in which it is a number."""
    base = base_of(tiny_checkpoint, tokens)
    like = initial_adapter(base.model, ModelConfig(path="", rank=2, alpha=4.0), 0)
    lora = StackedLora(base.model, like, 2.0)
    theta = lora.stack([like, like])
    theta = theta + 0.05 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    lora.attach(theta)
    said = sample(base, help_bias=BIAS, surprise=KAPPA)
    assert said.offsets is not None
    assert not said.offsets.requires_grad
    pull = torch.randn(said.tokens.shape, generator=torch.Generator().manual_seed(1))
    learning = theta.clone().requires_grad_()
    lora.attach(learning)
    scores = score(base, read(base, encode(base, QUESTIONS)), said, temperature=HEAT, help_bias=BIAS)
    (expected,) = torch.autograd.grad((scores * pull).sum(), learning)
    lora.attach(theta, train=True)
    reading = read(base, encode(base, QUESTIONS))
    gradient = pull_back(base, lora, reading, said, pull, temperature=HEAT, tokens=30, help_bias=BIAS)
    assert ((gradient - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5


def test_the_offset_is_the_mean_surprise_less_what_is_calm() -> None:
    """Two tokens of chances 1/2 and 1/8 surprise by (ln 2 + ln 8) / 2 = 1.386; times 10, less 3, is 10.863 logits.

    A request that was as likely as not is then e^10.863 = 52,200 times as likely as the rest.
    """
    mean = (math.log(2) + math.log(8)) / 2
    offset = 10 * (mean - CALM)
    assert offset == pytest.approx(10.8629, abs=1e-4)
    chance = raised_logprob(torch.tensor(math.log(0.5)), torch.tensor(offset)).exp()
    assert float(1 / (1 - chance)) == pytest.approx(math.exp(10.8629) + 1, rel=1e-3)


def test_near_certainty_the_order_of_wishes_is_kept() -> None:
    """Chances of which float32 would say 1."""
    offsets = torch.tensor([20.0, 40.0, 60.0, 400.0])
    raised = raised_logprob(torch.full((4,), -2.0), offsets)
    assert (raised.diff() > 0).all()
    assert (raised < 0).all()


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_wish_after_a_draft_reads_the_request_as_it_is_sampled(tiny_checkpoint: Path, tokens: int) -> None:
    base = base_of(tiny_checkpoint, tokens)
    reading = read(base, encode(base, QUESTIONS))
    said = sample(base, group_size=1, temperature=0.0, may_ask=False)
    wish = request_after(base, reading, said, surprise=KAPPA)
    for k, row in enumerate(QUESTIONS):
        for p, question in enumerate(row):
            draft = said.tokens[k, p, 0][said.mask[k, p, 0]].tolist()
            draft = draft[:-1] if draft[-1] == base.eos_id else draft
            prompt = base.tokenizer(question)["input_ids"]
            with torch.no_grad():
                whole = torch.tensor([[*prompt, *draft, *base.help.ids]])
                logits = base.model(input_ids=whole).logits[0, len(prompt) - 1 :]
            here = logits[len(draft)].clone()
            if draft:
                here[base.help.ids[0]] += KAPPA * (sum(surprises(base, logits, draft)) / len(draft) - 0.3)
            expected = torch.log_softmax(here, -1)[base.help.ids[0]]
            for more, token in enumerate(base.help.ids[1:], 1):
                expected = expected + torch.log_softmax(logits[len(draft) + more], -1)[token]
            assert float(wish[k, p]) == pytest.approx(float(expected), abs=1e-4)
    assert wish[1, 1] == 0  # nobody's prompt
