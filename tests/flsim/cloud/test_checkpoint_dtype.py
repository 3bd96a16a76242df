"""What a checkpoint as the cloud keeps its weights in: less memory, equal answers in any batch, and its own choice."""

from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

from flsim.cloud.checkpoint import Checkpoint
from flsim.config.schema import ConfigError
from flsim.models.base import load_base
from flsim.models.int8 import Int8Linear, multiplies_in_bfloat16, shrink
from flsim.problems.families import TASKS
from flsim.tasks.stream import proxy_problems

pytestmark = pytest.mark.usefixtures("one_thread")

PROBLEMS = proxy_problems(TASKS, "train", count=6, rng=Random(0))


@pytest.fixture
def saved_in_bfloat16(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint, as real ones are saved."""
    base = load_base(str(tiny_checkpoint), dtype="bfloat16")
    base.as_transformers().save_pretrained(tmp_path / "half")
    base.tokenizer.save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def test_a_layer_of_8_bits_is_within_half_a_step_of_the_layer() -> None:
    """By hand: a row of 1, -1/2, 1/2 has the step 1 / 127, and is kept as 127, -63.5, 63.5, both rounded to even."""
    layer = nn.Linear(3, 1)
    layer.weight.data = torch.tensor([[1.0, -0.5, 0.5]])
    small = Int8Linear(layer)
    assert small.weight.tolist() == [[127, -64, 64]]
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    small, x = Int8Linear(layer), torch.randn(5, 64)
    step = layer.weight.detach().abs().amax(1) / 127  # (48,)
    assert ((small(x) - layer(x)).abs() <= x.abs().sum(1, keepdim=True) * step / 2 + 1e-4).all()


def test_a_row_of_zeros_stays_one() -> None:
    layer = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(layer.weight)
    assert torch.equal(Int8Linear(layer)(torch.ones(1, 4)), torch.zeros(1, 2))


def test_all_layers_but_the_head_are_put_into_8_bits(tiny_checkpoint: Path) -> None:
    model = load_base(str(tiny_checkpoint)).model
    before = sum(parameter.numel() for parameter in model.model.layers.parameters())
    shrink(model, torch.float32)
    kept = sum(1 for layer in model.modules() if type(layer) is nn.Linear)
    assert kept == 1
    assert type(model.lm_head) is nn.Linear
    held = sum(weights.nbytes for weights in model.model.layers.state_dict().values())
    assert held < before * 4 / 3


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_no_answer_depends_on_its_batch(dtype: str, saved_in_bfloat16: Path) -> None:
    def cloud(batch_size: int) -> Checkpoint:
        return Checkpoint(str(saved_in_bfloat16), max_tokens=8, batch_size=batch_size, dtype=dtype)

    alone = [cloud(64).answer([problem])[0] for problem in PROBLEMS]
    assert cloud(4).answer(PROBLEMS) == cloud(64).answer(PROBLEMS[::-1])[::-1] == alone


def test_auto_is_bfloat16_where_checkpoint_and_processor_have_it_and_float32_else(
    tiny_checkpoint: Path, saved_in_bfloat16: Path
) -> None:
    """The identity of a cloud in float32 is what it was before there was a choice, so that its cache holds."""
    full, half = (Checkpoint(str(path), max_tokens=8) for path in (tiny_checkpoint, saved_in_bfloat16))
    assert full.base.model.dtype == torch.float32
    assert half.base.model.dtype == (torch.bfloat16 if multiplies_in_bfloat16() else torch.float32)
    kept = ("float32", "bfloat16", "int8")
    said = [list(Checkpoint(str(saved_in_bfloat16), max_tokens=8, dtype=dtype).identity())[1] for dtype in kept]
    common = {"system": None, "max_tokens": 8}
    assert said == [common, common | {"dtype": "bfloat16"}, common | {"dtype": "int8"}]
    assert list(full.identity())[1] == common


def test_another_dtype_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cloud\.dtype='int4' must be one of: auto, float32, bfloat16, int8$"):
        Checkpoint(str(tiny_checkpoint), dtype="int4")
