"""Runs whose samplers go by time and hours: who learns, and that a stopped run goes on as if it had not been."""

from pathlib import Path

import pandas as pd
import pytest

import flsim
from flsim.config.ranges import ConfigError
from flsim.devices import device_name
from flsim.files import DamagedFileError
from flsim.loop.checkpoints import latest_checkpoint
from flsim.metrics.rows import read_rows
from strategies.parts.oort import Oort
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("one_thread", "no_report")
TINY = ("fleet.devices=6", "rounds=2", "engine.pack=3", "client.group_size=2", "strategy.sampler.share=0.5")
LEAST = ("strategy.sampler.path=strategies.parts.samplers:LeastAvailable",)


def learners(rows: pd.DataFrame) -> list[list[str]]:
    """The devices that learned, by round."""
    trained = rows[rows["name"] == "round_seconds"]
    trained = trained[trained["device"].str.startswith("device-")]
    return [sorted(set(of["device"])) for _, of in trained.groupby("round")]


def test_oort_goes_by_what_rounds_took_and_goes_on_where_it_stopped(tiny_run: TinyRun) -> None:
    """Of six devices three learn in round 1; of three in round 2 int(3 x 0.9 x 0.98^2) = 2 are new."""
    config = tiny_run("oort", "system={}", "strategy.sampler.path=strategies.parts.oort:Oort")
    flsim.run(config, until=1, progress=False)
    flsim.run(resume=config.folder, progress=False)
    rows = read_rows(config.folder)
    first, second = learners(rows)
    assert [len(first), len(second), len({*first, *second})] == [3, 3, 5]
    checkpoint = latest_checkpoint(config.folder)
    assert checkpoint is not None
    oort = checkpoint.strategy["sampler"]
    assert isinstance(oort, Oort)
    assert oort.rounds == 2
    latest = rows[(rows["name"] == "round_seconds") & (rows["device"] != "")].groupby("device")["total"].last()
    assert {device_name(device): one.seconds for device, one in oort.known.items()} == pytest.approx(dict(latest))


def test_a_sampler_is_refused_where_rounds_are_buffered(tiny_run: TinyRun) -> None:
    path = "strategy.sampler.path=strategies.parts.samplers:FairShare"
    with pytest.raises(ConfigError, match=r"FairShare would leave places empty .* such as system.end.kind=first"):
        flsim.run(tiny_run("buffered", "fleet.cohort=2", "system.end.kind=buffered", path), progress=False)


def test_those_who_leave_soon_learn_first_and_a_trace_that_changed_is_told(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Devices 0 to 2 leave after 300 s of each day; a round is taken to last 600 s."""
    trace = tmp_path / "trace.csv"
    hours = [f"{device},0,{300 if device < 3 else 86400}" for device in range(6)]
    trace.write_text("\n".join(["device,from_s,until_s", *hours]))
    config = tiny_run("least", "system.availability.kind=file", f"system.availability.path={trace}", *LEAST)
    flsim.run(config, until=1, progress=False)
    assert learners(read_rows(config.folder)) == [["device-000", "device-001", "device-002"]]
    trace.write_text("\n".join(["device,from_s,until_s", *hours[::-1]]))
    with pytest.raises(DamagedFileError, match=r"system.availability.path is another trace than when"):
        flsim.run(resume=config.folder, progress=False)
