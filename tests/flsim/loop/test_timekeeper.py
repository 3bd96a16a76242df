"""Runs in virtual time: what they change of a run is nothing but who counts, and they go on where they stopped."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import flsim
from experiments.command.__main__ import main
from flsim.config.schema import Config, ConfigError
from flsim.config.system import SystemConfig
from flsim.loop.checks import check_settings
from flsim.metrics.rows import in_rounds, of_fleet, read_rows, training, without_timing
from flsim.metrics.timed import priced
from flsim.models.sizes import system_of
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("one_thread", "no_report")
TINY = ("fleet.devices=6", "fleet.cohort=3", "rounds=3", "engine.pack=3", "client.group_size=2", "model.request=before")
PARTS = ("compute", "waiting", "radio")
TIMED = {"joules", "link_bytes", "cloud_joules", "battery", "virtual_seconds", "wasted_joules"}
TIMED |= {f"{part}_joules" for part in PARTS}
TIMED |= {f"{part}_seconds" for part in ("compute", "link", "up", "cloud", "waited", "round")}
Rows = Callable[..., pd.DataFrame]


@pytest.fixture
def rows(tiny_run: TinyRun) -> Rows:
    """`rows(name, *overrides)`: of a run, without what differs between equal runs."""

    def run(name: str, *more: str) -> pd.DataFrame:
        return rows_of(tiny_run(name, *more))

    return run


def rows_of(config: Config) -> pd.DataFrame:
    flsim.run(config, progress=False)
    return without_timing(read_rows(config.folder))


def untimed(rows: pd.DataFrame) -> pd.DataFrame:
    """Without what only a run in virtual time has."""
    asked = rows["name"].isin(TIMED) | rows["name"].str.contains("^class_|^link_|question_|within_")
    return rows[~asked].reset_index(drop=True)


def seconds(rows: pd.DataFrame) -> list[float]:
    """Virtual time at the end of each round."""
    fleet = of_fleet(rows)
    return [float(total) for total in fleet.loc[fleet["name"] == "virtual_seconds", "total"]]


def words(rows: pd.DataFrame) -> list[str]:
    """Why devices were set aside."""
    return sorted(set(rows.loc[rows["name"] == "set_aside", "task"]))


def test_a_system_changes_no_other_row_and_time_never_falls(rows: Rows) -> None:
    plain, timed = rows("plain"), rows("timed", "system={}")
    pd.testing.assert_frame_equal(untimed(timed), plain)
    times = seconds(timed)
    assert len(times) == 3
    assert times == sorted(times)
    assert times[0] > 0
    whole = training(timed, name="joules")["total"].sum()
    parts = [training(timed, name=f"{part}_joules")["total"].sum() for part in PARTS]
    assert whole == pytest.approx(sum(parts))


def test_an_old_run_is_priced_as_if_it_had_been_timed(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Bit for bit, but for what single questions took; and the command says the sums."""
    plain, timed = tiny_run("plain"), tiny_run("timed", "system.links.slow.share=1")
    rows = rows_of(plain)
    system = timed.system or SystemConfig()
    found = priced(rows, system_of(system, plain.model, plain.stream.seed))
    wanted = rows_of(timed)
    wanted = wanted[~wanted["name"].str.contains("question_|within_")]
    pd.testing.assert_frame_equal(ordered(found), ordered(wanted))
    assert main(["price", str(plain.folder), "system.links.slow.share=1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)[str(plain.folder)]
    assert told["virtual_hours"] == seconds(wanted)[-1] / 3600
    assert told["device_joules"] == pytest.approx(training(wanted, name="joules")["total"].sum())
    assert main(["price", str(plain.folder), "system.end.kind=first"]) == 2
    odd = plain.folder.rename(plain.folder.parent / "tau=0.5")
    capsys.readouterr()
    with contextlib.chdir(odd.parent):  # a folder, though it reads like a setting
        assert main(["price", odd.name, "system.links.slow.share=1", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [odd.name]


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(list(rows.columns), ignore_index=True)


def test_ends_that_nobody_misses_are_all(rows: Rows) -> None:
    all_ = rows("all", "system={}")
    pd.testing.assert_frame_equal(rows("deadline", "system.end={kind: deadline, deadline_s: 1e6}"), all_)


def test_the_first_are_faster_and_the_others_late(rows: Rows) -> None:
    """Of six invited three count; late ones have spent, and only their updates are gone."""
    all_ = rows("all", "system={}", "fleet.cohort=null")
    first = rows("first", "system.end={kind: first, over: 2}")
    assert words(first) == ["late"]
    assert len(first[first["name"] == "set_aside"]) == 9
    assert seconds(first)[0] < seconds(all_)[0]
    late = first[(first["name"] == "set_aside") & (first["round"] == 1)]["device"]
    spent = training(in_rounds(first, 1, 1), name="sampled_tokens")
    assert set(late) <= set(spent["device"])
    waste = of_fleet(first)
    assert (waste.loc[waste["name"] == "wasted_joules", "total"] > 0).all()


def test_a_deadline_that_all_miss_leaves_the_adapter_as_it_was(tiny_run: TinyRun) -> None:
    config = tiny_run("missed", "system.end={kind: deadline, deadline_s: 1e-6}", "rounds=1")
    missed = rows_of(config)
    assert words(missed) == ["late"]
    assert missed[missed["name"] == "aggregation_share"].empty
    assert seconds(missed) == [1e-6]


@pytest.mark.parametrize("strategy", ["strategies.flex_lora:FlexLora", "flwr.serverapp.strategy:FedAvg"])
def test_a_stopped_run_goes_on_in_its_time(tiny_run: TinyRun, strategy: str) -> None:
    """With devices that come and go, batteries, and jitter: equal rows, virtual time among them."""
    system = (
        "system.availability={kind: renewal, on_s: 2, off_s: 1}",
        "system.charge_w=5",
        "system.jitter=0.5",
        "system.end={kind: first, over: 1.5}",
        "system.classes.mid.battery_wh=0.01",
        f"strategy.path={strategy}",
    )
    whole = rows_of(tiny_run("whole", *system))
    config = tiny_run("stopped", *system)
    flsim.run(config, until=1, progress=False)
    flsim.run(resume=config.folder, progress=False)
    pd.testing.assert_frame_equal(without_timing(read_rows(config.folder)), whole)
    assert not whole[whole["name"] == "battery"].empty


def test_who_goes_away_is_left_out_and_who_comes_late_is_awaited(rows: Rows) -> None:
    short = rows("short", "system.availability={kind: renewal, on_s: 0.3, off_s: 0.3}", "rounds=4")
    assert "left" in words(short)
    night = rows("night", "system.availability={kind: daily, start_h: 2, spread_h: 0, length_h: 7}", "rounds=1")
    waited = training(night, name="waited_seconds")
    assert (waited["total"] == 2 * 3600).all()  # a run begins at midnight


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("system.end={kind: first}", "fleet.cohort=null"), r"first invites more devices than count, and all 6"),
        (("system.end={deadline_s: 3}",), r"system.end.deadline_s=3.0 has no effect with system.end.kind=all"),
        (("system.availability={on_s: 3}",), r"availability.on_s=3.0 has no effect with .*kind=always"),
        (("system.end={kind: buffered, in_flight: 2}",), r"in_flight=2 must be in \[3, 6\]"),
        (("system.classes.lov.share=1",), r"system.classes.lov is none of those that ship .*did you mean low"),
    ],
)
def test_a_system_that_cannot_be_is_told(tiny_run: TinyRun, more: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_settings(tiny_run("wrong", *more))


def test_a_client_that_does_not_count_ends_the_run(tiny_run: TinyRun) -> None:
    """A missing count would be a second that nobody took."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    with pytest.raises(ConfigError, match="says nothing of read_tokens"):
        flsim.run(tiny_run("mute", "system={}"), client=app, progress=False)


def test_a_fleet_that_never_comes_again_ends_the_run_in_a_sentence(tiny_run: TinyRun, tmp_path: Path) -> None:
    trace = tmp_path / "away.csv"
    trace.write_text("device,from_s,until_s\n0,86400,86400\n")
    settings = f"system.availability={{kind: file, path: {trace}}}"
    with pytest.raises(ConfigError, match="round 1: nobody of the fleet ever comes again"):
        flsim.run(tiny_run("away", settings), progress=False)


def test_an_empty_battery_is_charged_and_its_device_takes_part_again(rows: Rows) -> None:
    """It is awaited until it holds a tenth, and begins with that, and not with what it had when the round began."""
    settings = ("fleet.devices=2", "fleet.cohort=null", "rounds=6", "system.links.lte.share=1")
    found = rows("drained", *settings, "system.charge_w=0.5", "system.classes.low.battery_wh=0.01")
    levels = training(found, name="battery")
    assert levels["total"].min() < 1e-6
    waited = training(found, name="waited_seconds")
    awaited = waited[waited["total"] > 0].set_index(["round", "device"]).index
    assert len(awaited)
    worked = training(found, name="joules").set_index(["round", "device"])["total"]
    assert (worked[awaited] > 0).all()


def test_a_deadline_counts_from_when_those_who_were_awaited_begin(rows: Rows) -> None:
    noon = "system.availability={kind: daily, start_h: 12, spread_h: 0, length_h: 8}"
    found = rows("noon", noon, "system.end={kind: deadline, deadline_s: 200}", "rounds=1")
    assert found[found["name"] == "set_aside"].empty
    assert seconds(found)[0] > 12 * 3600


@pytest.mark.slow
@pytest.mark.parametrize("end", ["{kind: first, over: 1.5}", "{kind: buffered, in_flight: 4}"])
def test_any_number_of_workers_gives_the_same_time(one_ray: None, tiny_run: TinyRun, end: str) -> None:
    """With devices that come and go, and batteries: rows are equal bit for bit."""
    settings = (
        "system.availability={kind: renewal, on_s: 2, off_s: 1}",
        "system.charge_w=5",
        f"system.end={end}",
        "engine.pack=2",
    )
    here = rows_of(tiny_run("here", *settings))
    there = rows_of(tiny_run("there", *settings, "engine.kind=ray", "engine.workers=2"))
    pd.testing.assert_frame_equal(there, here)
