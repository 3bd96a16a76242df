"""Going on after a request: what is put in is read and not learned from; scores and gradients are those of the rest."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clients.helping.hint import Hint
from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.help_request import HelpRequest
from flsim.models.hint import go_on
from flsim.models.scoring import pull_back, score
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [["59+6=", "'ihbd'[::-1]="], ["max([17,9,32])="]]
T, HEAT, KAPPA, GROUP = 5, 1.2, 1.0, 12
BIAS = torch.tensor([[5.0, -torch.inf], [5.0, 0.0]])  # (K, P)
HINTS = {(0, 0): [9, 11, 4], (1, 0): []}


def base_of(checkpoint: Path, tokens: int) -> BaseModel:
    """The second of two tokens of a request is one that the model likes to say after the first."""
    base = load_base(str(checkpoint))
    with torch.no_grad():
        prompt = base.tokenizer(QUESTIONS[0][0])["input_ids"]
        starts = [torch.tensor([[*prompt, draft, *base.help.ids]]) for draft in range(4, 40)]
        logits = torch.stack([base.model(input_ids=ids).logits[0, -1] for ids in starts]).logsumexp(0)
    likely = next(int(token) for token in logits.argsort(descending=True) if not base.ends(token))
    return replace(base, help=HelpRequest("no text spells this", (*base.help.ids, likely)[:tokens], "after"))


def said_by(base: BaseModel, *, temperature: float = HEAT, group_size: int = GROUP) -> tuple[Completions, Completions]:
    """Responses as they asked, and as they went on."""
    seeds = [torch.Generator().manual_seed(k + 1) for k in range(2 * len(QUESTIONS))]
    with torch.no_grad():
        reading = read(base, encode(base, QUESTIONS))
        first = generate(
            base,
            reading,
            group_size=group_size,
            max_new_tokens=T,
            temperature=temperature,
            generators=seeds[:2],
            help_bias=BIAS,
            surprise=KAPPA,
        )
    more: dict[str, Any] = {"max_new_tokens": T + 1, "temperature": temperature, "generators": seeds[2:]}
    whole, answers = go_on(base, reading.prompts, first, HINTS, **more)
    assert sorted(answers) == [tuple(place) for place in first.asked.nonzero().tolist()]
    for (k, p, g), text in answers.items():
        assert whole.resumed is not None
        own = whole.tokens[k, p, g, int(whole.resumed[k, p, g]) :][whole.mask[k, p, g, int(whole.resumed[k, p, g]) :]]
        assert base.tokenizer.decode(own[~base.ends(own)], skip_special_tokens=True) == text
    return first, whole


def by_hand(base: BaseModel, first: Completions, whole: Completions, k: int) -> Tensor:
    """Log-probabilities of a device's tokens `(P, G, T)` by plain forwards of the model, with gradient if any."""
    ids, rows = list(base.help.ids), []
    for p in range(whole.tokens.shape[1]):
        for g in range(whole.tokens.shape[2]):
            each = torch.zeros(whole.tokens.shape[-1])
            if p < len(QUESTIONS[k]):
                prompt = base.tokenizer(QUESTIONS[k][p])["input_ids"]
                count, asked = int(first.mask[k, p, g].sum()), bool(first.asked[k, p, g])
                hint = HINTS.get((k, p), []) if asked else []
                later = count + len(hint)
                total = int(whole.mask[k, p, g].sum()) + len(hint)
                tokens = whole.tokens[k, p, g, :total].tolist()
                assert tokens[:count] == first.tokens[k, p, g, :count].tolist()
                assert tokens[count:later] == hint
                logits = base.model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 :]
                bias = float(BIAS[k, p])
                for t, token in enumerate(tokens):
                    if count <= t < later:
                        continue
                    before, here = tokens[later if t >= later else 0 : t], logits[t].clone()
                    if t < count and bias > -math.inf and (t > 0 or len(ids) == 1):
                        offset = 0.0 if first.offsets is None else float(first.offsets[k, p, g, t])
                        here[ids[0]] = here[ids[0]] + bias + offset
                    out = t >= later or bias == -math.inf or t == len(ids) - 1
                    if out and [*before, ids[-1]][-len(ids) :] == ids:
                        here = here.masked_fill(torch.arange(len(here)) == ids[-1], -torch.inf)
                    each = each.index_put((torch.tensor([t]),), torch.log_softmax(here / HEAT, -1)[token])
            rows.append(each)
    return torch.stack(rows).view(whole.tokens.shape[1:])


