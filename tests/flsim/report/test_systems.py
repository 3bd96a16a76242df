"""A run's page of devices as systems: what its pictures are made of, by hand, and where they are drawn at all."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.charts.systems import by_hour, joules_by_class
from flsim.metrics.measures import MEASURES
from flsim.metrics.rows import Row, fleet_row, rows_frame, write_rows
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import stints_of, work_of
from flsim.report.finish import finish_run
from flsim.report.round_figure import bars_of, shown_round
from flsim.report.summarise import summarise_run
from flsim.report.summary import read_summary
from flsim.report.system_figures import SYSTEM_FIGURES, system_figures
from flsim.report.system_pieces import system_pieces
from flsim.report.table import end_table
from flsim.tasks.stream import Phase
from flsim.text import duration, energy
from tests.flsim.metrics.system_rows import system_rows
from tests.tiny import TinyRun

PHASES = (Phase("A", ("arithmetic",), 1, 6),)
HOUR = 3600.0


def trained(round_: int, device: str, **values: float) -> list[Row]:
    return [Row(round_, device, "all", "train", "own", name, value, 1.0) for name, value in values.items()]


def small_rows() -> pd.DataFrame:
    """Rounds end at 10, 30 and 50 s; in round 3 c is late, and d, of whom nothing else is known, is older than that."""
    rows = [Row(0, d, "all", "user", "user", f"class_{kind}", 1.0, 1.0) for d, kind in zip("abc", "xyy", strict=True)]
    rows += [fleet_row(round_, "virtual_seconds", end) for round_, end in ((1, 10.0), (2, 30.0), (3, 50.0))]
    rows += trained(3, "a", round_seconds=9.0, link_seconds=2.0, compute_seconds=4.0, cloud_seconds=5.0, joules=7.0)
    rows += trained(1, "d", round_seconds=25.0, link_seconds=5.0, compute_seconds=20.0)
    rows += trained(3, "b", round_seconds=20.0, link_seconds=5.0, up_seconds=1.0, compute_seconds=15.0, joules=8.0)
    rows += trained(3, "c", round_seconds=30.0, compute_seconds=30.0, waited_seconds=2.0, joules=10.0, late=1.0)
    return rows_frame([*rows, *trained(3, "b", radio_joules=2.0), *trained(3, "c", radio_joules=4.0)])


def test_bars_of_a_round_by_hand() -> None:
    """c waits 2 s from the 30th on and stops at the 50th; a overlaps 2 of 5 s in the cloud with computing."""
    bars = bars_of(small_rows(), 3).set_index("device")
    assert bars.index.tolist() == ["b", "c", "a"]
    assert bars["class"].tolist() == ["y", "y", "x"]  # y computes for longer
    assert set(bars["start"]) == {30.0}
    assert bars["cloud"].to_dict() == {"a": 3.0, "b": 0.0, "c": 0.0}
    assert [bars[part].to_dict()["b"] for part in ("down", "compute", "up")] == [4.0, 15.0, 1.0]
    assert bars["compute"].to_dict() == {"a": 4.0, "b": 15.0, "c": 18.0}
    assert bars["done"].to_dict() == {"a": 39.0, "b": 50.0, "c": 50.0}
    assert bars["wasted"].to_dict() == {"a": False, "b": False, "c": True}


def test_bars_of_a_buffered_round_reach_back() -> None:
    """d was asked at 0 s and is done in round 2, at 25 s; in round 3 it is at work no more, and c works on."""
    rows = pd.concat([small_rows(), rows_frame([fleet_row(3, "dropped", 0.0, 1.0)])])
    (late,) = bars_of(rows, 2).to_dict("records")
    assert [late[name] for name in ("device", "class", "start", "done")] == ["d", "untested", 0.0, 25.0]
    bars = bars_of(rows, 3).set_index("device")
    assert bars["done"].to_dict() == {"b": 50.0, "c": 62.0, "a": 39.0}
    assert shown_round(rows) == 3


def test_work_of_an_update_that_came_too_old_did_not_count() -> None:
    """It came in round 3, 2 versions old, so what was done for it stands in round 1."""
    work = {round_: trained(round_, "d", sampled_tokens=10.0 * round_) for round_ in (1, 2, 3)}
    rows = [*work[1], *work[2], *work[3], *trained(3, "d", staleness=2.0)]
    rows.append(Row(3, "d", "stale", "train", "own", "set_aside", 1.0, 1.0))
    assert work_of(rows_frame(rows)).to_dict() == {"d": 50.0}


def test_joules_of_a_class_are_means_over_those_who_took_part() -> None:
    found = joules_by_class(RunRows(small_rows(), PHASES, 0.3))
    assert found.index.tolist() == ["y", "x"]
    assert found["radio_joules"].tolist() == [3.0, 0.0]


def test_devices_at_work_over_a_day_by_hand() -> None:
    """Two of a day and a half work from 1 h to 2 h and from 25 h to 25.5 h: 1 at 1.1 h, a half at 1.6 h."""
    spans = pd.DataFrame({"begun": [HOUR, 25 * HOUR], "done": [2 * HOUR, 25.5 * HOUR]})
    busy = by_hour(spans, 36 * HOUR)
    assert (busy[4], busy[6], busy[0], busy[8]) == (1.0, 0.5, 0.0, 0.0)
    assert np.isnan(by_hour(spans, HOUR)[5])
    own = stints_of(small_rows()).set_index("device").to_dict("index")
    assert [own["c"][name] for name in ("invited", "begun", "done")] == [30.0, 32.0, 50.0]


@pytest.mark.parametrize("end", ["all", "first", "buffered"])
def test_pictures_of_every_end_are_drawn(end: str) -> None:
    rows = rows_frame(system_rows(end=end, away=0.3, seconds=3600.0))
    drawn = system_figures(RunRows(rows, PHASES, 0.3))
    assert list(drawn) == [file for file, _, _ in SYSTEM_FIGURES]
    assert all(draw().axes for draw in drawn.values())


def test_many_devices_are_summarised_by_class() -> None:
    rows = rows_frame(system_rows(devices=300, cohort=90, rounds=2, end="first"))
    drawn = system_figures(RunRows(rows, PHASES, 0.3))
    figure = drawn["round.png"]()
    assert [label.get_text().split(":")[0] for label in figure.axes[0].get_yticklabels()] == ["low", "mid", "high"]
    assert figure.get_figheight() < 4
    assert "day.png" not in drawn  # nobody was waited for


def test_page_summary_and_table(tmp_path: Path) -> None:
    rows = system_rows()
    for round_ in range(7):
        write_rows(tmp_path / "rows" / f"round-{round_:05d}.parquet", [row for row in rows if row.round == round_])
    summary = finish_run(tmp_path, phases=PHASES, tau=0.3)
    assert read_summary(tmp_path) == summary
    assert [one.name for one in summary.classes] == ["low", "mid", "high"]
    assert sum(one.work or 0.0 for one in summary.classes) == pytest.approx(1.0)
    assert summary.classes[0].joules is not None
    assert summary.measured["busiest_share"] > 0.3
    assert "virtual time" in end_table(summary)
    page = (tmp_path / "report.html").read_text()
    for _, title, _ in SYSTEM_FIGURES[:3]:
        assert f"<h2>{title}</h2>" in page
    assert "<h2>Day and night</h2>" not in page


def test_without_a_system_there_is_nothing_new_but_the_counts() -> None:
    own = re.compile("virtual|class_|seconds|joules|within|staleness")
    rows = rows_frame([row for row in system_rows() if not own.search(row.name)])
    summary = summarise_run(rows, PHASES, tau=0.3)
    assert system_figures(RunRows(rows, PHASES, 0.3)) == {}
    assert summary.classes == ()
    assert "responses: 100.0 tokens" in end_table(summary)
    assert {MEASURES[name].table for name in summary.measured} == {"work"}
    assert [piece for piece in system_pieces(summary) if "<h2>" in piece] == []


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_real_run_has_its_pictures(tiny_run: TinyRun) -> None:
    config = tiny_run("real", "system.end.kind=first", "fleet.devices=6", "fleet.cohort=2", "client.group_size=2")
    flsim.run(config, progress=False)
    drawn = {path.name for path in (config.folder / "plots").glob("*.png")}
    assert {"round.png", "joules.png", "participation.png", "deadlines.png"} <= drawn
    summary = read_summary(config.folder)
    assert sum(one.devices for one in summary.classes) == 6
    assert {"virtual_end", "waste_share", "question_seconds", "right_within_2s"} <= set(summary.measured)
    assert [one.reason for one in summary.set_aside] == ["late", "late"]  # of three that are invited in each round


def test_times_and_energies_as_people_read_them() -> None:
    assert [duration(value) for value in (0.25, 80.0, 90.0, 5400.0, 200_000.0)] == [
        *("250 ms", "80.0 s", "1.50 min", "1.50 h", "2.31 d"),
    ]
    assert [energy(value) for value in (0.0, 0.5, 12.0, 2_500_000.0)] == ["0.00 J", "0.50 J", "12.0 J", "2.50 MJ"]
