"""Scores against plain forwards, and the pull on the adapters against autograd through the scores."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from flsim.config.model import ModelConfig
from flsim.models import scoring
from flsim.models.adapter import initial_adapter
from flsim.models.any_forward import AnyForward
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import Completions, Reading, encode, generate, read
from flsim.models.forward import Readout
from flsim.models.llama import LlamaForward
from flsim.models.scoring import TOKENS, pull_back, score
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [["59+6=", "'ihbd'[::-1]="], ["max([17,9,32])="], []]
NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
G = 5
HEAT = 3.0  # so that completions end early and late


@dataclass(frozen=True)
class Pack:
    """Three devices with 2, 1 and 0 prompts and different random adapters."""

    base: BaseModel
    lora: StackedLora
    theta: Tensor
    """With gradient."""

    def read(self) -> Reading:
        """The prompts, with gradient to theta."""
        self.lora.attach(self.theta)
        return read(self.base, encode(self.base, QUESTIONS))

    def read_to_learn(self) -> Reading:
        """The prompts, with gradient as `learn` sets it up."""
        self.lora.attach(self.theta, train=True)
        return read(self.base, encode(self.base, QUESTIONS))


def pack_of(base: BaseModel, targets: tuple[str, ...] | None = None) -> Pack:
    like = initial_adapter(base.model, ModelConfig(path="", rank=4, alpha=4.0, targets=targets), 0)
    rng = np.random.default_rng(0)
    adapters = [{n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in like.items()} for _ in QUESTIONS]
    lora = StackedLora(base.model, like, 1.0)
    return Pack(base, lora, lora.stack(adapters).requires_grad_())


def another(checkpoint: Path, kind: type[PreTrainedModel], config: Any, **changes: Any) -> BaseModel:
    """A random model of another architecture, with the checkpoint's tokenizer."""
    base = load_base(str(checkpoint))
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": base.eos_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind(config(vocab_size=len(base.tokenizer), initializer_range=0.3, **sizes, **ends, **changes))
    return replace(base, model=model.eval().requires_grad_(False))


def base_of(checkpoint: Path, name: str) -> BaseModel:
    if name == "gpt_neox":
        return another(checkpoint, GPTNeoXForCausalLM, GPTNeoXConfig)
    if name == "window":
        return another(checkpoint, MistralForCausalLM, MistralConfig, num_key_value_heads=1, sliding_window=4)
    base = load_base(str(checkpoint))
    if name == "any":
        base.__dict__["forward"] = AnyForward(base.model)
    assert isinstance(base.forward, LlamaForward) == (name == "llama")
    return base


@pytest.fixture(scope="module")
def pack(tiny_checkpoint: Path) -> Pack:
    return pack_of(base_of(tiny_checkpoint, "llama"))


@pytest.fixture(scope="module", params=["llama", "any", "gpt_neox"])
def any_pack(tiny_checkpoint: Path, request: pytest.FixtureRequest) -> Pack:
    targets = NEOX if request.param == "gpt_neox" else None
    return pack_of(base_of(tiny_checkpoint, request.param), targets)


def sample(base: BaseModel, reading: Reading, *, most: int = 24, temperature: float = HEAT) -> Completions:
    return generate(
        base,
        reading,
        group_size=G,
        max_new_tokens=most,
        temperature=temperature,
        generators=[torch.Generator().manual_seed(k + 1) for k in range(len(QUESTIONS))],
    )


def drawn_by(pack: Pack) -> Completions:
    return sample(pack.base, pack.read())


def random_pull(completions: Completions) -> Tensor:
    return torch.randn(completions.tokens.shape, generator=torch.Generator().manual_seed(0))


def by_autograd(pack: Pack, completions: Completions, pull: Tensor) -> Tensor:
    """Gradient `(K, n)` of the pull times the scores, by one graph from the adapters to the end."""
    scores = score(pack.base, pack.read(), completions, temperature=HEAT)
    (gradient,) = torch.autograd.grad((scores * pull).sum(), pack.theta)
    return gradient


def by_pull_back(pack: Pack, completions: Completions, pull: Tensor, *, tokens: int = TOKENS) -> Tensor:
    reading = pack.read_to_learn()
    return pull_back(pack.base, pack.lora, reading, completions, pull, temperature=HEAT, tokens=tokens)


def furthest(one: Tensor, other: Tensor) -> float:
    """Largest distance of a device's rows, in parts of their length; the last device has no prompts and no pull."""
    assert other[:2].norm(dim=1).min() > 0.1
    assert (one[2] == 0).all()
    return float(((one - other).norm(dim=1) / other.norm(dim=1))[:2].max())


def next_logits(base: BaseModel, ids: list[int]) -> Tensor:
    """Logits `(L, V)` of one unpadded sequence, read in one go without a cache."""
    logits: Tensor = base.model(input_ids=torch.tensor([ids]), use_cache=False).logits
    return logits[0]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("name", ["llama", "any", "gpt_neox", "window"])
