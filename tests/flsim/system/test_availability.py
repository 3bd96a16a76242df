"""Who is there when: laws of `earliest` and `until` for every kind, hours by hand, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.config.load import load_config
from flsim.config.ranges import ConfigError
from flsim.config.system import AvailabilityConfig
from flsim.system.availability import DAY, HOUR, Always, Availability, Daily, Renewal, Traced
from flsim.system.seconds import MICROSECONDS as SECOND
from flsim.system.traces import read_traces

TRACE = "device,from_s,until_s\na,0,100\na,50,200\na,300,400\nb,10,10\nc,0,400\nd,150,160\n"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Availability]:
    trace = tmp_path_factory.mktemp("trace") / "trace.csv"
    trace.write_text(TRACE)
    return [
        Always(),
        Availability.of(AvailabilityConfig(kind="daily"), 3),
        Availability.of(AvailabilityConfig(kind="renewal", on_s=20, off_s=90), 3),
        Availability.of(AvailabilityConfig(kind="file", path=str(trace)), 3),
    ]


@settings(max_examples=60)
@given(device=st.integers(0, 9), seconds=st.lists(st.floats(0, 3e6), min_size=2, max_size=5))
def test_time_only_says_who_is_there(kinds: list[Availability], device: int, seconds: list[float]) -> None:
    times = sorted(round(one * SECOND) for one in seconds)
    for there in kinds:
        found = [there.earliest(device, time) for time in times]
        known = [one for one in found if one is not None]
        assert known in ([], found)
        assert known == sorted(known)
        again = pickle.loads(pickle.dumps(there))
        assert [again.earliest(device, time) for time in times[::-1]] == found[::-1]
        for time, one in zip(times, found, strict=True):
            if one is None:
                assert there.until(device, time) == time
                continue
            assert one >= time
            assert there.earliest(device, one) == one
            until = there.until(device, one)
            if one > time:
                assert there.until(device, time) == time
            if until is not None:
                assert until > one
                assert there.earliest(device, until - 1) == until - 1
                assert there.earliest(device, until) != until
                assert there.until(device, (one + until) // 2) == until


def test_a_daily_window_by_hand() -> None:
    """From 22 h to 5 h: earliest(12 h) = 22 h, earliest(23 h) = 23 h, until(23 h) = 29 h; the run begins within one."""
    there = Daily.of(AvailabilityConfig(kind="daily", start_h=22, spread_h=0, length_h=7), 0)
    assert [there.earliest(4, hour * HOUR) for hour in (0, 12, 23, 36)] == [0, 22 * HOUR, 23 * HOUR, 46 * HOUR]
    assert [there.until(4, hour * HOUR) for hour in (0, 23)] == [5 * HOUR, 29 * HOUR]
    assert there.share(4, 0, DAY) == 7 / 24
    assert there.share(4, 4 * HOUR, 6 * HOUR) == 0.5


def test_devices_have_hours_of_their_own_within_the_spread() -> None:
    there = Daily.of(AvailabilityConfig(kind="daily", start_h=12, spread_h=2, length_h=1), 0)
    starts = np.array([there.earliest(device, 0) or 0 for device in range(2000)]) / HOUR  # (2000,)
    assert 10 <= starts.min() < 10.02
    assert 13.98 < starts.max() <= 14
    assert abs(starts.mean() - 12) < 4 * (4 / np.sqrt(12)) / np.sqrt(2000)
    assert starts.tolist() != [(replace(there, seed=1).earliest(d, 0) or 0) / HOUR for d in range(2000)]


def test_renewal_times_are_exponential_and_the_process_is_stationary() -> None:
    """On for 20 s and away for 60 s: there a quarter of the time, windows of mean 20 s and deviation 20 s."""
    there = Renewal.of(AvailabilityConfig(kind="renewal", on_s=20, off_s=60), 5)
    at_once = [there.earliest(device, 0) == 0 for device in range(3000)]
    assert abs(np.mean(at_once) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 3000)
    on, off, time = list[int](), list[int](), there.until(0, there.earliest(0, 0) or 0)
    for _ in range(3000):
        assert time is not None
        begin = there.earliest(0, time)
        assert begin is not None
        off.append(begin - time)
        time = there.until(0, begin)
        assert time is not None
        on.append(time - begin)
    for times, mean in ((on, 20), (off, 60)):
        seconds = np.array(times) / SECOND  # (3000,)
        assert abs(seconds.mean() - mean) < 4 * mean / np.sqrt(3000)
        assert abs(np.mean(seconds > mean) - np.exp(-1)) < 4 * np.sqrt(np.exp(-1) * (1 - np.exp(-1)) / 3000)


def test_a_moment_a_hundred_years_away_is_as_near_as_any() -> None:
    there = Renewal.of(AvailabilityConfig(kind="renewal", on_s=1, off_s=1e6), 5)
    time = 36_525 * DAY
    begin = there.earliest(7, time)
    assert begin is not None
    assert 0 < begin - time < 20 * 1_000_000 * SECOND


def test_a_trace_by_hand(tmp_path: Path) -> None:
    """Of 400 s: a is there up to 200 s and from 300 s on, through the end; b never, c always, d from 150 to 160 s."""
    (tmp_path / "t.csv").write_text(TRACE)
    there = Traced(read_traces(tmp_path / "t.csv"))
    s = SECOND
    assert [there.earliest(0, time * s) for time in (0, 199, 200, 350, 650)] == [0, 199 * s, 300 * s, 350 * s, 700 * s]
    assert [there.until(0, time * s) for time in (0, 300, 399, 700)] == [200 * s, 600 * s, 600 * s, 1000 * s]
    assert [(there.earliest(1, 5), there.until(1, 5)), (there.earliest(2, 5), there.until(2, 5))] == [
        (None, 5),
        (5, None),
    ]
    assert there.earliest(3, 161 * s) == 550 * s
    assert there.earliest(4, 250 * s) == there.earliest(0, 250 * s)  # a's trace comes again at device 4
    assert there.share(0, 0, 800 * s) == 0.75


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (AvailabilityConfig(kind="daily", length_h=24), "length_h=24 must be below 24"),
        (AvailabilityConfig(kind="renewal", on_s=float("inf")), "on_s=inf must be in"),
        (AvailabilityConfig(kind="renewal", off_s=1e-9), "off_s=1e-09 must be in"),
        (AvailabilityConfig(path="t.csv"), "path=t.csv is given, and kind=always reads no trace"),
        (AvailabilityConfig(kind="file"), "needs a trace; name it by system.availability.path"),
    ],
)
def test_what_has_no_meaning_is_refused(config: AvailabilityConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Availability.of(config, 0)


def test_a_trace_is_found_beside_the_config_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(TRACE)
    (tmp_path / "run.yaml").write_text("system: {availability: {kind: file, path: trace.csv}}")
    system = load_config(tmp_path / "run.yaml").system
    assert system is not None
    assert system.availability.path == str(tmp_path / "trace.csv")
    assert isinstance(Availability.of(system.availability, 0), Traced)
