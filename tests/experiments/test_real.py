"""The whole path with real parts: the stand-ins do what they stand for, and one command goes from disk to adapter."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from openai import OpenAI

from experiments.real.__main__ import main
from experiments.real.checkpoint import write_checkpoint
from experiments.real.estimate import GPUS, SHAPES, Work, bytes_needed, largest_pack, seconds_per_round
from experiments.real.estimate import main as estimate
from experiments.real.lessons import in_form, teach
from experiments.real.server import UNKNOWN, serving
from flsim.metrics.rows import read_rows
from flsim.models.memory import kept_per_token
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.system.shapes import Decoder

MATHS = Problem("gsm8k", "", 1, "What are 2 + 2?", "4", verifier="numeric", instruction="Count.")
CODE = Problem("mbpp", "", 0, "Write one().", "assert one() == 1", verifier="code", solution="def one():\n    return 1")


def test_the_server_speaks_the_api_that_clouds_speak() -> None:
    with serving({"7+5?": "12 of course"}) as server:
        client = OpenAI(base_url=server.url, api_key="none", max_retries=0)
        told = [
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": question}])
            for question in ("7+5?", "7+6?")
        ]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/else", data=b"{}"))
        assert server.asked == 2
    assert [reply.choices[0].message.content for reply in told] == ["12 of course", UNKNOWN]
    assert told[0].usage is not None
    assert (told[0].usage.prompt_tokens, told[0].usage.completion_tokens) == (1, 3)


def test_right_answers_in_form_are_right() -> None:
    said = [(problem, in_form(problem, problem.right_text)) for problem in (MATHS, CODE)]
    assert are_right(said) == [True, True]
    assert are_right([(MATHS, in_form(MATHS, "5")), (CODE, in_form(CODE, "def one():\n    return 2"))]) == [False] * 2


def test_lessons_teach(tmp_path: Path, one_thread: None) -> None:
    folder = write_checkpoint(tmp_path / "tiny", "smollm2", spread=0.05)
    first = teach(folder, [MATHS], steps=1)
    assert teach(folder, [MATHS], steps=25) < 0.6 * first


def test_memory_by_hand() -> None:
    """Hidden 4, 2 layers, 6 within, 2 heads of 2, one of keys and values, 10 words.

    A layer has 2 * 4 * 4 + 2 * 4 * 2 + 3 * 4 * 6 = 120 parameters, the model 2 * 120 + 40 = 280; an adapter of rank 1
    2 * (2 * 8 + 2 * 6 + 3 * 10) = 116; a token's cache is 2 * 2 * 2 = 8 numbers; its graph, with checkpointing,
    2 * 4 + 14 * 4 + 4 * 6 = 88 numbers, without 2 * 80 = 160.
    """
    shape = Decoder("by hand", 4, 2, 6, heads=2, kv_heads=1, head=2, vocabulary=10)
    assert (shape.layer, shape.parameters, shape.adapter(1), shape.cache) == (120, 280, 116, 8)
    assert [kept_per_token(4, 6, 2, checkpointing=on) for on in (True, False)] == [88, 160]
    work = Work(prompt=3, response=2, prompts=1, group=2, rank=1)
    always, read = 2 * 280 + 16 * 116, 2 * 3 * (8 + 88)
    learning = 4 * (2 * 88 + 3 * 4 * 10)  # more than the cache of 4 tokens, 2 * 4 * 8
    assert bytes_needed(shape, work, 1) == always + read + learning


def test_larger_gpus_take_larger_packs_and_less_time(capsys: pytest.CaptureFixture[str]) -> None:
    for shape in SHAPES:
        packs = [largest_pack(shape, Work(checkpointing=False), gpu, 16) for gpu in GPUS]
        assert packs == sorted(packs)
        times = [seconds_per_round(shape, Work(), gpu, 4, 16) for gpu in GPUS]
        assert times == sorted(times, reverse=True)
    assert estimate(["--devices", "4", "--no-checkpointing"]) == 0
    assert "estimated, not measured: 4 devices" in capsys.readouterr().out


def test_the_whole_path(tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None) -> None:
    """Two devices, maths then code, a few lessons: every part is met, and what is learned loads with peft."""
    short = ["rounds=2", "client.steps=1", "client.prompts=2", "evaluation.every_rounds=2", "engine.kind=local"]
    few = ["evaluation.prompts_per_task=2", "model.max_new_tokens=40", "client.temperature=1.5"]
    assert main(["--out", str(tmp_path), "--lessons", "12", *short, *few]) == 0
    said = capsys.readouterr().out
    for words in ("20 of 20 right answers pass", "in the sandbox", "loads with PeftModel", "report: "):
        assert words in said
    rows = read_rows(tmp_path / "run")
    assert {"gsm8k", "mbpp"} <= set(rows["task"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())


def test_a_missing_folder_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "gsm8k" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
