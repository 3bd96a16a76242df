"""Every weighting of users in a comparison, on tiny runs written by hand."""

import re
from pathlib import Path

import pytest

import flsim
from flsim.comparison.weightings import terminal_table
from flsim.config.schema import ConfigError
from flsim.metrics.rows import USER, Row
from tests.flsim.comparison.test_comparison import BASE_END, NEW, NEW_END, TASKS, USERS, rows_of, write_run


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Base and new on one seed; the users have 20, 100 and 40 items, 10 of each task being tested."""
    folder, facts = tmp_path_factory.mktemp("weighed"), []
    for device, items, prompts in zip(USERS, (20, 100, 40), (50, 30, 20), strict=True):
        facts += [Row(0, device, task, USER, USER, "test_items", items / 2, 10.0) for task in TASKS]
        facts.append(Row(0, device, "all", USER, USER, "traffic", prompts, 4.0))
    base = write_run(folder / "base", [*rows_of(BASE_END), *facts], "name=base")
    return [base, write_run(folder / "new", [*rows_of(NEW_END, (5, 3, 1)), *facts], *NEW)]


def lines_of(found: flsim.Comparison, label: str = "new") -> dict[tuple[str, str], dict[str, float]]:
    """What `by_weighting` says of a method, by weighting and measure."""
    frame = found.by_weighting
    numbers = frame.columns[4:]
    own = frame[frame["method"] == label]
    return {
        (line["weighting"], line["measure"]): {name: line[name] for name in numbers} for line in own.to_dict("records")
    }


def test_every_weighting_by_hand(weighed: list[Path]) -> None:
    """New has 0.7, 0.5, 0.2 and base 0.5, 0.5, 0.3, of 20, 100 and 40 items; traffic 50, 30, 20; requests 12, 4, 4.

    So new minus base is +0.2, 0, -0.1: uniform 0.1 / 3, by examples (4 + 0 - 4) / 160 = 0. Training usage of new, 0.5,
    0.3, 0.1 of 40 responses each, is its mean by examples, too.
    """
    found = flsim.compare(weighed)
    new = lines_of(found)
    means = {"examples": 72 / 160, "traffic": 0.54, "requests": 0.56, "uniform": 1.4 / 3}
    gaps = {"examples": 0.0, "traffic": 0.08, "requests": 0.1, "uniform": 0.1 / 3}
    assert {name: new[name, "accuracy"]["mean"] for name in means} == pytest.approx(means)
    assert {name: new[name, "accuracy"]["difference"] for name in gaps} == pytest.approx(gaps)
    assert new["examples", "training_usage"]["mean"] == pytest.approx(0.3)
    assert new["traffic", "training_usage"]["mean"] == pytest.approx(0.36)
    assert {measure for _, measure in new} >= {"during_task", "forgetting_max", "cloud_gain", "pgr"}
    per_user = found.per_user
    assert per_user.loc[per_user["method"] == "new", "test_items"].tolist() == [20, 100, 40]


def test_a_weighting_is_taken_for_means_intervals_and_differences(weighed: list[Path]) -> None:
    """The table under one is what the frame of all says of it; who is hurt does not depend on what users weigh."""
    plain = flsim.compare(weighed)
    lines = lines_of(plain)
    found = flsim.compare(weighed, weighting="traffic")
    line = found.table.set_index("method").loc["new"]
    for measure in ("accuracy", "alone_accuracy", "training_usage", "during_task", "pgr"):
        own = lines["traffic", measure]
        assert [line[measure + end] for end in ("", "_low", "_high")] == [own[end] for end in ("mean", "low", "high")]
    pair, uniform = found.pair("new"), plain.pair("new")
    assert pair is not None
    assert uniform is not None
    assert pair.difference.mean == lines["traffic", "accuracy"]["difference"]
    assert (pair.win_rate, pair.hurt) == (uniform.win_rate, uniform.hurt)
    assert "means over users (by traffic)" in terminal_table(found)


def test_runs_without_weights_are_read_and_a_weighting_that_they_lack_is_refused(tmp_path: Path) -> None:
    """Those of the release before: by examples is by the prompts tested, by traffic is not known."""
    root = tmp_path
    write_run(root / "base", rows_of(BASE_END), "name=base")
    write_run(root / "new", rows_of(NEW_END, (5, 3, 1)), *NEW)
    found = flsim.compare([root])
    known = set(found.by_weighting["weighting"])
    assert known == {"examples", "requests", "uniform"}
    assert re.search(r"^new +traffic +- ", terminal_table(found), re.MULTILINE)
    with pytest.raises(ConfigError, match=r"weighting='traffic' cannot be taken: .*base has no rows that say"):
        flsim.compare([root], weighting="traffic")
