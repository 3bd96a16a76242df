"""Gradient checkpointing: the same gradients to the last bit, for less that is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import flsim.models.llama as short
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


def learned(folder: Path, questions: list[list[str]], *, checkpointing: bool) -> tuple[Tensor, int]:
    """The gradient `(K, n)` of a random pull, and the bytes of what the forward passes keep for the backward."""
    config = ModelConfig(path=str(folder), rank=3, alpha=6.0, gradient_checkpointing=checkpointing)
    base = load_model(config)
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
    monkeypatch.setattr(short, "WASTE", waste)
    folder = write_checkpoint(tmp_path, family)
    gradient, kept = learned(folder, QUESTIONS[questions], checkpointing=False)
    again, less = learned(folder, QUESTIONS[questions], checkpointing=True)
    assert gradient.norm(dim=1).min() > 0.1
    assert torch.equal(again, gradient)
    assert less < 0.3 * kept


def test_what_reads_by_its_own_forward_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(path=str(write_checkpoint(tmp_path, "gemma2")), gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"model\.gradient_checkpointing works for plain Llama.* Gemma2ForCausalLM"):
        load_model(config)