@pytest.mark.parametrize("tokens", [1, 2])
def test_what_is_put_in_is_read_and_does_not_count(tiny_checkpoint: Path, tokens: int) -> None:
    """Sampled and scored alike: the draft with bias and surprise, then nothing, then an answer that cannot ask."""
    base = base_of(tiny_checkpoint, tokens)
    first, whole = said_by(base, group_size=24 if tokens == 1 else 150)
    assert whole.resumed is not None
    assert first.asked[0, 0].any()
    assert first.asked[1, 0].any()
    assert not whole.resumed[0, 1].any()  # it may not ask
    with torch.no_grad():
        expected = torch.stack([by_hand(base, first, whole, k) for k in range(2)])
        reading = read(base, encode(base, QUESTIONS))
        scores = score(base, reading, whole, temperature=HEAT, help_bias=BIAS)
    torch.testing.assert_close(whole.logprobs, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(scores, expected, atol=2e-5, rtol=0)
    put_in = whole.read & ~whole.mask  # (K, P, G, T)
    assert put_in[0, 0].sum() == 3 * first.asked[0, 0].sum()
    assert not whole.logprobs[put_in].any()
    assert torch.equal(whole.asked, first.asked)
    assert whole.texts == first.texts


def test_the_gradient_is_plain_autograds_with_the_mask(tiny_checkpoint: Path) -> None:
    base = base_of(tiny_checkpoint, 1)
    like = initial_adapter(base.model, ModelConfig(path="", rank=2, alpha=4.0), 0)
    lora = StackedLora(base.model, like, 2.0)
    theta = lora.stack([like, like])
    theta = theta + 0.05 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    lora.attach(theta)
    first, whole = said_by(base)
    assert first.asked.any()
    pull = torch.randn(whole.tokens.shape, generator=torch.Generator().manual_seed(1))
    expected = []
    for k in range(2):
        learning = theta[k : k + 1].clone().requires_grad_()
        lora.attach(learning)
        gain = (by_hand(base, first, whole, k) * pull[k] * whole.mask[k]).sum()
        expected.append(torch.autograd.grad(gain, learning)[0])
    lora.attach(theta, train=True)
    reading = read(base, encode(base, QUESTIONS))
    gradient = pull_back(base, lora, reading, whole, pull, temperature=HEAT, tokens=30, help_bias=BIAS)
    wanted = torch.cat(expected)
    assert ((gradient - wanted).norm(dim=1) / wanted.norm(dim=1)).max() < 1e-5


def test_with_an_empty_hint_the_device_goes_on_alone_with_its_request_before_it(tiny_checkpoint: Path) -> None:
    """Greedily, token by token by plain forwards, without the request."""
    base = base_of(tiny_checkpoint, 1)
    first, whole = said_by(base, temperature=0.0, group_size=1)
    assert first.asked[1, 0, 0]
    count = int(first.mask[1, 0, 0].sum())
    context = base.tokenizer(QUESTIONS[1][0])["input_ids"] + first.tokens[1, 0, 0, :count].tolist()
    expected: list[int] = []
    while len(expected) <= T and (not expected or expected[-1] != base.eos_id):
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([context + expected])).logits[0, -1]
        logits[base.help.ids[0]] = -torch.inf
        expected.append(int(logits.argmax()))
    assert whole.tokens[1, 0, 0, count:][whole.mask[1, 0, 0, count:]].tolist() == expected


def test_who_does_not_ask_does_not_go_on(tiny_checkpoint: Path) -> None:
    base = base_of(tiny_checkpoint, 1)
    with torch.no_grad():
        reading = read(base, encode(base, QUESTIONS))
        said = generate(base, reading, group_size=2, max_new_tokens=T, temperature=0.0, may_ask=False)
    assert go_on(base, reading.prompts, said, HINTS, max_new_tokens=T, temperature=0.0) == (said, {})


@pytest.mark.parametrize(
    ("share", "longest", "count"), [(0.5, 9, 2), (0.0, 9, 0), (1.0, 9, 3), (1.0, 2, 2), (1 / 3, 9, 1)]
)
def test_a_hint_is_the_beginning_of_the_answer(tiny_checkpoint: Path, share: float, longest: int, count: int) -> None:
    """Of three tokens the half is two; the request in the cloud's words is left out, so that it ends nothing."""
    base = load_base(str(tiny_checkpoint))
    whole = base.tokenizer("165")["input_ids"]
    assert len(whole) == 3
    assert Hint(share, longest).of(base, "165") == whole[:count]
    assert Hint(share, longest).of(base, "1?65") == whole[:count]
