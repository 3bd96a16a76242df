"""What completions ended with, against transformers' own passes, and the pull of a loss that looks at hidden states."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.any_forward import AnyForward
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import Completions, Reading, Trace, encode, generate, read
from flsim.models.llama import LlamaForward
from flsim.models.scoring import TOKENS, pull_back
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [["59+6=", "'ihbd'[::-1]="], ["max([17,9,32])="], []]
OTHERS: dict[str, tuple[type[PreTrainedModel], Any, dict[str, Any]]] = {
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {}),
    "gemma2": (  # logits are bent after the output layer
        Gemma2ForCausalLM,
        Gemma2Config,
        {"num_key_value_heads": 1, "head_dim": 16, "final_logit_softcapping": 3.0},
    ),
}
TARGETS = {"gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")}
G, WIDTH = 3, 32
SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("gpt_neox", "gemma2")]


@dataclass(frozen=True)
class Pack:
    """Three devices with 2, 1 and 0 prompts and different random adapters, and what they said."""

    base: BaseModel
    lora: StackedLora
    theta: Tensor

    def reading(self, *, train: bool = False) -> Reading:
        self.lora.attach(self.theta, train=train)
        return read(self.base, encode(self.base, QUESTIONS))

    def said(self, temperature: float, *, traced: bool = True, most: int = 9) -> Completions:
        parts: dict[str, Any] = {"group_size": G, "max_new_tokens": most, "temperature": temperature, "may_ask": False}
        seeds = [torch.Generator().manual_seed(k + 1) for k in range(len(QUESTIONS))]
        with torch.no_grad():
            return generate(self.base, self.reading(), generators=seeds, traced=traced, **parts)


def base_of(checkpoint: Path, name: str) -> BaseModel:
    """The built-in kind by both ways to read, and two of other families with the same tokenizer."""
    base = load_base(str(checkpoint))
    if name in ("llama", "any"):
        if name == "any":
            base.__dict__["forward"] = AnyForward(base.model)
        assert isinstance(base.forward, LlamaForward) == (name == "llama")
        return base
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    kind, config, more = OTHERS[name]
    rest = {"vocab_size": len(base.tokenizer), "initializer_range": 0.3, "bos_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind(config(**sizes, **rest, **more, eos_token_id=base.eos_id))
    return replace(base, model=model.eval().requires_grad_(False))


@pytest.fixture(scope="module", params=["llama", "any", *SLOW])
def pack(tiny_checkpoint: Path, request: pytest.FixtureRequest) -> Pack:
    base = base_of(tiny_checkpoint, request.param)
    targets = TARGETS.get(request.param)
    like = initial_adapter(base.model, ModelConfig(path="", rank=4, alpha=4.0, targets=targets), 0)
    rng = np.random.default_rng(0)
    adapters = [{n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in like.items()} for _ in QUESTIONS]
    lora = StackedLora(base.model, like, 1.0)
    return Pack(base, lora, lora.stack(adapters))


def traced(said: Completions) -> Trace:
    assert said.trace is not None
    return said.trace


def by_hand(pack: Pack, said: Completions) -> Iterator[tuple[tuple[int, int, int], Tensor, Tensor, Tensor]]:
    """Of every completion its place, its tokens `(T,)`, and what transformers' own model says at the places they were
    drawn from: last hidden states `(T, D)` and logits `(T, V)`, with gradient to theta."""
    base, theta = pack.base, pack.theta.requires_grad_()
    for k, row in enumerate(QUESTIONS):
        pack.lora.attach(theta[k : k + 1])
        for (p, question), g in product(enumerate(row), range(G)):
            prompt = base.tokenizer(question)["input_ids"]
            reply = said.tokens[k, p, g][said.mask[k, p, g]]
            ids = torch.tensor([[*prompt, *reply.tolist()]])
            found = base.model(input_ids=ids, use_cache=False, output_hidden_states=True)
            places = slice(len(prompt) - 1, -1)
            yield (k, p, g), reply, found.hidden_states[-1][0, places], found.logits[0, places]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_trace_is_what_transformers_says(pack: Pack, temperature: float) -> None:
    """After the final norm, at the place of the last token, and at temperature 1, however it was sampled; to 1e-4."""
    said = pack.said(temperature)
    trace = traced(said)
    assert trace.states.shape == (3, 2, G, WIDTH)
    for place, reply, states, logits in by_hand(pack, said):
        length = len(reply)
        plain = logits.detach().index_fill(1, torch.tensor([pack.base.help_id]), -torch.inf)  # (T, V)
        torch.testing.assert_close(trace.states[place], states[-1].detach(), atol=1e-4, rtol=1e-4)
        logs = torch.log_softmax(plain, -1)  # (T, V)
        chosen = logs.gather(-1, reply[:, None])[:, 0]
        torch.testing.assert_close(trace.logprobs[place][:length], chosen, atol=1e-4, rtol=0)
        entropies = torch.special.entr(logs.exp()).sum(-1)
        torch.testing.assert_close(trace.entropies[place][:length], entropies, atol=1e-4, rtol=0)
        assert not trace.logprobs[place][length:].any()
        assert not trace.entropies[place][length:].any()


def test_the_output_layer_makes_its_logits_of_the_states(pack: Pack) -> None:
    """So the state of a completion's first place is the reading's own, and what the layer makes of it its logits."""
    with torch.no_grad():  # as what is said: with a gradient more is computed, in products that round otherwise
        reading = pack.reading()
    said = pack.said(1.0, most=1)
    states = reading.states.view(3, 2, 1, WIDTH).expand(-1, -1, G, -1)
    for k, row in enumerate(QUESTIONS):
        for p in range(len(row)):
            assert torch.equal(traced(said).states[k, p], states[k, p].float())
    head = pack.base.model.get_output_embeddings()
    assert head is not None
    torch.testing.assert_close(bent(pack.base, head(reading.states)), reading.logits, atol=1e-4, rtol=1e-4)


def bent(base: BaseModel, logits: Tensor) -> Tensor:
    most = getattr(base.model.config, "final_logit_softcapping", None)
    return logits if most is None else most * torch.tanh(logits / most)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_trace_changes_no_bit_of_what_is_said(pack: Pack, temperature: float) -> None:
    with_, without = (pack.said(temperature, traced=flag) for flag in (True, False))
    assert without.trace is None
    assert all(torch.equal(getattr(with_, n), getattr(without, n)) for n in ("tokens", "mask", "logprobs", "asked"))
    assert with_.texts == without.texts
    if temperature == 1:
        assert torch.equal(traced(with_).logprobs, with_.logprobs * with_.mask)


def test_a_devices_trace_does_not_hang_on_its_pack(pack: Pack) -> None:
    """Tokens exactly, the trace to 1e-4 of the largest number: as exactly as the log-probabilities of a pack are."""
    together = pack.said(3.0)
    assert len(set(together.mask.sum(-1)[0].flatten().tolist())) > 1
    for k, row in enumerate(QUESTIONS[:2]):
        pack.lora.attach(pack.theta[k : k + 1].detach())
        with torch.no_grad():
            reading = read(pack.base, encode(pack.base, [row]))
            seeds = [torch.Generator().manual_seed(k + 1)]
            parts: dict[str, Any] = {
                "group_size": G,
                "max_new_tokens": 9,
                "temperature": 3.0,
                "may_ask": False,
                "traced": True,
            }
            alone = generate(pack.base, reading, generators=seeds, **parts)
        assert together.texts[k] == alone.texts[0]
        most = min(alone.tokens.shape[-1], together.tokens.shape[-1])
        for name in ("states", "entropies", "logprobs"):
            mine, own = getattr(traced(together), name)[k, : len(row)], getattr(traced(alone), name)[0]
            width = WIDTH if name == "states" else most
            torch.testing.assert_close(mine[..., :width], own[..., :width], atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------ the pull


def plain_gradient(pack: Pack, said: Completions, pull: Tensor, states: Tensor, temperature: float) -> Tensor:
    """Of pull x log-probability and of states . rms_norm(hidden), summed, by autograd through transformers' model."""
    total = torch.zeros(())
    for place, reply, hidden, logits in by_hand(pack, said):
        barred = logits.index_fill(1, torch.tensor([pack.base.help_id]), -torch.inf)
        logprobs = torch.log_softmax(barred / temperature, -1).gather(-1, reply[:, None])[:, 0]
        total = total + (logprobs * pull[place][: len(reply)]).sum()
        total = total + (F.rms_norm(hidden[-1], (WIDTH,)) * states[place]).sum()
    (gradient,) = torch.autograd.grad(total, pack.theta)
    pack.theta.requires_grad_(False)
    return gradient


