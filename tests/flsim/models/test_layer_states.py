"""Hidden states after a layer, of every family: those that the output layer reads, and one answer's own."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.real.checkpoint import FAMILIES, write_checkpoint
from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_model
from flsim.models.layer_states import depth_of, layer_states, passes
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
ANSWERS = [[20, 21], [22, 23, 24, 25], [26]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Any:
    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(family: str) -> Path:
        return write_checkpoint(root / family, family)

    return folder


def with_an_adapter(folder: Path) -> tuple[BaseModel, StackedLora, Tensor]:
    """A base, its slots, and one adapter that says something, `(1, n)`."""
    config, rng = ModelConfig(path=str(folder), rank=2, alpha=4.0), np.random.default_rng(0)
    base = load_model(config)
    like = initial_adapter(base.model, config, 0)
    lora = StackedLora(base.model, like, config.shape.scale)
    return base, lora, lora.stack([{n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in like.items()}])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_gives_what_the_output_layer_reads_and_all_of_them_a_gradient(family: str, folders: Any) -> None:
    """Sequence by sequence, with an adapter on; to 1e-4 (seen: 1e-6)."""
    base, lora, theta = with_an_adapter(folders(family))
    lora.attach(theta, train=True)
    layers = [*range(1, depth_of(base) + 1)]
    found = layer_states(base, PROMPTS, ANSWERS, layers)  # (S, N, D)
    assert found.shape[:2] == (depth_of(base), 7)
    head, read = base.model.get_output_embeddings(), []
    assert head is not None
    hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        base.model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False)
    hook.remove()
    places = [
        slice(len(prompt) - 1, len(prompt) - 1 + len(answer)) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    expected = torch.cat([states[0, place] for states, place in zip(read, places, strict=True)])  # (N, D)
    assert expected.std() > 0.05
    torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=1e-4)
    found[0].square().sum().backward()
    first = lora.gradient()
    assert 0 < (first != 0).float().mean() < 0.8  # what lies above the first layer moves nothing of it


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_states_of_an_answer_hang_neither_on_the_others_nor_on_what_follows(family: str, folders: Any) -> None:
    base = load_model(ModelConfig(path=str(folders(family))))
    with torch.no_grad():
        together = layer_states(base, PROMPTS, ANSWERS, [1, 2])
        alone = [layer_states(base, [p], [a], [1, 2]) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
        shorter = layer_states(base, PROMPTS[1:2], [ANSWERS[1][:2]], [1, 2])
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shorter, alone[1][:, :2], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_passes_hold_every_sequence_once_and_as_many_as_memory_has_room_for(folders: Any) -> None:
    base = load_model(ModelConfig(path=str(folders("llama"))))
    for lengths in ([3], [3, 9, 4, 4, 7], [2**16, 5]):
        covered = [place for part in passes(base, lengths) for place in range(len(lengths))[part]]
        assert covered == list(range(len(lengths)))
    assert len(passes(base, [2**16, 5])) == 2
    assert len(passes(base, [9] * 100)) == 1