def test_logprobs_equal_score_and_a_plain_forward(tiny_checkpoint: Path, name: str, temperature: float) -> None:
    """To 4e-5 (seen: 1.3e-5): the cache, the left padding and the shared prompt change nothing but last bits."""
    base = base_of(tiny_checkpoint, name)
    prompts = encode(base, QUESTIONS)
    with torch.no_grad():
        reading = read(base, prompts)
        drawn = sample(base, reading, temperature=temperature)  # at 0, greedy, under the plain distribution
        scored = score(base, reading, drawn, temperature=temperature)
    real = prompts.real
    torch.testing.assert_close(scored[real], drawn.logprobs[real], atol=4e-5, rtol=0)
    for k, row in enumerate(QUESTIONS):
        for (p, question), g in product(enumerate(row), range(3)):
            prompt = base.tokenizer(question)["input_ids"]
            reply = drawn.tokens[k, p, g][drawn.mask[k, p, g]]
            with torch.no_grad():
                logits = next_logits(base, prompt + reply.tolist())[len(prompt) - 1 : -1]  # (T, V)
            plain = torch.log_softmax(logits / (temperature or 1.0), -1).gather(-1, reply[:, None])[:, 0]
            torch.testing.assert_close(drawn.logprobs[k, p, g][: len(reply)], plain, atol=4e-5, rtol=0)


def test_scores_gradient_is_the_plain_forwards(any_pack: Pack) -> None:
    """Every token weighed at random: the sum's gradient, device by device, to 1e-5 of its length (seen: 2e-6)."""
    base, theta = any_pack.base, any_pack.theta
    drawn = drawn_by(any_pack)
    lengths = drawn.mask[encode(base, QUESTIONS).real].sum(-1).flatten().tolist()
    assert len(set(lengths)) > 4
    pull = random_pull(drawn)
    total = torch.zeros(())
    for k, row in enumerate(QUESTIONS):
        any_pack.lora.attach(theta[k : k + 1])
        for (p, question), g in product(enumerate(row), range(G)):
            prompt = base.tokenizer(question)["input_ids"]
            reply = drawn.tokens[k, p, g][drawn.mask[k, p, g]]
            logits = next_logits(base, prompt + reply.tolist())[len(prompt) - 1 : -1]
            plain = torch.log_softmax(logits / HEAT, -1).gather(-1, reply[:, None])[:, 0]
            total = total + (plain * pull[k, p, g, : len(reply)]).sum()
    (theirs,) = torch.autograd.grad(total, theta)
    assert furthest(by_autograd(any_pack, drawn, pull), theirs) < 1e-5


@pytest.mark.parametrize("tokens", [1, 400, TOKENS])
def test_the_pull_is_autograds_for_any_micro_batch(any_pack: Pack, tokens: int) -> None:
    """One completion per prompt at a time, two, or all: to 1e-5 of a device's gradient (seen: 6e-7)."""
    drawn = drawn_by(any_pack)
    pull = random_pull(drawn)
    expected = by_autograd(any_pack, drawn, pull)
    assert furthest(by_pull_back(any_pack, drawn, pull, tokens=tokens), expected) < 1e-5
    with pytest.MonkeyPatch.context() as patch:  # as if the vocabulary were huge: one completion per prompt at a time
        patch.setattr(scoring, "LOGITS", 1)
        assert len(list(scoring._parts(drawn, 0))) == drawn.tokens.shape[2]
        assert furthest(by_pull_back(any_pack, drawn, pull), expected) < 1e-5
    small = replace(any_pack, base=replace(any_pack.base, graph=1))
    assert scoring._most(small.base) == 0
    assert furthest(by_pull_back(small, drawn, pull), expected) < 1e-5


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("o_proj",), ("up_proj", "down_proj")], ids="+".join)
def test_the_pull_is_autograds_whatever_layers_learn(tiny_checkpoint: Path, targets: tuple[str, ...]) -> None:
    """Also where keys or values of the first layer lie below every adapter; to 1e-5 (seen: 0)."""
    pack = pack_of(base_of(tiny_checkpoint, "llama"), targets)
    drawn = drawn_by(pack)
    pull = random_pull(drawn)
    assert furthest(by_pull_back(pack, drawn, pull), by_autograd(pack, drawn, pull)) < 1e-5


def test_a_device_without_pull_has_no_gradient_at_all(any_pack: Pack) -> None:
    """Exactly zero, while the other's is what it was; and with no pull anywhere there is none anywhere."""
    drawn = drawn_by(any_pack)
    pull = random_pull(drawn)
    both = by_pull_back(any_pack, drawn, pull)
    pull[0] = 0
    alone = by_pull_back(any_pack, drawn, pull)
    assert (alone[0] == 0).all()
    torch.testing.assert_close(alone[1], both[1], rtol=1e-4, atol=1e-6)
    assert (by_pull_back(any_pack, drawn, pull * 0) == 0).all()