@pytest.mark.parametrize("pulled", [True, False])
def test_the_pull_of_states_is_autograds(pack: Pack, pulled: bool) -> None:
    """With another loss and alone, in micro-batches of any size: to 1e-4 of a device's gradient."""
    said, source = pack.said(3.0), torch.Generator().manual_seed(0)
    pull = torch.randn(said.tokens.shape, generator=source) * pulled  # (K, P, G, T)
    states = torch.randn(3, 2, G, WIDTH, generator=source)  # (K, P, G, D)
    states[0, 0, 1] = 0  # nobody looks at this one
    expected = plain_gradient(pack, said, pull, states, 3.0)
    assert expected[:2].norm(dim=1).min() > 0.1
    for tokens in (1, TOKENS):
        reading = pack.reading(train=True)
        parts = pack.base, pack.lora, reading, said, pull
        found = pull_back(*parts, temperature=3.0, tokens=tokens, may_ask=False, states=states)
        assert not found[2].any()
        distance = (found - expected).norm(dim=1) / expected.norm(dim=1)
        assert float(distance[:2].max()) < 1e-4


def test_what_nobody_looks_at_pulls_nothing(pack: Pack) -> None:
    said = pack.said(3.0)
    none = torch.zeros(said.tokens.shape), torch.zeros(3, 2, G, WIDTH)
    parts = pack.base, pack.lora, pack.reading(train=True), said, none[0]
    assert not pull_back(*parts, temperature=3.0, may_ask=False, states=none[1]).any()
    pull = torch.randn(said.tokens.shape, generator=torch.Generator().manual_seed(0))
    ends = []
    for states in (None, none[1]):
        parts = pack.base, pack.lora, pack.reading(train=True), said, pull
        ends.append(pull_back(*parts, temperature=3.0, may_ask=False, states=states))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-7)
