"""The paper's question: every run can be built, tuning is equal for all, usage by phase by hand, the command itself."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments.study import paper_plan, tuning
from experiments.study.paper import main, regime_runs
from experiments.study.paper_plan import ABLATIONS, BOUNDS, GRIDS, METHODS, REGIMES, arms_of, config_of, trials_of
from experiments.study.phases import PhaseUsage, last_quarter, over_switch, switch_table, usage_by_phase, within
from experiments.study.plan import runs_of
from flsim.config.load import load_config, to_yaml
from flsim.config.schema import Config
from flsim.loop.ready import build_parts
from flsim.metrics.intervals import Interval
from flsim.metrics.rows import Row, write_rows
from flsim.tasks.stream import Phase

TINY = ["rounds=3", "client.prompts=2", "client.steps=1", "evaluation.prompts_per_task=3", "cloud.kind=oracle"]


@pytest.mark.parametrize("setting", ["fleet", "single"])
def test_every_run_can_be_built_and_has_a_folder_of_its_own(setting: str, tmp_path: Path) -> None:
    arms = arms_of(setting, [*METHODS, *ABLATIONS, *BOUNDS])
    runs = runs_of(config_of(setting), arms, [7], tmp_path, ["cloud.kind=oracle"])
    assert len({run.config.folder for run in runs}) == len(runs) > 25
    assert len({to_yaml(replace(run.config, name="", run_dir="")) for run in runs}) == len(runs)  # no line does nothing
    for run in runs:
        build_parts(run.config)
        assert (run.config.name, run.config.seed, run.config.stream.seed) == (run.label, 7, 7)
    work = {(run.config.client["steps"], run.config.client["prompts"], run.config.client["group_size"]) for run in runs}
    assert len(work) == 1  # the same for every method


@pytest.mark.parametrize("setting", ["fleet", "single"])
def test_every_learner_is_tuned_over_eight_choices_on_validation_questions(setting: str, tmp_path: Path) -> None:
    assert set(GRIDS) == {method.tuned for method in (*METHODS, *ABLATIONS, *BOUNDS)}
    for learner in GRIDS:
        trials = trials_of(setting, learner, tmp_path, ["cloud.kind=oracle"])
        assert len({tuple(trial.choice.items()) for trial in trials}) == 8
        for trial in trials:
            assert trial.config.evaluation.split == "validation"
            assert trial.config.stream.seed not in range(5)  # those that are reported
            assert trial.config.client["lr"] == float(trial.choice["client.lr"])
        build_parts(trials[0].config)


def test_a_pretrained_model_meets_the_same_work_under_every_method_and_four_choices_of_each_learner(
    tmp_path: Path,
) -> None:
    methods = [method for method in METHODS if "smollm2" in method.settings]
    runs = runs_of(config_of("smollm2"), arms_of("smollm2", METHODS), [0], tmp_path)
    assert [run.label for run in runs] == [method.label for method in methods]
    assert {
        (run.config.client["prompts"], run.config.client["group_size"], run.config.engine.kind) for run in runs
    } == {(5, 4, "local")}
    heads = {run.label: run.config.client.get("head_ridge") for run in runs}
    assert heads["DA-GRPO"] == heads["GRPO, benefit head"] == 0.3  # what the config says to its own learner
    assert heads["GRPO, asks at random"] is heads["collaborative GRPO, explored"] is None  # is not said to others
    for learner in {method.tuned for method in methods}:
        trials = trials_of("smollm2", learner, tmp_path, [])
        assert len({tuple(trial.choice.items()) for trial in trials}) == 4
        assert {trial.config.evaluation.split for trial in trials} == {"validation"}


def test_what_was_chosen_is_what_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_plan, "TUNED", tmp_path)
    monkeypatch.setattr(tuning, "TUNED", tmp_path)
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "grpo.yaml").write_text(tuning._fragment({"client.lr": "0.0123"}, [0.5, 0.6]))
    method = next(m for m in METHODS if m.files == "grpo+random")
    (run,) = runs_of(config_of("single"), arms_of("single", [method]), [0], tmp_path)
    assert run.folder == tmp_path / "grpo+random-s0"  # as it always was
    assert run.config.client["lr"] == 0.0123


@pytest.mark.parametrize("setting", ["fleet", "single"])
def test_a_regime_is_one_change_over_what_was_tuned(setting: str, tmp_path: Path) -> None:
    found = {regime.name: regime_runs(setting, regime, [0], tmp_path, ["cloud.kind=oracle"]) for regime in REGIMES}
    (base, *_), (fast, *_), (small, *_) = (found[name] for name in ("as tuned", "fast", "small"))
    assert base.config.folder.parent == tmp_path / setting  # the very runs of the tables
    assert all(run.config.client["lr"] == 0.01 for run in found["fast"])
    assert (small.config.model.rank, small.config.client["lr"]) == (1, base.config.client["lr"])
    assert [run.config.rounds for run in found["long"]] == [108] * 4
    assert len(found["many"][0].config.stream.phases) == 5
    assert len({run.config.folder for runs in found.values() for run in runs}) == 4 * len(REGIMES)
    for run in found["unrelated"]:
        build_parts(run.config)
    assert fast.config.rounds == base.config.rounds


def test_the_last_quarter_of_a_phase() -> None:
    assert last_quarter(Phase("A", ("strings",), 1, 12)) == (10, 12)
    assert last_quarter(Phase("B", ("strings",), 13, 20)) == (19, 20)
    assert last_quarter(Phase("B", ("strings",), 5, 6)) == (6, 6)


def run_of(folder: Path, asked: dict[int, tuple[float, float]]) -> Config:
    """A run of two phases of 4 rounds, in which two devices asked so many times of ten."""
    settings = ["rounds=8", "stream.phases=[[arithmetic],[strings]]", "fleet.devices=2", "budget.tau=0.3"]
    config = load_config(None, [*settings, f"run_dir={folder}"])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    for round_, both in asked.items():
        rows = [
            Row(round_, f"device-00{k}", "arithmetic", "train", "own", "cloud_requests", total, 10.0)
            for k, total in enumerate(both)
        ]
        write_rows(folder / "rows" / f"round-{round_:05d}.parquet", rows)
    return config


def test_usage_by_phase_by_hand(tmp_path: Path) -> None:
    """Only rounds 4 and 8 count. Phase 1: (0.3 + 0.5) / 2, one of two above 0.35; phase 2: 0.2 and 0.3, none."""
    config = run_of(tmp_path / "run", {3: (9, 9), 4: (3, 5), 7: (0, 0), 8: (2, 3)})
    first, second = usage_by_phase([config])
    assert [first.usage.mean, first.above] == pytest.approx([0.4, 0.5])
    assert [second.usage.mean, second.above] == pytest.approx([0.25, 0.0])
    assert not within([first, second], 0.3)
    assert within([second], 0.3)
    assert usage_by_phase([run_of(tmp_path / "never", {4: (0, 0), 8: (0, 0)})]) == []


def test_what_a_switch_does_by_hand(tmp_path: Path) -> None:
    """Users 8 and 4 of 10 right at the end of phase 1, 6 and 4 a phase later: 60 to 50; B and round 3 do not count."""
    configs = []
    for seed in (0, 1):
        config = run_of(tmp_path / str(seed), {})
        for round_, both in {3: (0, 0), 4: (8, 4), 8: (6, 4)}.items():
            rows = [
                Row(round_, f"device-00{k}", task, "test", "global", name, total if task == "arithmetic" else 10, 10)
                for k, total in enumerate(both)
                for task in ("arithmetic", "strings")
                for name in ("accuracy", "alone_accuracy", "cloud_grants")
            ]
            write_rows(config.folder / "rows" / f"round-{round_:05d}.parquet", rows)
        configs.append(config)
    found = over_switch(configs)
    assert found["accuracy"] == pytest.approx((0.6, 0.5))
    assert set(found) == {"accuracy", "alone_accuracy", "cloud_grants"}
    assert "60.0 to 50.0, -10.0" in switch_table({"a method": found}, "A")


@pytest.mark.parametrize("against", ["oracle asks for GRPO", "GAPG"])
def test_what_cannot_be_paired_with_is_refused_before_any_run(
    against: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bound is no method; GAPG is one, but is not among those that are run."""
    with pytest.raises(SystemExit) as stopped:
        main(["--only", "DA-GRPO", "oracle asks for GRPO", "--against", against, "--root", str(tmp_path / "runs")])
    assert stopped.value.code == 2
    assert "--against" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_above_by_one_tenth_is_still_within() -> None:
    phase = Phase("A", ("strings",), 1, 4)
    assert within([PhaseUsage(phase, Interval(0.35, 0.3, 0.4), 0.1, 0.9)], 0.3)
    assert not within([PhaseUsage(phase, Interval(0.3, 0.3, 0.3), 0.11, 0.8)], 0.3)
    assert not within([PhaseUsage(phase, Interval(0.351, 0.3, 0.4), 0.0, 1.0)], 0.3)


