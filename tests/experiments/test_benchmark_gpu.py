"""All sides of the measurement on a GPU do the same work, and whatever fails costs one figure; here on a processor."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.benchmark import gpu
from experiments.benchmark.__main__ import main
from experiments.benchmark.card import measure as card_measure
from experiments.benchmark.card import worker as card_worker
from experiments.benchmark.card.case import LORA, Case, work_of
from experiments.benchmark.card.our_side import Stacked
from experiments.benchmark.card.peft_side import OneAtATime
from experiments.benchmark.card.plan import CEILINGS, OURS, PEFT, STEP, TRL, Measurement, guess, limit, plan
from experiments.benchmark.card.record import FAILED, MEASURED, SKIPPED, Record
from experiments.benchmark.card.round_side import Rounds
from experiments.benchmark.card.table import page_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = ("--prompts", "1", "--group-size", "2", "--prompt-tokens", "4", "--new-tokens", "3", "--repeats", "1")
TINY = ("gpu", "--place", "cpu", "--shapes", "tiny", "--devices", "1", "5", *SIZES)


def tiny(dtype: torch.dtype = torch.bfloat16) -> Case:
    return Case("tiny", "cpu", prompts=2, group_size=3, prompt_tokens=5, new_tokens=4, micro_batch=16, dtype=dtype)


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "static"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_completion_of_ours_has_all_its_tokens(dtype: torch.dtype, graphs: bool) -> None:
    side = Stacked(tiny(dtype), 2, graphs=graphs)
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


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "static"])
def test_both_sides_find_the_same_gradient(graphs: bool) -> None:
    """Of float32 bases, on the tokens that ours sampled, to 1e-4 of each tensor's length (seen: 5e-7)."""
    case = tiny(torch.float32)
    ours = Stacked(case, 2, graphs=graphs)
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


def test_a_step_changes_every_adapter_of_the_pack_and_begins_again_where_it_began() -> None:
    side = Stacked(tiny(), 2)
    before = side.theta.clone()
    assert all(seconds > 0 for seconds in vars(side.step()).values())
    after = side.theta.clone()
    assert bool((after != before).any(1).all())
    side.begin()
    assert torch.equal(side.theta, before)
    side.step()
    assert torch.equal(side.theta, after)


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
    adapter = Stacked(case, 1).lora.size(LORA.rank)
    assert work.decode_bytes == 2 * (layers + head) + 4 * adapter + (3 + 1) * cached


@pytest.mark.parametrize(
    ("shape", "parameters", "rotary"), [("qwen2.5-0.5b", 494_032_768, 1e6), ("smollm2-135m", 134_515_008, 1e5)]
)
def test_the_shapes_are_those_of_the_model_cards(shape: str, parameters: int, rotary: float) -> None:
    model = Case(shape, "cpu", 1, 1, 1, 1, 1).model("meta")
    assert sum(part.numel() for part in model.parameters()) == parameters
    assert model.config.rope_parameters["rope_theta"] == rotary
    assert {part.dtype for part in model.parameters()} == {torch.bfloat16}
    assert {part.dtype for part in model.buffers()} == {
        torch.float32
    }  # a bfloat16 rotary frequency would be too coarse


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "static"])
def test_a_round_and_an_evaluation_take_time(graphs: bool) -> None:
    assert min(Rounds(tiny(), 2, graphs=graphs).once()) > 0


@pytest.mark.filterwarnings("ignore")
def test_a_step_of_trls_takes_time() -> None:
    pytest.importorskip("trl")
    from experiments.benchmark.card.trl_side import Trl

    side = Trl(tiny())
    assert [side.step().train > 0 for _ in range(2)] == [True, True]


def test_the_plan_begins_with_what_matters_most() -> None:
    """The ceilings, packs of 32 both ways, peft; then checks, small packs, large ones; the second shape last."""
    found = plan(["qwen2.5-0.5b", "smollm2-135m"], [1, 8, 32, 64], [PEFT, TRL])
    names = [one.name for one in found]
    assert names[:4] == [
        "ceilings",
        "step, ours, qwen2.5-0.5b, K = 32",
        "step, ours, qwen2.5-0.5b, K = 32, graphs",
        "step, peft, qwen2.5-0.5b, K = 1",
    ]
    steps = [(one.devices, one.graphs) for one in found if one.side == OURS and one.kind == STEP]
    assert [k for k, _ in steps] == [32, 32, 1, 1, 8, 8, 64, 64] * 2
    assert len(set(names)) == len(names) == 28
    assert [one.shape for one in found if one.kind == STEP] == ["qwen2.5-0.5b"] * 10 + ["smollm2-135m"] * 10
    assert plan(["tiny"], [40, 90], [])[1].devices == 40


