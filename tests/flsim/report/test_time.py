"""Where the time went: nothing is lost between the timing files and the table, the picture and the page."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flsim.charts.breakdown import MEANING, break_down, columns_of, drawn_parts, wall_parts
from flsim.metrics.rows import Row, write_rows
from flsim.report.finish import finish_run
from flsim.report.plot import drawing_style, save_figure
from flsim.report.table import time_table
from flsim.report.time_figure import LOOKS, time_figure
from flsim.tasks.stream import Phase
from flsim.text import seconds
from flsim.timing import PARTS, RoundTiming, write_timing

PHASES = (Phase("A", ("arithmetic",), 1, 4),)
SECONDS = st.floats(0.0, 50.0).map(lambda value: round(value, 4))


def timing(round_: int, workers: int, parts: dict[str, float]) -> RoundTiming:
    """A round whose parts add up to its workers' time."""
    return RoundTiming(round_, workers, sum(parts.values()) / workers, parts)


def realistic(rounds: int) -> list[RoundTiming]:
    """Round 0, a slow warm-up, and rounds of which every fourth is evaluated."""
    timings = [timing(0, 2, {"evaluate": 9.0, "other": 9.0})]
    for number in range(1, rounds + 1):
        parts = {"rollout": 2.0, "cloud": 0.3, "train": 2.4, "store": 0.01, "idle": 0.4}
        parts |= {"evaluate": 1.6} if number % 4 == 0 else {}
        parts |= {"other": 8.0} if number == 1 else {}
        timings.append(timing(number, 2, parts))
    return timings


@st.composite
def runs(draw: st.DrawFn) -> list[RoundTiming]:
    """Neighbouring rounds of a run with any parts, one of them unknown; a round takes some time."""
    first, workers = draw(st.integers(0, 2)), draw(st.integers(1, 4))
    parts = st.dictionaries(st.sampled_from([*PARTS, "novel"]), SECONDS).map(lambda found: {"train": 0.5, **found})
    timings = [timing(first + n, workers, found) for n, found in enumerate(draw(st.lists(parts, min_size=1)))]
    return [one if one.wall_s > 0 else timing(one.round, workers, {"idle": 0.1}) for one in timings]


@given(runs())
def test_the_mean_round_loses_nothing(timings: list[RoundTiming]) -> None:
    """Shares sum to 1, wall pieces to the wall, worker-seconds to workers times wall; no part is left out."""
    found = break_down(timings)
    assert sum(part.share for part in found.parts) == pytest.approx(1.0)
    assert sum(part.wall_s for part in found.parts) == pytest.approx(found.wall_s)
    assert sum(part.worker_s for part in found.parts) == pytest.approx(found.workers[0] * found.wall_s)
    assert [part.name for part in found.parts][: len(PARTS)] == list(PARTS)
    apart = [one.round for one in (found.start, found.warm_up) if one is not None]
    assert sorted([*apart, *found.rounds]) == [one.round for one in timings]


@given(runs())
def test_the_picture_loses_nothing(timings: list[RoundTiming]) -> None:
    """Every column is as high as its round, whatever is drawn as `other`."""
    found = break_down(timings)
    columns = columns_of(timings, found, drawn_parts(found))
    assert [column.height for column in columns] == pytest.approx([one.wall_s for one in timings])


def test_the_mean_round_by_hand() -> None:
    """Rounds 2 and 3 by two workers: 1 s with 1 worker-second of training, 3 s with 3, the rest is waiting.

    The mean round is (1 + 3) / 2 = 2 s; training is (1 + 3) / 2 = 2 of 2 * 2 worker-seconds, a half, 1 s of the wall.
    Round 0 and round 1, ten times as long, change none of it.
    """
    timings = [
        timing(0, 2, {"evaluate": 40.0}),
        timing(1, 2, {"train": 20.0, "other": 20.0}),
        timing(2, 2, {"train": 1.0, "idle": 1.0}),
        timing(3, 2, {"train": 3.0, "idle": 3.0}),
    ]
    found = break_down(timings)
    train = next(part for part in found.parts if part.name == "train")
    assert (found.wall_s, train.worker_s, train.wall_s, train.share) == (2.0, 2.0, 1.0, 0.5)
    assert (found.start, found.warm_up, found.rounds) == (timings[0], timings[1], (2, 3))
    assert found.evaluated == 0


def test_what_there_is_is_measured_if_there_is_nothing_else() -> None:
    start, warm_up = timing(0, 1, {"evaluate": 1.0}), timing(1, 1, {"train": 1.0})
    assert break_down([start]).rounds == (0,)
    assert break_down([start, warm_up]).rounds == (1,)
    assert "(round 1 alone, warm-up included)" in time_table(break_down([warm_up]))


