"""What methods take to get to an accuracy, of made-up runs on a system: tables, files, page, and who is not paired."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.comparison.comparable import check_comparable, varied
from flsim.comparison.cost_table import class_rows, equal_rows, speed_rows, target_of, target_rows
from flsim.comparison.runs import open_methods
from flsim.comparison.weightings import terminal_table
from flsim.config.load import load_config, to_yaml
from flsim.config.schema import ConfigError
from flsim.metrics.rows import Row, write_rows
from tests.flsim.metrics.system_rows import system_rows

SETTINGS = ("rounds=6", "fleet.devices=12", "fleet.cohort=6", "stream.phases=[[arithmetic]]", "engine.kind=local")


def write_run(folder: Path, rows: list[Row], *more: str) -> Path:
    """A finished run's folder."""
    config = load_config(None, [*SETTINGS, f"run_dir={folder}", *more])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    for round_ in range(config.rounds + 1):
        write_rows(folder / "rows" / f"round-{round_:05d}.parquet", [row for row in rows if row.round == round_])
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All wait for all, or for the first; the third gains half as much in a round and does not get as far."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        seeds = (f"seed={seed}", f"stream.seed={seed}", "system={}")
        write_run(root / f"all-s{seed}", system_rows(seed=seed), "name=all", *seeds)
        first = system_rows(end="first", seed=seed)
        write_run(root / f"first-s{seed}", first, "name=first", "system.end.kind=first", *seeds)
        slow = system_rows(seed=seed, gain=0.04)
        write_run(root / f"slow-s{seed}", slow, "name=slow", "client.lr=0.5", *seeds)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> flsim.Comparison:
    return flsim.compare([root], target=0.5)


def test_costs_to_a_target_and_who_does_not_get_there(found: flsim.Comparison) -> None:
    """0.2 and 0.08 a round are 0.5 after 4 rounds: right on 52 - 2/3 of 100; with 0.04 they are 0.44 at the end."""
    frame = found.targets.set_index(["method", "cost"]).to_dict("index")
    assert frame["all", "bytes"]["median"] == 4 * 6 * (5e5 + 6e5 + 5000)
    assert frame["first", "bytes"]["median"] == 4 * (9 * (6e5 + 5000) + 6 * 5e5)  # the late ones are sent to, too
    assert frame["all", "money"]["median"] == pytest.approx(4 * 6 * 0.01)
    slow, base = frame["slow", "seconds"], frame["all", "seconds"]
    assert (slow["median"], slow["reached"], slow["seeds"], base["reached"]) == (np.inf, 0, 2, 2)
    assert frame["first", "bytes"]["speed_up"] == pytest.approx(6 * 1.105 / (9 * 0.605 + 3))
    assert frame["first", "seconds"]["speed_up_low"] > 1.0  # nobody waits for the slowest
    assert frame["slow", "seconds"]["speed_up"] == 0.0
    said, faster = target_rows(found), speed_rows(found)
    assert said[0] == ["to 50.0 %", "reached", "virtual time", "joules of devices", "sent up and down",
                       "money for the cloud"]  # fmt: skip
    assert said[3][:2] == ["slow", "0 of 2"]
    assert said[3][2].startswith("not by ")
    assert [line[0] for line in faster] == ["times less than all", "first", "slow"]
    assert faster[2][1] == "0.00 (0.00..0.00) *"
    assert "not by" in terminal_table(found)


def test_accuracy_for_the_same_cost_and_by_class(found: flsim.Comparison) -> None:
    """For the bytes of `all`, which took the least, `first` has come to round 4 of 6."""
    heads, *lines = equal_rows(found)
    at = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
    sent = next(head for head in heads if head.endswith("MB"))
    assert (at["all"][sent], at["first"][sent], at["slow"][sent]) == ("67.3 %", "51.3 %", "43.3 %")
    assert class_rows(found)[1] == ["all", "62.0 %", "68.0 %", "72.0 %"]  # low, mid, high
    assert found.of("first").value("waste_share") > found.of("all").value("waste_share") == 0.0


def test_without_a_name_the_target_is_what_the_others_are_held_against(found: flsim.Comparison) -> None:
    assert target_of(replace(found, aim=None)) == 0.67
    assert target_of(replace(found, aim=None, against="slow")) == 0.43


def test_files_and_page(found: flsim.Comparison, tmp_path: Path) -> None:
    names = {path.name for path in found.write(tmp_path)}
    assert {"costs.png", "costs.csv", "targets.csv"} <= names
    page = (tmp_path / "page.html").read_text()
    for text in ("What it takes to get there", "Devices as systems", "0 of 2", "accuracy by class of device"):
        assert text in page
    courses = pd.read_csv(tmp_path / "costs.csv")
    assert courses.groupby(["method", "seed"]).size().unique().tolist() == [4]


def test_runs_on_other_systems_are_refused_by_name_and_other_ends_are_not(root: Path, tmp_path: Path) -> None:
    rows = system_rows()
    for name, setting, said in (
        ("links", "system={links: {lte: {share: 1.0}}}", "system.links.lte.share is 1.0 and not None"),
        ("there", "system={availability: {kind: daily}}", "system.availability.kind is daily and not always"),
        ("none", "system=null", r"there is no virtual time \(system is not set\) in [^;]*\. Runs must"),
    ):
        other = write_run(tmp_path / name, rows, setting)
        with pytest.raises(ConfigError, match=said):
            check_comparable(open_methods([root / "all-s0", other]))
    methods = open_methods([root / "all-s0", root / "first-s0"])
    check_comparable(methods)
    assert varied(methods) == {"system.end.kind": ["all", "first"]}


def test_a_run_without_a_system_has_no_hours_and_its_bytes_are_told_where_a_target_is_named(tmp_path: Path) -> None:
    own = ("virtual_seconds", "round_seconds", "wasted_joules", "class_low", "class_mid", "class_high")
    rows = [
        row for row in system_rows() if row.name not in own and "joules" not in row.name and "seconds" not in row.name
    ]
    plain = flsim.compare([write_run(tmp_path / "plain", rows)])
    assert target_rows(plain) == equal_rows(plain) == []
    assert target_rows(replace(plain, aim=0.5))[0][1:] == ["reached", "sent up and down", "money for the cloud"]
    with pytest.raises(ConfigError, match=r"target=50 must be in \(0, 1\]"):
        flsim.compare([tmp_path / "plain"], target=50)
