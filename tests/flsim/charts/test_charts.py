"""Charts of a run as data: numbers by hand and equal to the summary's, JSON that anybody reads, pieces that hold."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from flsim.charts import pieces
from flsim.charts.chart import Chart, Line, as_json, numbers, phase_marks
from flsim.charts.of_run import charts_of
from flsim.metrics.rows import Row, read_rows, rows_frame
from flsim.metrics.run_rows import RunRows
from flsim.report.summarise import summarise_run
from flsim.tasks.stream import Phase
from tests.flsim.report.test_run import TAU, write_run

PHASES = (Phase("A", ("words",), 1, 2), Phase("B", ("lists",), 3, 4))


def users_right(round_: int, device: str, right: float, model: str = "global", name: str = "accuracy") -> Row:
    return Row(round_, device, "words", "test", model, name, right, 10)


def charts_by_name(rows: Sequence[Row], tau: float = float("nan")) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts_of(RunRows(rows_frame(rows), PHASES, tau))}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> RunRows:
    folder: Path = tmp_path_factory.mktemp("made-up")
    phases = write_run(folder)
    return RunRows(read_rows(folder), phases, TAU)


def test_accuracy_of_two_users_by_hand() -> None:
    """2 and 8 of 10 right have the mean 0.5; between two users the 10th percentile is 0.2 + 0.1 * 0.6."""
    rows = [users_right(0, "device-000", 1), users_right(0, "device-001", 3)]
    rows += [
        users_right(1, "device-000", 2),
        users_right(1, "device-001", 8),
        users_right(0, "device-000", 9, model="cloud"),
    ]
    chart = charts_by_name(rows)["accuracy"]
    line, cloud = chart.lines
    assert chart.title == "Accuracy"  # nobody was tested alone: there is no cloud to do without
    assert (line.name, line.label, line.x) == ("global", "global 50 %", (0.0, 1.0))
    assert line.y == pytest.approx((0.2, 0.5))
    assert (line.low[1], line.high[1]) == pytest.approx((0.26, 0.74))
    assert (cloud.label, cloud.y, cloud.dashed) == ("cloud LLM 90 %", (0.9, 0.9), True)


def test_usage_stands_beside_its_budget_only_where_there_is_one() -> None:
    rows = [Row(1, "device-000", "words", "train", "own", "cloud_requests", 3, 12)]
    asked, budget = charts_by_name(rows, tau=0.3)["usage"].lines
    assert (asked.label, asked.y, budget.label, budget.y) == ("asked 25 %", (0.25,), "budget τ = 30 %", (0.3,))
    assert [line.name for line in charts_by_name(rows)["usage"].lines] == ["asked"]


def test_a_run_without_rows_of_a_measure_has_no_chart_of_it() -> None:
    assert set(charts_by_name([users_right(0, "device-000", 1)])) == {"accuracy", "users", "worst_users"}
    assert set(charts_by_name([users_right(0, "device-000", 1, model="random")])) == {"users"}


def test_phases_are_marked_as_far_as_the_run_has_come() -> None:
    marks = phase_marks(PHASES, 3)
    assert [(mark.begins, mark.ends, mark.name) for mark in marks] == [(0.5, 2.5, "A"), (2.5, 3.5, "B")]
    assert phase_marks(PHASES, 0) == ()


def test_numbers_of_curves_are_those_of_the_summary(made_up: RunRows) -> None:
    charts = {chart.name: chart for chart in charts_of(made_up)}
    summary = summarise_run(made_up.rows, made_up.phases, tau=TAU)
    for name in ("accuracy", "alone_accuracy"):
        line, at_end = charts[name].lines[0], summary.at_end["global"][name]
        assert line.x[-1] == at_end.round
        assert (line.y[-1], line.low[-1], line.high[-1]) == pytest.approx((at_end.user_mean, at_end.p10, at_end.p90))
    frozen = next(line for line in charts["alone_accuracy"].lines if line.name == "frozen, alone")
    assert frozen.y[0] == pytest.approx(summary.at_end["frozen"]["alone_accuracy"].user_mean)


def test_json_is_read_back_as_it_was(made_up: RunRows) -> None:
    charts = charts_of(made_up)
    read = json.loads(as_json(charts))
    assert [one["name"] for one in read] == [chart.name for chart in charts]
    assert read[0]["lines"][0]["y"] == list(charts[0].lines[0].y)
    assert as_json(charts) == as_json(charts_of(made_up))
    assert numbers([1.0, float("nan"), float("inf")]) == (1.0, None, None)


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!-- <script>", "a & b", "\u2028", "\"'\\"])
def test_no_name_breaks_out_of_the_page(name: str) -> None:
    chart = Chart("users", "users", name, "", "", (Line(name, (0.0,), (0.5,), "#000000", users=(name,)),))
    piece = pieces.data([chart])
    inside = re.fullmatch(r"<script type=\"application/json\" data-flsim-charts>(.*)</script>", piece)
    assert inside is not None
    assert not re.search("[<>&\u2028\u2029]", inside[1])
    assert json.loads(inside[1])[0]["lines"][0]["users"] == [name]
    place = pieces.place(f'" onclick="{name}', name)
    assert "<script" not in place
    assert "onclick" not in re.sub('"[^"]*"', "", place)


def test_embedded_scripts_are_whole_and_the_page_may_run_no_other() -> None:
    found = re.findall(r"<script>(.*?)</script>", pieces.scripts(), re.S)
    assert found == [pieces.library_text(), pieces.script_text()]
    assert "Chart.js v4" in found[0]
    assert "sourceMappingURL" not in found[0]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
    assert pieces.script_sources() == " ".join(f"'sha256-{digest}'" for digest in digests)
    licence = Path(pieces.__file__).parent / "vendored" / "LICENSE.md"
    assert "MIT" in licence.read_text()
