"""The comparison of strategies: its plan, its table by hand, and the command itself on a tiny fleet."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.compare_strategies.__main__ import main
from experiments.compare_strategies.measure import Outcome
from experiments.compare_strategies.plan import ALL, Arm, Part
from experiments.compare_strategies.tables import difference, harmed, part_table
from experiments.compare_strategies.work import tasks_of
from flsim.config.plugins import build
from flsim.flower.contract import client_of
from flsim.metrics.users import worst_decile_mean


def outcome(*accuracy: float, alone: float = 0.5, forgets: float = 0.1) -> Outcome:
    users = [f"device-{device:03d}" for device in range(len(accuracy))]
    return Outcome(
        accuracy=pd.Series(accuracy, users),
        alone=pd.Series([alone] * len(users), users),
        forgetting=pd.Series([forgets] * len(users), users),
        bias=0.02,
        cut=None,
        uplink_mb=71.2,
        downlink_mb=142.0,
        calls=100.0,
        money=0.5,
        server_money=0.0,
        usage=0.3,
        set_aside=0,
    )


PART = Part("small", "Which?", (Arm("old", ()), Arm("new", ())), ("old",))
OUTCOMES = {"old": [outcome(0.4, 0.6), outcome(0.5, 0.7)], "new": [outcome(0.6, 0.5), outcome(0.7, 0.9)]}


def test_a_table_by_hand() -> None:
    """Old: (0.5 + 0.6) / 2 = 55 %, sd 7.1; new: (0.55 + 0.8) / 2 = 67.5 %; differences 0.2, -0.1, 0.2, 0.2."""
    lines = part_table(PART, OUTCOMES).splitlines()
    new = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert new[:5] == ["new", "67.5 (17.7)", "60.0", "50.0", "+10.0"]
    assert new[5].startswith("+12.5 (")
    assert new[6:] == ["25", "2.0%", "", "71", "142", "100", "0.5000"]
    assert "55.0 (7.1)" in lines[2]


def test_pairs_by_hand() -> None:
    assert difference(OUTCOMES, "new", "old").mean == pytest.approx(0.125)
    assert harmed(OUTCOMES, "new", "old") == 0.25
    assert worst_decile_mean(np.arange(11.0)) == 0.5


def test_every_arm_has_a_config_and_a_strategy_of_its_own(tmp_path: Path) -> None:
    tasks = tasks_of(ALL, [0, 1], tmp_path, [])
    assert len({task.folder for task in tasks}) == len(tasks) == 2 * sum(len(part.arms) for part in ALL)
    for task in tasks:
        assert task.config.fleet.devices >= 30
        assert task.config.seed == task.config.stream.seed == task.seed
        build("strategy", task.config.strategy)
        client_of(task.config)
    for part in ALL:
        assert set(part.against) <= {arm.name for arm in part.arms}


@pytest.mark.slow
def test_the_command_runs_what_is_missing_and_draws(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [f"model.path={tiny_checkpoint}", "rounds=3", "fleet.devices=4", "cloud.kind=oracle", "client.steps=1"]
    tiny += ["client.prompts=2", "client.max_new_tokens=4", "evaluation.prompts_per_task=2"]
    command = ["--parts", "budgets", "--seeds", "0", "1", "--root", str(tmp_path / "all"), *tiny]
    main(command)
    printed = capsys.readouterr().out
    assert "How should a fleet share" in printed
    assert all(f"| {arm:>7} |" in printed for arm in ("equally", "traffic", "price"))
    assert (tmp_path / "all" / "budgets.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("summary.json")}
    assert len(before) == 6
    next(iter(before)).unlink()
    main(command)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("summary.json")}
    assert sum(before[path] != again[path] for path in before) == 1
    with pytest.raises(SystemExit):
        main([*command, "client.lr=0.5"])
    assert "started with another config" in capsys.readouterr().err
