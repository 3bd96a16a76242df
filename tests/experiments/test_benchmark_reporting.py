"""`flsim benchmark reporting`: rows of a few devices dealt out to many, and a line a part of their report."""

from pathlib import Path

from experiments.benchmark.reporting import deal_out, table
from experiments.benchmark.reporting_side import PARTS, Reported, in_a_process
from flsim.metrics.rows import FLEET, Row, read_rows, write_rows
from flsim.report.summary import read_summary

TASKS = ("arithmetic", "numbers", "strings", "lists")


def write_small(folder: Path) -> None:
    """Two devices, a round before training and one a phase, each with a test."""
    for round_ in range(4):
        rows = [Row(round_, FLEET, "all", "fleet", "fleet", "update_cosine", 0.5, 1)] if round_ else []
        for device in ("device-000", "device-001"):
            rows += [Row(round_, device, task, "test", "global", "accuracy", 15, 20) for task in TASKS]
            rows += [Row(round_, device, "lists", "train", "own", "cloud_requests", 4, 10)] if round_ else []
            rows += [Row(round_, device, "all", "train", "own", "dual_variable", 0.25, 1)] if round_ else []
        write_rows(folder / "rows" / f"round-{round_:05d}.parquet", rows)


def test_every_device_of_the_large_fleet_has_rows_and_tests_are_the_demo_s(tmp_path: Path) -> None:
    """Round 0 has 5 x 4 rows, a round 5 x 2 and one of the fleet, and 5 x 4 more in rounds 2, 4 and 6."""
    write_small(tmp_path / "small")
    assert deal_out(tmp_path / "small", tmp_path / "large", devices=5, rounds=6) == 20 + 6 * 11 + 3 * 20
    rows = read_rows(tmp_path / "large")
    assert sorted(set(rows["device"])) == [FLEET, *(f"device-{number:03d}" for number in range(5))]
    assert sorted(set(rows.loc[rows["split"] == "test", "round"])) == [0, 2, 4, 6]
    assert set(rows.loc[rows["name"] == "dual_variable", "total"]) == {0.25}
    accuracy = rows.loc[rows["name"] == "accuracy", "total"]
    assert accuracy.nunique() > 3
    assert 14 < accuracy.mean() < 16


def test_its_table_adds_the_parts_up() -> None:
    one = Reported({"rows read": 1.0, "summary": 0.5, "other": 0.25}, 2.0, 100 * 2**20)
    two = Reported({"rows read": 2.0, "summary": 0.5, "other": 0.25}, 3.0, 300 * 2**20)
    text = table([one, two])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    assert cells[2:] == [
        ["rows read", "1.50 (1.00..2.00)"],
        ["summary", "0.50 (0.50..0.50)"],
        ["other", "0.25 (0.25..0.25)"],
        ["all", "2.25 (1.75..2.75)"],
    ]
    assert text.endswith("2.5 (2.0..3.0) s on the clock, peak 200 (100..300) MB")


def test_the_report_is_written_in_a_process_of_its_own_and_every_part_is_timed(tmp_path: Path) -> None:
    write_small(tmp_path / "small")
    deal_out(tmp_path / "small", tmp_path / "large", devices=3, rounds=3)
    found = in_a_process(tmp_path / "large")
    assert set(found.parts) == {*PARTS.values(), "other"}
    assert all(seconds > 0 for seconds in found.parts.values())
    assert found.peak > 2**26
    assert read_summary(tmp_path / "large").devices == 3