@pytest.mark.slow
def test_the_command_tunes_runs_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two learners of the single setting, tuned, then two methods and a bound on two seeds; again, nothing."""
    tuned = tmp_path / "tuned"
    for module in (paper_plan, tuning):
        monkeypatch.setattr(module, "TUNED", tuned)
    common = ["--settings", "single", "--root", str(tmp_path / "runs"), "--jobs", "2", "--more", *TINY]
    assert main(["--tune", "--only", "DA-GRPO, fixed threshold", "GRPO, router", *common]) == 0
    assert "score on validation questions" in capsys.readouterr().out
    assert {file.stem for file in (tuned / "single").iterdir()} == {"da_grpo", "grpo"}
    only = ["--only", "DA-GRPO", "GRPO, router", "all tasks at once", "--seeds", "0", "1"]
    assert main([*only, *common]) == 0
    said = capsys.readouterr().out
    for words in ("forgets, relative", "minus DA-GRPO", "phase 2 (B)", "all tasks at once", "page: "):
        assert words in said
    folder = tmp_path / "runs" / "single-compared"
    assert {"page.html", "usage.png", "switch.png", "table.csv"} <= {file.name for file in folder.iterdir()}
    table = pd.read_csv(folder / "table.csv")
    assert len(table) >= 3
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs" / "single").rglob("*.parquet")}
    assert main([*only, *common]) == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}
    capsys.readouterr()
    assert main(["--only", "nothing imitated", "--seeds", "0", "1", *common]) == 0
    said = capsys.readouterr().out
    assert any(line.lstrip("| ").startswith("nothing imitated") for line in said.splitlines())
    assert main(["--regimes", "small", "--seeds", "0", "1", *common]) == 0
    said = capsys.readouterr().out
    assert "forgets, relative, alone" in said
    assert sum(line.startswith("|") and " small " in line for line in said.splitlines()) == 4