def silenced(completions: Completions) -> tuple[Tensor, Tensor]:
    """A pull that some whole completions have none of, and which, `(K, P, G)`."""
    silent = torch.zeros(completions.asked.shape, dtype=torch.bool)
    silent[0, 0], silent[0, 1, 2], silent[1, 0, 1:4] = True, True, True
    return random_pull(completions).masked_fill(silent[..., None], 0.0), silent


def test_silent_completions_change_nothing(any_pack: Pack) -> None:
    """A completion without pull adds nothing: what it says may be anything, bit for bit."""
    drawn = drawn_by(any_pack)
    pull, silent = silenced(drawn)
    first = by_pull_back(any_pack, drawn, pull)
    assert furthest(first, by_autograd(any_pack, drawn, pull)) < 1e-5
    tokens = torch.where(silent[..., None], (drawn.tokens + 1) % 30, drawn.tokens)
    assert torch.equal(by_pull_back(any_pack, replace(drawn, tokens=tokens), pull), first)


def test_silent_completions_and_last_tokens_are_not_read(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass reads just the tokens of pulling completions that another one follows."""
    drawn = drawn_by(pack)
    pull, silent = silenced(drawn)
    follow, masks = pack.base.forward.follow, []

    def noting(ids: Tensor, mask: Tensor, prompts: Tensor, past: Any, judge: Readout) -> Tensor:
        masks.append(mask)
        return follow(ids, mask, prompts, past, judge)

    monkeypatch.setattr(pack.base.forward, "follow", noting)
    by_pull_back(pack, drawn, pull)
    (mask,) = masks
    expected = drawn.mask[..., 1:] & ~silent[..., None]  # (K, P, G, T - 1)
    assert torch.equal(mask, expected.flatten(1, 2))
    assert 0 < expected.sum() < drawn.mask[..., 1:].sum()


def test_what_the_pull_says_after_the_end_is_ignored(pack: Pack) -> None:
    drawn = drawn_by(pack)
    pull = random_pull(drawn)
    loud = torch.where(drawn.mask, pull, torch.full_like(pull, 1e6))
    assert not torch.equal(loud, pull)
    assert torch.equal(by_pull_back(pack, drawn, loud), by_pull_back(pack, drawn, pull))


def test_one_token_completions_pull_through_the_prompt_alone(pack: Pack) -> None:
    reading = pack.read_to_learn()
    drawn = sample(pack.base, reading, most=1)
    assert drawn.tokens.shape[-1] == 1
    pull = random_pull(drawn)
    pulled = pull_back(pack.base, pack.lora, reading, drawn, pull, temperature=HEAT)
    assert furthest(pulled, by_autograd(pack, drawn, pull)) < 1e-5


def test_on_policy_the_samplings_logprobs_give_the_gradient_of_a_second_forward(any_pack: Pack) -> None:
    """For a loss that bends, the sum of exp(log-probability): to 1e-5 of a device's gradient (seen: 9e-7)."""
    reading = any_pack.read_to_learn()
    drawn = sample(any_pack.base, reading)
    logprobs = drawn.logprobs.requires_grad_()
    (pull,) = torch.autograd.grad((logprobs.exp() * drawn.mask).sum(), logprobs)
    ours = pull_back(any_pack.base, any_pack.lora, reading, drawn, pull, temperature=HEAT)
    scores = score(any_pack.base, any_pack.read(), drawn, temperature=HEAT)
    (theirs,) = torch.autograd.grad((scores.exp() * drawn.mask).sum(), any_pack.theta)
    assert furthest(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", ["llama", "any"])
def test_a_bfloat16_base_gives_float32_gradients_close_to_those_of_float32(tiny_checkpoint: Path, name: str) -> None:
    """Same weights (rounded to bfloat16 for both), same tokens: only the arithmetic differs.

    Log-probabilities to 0.08 (seen: 0.039), a device's gradient to a twelfth of its length (seen: 0.042). bfloat16
    itself rounds by up to 0.004.
    """
    scores, gradients = [], []
    for exact in (False, True):
        base = base_of(tiny_checkpoint, name)
        base.model.bfloat16()
        if exact:
            base.model.float()
        pack = pack_of(base)
        assert pack.theta.dtype == torch.float32
        if not exact:
            drawn = drawn_by(pack)
        scores.append(score(base, pack.read(), drawn, temperature=HEAT).detach())
        gradients.append(by_pull_back(pack, drawn, random_pull(drawn)))
    assert {tensor.dtype for tensor in scores + gradients} == {torch.float32}
    assert (scores[0] - scores[1]).abs().max() < 0.08
    assert furthest(*gradients) < 1 / 12