def a_record(folder: Path, **asked: Any) -> Record:
    plainly = {"place": "cpu", "shapes": ["tiny"], "devices": [1], "sides": [], "prompts": 1, "group_size": 2}
    sizes = {"prompt_tokens": 4, "new_tokens": 3, "micro_batch": 16, "repeats": 1, "tf32": False}
    return Record(folder / "gpu.json", {**plainly, **sizes, **asked}, time.time() + 3600)


def test_a_guess_follows_what_was_measured_last_of_its_kind(tmp_path: Path) -> None:
    """25 s for Qwen's shape; after 5 s of it, 15 / 25 of that for SmolLM2's; its limit four guesses, at least 60 s."""
    record = a_record(tmp_path)
    small, large = (Measurement(STEP, OURS, shape, 8) for shape in ("smollm2-135m", "qwen2.5-0.5b"))
    assert (guess(small, record), guess(large, record), limit(large, record)) == (15.0, 25.0, 100.0)
    record.end("a", Measurement(STEP, OURS, "qwen2.5-0.5b", 32).of, MEASURED, 5.0, figures={})
    record.end("b", Measurement(STEP, OURS, "qwen2.5-0.5b", 64).of, FAILED, 90.0, why="so")
    assert (guess(small, record), guess(large, record), limit(small, record)) == (3.0, 5.0, 60.0)
    assert guess(Measurement(STEP, PEFT, "qwen2.5-0.5b", 1), record) == 25.0


def test_what_fails_is_recorded_with_its_reason_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full card, a missing library, and an error of its own."""
    errors = {
        ("step", "plain"): torch.OutOfMemoryError("CUDA out of memory"),
        ("step", "graphs"): ModuleNotFoundError("No module named 'trl'", name="trl"),
        ("check", "plain"): RuntimeError("first line\nsecond line"),
    }

    def measure(one: Measurement, _: Any) -> dict[str, Any]:
        error = errors.get((one.kind, "graphs" if one.graphs else "plain"))
        if error is not None:
            raise error
        return {"flops": 1e12, "bytes": 1e9, "round": [1.0], "evaluation": [2.0]}

    monkeypatch.setattr(card_measure, "measure", measure)
    a_record(tmp_path).write()
    assert card_worker.main(tmp_path / "gpu.json") == 0
    record = Record.read(tmp_path / "gpu.json")
    assert len(record.entries) == len(plan(["tiny"], [1], []))
    assert record.running is None
    page = page_of(record)
    assert "- step, ours, tiny, K = 1: failed, the card's memory does not suffice." in page
    assert "K = 1, graphs: failed, trl is not installed (pip install -e '.[bench]')." in page
    assert "the same twice, tiny, K = 2: failed, RuntimeError: first line (test_benchmark_gpu.py:" in page
    assert "1 TFLOP/s (bfloat16 product), 1 GB/s (copy)" in page
    assert re.search(r"\| +1 \| +graphs \| +1.0000 \(1.0000..1.0000\) \| +2.0000", page)


def test_what_no_longer_fits_is_skipped(tmp_path: Path) -> None:
    record = a_record(tmp_path)
    record.until = time.time() + 1.0
    record.write()
    assert card_worker.main(record.path) == 0
    entries = Record.read(record.path).entries.values()
    assert {entry["status"] for entry in entries} == {SKIPPED}
    assert all(re.search(r"it takes about \d+ s, and [01] s were left", entry["why"]) for entry in entries)


def test_a_card_is_woken_before_its_memory_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses to reset what it has not begun to count."""
    calls: list[str] = []
    for name in ("init", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.append(name))
    card_measure.begin("cpu")
    assert calls == []
    card_measure.begin("cuda")
    assert calls == ["init", "reset_peak_memory_stats"]


