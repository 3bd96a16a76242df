"""Tables of a study by hand: means and pairs over users and seeds, values by seed, and a measure of one's own."""

from pathlib import Path

import pytest

from experiments.study import STUDIES
from experiments.study.__main__ import main as study_main
from experiments.study.tables import measures_table, paired_table, seeds_table
from flsim import compare
from flsim.comparison.compare import Comparison
from flsim.config.load import load_config, to_yaml
from flsim.metrics.measures import Measure
from flsim.metrics.rows import Row, fleet_row, write_rows
from flsim.metrics.run_rows import RunRows


def finished_run(folder: Path, seed: int, rank: int, accuracies: tuple[float, ...]) -> Path:
    """A run of one round in which each device is right on so much of ten prompts; the fleet has a `gain`."""
    users = [f"fleet.devices={len(accuracies)}", f"seed={seed}", f"stream.seed={seed}", f"model.rank={rank}"]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(load_config(None, ["rounds=1", *users])))
    rows = [
        Row(1, f"device-00{k}", "arithmetic", "test", "global", "accuracy", 10 * accuracy, 10)
        for k, accuracy in enumerate(accuracies)
    ]
    write_rows(folder / "rows" / "round-00001.parquet", [*rows, fleet_row(1, "gain", seed + 1.0)])
    return folder


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    accuracies = {"old": [(0.4, 0.6), (0.5, 0.7)], "new": [(0.6, 0.5), (0.7, 0.9)]}
    labels = {
        label: [finished_run(tmp_path / f"{label}{seed}", seed, rank, own) for seed, own in enumerate(of_seeds)]
        for rank, (label, of_seeds) in enumerate(accuracies.items(), start=1)
    }
    return compare([], labels=labels, against="old", alone="old")


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if not set(line) <= set("|-: ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_table_by_hand(found: Comparison) -> None:
    """Old: (0.5 + 0.6) / 2 = 55 %; new: (0.55 + 0.8) / 2 = 67.5 %; by 0.2, -0.1, 0.2 and 0.2: one of 4 is hurt."""
    head, old, new = cells(measures_table(found, ["accuracy", "worst_decile_mean", "harm_rate"], against=["old"]))
    assert head[0] == "method"
    assert head[-1] == "accuracy minus old"
    assert old[1].startswith("55.0 (")
    assert new[1].startswith("67.5 (")
    assert new[2:4] == ["60.0 %", "25.0 %"]
    assert old[4] == ""
    assert new[4].startswith("+12.5 (")


def test_pairs_by_hand_in_both_directions(found: Comparison) -> None:
    assert cells(paired_table(found, ["accuracy"]))[1][1].startswith("+12.5 (")
    assert cells(paired_table(found, ["accuracy"], against="new"))[1][1].startswith("-12.5 (")


def test_seeds_by_hand(found: Comparison) -> None:
    """New: 55 % and 80 %, which differ by 25, a standard deviation of 25 / sqrt(2) = 17.7."""
    _, old, new = cells(seeds_table(found, ["accuracy"]))
    assert old == ["old", "accuracy", "50.0 %", "60.0 %", "55.0 %", "7.1 %"]
    assert new == ["new", "accuracy", "55.0 %", "80.0 %", "67.5 %", "17.7 %"]


def test_a_measure_of_ones_own(found: Comparison) -> None:
    """The fleet has 1 in the run of seed 0 and 2 in that of seed 1."""

    def mean(run: RunRows) -> float:
        return float(run.rows.loc[run.rows["name"] == "gain", "total"].mean())

    gain = Measure("gain", "gain", "index", "What the fleet has.", mean)
    folders = {result.label: [run.folder for run in result.method.runs] for result in found.results}
    again = compare([], labels=folders, measures=[gain])
    assert [line[1] for line in cells(measures_table(again, [gain]))] == ["gain", "1.500", "1.500"]


@pytest.mark.parametrize("study", STUDIES)
def test_a_planned_study_is_a_word_of_the_command(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        study_main([study, "--help"])
    assert stopped.value.code == 0
    assert f"flsim study {study}" in capsys.readouterr().out
