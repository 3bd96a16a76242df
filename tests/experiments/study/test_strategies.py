"""The comparison of strategies: its plan, and the command itself on a tiny fleet."""

from pathlib import Path

import pytest

from experiments.study.plan import runs_of
from experiments.study.strategies import ALL, CONFIG, main
from flsim.loop.ready import build_parts


def test_every_arm_has_a_config_and_a_strategy_of_its_own(tmp_path: Path) -> None:
    runs = [run for part in ALL for run in runs_of(CONFIG, part.arms, [0, 1], tmp_path / part.name)]
    assert len({run.folder for run in runs}) == len(runs) == 2 * sum(len(part.arms) for part in ALL)
    for run in runs:
        assert run.config.fleet.devices >= 30
        assert run.config.seed == run.config.stream.seed == int(run.folder.name[-1])
        build_parts(run.config)
    for part in ALL:
        assert {*part.against, *part.apart} <= {arm.label for arm in part.arms}
    assert (tmp_path / "methods" / "fedex-lora-decay-0.8-s1") in {run.folder for run in runs}  # as it always was


@pytest.mark.slow
def test_the_command_runs_what_is_missing_and_draws(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [f"model.path={tiny_checkpoint}", "rounds=3", "fleet.devices=4", "cloud.kind=oracle", "client.steps=1"]
    tiny += ["client.prompts=2", "client.max_new_tokens=4", "evaluation.prompts_per_task=2"]
    command = ["--parts", "budgets", "--seeds", "0", "1", "--root", str(tmp_path / "all"), "--more", *tiny]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "How should a fleet share" in printed
    assert all(f"| {arm:>7} |" in printed for arm in ("equally", "traffic", "price"))
    assert "accuracy minus equally" in printed
    assert (tmp_path / "all" / "budgets-compared" / "paired.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("summary.json")}
    assert len(before) == 6
    next(iter(before)).unlink()
    assert main(command) == 0
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("summary.json")}
    assert sum(before[path] != again[path] for path in before) == 1
    assert main([*command, "client.lr=0.5"]) == 2
    assert "started with another config" in capsys.readouterr().err