def test_a_card_that_is_out_of_order_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(card_measure, "measure", lambda *_: fail())
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    record = a_record(tmp_path, place="cuda")
    record.write()
    assert card_worker.main(record.path) == card_worker.BROKEN
    (entry,) = Record.read(record.path).entries.values()
    assert entry["why"].startswith("RuntimeError: CUDA error: an illegal memory access was encountered")


WORKER = """
import os, signal, sys, time
from pathlib import Path
from experiments.benchmark.card.plan import Measurement
from experiments.benchmark.card.record import Record
record = Record.read(Path(sys.argv[1]))
name = ("dies", "hangs", "ends")[len(record.entries)]
record.begin(name, Measurement("step").of, time.time(), 0.5 if name == "hangs" else 60.0)
if name == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "hangs":
    time.sleep(60)
record.end(name, Measurement("step").of, "measured", 1.0, figures={})
"""


def test_a_worker_that_dies_or_hangs_costs_one_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is killed, as by a machine without memory; the second is stopped; the third does what is left."""
    real, script = subprocess.Popen, tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(
        subprocess, "Popen", lambda command: real([command[0], str(script), command[-1]], env=with_path())
    )
    record = a_record(tmp_path)
    record.write()
    gpu.measure(record)
    found = Record.read(record.path).entries
    assert list(found)[:3] == ["dies", "hangs", "ends"]
    assert {entry["status"] for entry in list(found.values())[3:]} == {SKIPPED}
    assert found["dies"]["why"] == f"its process was ended by signal {signal.SIGKILL.value}"
    assert found["hangs"]["why"] == "it was stopped, since it took many times what was expected"
    assert found["ends"]["status"] == MEASURED


def test_a_worker_that_cannot_start_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it cannot be imported: every measurement says so."""
    real, starts = subprocess.Popen, list[int]()

    def start(command: list[str]) -> "subprocess.Popen[bytes]":
        starts.append(1)
        return real([command[0], "-c", "raise SystemExit(1)"])

    monkeypatch.setattr(subprocess, "Popen", start)
    record = a_record(tmp_path)
    record.write()
    gpu.measure(record)
    assert len(starts) == 1
    (why,) = {entry["why"] for entry in Record.read(record.path).entries.values()}
    assert why == "its process ended with status 1 before it measured anything; what it printed says more"


def with_path() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_minutes_end_the_worker(tmp_path: Path) -> None:
    record = a_record(tmp_path)
    record.until = time.time() - 60.0
    record.begin("long", Measurement(CEILINGS).of, time.time(), 60.0)
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert gpu._ended(worker, record.path) == "the minutes were over"
    finally:
        worker.kill()
        worker.wait()


def test_one_call_measures_records_and_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command, with its worker; without TRL, which says so where it is missing."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    main([*TINY, "--out", str(tmp_path), "--sides", PEFT])
    page = (tmp_path / "gpu.md").read_text()
    assert page in capsys.readouterr().out
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert {entry["status"] for entry in record["measured"].values()} == {MEASURED}, page
    assert re.search(r"Ceilings: [\d.e+-]+ TFLOP/s \(bfloat16 product\), [\d.e+-]+ GB/s \(copy\)", page)
    assert "100.00% of the tokens are those of plain ones" in page
    assert "Two steps, done twice: the same bits plain, the same bits with graphs." in page
    assert re.search(r"(\d+) of \1 rows are equal; the largest difference is 0 of a number\.", page)
    assert "Not measured" not in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [len(rows) for rows in tables] == [4, 4, 4]
    for rows in tables:
        assert len({row.count("|") for row in rows}) == 1
    with pytest.raises(SystemExit, match=r"holds a gpu\.json already"):
        main([*TINY, "--out", str(tmp_path)])


def test_options_that_cannot_work_and_a_missing_card_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for option, value, message in (
        ("--new-tokens", "1", "must be at least 2"),
        ("--devices", "0", "must be at least 1"),
        ("--minutes", "0", "must be above 0"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["gpu", "--place", "cpu", option, value])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--place cpu --shapes tiny"):
        main(["gpu", "--place", "cuda"])
    assert list(tmp_path.iterdir()) == []
