"""Rounds that do not wait: devices work over the end of a round, and the server aggregates each K that have come."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.config.schema import Config, ConfigError
from flsim.loop.flights import FOLDER
from flsim.metrics.rows import of_fleet, read_rows, training, without_timing
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("one_thread", "no_report")
TINY = ("fleet.devices=6", "fleet.cohort=2", "rounds=5", "engine.pack=2", "client.group_size=2", "model.request=before")
BUFFERED = "system.end={kind: buffered, in_flight: 4}"
NO_TIME = (
    "system.classes.mid={flops: 1e40, bandwidth: 1e40}",
    "system.links.wifi={down_mbit: 1e40, up_mbit: 1e40, rtt_ms: 0}",
    "system.cloud={queue_s: 0, prefill_per_s: 1e40, decode_per_s: 1e40}",
)


def rows_of(config: Config) -> pd.DataFrame:
    flsim.run(config, progress=False)
    return without_timing(read_rows(config.folder))


def adapters_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(max((folder / "checkpoints").glob("*.npz"))) as file:
        return {name: file[name] for name in file.files if name.startswith("adapter/")}


def test_with_equal_durations_and_as_many_as_count_it_is_all(tiny_run: TinyRun) -> None:
    """Bit for bit, and no update is of an earlier version."""
    plain = rows_of(tiny_run("plain", "system={}", *NO_TIME, "fleet.cohort=null"))
    buffered = rows_of(tiny_run("buffered", "system.end={kind: buffered, in_flight: 6}", *NO_TIME, "fleet.cohort=null"))
    assert (training(buffered, name="staleness")["total"] == 0).all()
    other = buffered[~buffered["name"].isin(["staleness", "dropped"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(other, plain)


@pytest.mark.parametrize(
    "strategy",
    [
        "strategies.flex_lora:FlexLora",
        "strategies.fedex_lora:FedExLora",
        "flwr.serverapp.strategy:FedAdam",
    ],
)
def test_a_stopped_run_goes_on_with_what_is_in_flight(tiny_run: TinyRun, strategy: str) -> None:
    """Equal rows and adapters, with devices that go away and updates that are too old."""
    settings = (
        "system.end={kind: buffered, in_flight: 4, max_staleness: 1}",
        "system.availability={kind: renewal, on_s: 1.5, off_s: 0.5}",
        f"strategy.path={strategy}",
    )
    whole = tiny_run("whole", *settings)
    rows = rows_of(whole)
    config = tiny_run("stopped", *settings)
    flsim.run(config, until=2, progress=False)
    flsim.run(resume=config.folder, progress=False)
    pd.testing.assert_frame_equal(without_timing(read_rows(config.folder)), rows)
    one, other = adapters_of(whole.folder), adapters_of(config.folder)
    assert all((one[name] == other[name]).all() for name in one)
    assert {"staleness", "dropped"} <= set(rows["name"])


def test_time_goes_on_by_landings_and_the_folder_stays_small(tiny_run: TinyRun) -> None:
    """Each round as many land as count; files of updates that have landed are deleted."""
    config = tiny_run("small", BUFFERED)
    rows = rows_of(config)
    landed = training(rows, name="staleness")
    assert (landed.groupby("round").size() == 2).all()
    assert landed["total"].max() >= 1
    fleet = of_fleet(rows)
    times = fleet.loc[fleet["name"] == "virtual_seconds", "total"]
    assert times.is_monotonic_increasing
    trained = training(rows, name="sampled_tokens").groupby("round").size()
    assert trained.tolist() == [4, 2, 2, 2, 2]  # as many as work at a time, then as many as have landed
    flown = {int(file.name[6:11]) for file in (config.folder / FOLDER).glob("round-*.states")}
    assert 1 not in flown or 1 in set(landed["round"] - landed["total"])


def test_strategies_that_learn_factors_in_turn_are_refused(tiny_run: TinyRun) -> None:
    with pytest.raises(ConfigError, match="RoLora has devices learn A and B in turn"):
        flsim.run(tiny_run("turns", BUFFERED, "strategy.path=strategies.rolora:RoLora"), progress=False)
