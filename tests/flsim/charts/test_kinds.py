"""Charts of users, cost, claims, time and systems: by hand, and equal to the numbers that summary and measures have."""

import math

import pytest

from flsim.charts.breakdown import break_down
from flsim.charts.chart import Chart, as_json
from flsim.charts.of_run import charts_of
from flsim.charts.systems import joules_by_class, system_charts
from flsim.charts.times import time_charts
from flsim.config.system import BUFFERED, EVERYBODY
from flsim.metrics.rows import Row, rows_frame
from flsim.metrics.run_rows import RunRows
from flsim.report.summarise import summarise_run
from flsim.tasks.stream import Phase
from flsim.timing import RoundTiming
from tests.flsim.metrics.system_rows import system_rows

PHASES = (Phase("A", ("arithmetic",), 1, 6),)
NOBODY = float("nan")


def run_of(rows: list[Row]) -> RunRows:
    return RunRows(rows_frame(rows), PHASES, NOBODY)


def by_name(run: RunRows) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts_of(run)}


def right(device: str, total: float, model: str = "global") -> Row:
    return Row(0, device, "words", "test", model, "accuracy", total, 10)


def test_users_are_sorted_by_each_model_and_keep_their_names() -> None:
    """Three users stand at 1/6, 1/2 and 5/6 of all; who is worst off with one model need not be with another."""
    rows = [right(device, total) for device, total in (("a", 9), ("b", 1), ("c", 5))]
    rows += [right(device, total, "random") for device, total in (("a", 2), ("b", 3), ("c", 1))]
    charts = by_name(run_of(rows))
    may_ask, at_random = charts["users"].lines
    assert (may_ask.users, may_ask.y) == (("b", "c", "a"), (0.1, 0.5, 0.9))
    assert (at_random.users, at_random.y) == (("c", "a", "b"), (0.1, 0.2, 0.3))
    assert may_ask.x == pytest.approx((1 / 6, 1 / 2, 5 / 6))
    assert may_ask.label == "may ask, mean 50 %"
    worst = charts["worst_users"]
    assert worst.categories == ("b", "c", "a")
    assert [line.y for line in worst.lines] == [(0.1, 0.5, 0.9), (0.3, 0.1, 0.2)]


def test_a_user_that_a_reference_was_not_measured_of_has_no_bar_there() -> None:
    charts = by_name(run_of([right("a", 9), right("b", 1), right("a", 2, "random")]))
    assert charts["worst_users"].lines[1].y == (None, 0.2)


def test_costs_are_sums_over_devices_in_a_unit_that_reads_well() -> None:
    """Two devices send 2 MB each in round 1 and one does in round 2."""
    sent = [(1, "a"), (1, "b"), (2, "a")]
    rows = [Row(round_, device, "all", "train", "own", "uplink_bytes", 2e6, 1) for round_, device in sent]
    chart = by_name(run_of(rows))["transfer"]
    assert [(line.name, line.x, line.y) for line in chart.lines] == [("up", (1.0, 2.0), (4.0, 2.0))]
    assert (chart.unit, chart.y_title) == ("MB", "MB per round, all devices")


def test_claims_are_dots_as_large_as_they_hold_prompts() -> None:
    """Of 60 prompts with the claim 0.25 a sixth are wrong, of 20 with 0.65 three in four."""
    sums = {"claimed_20": (15, 60), "wrong_claimed_20": (10, 60), "claimed_60": (13, 20), "wrong_claimed_60": (15, 20)}
    rows = [Row(0, "a", "all", "test", "global", name, *pair) for name, pair in sums.items()]
    charts = by_name(run_of(rows))
    dots, diagonal = charts["reliability"].lines
    assert dots.x == pytest.approx((0.25, 0.65))
    assert dots.y == pytest.approx((1 / 6, 0.75))
    assert dots.sizes == (0.75, 0.25)
    assert (diagonal.x, diagonal.y) == ((0.0, 1.0), (0.0, 1.0))
    assert charts["claims_made"].lines[0].y == (0, 0, 0.75, 0, 0, 0, 0.25, 0, 0, 0)
    assert charts["claims_made"].categories[2] == "20 to 30 %"


def timing(round_: int, parts: dict[str, float]) -> RoundTiming:
    return RoundTiming(round_, 2, sum(parts.values()) / 2, parts)


def test_columns_of_time_add_up_to_their_rounds() -> None:
    """Start and warm-up are told in words; a part below 1 % is in other."""
    parts = {"train": 3.0, "cloud": 1.0, "store": 0.01, "idle": 0.49}
    timings = [timing(0, {"evaluate": 8.0}), timing(1, {"train": 9.0}), *(timing(n, parts) for n in (2, 3))]
    each, mean = time_charts(timings)
    assert each.categories == ("2", "3")
    assert each.note == "Not shown and not in the mean: round 0, before training: 4.00 s; round 1, warm-up: 4.50 s."
    heights = {line.name: line.y for line in each.lines}
    assert heights["train"] == (1.5, 1.5)
    assert heights["other"] == pytest.approx((0.005, 0.005))
    assert [sum(value or 0.0 for value in column) for column in zip(*heights.values(), strict=True)] == [2.25, 2.25]
    assert mean.categories == ("train 67 %", "cloud 22 %", "idle 11 %", "store 0 %")
    assert math.fsum(value or 0.0 for value in mean.lines[0].y) == pytest.approx(break_down(timings).wall_s)
    assert time_charts([]) == []


@pytest.mark.parametrize("end", [EVERYBODY, BUFFERED])
def test_charts_of_a_system_have_the_numbers_of_its_summary(end: str) -> None:
    run = run_of(system_rows(end=end, away=0.3, seconds=3600.0))
    charts = {chart.name: chart for chart in system_charts(run)}
    assert {chart.group for chart in charts.values()} == {"joules", "participation", "day", "deadlines"}
    summary = summarise_run(run.rows, PHASES)
    fleet, work, _ = charts["classes"].lines
    assert charts["classes"].categories == tuple(one.name for one in summary.classes)
    assert fleet.y == pytest.approx([one.devices / summary.devices for one in summary.classes])
    assert work.y == pytest.approx([one.work for one in summary.classes])
    joules = joules_by_class(run).sum(axis=1)
    size = {"J": 1.0, "kJ": 1e3, "MJ": 1e6}[charts["joules"].unit]
    columns = zip(*(line.y for line in charts["joules"].lines), strict=True)
    stacked = [size * sum(value or 0.0 for value in own) for own in columns]
    assert stacked == pytest.approx(joules.reindex(charts["joules"].categories).tolist())
    curve = charts["participation"].lines[0]
    assert (curve.y[0], curve.y[-1], len(curve.y)) == (0.0, 1.0, summary.devices + 1)
    correct, answered = charts["deadlines"].lines[-1], charts["in_time"].lines[-1]
    assert correct.name == answered.name == "all"
    assert all((one or 0.0) <= (other or 0.0) for one, other in zip(correct.y, answered.y, strict=True))
    as_json(charts.values())  # nothing in it that JSON does not have


def test_a_run_without_a_system_says_nothing_of_it() -> None:
    assert system_charts(run_of([right("a", 1)])) == []
