"""The benchmark of a real checkpoint: both sides do the same work, and its table counts a user's tokens."""

from pathlib import Path

import pytest
import torch

from experiments.benchmark.__main__ import main
from experiments.benchmark.real import Seen, real_table
from experiments.benchmark.real_sides import OneAtATime, Seconds, Stacked, Work
from experiments.real.checkpoint import write_checkpoint
from flsim.config.load import load_config
from flsim.models.decoding import encode, generate, read
from tests.tiny import RUN, tiny_file


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = write_checkpoint(tmp_path_factory.mktemp("real") / "tiny", "smollm2")
    config = load_config(None, [f"model.path={folder}", *RUN, "client.group_size=3"])
    return Work(config, questions=2, rows=4, clock="cpu")


def test_both_sides_find_the_same_gradient_of_the_same_responses(work: Work, one_thread: None) -> None:
    """The prefix read once and the pack against left-padded rows; A is still, since B is 0."""
    ours, peft = Stacked(work, 2), OneAtATime(work)
    problems = [work.problems(k, 0) for k in range(2)]
    ours.lora.attach(ours.theta, train=True)
    reading = read(ours.base, encode(ours.base, ours.base.prompts(problems)))
    sources = [torch.Generator().manual_seed(k) for k in range(2)]
    how = {"group_size": work.group, "max_new_tokens": work.tokens, "temperature": 1.0, "may_ask": False}
    said = generate(ours.base, reading, generators=sources, **how)  # type: ignore[arg-type]
    assert bool(said.mask.all())  # nothing ends early
    (gradient, _) = ours.lora.unstack(ours.gradient(reading, said))
    ids, mask = peft.padded(problems[0])
    rows = torch.cat([ids.repeat_interleave(work.group, 0), said.tokens[0].flatten(0, 1)], 1)  # (P G, L + T)
    peft.pull_back(rows, mask)
    for name, parameter in peft.model.named_parameters():
        if parameter.requires_grad and "lora_B" in name:
            own = torch.from_numpy(gradient[name.replace(".default.", ".")])
            assert torch.allclose(own, parameter.grad, atol=1e-4 * float(parameter.grad.abs().max()))


def test_both_sides_read_and_say_equally_much(work: Work, one_thread: None) -> None:
    ours, peft = Stacked(work, 1), OneAtATime(work)
    assert all(seconds is not None and seconds > 0 for seconds in vars(ours.once(1)).values())
    assert all(seconds is not None for seconds in vars(peft.once(1)).values())
    assert ours.prompt_tokens == peft.prompt_tokens > 0
    assert ours.round() > 0 < ours.evaluation()


def test_the_table_by_hand() -> None:
    """2 prompts of 30 tokens, 3 responses of 4 to each: 18 tokens after the first ones, 24 in all."""
    counts = {"prompts": 2, "responses": 6, "prompt_tokens": 30, "response_tokens": 4, "questions": 2}
    ours = Seen((Seconds(2.0, 0.5, 1.0, 0.5, 3.0),), **counts, peak=2 * 10**6, beyond=10**6, round=7.0, evaluation=8.0)
    trl = Seen((Seconds(5.0),), **counts, peak=4 * 10**6, beyond=3 * 10**6)
    lines = [line.strip("| ").split("|") for line in real_table({"ours, K = 8": ours, "trl": trl}).splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0] == ["ours, K = 8", "trl", "ours, K = 8 / trl"]
    assert cells[2:] == [
        ["prefill, prompt tokens/s", "60 (60..60)", "-", "-"],
        ["decode, tokens/s", "18 (18..18)", "-", "-"],
        ["train, response tokens/s", "48 (48..48)", "-", "-"],
        ["a step, s per device", "2.00 (2.00..2.00)", "5.00 (5.00..5.00)", "2.5"],
        ["a test answer, s", "1.500 (1.500..1.500)", "-", "-"],
        ["a round, s per device", "7.00", "-"],
        ["an evaluation, s per device", "8.00", "-"],
        ["peak beyond the weights, MB", "2", "4"],
        ["and beyond what it held, MB", "1", "3"],
    ]


@pytest.mark.slow
def test_the_command_measures_every_side_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_checkpoint(tmp_path / "tiny", "smollm2")
    config = tiny_file(tmp_path, folder)
    more = ["--packs", "1", "2", "--sides", "ours", "peft", "--repeats", "1", "--questions", "2"]
    assert main(["real", str(config), *more, "client.group_size=2"]) == 0
    out = capsys.readouterr().out
    for told in ("ours, K = 1", "ours, K = 2", "peft", "a step, s per device", "3 prompts of"):
        assert told in out