def test_a_resumed_run_may_have_changed_its_workers() -> None:
    """2 worker-seconds are 1 s of two workers and 2 s of one; the wall's pieces still add up to the wall."""
    timings = [timing(n, workers, {"train": 2.0}) for n, workers in ((1, 2), (2, 2), (3, 1))]
    found = break_down(timings)
    assert found.workers == (1, 2)
    assert found.wall_s == sum(part.wall_s for part in found.parts) == 1.5
    assert "on 1 or 2 workers" in time_table(found)


def test_every_part_has_its_meaning_and_a_look_of_its_own() -> None:
    assert set(MEANING) == set(LOOKS) == set(PARTS)
    assert len(set(LOOKS.values())) == len({colour for colour, _ in LOOKS.values()}) == len(PARTS)


def test_many_rounds_share_columns() -> None:
    """400 rounds without the warm-up are 399: seven in a column make 57 columns, whose mean is the mean round's."""
    timings = realistic(400)
    found = break_down(timings)
    columns = columns_of(timings, found, drawn_parts(found))
    assert len(columns) == 57
    assert (columns[0].first, columns[-1].last) == (2, 400)
    whole = sum(column.height * (column.last - column.first + 1) for column in columns)
    assert whole / 399 == pytest.approx(found.wall_s)


def test_small_parts_are_drawn_as_other_and_listed_by_name() -> None:
    """A store of 0.01 in 5 worker-seconds is 0.2 %."""
    found = break_down(realistic(4))
    assert "store" not in drawn_parts(found)
    assert drawn_parts(found) == ["rollout", "cloud", "train", "evaluate", "idle", "other"]
    lines = time_table(found).splitlines()
    assert {line.split(" ")[0] for line in lines} >= set(PARTS)


def test_the_table_fits_a_terminal_and_begins_with_the_largest_part() -> None:
    lines = time_table(break_down(realistic(4))).splitlines()
    assert max(len(line) for line in lines) <= 100
    heading = next(number for number, line in enumerate(lines) if line.startswith("part"))
    assert lines[heading + 2].startswith("train")
    assert lines[heading + 2].count("█") == 24
    assert lines[-1].split()[-2:] == ["100.0", "%"]
    text = " ".join(lines)
    assert "1 of 3 held an evaluation" in text
    assert "the warm-up (round 1, 6.55 s) and the measurement before training (round 0, 9.00 s)" in text


@pytest.mark.parametrize(
    ("value", "text"), [(125.3, "125 s"), (12.34, "12.3 s"), (3.14159, "3.14 s"), (0.9996, "1.00 s"), (0.0123, "12 ms")]
)
def test_times_are_written_for_people(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize("rounds", [0, 1, 2, 36, 150])
def test_the_picture_shows_something_for_few_and_many_rounds(tmp_path: Path, rounds: int) -> None:
    timings = realistic(rounds)
    with drawing_style():
        save_figure(time_figure(timings, break_down(timings)), tmp_path / "time.png")
    with Image.open(tmp_path / "time.png") as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    assert pixels.shape[1] == 1200
    assert 0.05 < (pixels < 200).mean() < 0.8


def write_run(run_dir: Path) -> None:
    for number in range(5):
        write_rows(
            run_dir / "rows" / f"round-{number:05d}.parquet",
            [Row(number, "device-000", "arithmetic", "test", "global", "accuracy", 3.0, 4.0)],
        )


def test_the_page_of_a_timed_run_has_the_panel_and_the_summary_has_no_times(tmp_path: Path) -> None:
    """The same rows give the same summary and the same other pictures, with timing files and without."""
    write_run(tmp_path)
    summary = finish_run(tmp_path, phases=PHASES, tau=None)
    before = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    page = (tmp_path / "report.html").read_text()
    assert "Where the time went" not in page
    assert "time.png" not in before
    timings = realistic(4)
    for one in timings:
        write_timing(tmp_path, one)
    assert finish_run(tmp_path, phases=PHASES, tau=None) == summary
    after = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"time.png"}
    timed = (tmp_path / "report.html").read_text()
    assert [name for name in ("time", "mean_round") if f'data-chart="{name}"' in page] == []
    assert [name for name in ("time", "mean_round") if f'data-chart="{name}"' in timed] == ["time", "mean_round"]
    panel = timed.split("Where the time went", 1)[1].split("<h2>", 1)[0]
    cells = re.findall(r"<tr[^>]*><td>(.*?)</td><td>(.*?)</td>", panel)
    assert {name.split(":")[0] for name, _ in cells} == {*PARTS, "all"}
    mean = sum(sum(wall_parts(one).values()) for one in timings[2:]) / 3
    assert dict(cells)["all"] == f"{mean:.3f}"
