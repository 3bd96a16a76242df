"""Recorded outcomes as whole tiny runs: what the router learns, what a rule is measured by, and the command itself."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.pretrain.reader import make_reader
from experiments.study.plan import by_label
from experiments.study.real_outcomes import CALIBRATED, MEASURES, OWN, RULES, domain_runs, main
from experiments.study.rules import learned, met
from experiments.study.shared import trainings_of
from experiments.study.tables import gap_of
from flsim import compare
from flsim.comparison.result import gap_recovered_difference
from flsim.comparison.table import gap_text
from flsim.metrics.rows import evaluation, latest, read_rows
from flsim.metrics.rows import training as training_rows
from flsim.metrics.users import per_user
from flsim.problems.problem import Problem
from flsim.problems.recorded import RECORDED, Record
from flsim.tasks.stream import stream_of
from tests.experiments.recorded_world import SHORT, write_tables

SMALL = ("rounds=2", "fleet.devices=3", "client.steps=2", "client.prompts=4", "evaluation.prompts_per_task=10")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Folder with tables and a reader."""
    folder = tmp_path_factory.mktemp("recorded")
    write_tables(folder)
    make_reader(folder, folder / "reader", SHORT)
    return folder


def settings(world: Path, domain: str) -> list[str]:
    tables = {"gsm8k": "replay_gsm8k", "mmlu": "router_mmlu", "code": "replay_crux"}
    names = tables if domain == "domains" else [domain]
    return [*SMALL, f"model.path={world / 'reader'}", *(f"data.{name}.root={world / tables[name]}" for name in names)]


def problem(text: str, record: Record) -> Problem:
    return Problem("maths", "", 1, text, record.text, verifier=RECORDED)


def test_the_router_learns_where_only_the_cloud_is_right() -> None:
    """Short texts of two kinds; where both are wrong, or both right, there is no need."""
    lessons = [problem(f"hard {n}", Record(False, True)) for n in range(20)]
    lessons += [problem(f"easy {n}", Record(n % 2 == 0, n % 2 == 0)) for n in range(20)]
    score = learned(lessons, 1.0)
    found = score(SimpleNamespace(questions=("hard 77", "easy 77")))  # type: ignore[arg-type]
    assert found[0] > 0.5 > found[1]
    alike = learned(lessons[:20], 1.0)
    assert not alike(SimpleNamespace(questions=("hard 77", "easy 77"))).any()  # type: ignore[arg-type]


@pytest.mark.slow
def test_one_training_its_rules_and_what_they_are_paired_by(world: Path, tmp_path: Path) -> None:
    """The device alone is the same under every rule; the oracle is above all; a rule's wishes are its own."""
    runs = domain_runs("gsm8k", [0], tmp_path, settings(world, "gsm8k"))
    (training,) = trainings_of([run.config for run in runs])
    training.run()
    own = runs[0]
    assert (own.label, own.folder) == (OWN, tmp_path / "gsm8k-s0")  # as it always was
    rows = read_rows(own.folder)
    assert set(training_rows(rows, name="cloud_calls")["device"]) == {"device-000", "device-001", "device-002"}
    cloud = per_user(evaluation(rows, model="cloud", name="accuracy"))
    assert (cloud == 1.0).all()  # so the tables say
    found = compare([], labels=by_label(runs), against=CALIBRATED, measures=MEASURES)
    assert tuple(result.label for result in found.results) == tuple(RULES)
    alone = [result.means["alone_accuracy"].mean for result in found.results]
    assert np.ptp(alone) < 1e-12
    best = found.of("oracle")
    for result in found.results:
        assert result.means["sending_30"].mean <= best.means["sending_30"].mean + 1e-12
    items = found.of("at random").users[0]["test_prompts"]  # 10, or all that a device has
    sent = (0.3 * items + 1e-9) // 1 / items
    assert found.of("at random").means["wishes"].mean == pytest.approx(sent.mean())
    assert found.of("at random").means["within"].mean == pytest.approx(((sent - 0.3).abs() <= 0.03).mean())
    wishes = per_user(latest(evaluation(rows, model="global", name="cloud_requests")))
    pd.testing.assert_series_equal(found.of(OWN).users[0]["wishes"], wishes, check_names=False)
    gap = gap_recovered_difference(best.users, found.of(CALIBRATED).users)
    assert gap is not None
    assert gap.mean == pytest.approx(best.means["apgr"].mean - found.of(CALIBRATED).means["apgr"].mean)
    assert gap_of(found, best, CALIBRATED, "apgr") == gap_text(gap)


def test_lessons_are_what_the_devices_met(world: Path, tmp_path: Path) -> None:
    """Two rounds of two steps with four prompts, all of the device's own training questions."""
    config = domain_runs("mmlu", [1], tmp_path, settings(world, "mmlu"))[0].config
    stream = stream_of(config)
    lessons = met(config, stream)
    assert {device: len(own) for device, own in lessons.items()} == {0: 16, 1: 16, 2: 16}
    assert lessons[1][:4] == stream.training_problems("device-001", 1, 0, count=4, seed=1)
    tests = {p.question for p in stream.evaluation_problems("device-001", "test", per_task=10)["mmlu"]}
    assert not tests & {p.question for own in lessons.values() for p in own}


@pytest.mark.slow
def test_the_command_runs_all_domains_and_does_nothing_twice(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for domain in ("gsm8k", "mmlu", "code", "domains"):
        more = settings(world, domain) + (["rounds=4"] if domain == "domains" else [])
        arguments = ["--domains", domain, "--seeds", "0", "--root", str(tmp_path), "--more", *more]
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert f"## {domain}" in said
        assert "router, all outcomes" in said
        stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / f"{domain}-s0").rglob("*.parquet")}
        assert main(arguments) == 0
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
        assert capsys.readouterr().out == said
    assert (tmp_path / "spending.png").stat().st_size > 10_000
    assert "C: code" in (tmp_path / "tables.md").read_text()
