"""The summary, the table and small parts of figures, on a run of two devices whose every number is derived by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.files import DamagedFileError
from flsim.metrics.rows import Row, rows_frame
from flsim.metrics.run_rows import last_third
from flsim.report.plot import spread
from flsim.report.stream_figure import by_mix, mix_picture
from flsim.report.summarise import ordered_tasks, summarise_run
from flsim.report.summary import SetAside, Summary, read_summary, write_summary
from flsim.report.table import answer, end_table
from flsim.tasks.stream import Phase
from flsim.text import data_size, percent, points

PHASES = (Phase("A", ("arithmetic",), 1, 3), Phase("B", ("strings",), 4, 6), Phase("C", ("lists",), 7, 9))
ONE, TWO = "device-000", "device-001"


def evaluated(round_: int, model: str, name: str, values: dict[str, tuple[float, float]]) -> list[Row]:
    """Out of 10 prompts, the numbers of `ONE` and `TWO` per task."""
    pairs = [
        (device, task, total) for task, both in values.items() for device, total in zip((ONE, TWO), both, strict=True)
    ]
    return [Row(round_, device, task, "test", model, name, total, 10) for device, task, total in pairs]


def trained(round_: int, device: str, name: str, total: float, weight: float = 1, task: str = "all") -> Row:
    return Row(round_, device, task, "train", "own", name, total, weight)


def two_devices() -> pd.DataFrame:
    """Six rounds of nine planned ones; evaluated at 0, 3 and 6."""
    rows = [
        *evaluated(0, "random", "accuracy", {"arithmetic": (4, 4), "strings": (4, 2)}),
        *evaluated(0, "frozen", "alone_accuracy", {"arithmetic": (2, 2), "strings": (2, 0)}),
        *evaluated(0, "global", "accuracy", {"arithmetic": (3, 3), "strings": (3, 3)}),
        *evaluated(3, "global", "accuracy", {"arithmetic": (9, 7), "strings": (3, 3)}),
        *evaluated(6, "global", "accuracy", {"arithmetic": (6, 4), "strings": (8, 2)}),
        *evaluated(6, "global", "alone_accuracy", {"arithmetic": (5, 3), "strings": (6, 2)}),
        *evaluated(6, "global", "cloud_grants", {"arithmetic": (3, 1), "strings": (2, 2)}),
    ]
    for round_, (first, second) in enumerate([(8, 4), (6, 4), (4, 2), (8, 8), (6, 6), (3, 5)], start=1):
        rows += [trained(round_, ONE, "cloud_requests", first, 10, "arithmetic")]
        rows += [trained(round_, TWO, "cloud_requests", second, 20, "arithmetic")]
        rows += [trained(round_, device, "cloud_calls", 5) for device in (ONE, TWO)]
    rows += [trained(2, TWO, "set_aside", 1, task="died"), trained(1, TWO, "seconds", 2.5)]
    return rows_frame(rows)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise_run(two_devices(), PHASES, tau=0.25)


def test_the_end_counts_all_tasks_of_a_user(summary: Summary) -> None:
    """At round 6 the users are right on 14/20 and 6/20; the worst ceil(2 / 10) = 1 user is at 0.3."""
    end = summary.at_end["global"]["accuracy"]
    assert (end.round, end.users) == (6, 2)
    assert (end.user_mean, end.worst_decile_mean) == pytest.approx((0.5, 0.3))
    assert summary.at_end["random"]["accuracy"].round == 0
    assert "cloud" not in summary.at_end


def test_switches_are_phase_ends_but_the_last_begun(summary: Summary) -> None:
    """Phase C never began, so the only switch is at round 3: users at 12/20 and 10/20."""
    (switch,) = summary.at_switches
    assert (switch.phase, switch.round) == ("A", 3)
    assert switch.models["global"]["accuracy"].user_mean == pytest.approx(0.55)
    assert "alone_accuracy" not in switch.models["global"]


def test_headline_differences_are_paired(summary: Summary) -> None:
    """Over random: 0.7 - 0.4 and 0.3 - 0.3, mean 0.15; alone over frozen: 0.55 - 0.2 and 0.25 - 0.1, mean 0.25."""
    over_random, over_frozen = summary.headline.accuracy_over_random, summary.headline.alone_accuracy_over_frozen
    assert over_random is not None
    assert over_frozen is not None
    assert over_random.mean == pytest.approx(0.15)
    assert (over_random.higher, over_random.lower, over_random.users) == (1, 0, 2)
    assert over_frozen.mean == pytest.approx(0.25)


def test_usage_of_a_phase_and_of_its_last_third(summary: Summary) -> None:
    """Phase A: 18/30 and 10/60, mean 0.3833; its last third is round 3: 4/10 and 2/20, mean 0.25, one above tau."""
    first, second = summary.usage
    assert first.whole is not None
    assert first.last_third is not None
    assert second.last_third is not None
    assert first.whole.user_mean == pytest.approx((18 / 30 + 10 / 60) / 2)
    assert first.last_third.user_mean == pytest.approx(0.25)
    assert (first.last_third.users_above_tau, first.tau) == (1, 0.25)
    assert second.last_third.user_mean == pytest.approx((0.3 + 0.25) / 2)
    assert second.last_third.worst_decile_mean == pytest.approx(0.3)


def test_forgetting_counts_what_was_left_behind(summary: Summary) -> None:
    """Arithmetic fell from 0.8 to 0.5 over phase B; strings, taught by B, are not among those left behind."""
    found = summary.continual["accuracy"]
    assert [list(line) for line in found.matrix] == [pytest.approx([0.8, 0.3]), pytest.approx([0.5, 0.5])]
    (drop,) = found.forgetting
    assert (drop.phase, drop.left_behind) == ("B", ("arithmetic",))
    assert drop.mean == pytest.approx(0.3)
    assert drop.by_task["strings"] == pytest.approx(-0.2)
    assert found.backward_transfer.mean == pytest.approx(-0.3)


def test_worst_users_totals_and_set_aside(summary: Summary) -> None:
    worst = summary.worst_users[0]
    assert worst.device == TWO
    assert [worst.accuracy, worst.random] == pytest.approx([0.3, 0.3])
    assert worst.over_random == pytest.approx(0.0)
    assert summary.totals["calls"] == 60.0
    assert summary.totals["seconds"] == 2.5
    assert summary.totals["tokens"] is None
    assert summary.set_aside == (SetAside(2, TWO, "died"),)


def test_order_of_rows_changes_no_number(summary: Summary) -> None:
    shuffled = two_devices().sample(frac=1.0, random_state=3, ignore_index=True)
    assert summarise_run(shuffled, PHASES, tau=0.25) == summary


def test_validation_is_reported_when_there_is_no_test() -> None:
    rows = two_devices().replace({"split": {"test": "validation"}})
    assert summarise_run(rows, PHASES).split == "validation"
    assert summarise_run(rows, PHASES).at_end["global"]["accuracy"].user_mean == pytest.approx(0.5)


def test_answer_and_table(summary: Summary) -> None:
    assert answer(summary) == (
        "After round 6 the mean user is right on 50.0 %, 15.0 points above the frozen model asking at random; "
        "20.0 % of prompts used the cloud (budget τ = 25 %)."
    )
    lines = end_table(summary).splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line for line in lines if line.startswith("global, alone")).split()[2:7] == [
        "40.0",
        "%",
        "-",
        "40.0",
        "%",
    ]
    assert any("60 calls" in line for line in lines)


def test_answer_of_a_run_without_evaluation() -> None:
    rows = rows_frame([trained(1, ONE, "cloud_calls", 1)])
    assert answer(summarise_run(rows, PHASES)) == "After round 1 the global adapter has not been evaluated yet."


def test_numbers_for_people() -> None:
    assert (percent(0.6143), percent(None), percent(0.3, digits=0)) == ("61.4 %", "-", "30 %")
    assert (points(0.072), points(-0.01), points(None)) == ("+7.2", "-1.0", "-")
    assert (data_size(2_500_000), data_size(999), data_size(None)) == ("2.5 MB", "999 bytes", "-")


@pytest.mark.parametrize(("first", "last", "begins"), [(1, 6, 5), (1, 12, 9), (5, 8, 7), (4, 4, 4)])
def test_last_third_is_rounded_up(first: int, last: int, begins: int) -> None:
    assert last_third(Phase("A", ("arithmetic",), first, last)) == begins


def test_tasks_stand_in_the_order_of_the_phases() -> None:
    assert ordered_tasks(PHASES, ["extra", "strings", "arithmetic"]) == ["arithmetic", "strings", "extra"]


def test_labels_move_apart_evenly_and_only_where_they_touch() -> None:
    assert spread([0.50, 0.52], 0.1) == pytest.approx([0.46, 0.56])
    assert spread([0.1, 0.3, 0.5], 0.1) == [0.1, 0.3, 0.5]
    crowded = spread([0.2, 0.2, 0.21, 0.35], 0.1)
    assert np.diff(crowded).min() == pytest.approx(0.1)
    assert np.mean(crowded) == pytest.approx(0.24)
    assert spread([0.98, 1.00], 0.1) == pytest.approx([0.90, 1.00])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.09))
def test_labels_stay_within_the_panel(places: list[float], gap: float) -> None:
    moved = np.array(spread(sorted(places), gap))
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9
    assert len(moved) == 1 or np.diff(moved).min() >= gap - 1e-9


def test_the_streams_picture_shares_stripes_out_by_prompts() -> None:
    """15 of 20 prompts fill 15 of 20 stripes (the last is a white line); a device that met nothing is grey."""
    stream = pd.DataFrame(
        [(1, ONE, "arithmetic", 15, 0.5), (1, ONE, "strings", 5, 0.5), (2, TWO, "strings", 9, 0.5)],
        columns=["round", "device", "task", "prompts", "mean_difficulty"],
    )
    picture = mix_picture(stream, [ONE, TWO], ["arithmetic", "strings"])
    assert picture.shape == (40, 2, 3)
    assert [(picture[:19, 0] == picture[row, 0]).all(axis=1).sum() for row in (0, 18)] == [15, 4]
    assert len(np.unique(picture[:19, 1], axis=0)) == 1
    assert picture[0, 1].tolist() == picture[20, 0].tolist() == [0.94] * 3
    assert by_mix(stream, [TWO, ONE], ["arithmetic", "strings"]) == [ONE, TWO]


def test_a_summary_is_read_as_it_was_written(summary: Summary, tmp_path: Path) -> None:
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    (tmp_path / "summary.json").write_text('{"run": "of another release", "server": []}')
    with pytest.raises(DamagedFileError, match=r"summary\.json cannot be read as a summary .* resume the finished run"):
        read_summary(tmp_path)
