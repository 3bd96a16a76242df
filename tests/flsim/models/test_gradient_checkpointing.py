"""Gradient checkpointing: the same gradients to the last bit, for less that is kept."""

import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import flsim.models.llama as short
import flsim.models.memory as memory
import flsim.models.packing as packing
from experiments.real.checkpoint import write_checkpoint
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import initial_adapter
from flsim.models.base import load_model
from flsim.models.decoding import encode, generate, read
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

LONG, SHORT = "What is the sum of all numbers from one to twelve? ", "1+1="
QUESTIONS = {"even": [[LONG, SHORT], [SHORT, LONG]], "uneven": [[LONG * 2, LONG], [SHORT]]}


def learned(
    folder: Path, questions: list[list[str]], *, checkpointing: bool = False, graph: int | None = None
) -> tuple[Tensor, int]:
    """The gradient `(K, n)` of a random pull, and the bytes of what the forward passes keep for the backward."""
    config = ModelConfig(path=str(folder), rank=3, alpha=6.0, gradient_checkpointing=checkpointing)
    base = replace(load_model(config), graph=graph)
    like, rng = initial_adapter(base.model, config, 0), np.random.default_rng(0)
    lora = StackedLora(base.model, like, config.shape.scale)
    own = [{n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in like.items()} for _ in questions]
    theta, kept = lora.stack(own), list[int]()

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    lora.attach(theta, train=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        reading = read(base, encode(base, questions))
        seeds = [torch.Generator().manual_seed(k) for k in range(len(questions))]
        settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0, "generators": seeds}
        said = generate(base, reading, group_size=4, **settings)
        pull = torch.randn(said.tokens.shape, generator=torch.Generator().manual_seed(0))
        gradient = pull_back(base, lora, reading, said, pull, temperature=2.0, tokens=60)
    return gradient, sum(kept)


@pytest.mark.parametrize("waste", [1.0, 1e9], ids=["bare tokens", "packed"])
@pytest.mark.parametrize("questions", QUESTIONS)
@pytest.mark.parametrize("family", ["smollm2", "qwen3"])
def test_gradients_are_equal_and_less_is_kept(
    family: str, questions: str, waste: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where devices have unequal numbers of tokens; a fifth is kept (seen: 0.13 to 0.18)."""
    monkeypatch.setattr(packing, "WASTE", waste)
    folder = write_checkpoint(tmp_path, family)
    gradient, kept = learned(folder, QUESTIONS[questions], checkpointing=False)
    again, less = learned(folder, QUESTIONS[questions], checkpointing=True)
    assert gradient.norm(dim=1).min() > 0.1
    assert torch.equal(again, gradient)
    assert less < 0.3 * kept


def test_a_limit_computes_as_much_again_as_it_takes(tmp_path: Path) -> None:
    """Of 6 layers, by what a token is counted as; the less is kept the less is allowed, and no bit moves."""
    folder = write_checkpoint(tmp_path, "smollm2", layers=6)
    found = [learned(folder, QUESTIONS["uneven"], graph=graph) for graph in (None, 2**19, 2**18, 0)]
    gradients, kept = zip(*found, strict=True)
    assert gradients[0].norm(dim=1).min() > 0.1
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    assert kept[0] > kept[1] > kept[2] > kept[3]
    assert kept[3] == learned(folder, QUESTIONS["uneven"], checkpointing=True)[1]


def test_layers_that_are_computed_again_by_hand(tmp_path: Path) -> None:
    """Hidden 32, inner 48, 4 layers: 4 * 4 (14 * 32 + 4 * 48) = 10,240 bytes per token, 102,400 of ten tokens."""
    model = load_model(ModelConfig(path=str(write_checkpoint(tmp_path, "smollm2", layers=4)))).model
    for graph, again in ((102_400, 0), (102_399, 1), (51_200, 2), (25_599, 4), (None, 0)):
        assert short.LlamaForward(model, graph=graph)._computed_again(10) == again
    assert short.LlamaForward(model, checkpointing=True)._computed_again(10) == 4


def test_what_reads_by_its_own_forward_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(path=str(write_checkpoint(tmp_path, "gemma2")), gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"model\.gradient_checkpointing works for plain Llama.* Gemma2ForCausalLM"):
        load_model(config)


def test_the_estimate_counts_on_the_limit_for_the_families_that_have_it() -> None:
    families = (pkgutil.resolve_name(":".join(name.rsplit(".", 1))) for name in short._FAMILY)
    assert {vars(family)["config_class"].model_type for family in families} == set(memory._SHORT)
