"""Models that are cut: what crosses the seam is all that the part above sees, and whole they are what they were."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from experiments.real.checkpoint import FAMILIES, write_checkpoint
from flsim.collaboration.exits import NEVER
from flsim.collaboration.payload import Payload
from flsim.models.any_forward import AnyForward
from flsim.models.base import BaseModel, load_base
from flsim.models.cut import Cut, CutModel, head_of
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.forward import Forward, Next
from flsim.models.llama import LlamaForward
from flsim.models.seam import Seam, body_of

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = 3
PROMPTS = ["1+1=", "What is 12 + 34?", "abc"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Any:
    root = tmp_path_factory.mktemp("families")

    @cache
    def base(family: str) -> BaseModel:
        layers = 2 if family in ("gemma2", "gemma3") else LAYERS  # as many as their kinds of attention that are named
        folder: Path = write_checkpoint(root / family, family, layers=layers, spread=0.15)
        return load_base(str(folder))

    return base


def layers_of(base: BaseModel) -> int:
    return len(body_of(base.model)[1])


def answered(base: BaseModel, prompts: list[str] = PROMPTS) -> Completions:
    with torch.no_grad():
        reading = read(base, encode(base, [prompts]))
        return generate(base, reading, group_size=1, max_new_tokens=8, temperature=0.0, may_ask=False, traced=True)


def same(one: Completions, other: Completions) -> bool:
    assert one.trace is not None
    assert other.trace is not None
    tensors = (one.tokens, one.logprobs, one.trace.states), (other.tokens, other.logprobs, other.trace.states)
    return all(torch.equal(mine, theirs) for mine, theirs in zip(*tensors, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_uncompressed_a_cut_model_is_the_whole_one_bit_for_bit(family: str, bases: Any) -> None:
    """Tokens, log-probabilities and states, at any layer; and so is one whose lower part never decides."""
    base = bases(family)
    whole = answered(base)
    for layer in range(1, layers_of(base)):
        for threshold in (None, NEVER):
            model = CutModel.of(base, Cut(layer, threshold=threshold))
            assert same(answered(model), whole)
            assert answered(model).texts == whole.texts
    assert same(answered(base), whole)  # nothing stays in the model that it was cut out of


def through(base: BaseModel, seam: Seam) -> Forward:
    return (
        LlamaForward(base.model, seam=seam) if isinstance(base.forward, LlamaForward) else AnyForward(base.model, seam)
    )


def first_logits(base: BaseModel, seam: Seam, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return through(base, seam).read(ids, torch.ones_like(ids, dtype=torch.bool))[0].logits


@pytest.mark.parametrize("family", FAMILIES)
def test_the_part_above_sees_the_states_alone(family: str, bases: Any) -> None:
    """Where the same states arrive whatever was sent, the same comes next whatever was said; else not."""
    base = bases(family)
    one, other = torch.tensor([[[5, 6, 7, 8]]]), torch.tensor([[[11, 12, 13, 14]]])
    for layer in range(1, layers_of(base)):
        fixed = Seam(layer, torch.ones_like)
        assert torch.equal(first_logits(base, fixed, one), first_logits(base, fixed, other))
        plain = Seam(layer, lambda states: states)
        assert not torch.allclose(first_logits(base, plain, one), first_logits(base, plain, other), atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lower_part_needs_no_layer_above(family: str, bases: Any) -> None:
    """A model with its first s layers alone brings the same states to the seam.

    Bit for bit where it reads by its own forward, and to the rounding of another order of sums where not.
    """
    base = bases(family)
    ids = torch.tensor([[[5, 6, 7, 8, 9]]])
    for layer in range(1, layers_of(base)):
        seam = Seam(layer, lambda states: states)
        first_logits(base, seam, ids)
        arrived, expected = seam.came[0], lower_alone(base.model, layer, ids[0])[0]  # (L, D) each
        if isinstance(base.forward, AnyForward):
            assert torch.equal(arrived, expected)
        torch.testing.assert_close(arrived, expected, rtol=1e-4, atol=1e-5)


def lower_alone(model: PreTrainedModel, layer: int, ids: Tensor) -> Tensor:
    """What the first layers give, `(1, L, D)`, of a model that has no others."""
    body, layers = body_of(model)
    name = next(name for name, child in body.named_children() if child is layers)
    config, before = model.config.get_text_config(), model.config.get_text_config().num_hidden_layers
    found: list[Tensor] = []
    norm = next(getattr(body, one) for one in ("norm", "final_layernorm") if hasattr(body, one))
    handle = norm.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        setattr(body, name, nn.ModuleList(list(layers)[:layer]))
        config.num_hidden_layers = layer
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
        setattr(body, name, layers)
        config.num_hidden_layers = before
    return found[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_norm_and_head_on_the_last_states_are_the_models_own(family: str, bases: Any) -> None:
    """Soft caps on logits as well; to 1e-5 of the largest."""
    base = bases(family)
    ids = torch.tensor([[5, 6, 7, 8]])
    states = lower_alone(base.model, layers_of(base), ids)
    with torch.no_grad():
        own = base.model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(head_of(base)(states), own, rtol=1e-5, atol=1e-5)


def sometimes(base: BaseModel, layer: int) -> float:
    """A threshold that about half of the confidences are above: between two that there are."""
    model = CutModel.of(base, Cut(layer, threshold=NEVER))
    kept = answered(model).mask[0, :, 0]
    assert model.exits is not None
    found = model.exits.looks.confidences[:, : kept.shape[1]][kept].sort().values
    return float(found[len(found) // 2 - 1 : len(found) // 2 + 1].mean())


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
def test_exits_say_what_the_lower_part_says_where_it_is_sure(family: str, bases: Any) -> None:
    """Token by token against the whole model's and the lower part's own words after the same beginning."""
    base = bases(family)
    layer = layers_of(base) - 1
    threshold = sometimes(base, layer)
    model = CutModel.of(base, Cut(layer, threshold=threshold))
    said = answered(model)
    assert model.exits is not None
    looks = model.exits.looks
    counted = said.mask[0, :, 0]
    decided = looks.decided[:, : counted.shape[1]]
    assert 0 < int((decided & counted).sum()) < int(counted.sum())
    head = head_of(base)
    for row, prompt in enumerate(PROMPTS):
        ids = base.tokenizer(prompt)["input_ids"]
        for t in range(int(counted[row].sum())):
            before = torch.tensor([[*ids, *said.tokens[0, row, 0, :t].tolist()]])
            with torch.no_grad():
                early = torch.softmax(head(lower_alone(base.model, layer, before)[0, -1:]).float(), -1)[0]
                late = base.model(input_ids=before, use_cache=False).logits[0, -1]
            token = int(said.tokens[0, row, 0, t])
            assert looks.confidences[row, t] == pytest.approx(float(early.max()), rel=1e-3)
            assert bool(decided[row, t]) == (float(early.max()) > threshold)
            assert looks.said[row, t] == int(early.argmax())
            assert token == int((early if decided[row, t] else late).argmax())


def test_looks_follow_their_rows_when_others_end(bases: Any) -> None:
    """What is noted of a prompt among others is what is noted of it alone, to the rounding of a batch."""
    base = bases("llama")
    cut = Cut(2, threshold=sometimes(base, 2))
    prompts = [*PROMPTS, *(f"{n}?" for n in range(20))]
    together = CutModel.of(base, cut)
    said = answered(together, prompts)
    lengths = said.mask[0, :, 0].sum(-1).tolist()
    assert together.exits is not None
    for row, prompt in enumerate(prompts):
        alone = CutModel.of(base, cut)
        own = answered(alone, [prompt])
        assert alone.exits is not None
        mine, theirs = (one.looks.of_row(at, lengths[row]) for one, at in ((alone.exits, 0), (together.exits, row)))
        assert own.mask[0, 0, 0].sum() == lengths[row]
        torch.testing.assert_close(mine.confidences, theirs.confidences, rtol=1e-3, atol=1e-5)
        assert torch.equal(mine.said, theirs.said)


def test_a_payload_is_what_arrives(bases: Any) -> None:
    """One channel of 32 says little; 16 bits say nearly all."""
    base = bases("qwen2")
    ids = torch.tensor([[[5, 6, 7, 8]]])

    def logits(payload: Payload) -> Tensor:
        return first_logits(base, Seam(2, payload.received), ids)

    whole = logits(Payload())
    far = {
        payload: float((logits(payload) - whole).abs().max())
        for payload in (Payload("float16"), Payload("int8"), Payload("top", 31), Payload("top", 1))
    }
    assert 0 < far[Payload("float16")] < far[Payload("int8")] < 0.2 * far[Payload("top", 1)]
    assert far[Payload("top", 31)] < far[Payload("top", 1)]


@pytest.mark.parametrize("layer", [0, LAYERS, -1])
def test_a_cut_is_between_two_layers(layer: int, bases: Any) -> None:
    with pytest.raises(ValueError, match=rf"layer={layer} must be between two of the 3 layers: from 1 to 2"):
        CutModel.of(bases("llama"), Cut(layer))


def test_other_architectures() -> None:
    """GPT-2 names its parts otherwise; a head that scales its logits, and layers in no list, are refused."""
    sizes: dict[str, Any] = {"vocab_size": 30, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    body, layers = body_of(model)
    assert (body, len(layers)) == (model.transformer, 3)
    base = BaseModel(model, None, 0, 1)  # type: ignore[arg-type]  # nothing is spelt
    with torch.no_grad():
        found = AnyForward(model, Seam(1, lambda states: states)).read(
            torch.tensor([[[3, 4, 5]]]), torch.ones(1, 1, 3, dtype=torch.bool)
        )[0]
    assert isinstance(found, Next)
    assert found.below is not None
    assert head_of(base)(found.below).shape == (1, 30)
    model.config.logit_scale = 0.5
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel scales its logits \(logit_scale\)"):
        head_of(base)
    model.transformer.h = nn.Sequential(*layers)
    with pytest.raises(TypeError, match="has no list of its 3 layers"):
        body_of(model)
