"""Both sides of the measurement on a GPU do the same work; here on the CPU and in a tiny shape."""

import re

import pytest
import torch

from experiments.benchmark import gpu
from experiments.benchmark.__main__ import main
from experiments.benchmark.gpu_sides import LORA, Case, OneAtATime, Stacked, work_of
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(dtype: torch.dtype = torch.bfloat16) -> Case:
    return Case("tiny", "cpu", prompts=2, group_size=3, prompt_tokens=5, new_tokens=4, micro_batch=16, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_completion_of_ours_has_all_its_tokens(dtype: torch.dtype) -> None:
    side = Stacked(tiny(dtype), 2)
    completions = side.sample(side.read())
    assert completions.tokens.shape == (2, 2, 3, 4)
    assert bool(completions.mask.all())
    assert not bool(completions.asked.any())
    assert side.base.model.dtype == dtype
    assert side.theta.dtype == torch.float32


def test_every_completion_of_pefts_has_all_its_tokens() -> None:
    """A model that knows an end would end some of 30 completions of 300 tokens early."""
    case = Case("tiny", "cpu", prompts=2, group_size=15, prompt_tokens=5, new_tokens=20, micro_batch=16)
    side = OneAtATime(case)
    ids = case.prompt_ids(0)
    rows = side.sample(ids)
    assert rows.shape == (30, 25)
    assert torch.equal(rows[:, :5], ids.repeat_interleave(15, 0))
    config = side.model.generation_config
    assert config.eos_token_id is None
    assert all(part.dtype == torch.float32 for part in side.parameters)


def test_both_sides_find_the_same_gradient() -> None:
    """Of float32 bases, on the tokens that ours sampled, to 1e-4 of each tensor's length (seen: 5e-7)."""
    case = tiny(torch.float32)
    ours = Stacked(case, 2)
    reading = ours.read()
    completions = ours.sample(reading)
    gradients = ours.lora.unstack(ours.gradient(reading, completions))
    peft = OneAtATime(case)
    for device, gradient in enumerate(gradients):
        peft.put_on(device)
        peft.model.zero_grad()
        prompts = case.prompt_ids(device).repeat_interleave(case.group_size, 0)  # (P * G, L)
        rows = torch.cat([prompts, completions.tokens[device].flatten(0, 1)], 1)  # (P * G, L + T)
        peft.pull_back(rows, case.weights(device).flatten())
        found = {
            name.replace(".default", ""): part.grad
            for name, part in peft.model.named_parameters()
            if part.requires_grad
        }
        assert found.keys() == gradient.keys()
        for name, own in gradient.items():
            other = found[name]
            assert other is not None
            assert (torch.from_numpy(own) - other).norm() < 1e-4 * other.norm(), name


def test_a_step_changes_every_adapter_of_the_pack() -> None:
    side = Stacked(tiny(), 2)
    before = side.theta.clone()
    assert all(seconds > 0 for seconds in vars(side.step()).values())
    assert bool((side.theta != before).any(1).all())


def test_work_is_counted_by_hand_for_one_prompt_and_two_tokens() -> None:
    case = Case("tiny", "cpu", prompts=1, group_size=1, prompt_tokens=3, new_tokens=2, micro_batch=16)
    work = work_of(case, 1)
    attention = 64 * 64 + 64 + 2 * (64 * 32 + 32) + 64 * 64
    layers = 2 * (attention + 3 * 64 * 96 + 2 * 64)
    head = 64 * 300
    once = 3 * layers + head  # three tokens, one distribution
    more = layers + head  # one token, one distribution
    assert work.sample_flops == 2 * (once + more)
    assert work.train_flops == 2 * once + 4 * more
    cached = 2 * 2 * 32 * 2  # keys and values, layers, width, bytes
    assert work.decode_bytes == 2 * (layers + head) + 4 * size_of_an_adapter(case) + (3 + 1) * cached


def size_of_an_adapter(case: Case) -> int:
    lora: StackedLora = Stacked(case, 1).lora
    return lora.size(LORA.rank)


def test_the_shape_is_qwens() -> None:
    """Of 494 032 768 parameters, as its model card says 0.49 B, of which 0.36 B are not embeddings."""
    model = Case("qwen2.5-0.5b", "cpu", 1, 1, 1, 1, 1).model("meta")
    assert sum(part.numel() for part in model.parameters()) == 494_032_768
    assert model.config.rope_parameters["rope_theta"] == 1e6
    assert {part.dtype for part in model.parameters()} == {torch.bfloat16}
    assert {part.dtype for part in model.buffers()} == {
        torch.float32
    }  # a bfloat16 rotary frequency would be too coarse


def test_gpu_prints_ceilings_and_a_line_per_pack(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--prompts 1 --group-size 2 --prompt-tokens 4 --new-tokens 3 --repeats 1"
    main(["gpu", "--place", "cpu", "--shape", "tiny", "--devices", "1", "5", *sizes.split()])
    shown = capsys.readouterr().out
    assert re.search(r"Ceilings: [\d.e+]+ TFLOP/s \(bfloat16 product\), [\d.e+]+ GB/s \(copy\)", shown)
    *_, header, _, one, five = shown.strip().splitlines()
    assert [line.split("|")[1].strip() for line in (one, five)] == ["1", "5"]
    assert len(header.split("|")) == len(one.split("|")) == 14


def test_where_memory_does_not_suffice_pefts_figures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> gpu.Measured:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu, "measured_ours", fail)
    cells = gpu.cells(tiny(), 1, 1, gpu.Ceilings(1.0, 1.0))
    assert len(cells) == 11
    assert "too much" in cells
    assert float(cells[1].split()[0]) > 0


def test_too_few_tokens_and_a_missing_card_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="at least 2"):
        main(["gpu", "--place", "cpu", "--new-tokens", "1"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--place cpu --shape tiny"):
        main(["gpu", "--place", "cuda"])
