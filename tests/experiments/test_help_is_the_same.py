"""Runs under modes of help, on the built-in pair: their rows do not depend on workers, nor on being killed."""

from pathlib import Path

import pandas as pd
import pytest

from experiments.torture.processes import Command
from flsim.metrics.rows import read_rows, without_timing
from flsim.models.folder import CLOUD_DIR

ROUNDS = 3
SHORT = (
    *(f"rounds={ROUNDS}", "fleet.devices=6", "engine.pack=3", "client.steps=1", "evaluation.prompts_per_task=4"),
    *("system.stands_for.cloud=0.5", "budget.unit=joules", "budget.joules_per_round=200", "budget.tau=0.5"),
)
MODES = {
    "handover": ("client.helping.path=clients.helping.handover:Handover",),
    "verify": ("client.helping.path=clients.helping.verify:Verify", "client.helping.length=bandit"),
    "split": ("client.helping.path=clients.helping.split:Split", "client.helping.layer=auto"),
    "exit": ("client.helping.path=clients.helping.exit:Exit", "client.helping.threshold=0.7"),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CLOUD_DIR / "config.json").exists(), reason="the built-in cloud is not here"),
]


def run(folder: Path, *more: str) -> Command:
    return Command(["run", "demo", *SHORT, f"run_dir={folder}", *more])


def finish(command: Command) -> None:
    ending = command.finish()
    assert ending.status == 0, ending.said


def rows_of(folder: Path) -> pd.DataFrame:
    return without_timing(read_rows(folder))


@pytest.mark.parametrize("name", MODES)
def test_rows_are_those_of_a_run_in_peace(name: str, tmp_path: Path) -> None:
    """Of one process; then of two workers, that are killed in the middle of a round and go on."""
    finish(run(tmp_path / "peace", *MODES[name], "engine.kind=local"))
    whole = rows_of(tmp_path / "peace")
    assert not (whole["name"] == "set_aside").any()
    assert whole[whole["name"] == "help_share"]["weight"].sum() > 0
    spent = whole[whole["name"] == "asking_joules"]["total"]
    assert 0 < spent.max() <= 200
    folder = tmp_path / "killed"
    command = run(folder, *MODES[name], "engine.workers=2")
    assert command.wait_until(lambda: bool(list(folder.glob("purchases/**/*.train")))), "nothing was bought"
    command.kill()
    finish(Command(["resume", str(folder)]))
    pd.testing.assert_frame_equal(rows_of(folder), whole, check_exact=True)
