"""Traces: FLASH's and FedScale's forms and CSV, by hand, and the one sentence that a bad file gets."""

import json
import pickle
from pathlib import Path

import pytest

from flsim.config.ranges import ConfigError
from flsim.system.availability import HOUR, Traced
from flsim.system.seconds import MICROSECONDS as SECOND
from flsim.system.traces import read_traces

NIGHT = """2020-01-28 22:00:00\tscreen_off
2020-01-28 22:00:05\tWiFi
2020-01-28 22:10:00\tbattery_charged_on
2020-01-28 22:10:00\t73.0%
2020-01-28 23:00:00\tscreen_lock
2020-01-29 02:00:00\t4G
2020-01-29 02:30:00\twifi
2020-01-29 06:00:00\tscreen_on
2020-01-29 06:00:01\tscreen_unlock

2020-01-29 22:00:00\tscreen_lock
"""


def flash(*messages: object) -> str:
    return json.dumps({f"user{place}": {"model": "x", "messages": one} for place, one in enumerate(messages)})


def test_flash_s_form_by_hand(tmp_path: Path) -> None:
    """There while charging, on Wi-Fi and locked: 23:00 to 2:00 and 2:30 to 6:00:01; again after the 24 h of the trace.

    The window that is open at the last line is left out, and so are a user who is never there and one who is garbled.
    """
    file = tmp_path / "state_traces.json"
    file.write_text(flash(NIGHT, "2020-01-01 05:00:00\twifi", "garbled", NIGHT.replace("4G", "6G")))
    traces = read_traces(file)
    assert (len(traces.periods), traces.left_out) == (1, 3)
    there = Traced(traces)

    def at(hours: float) -> int:
        return round(hours * HOUR)

    assert there.earliest(0, at(22.5)) == at(23)  # time 0 is midnight before the 28th
    assert there.until(0, at(23)) == at(26)
    assert there.earliest(0, at(26)) == at(26.5)
    assert there.until(0, at(26.5)) == at(30) + SECOND
    assert there.earliest(0, at(31)) == at(47)
    assert there.earliest(0, 0) == 0  # the trace begins at 22:00, and its end came before


def test_fedscale_s_form_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "behave.json"
    client = {"duration": 211625, "inactive": [93284, 100], "finish_time": 518400, "active": [93283, 50], "model": "x"}
    file.write_text(json.dumps({"1": client, "2": {**client, "active": [], "inactive": []}}))
    there = Traced(read_traces(file))
    assert there.earliest(0, 101 * SECOND) == 93283 * SECOND
    assert there.until(0, 93283 * SECOND) == 93284 * SECOND
    assert there.earliest(0, 93284 * SECOND) == (518400 + 50) * SECOND
    assert there.earliest(1, 0) is None


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("the pickle was opened",))

    file = tmp_path / "client_behave_trace"
    file.write_bytes(pickle.dumps({1: Bomb()}))
    with pytest.raises(ConfigError, match=r"is a pickle, which may hold code .* convert it yourself: python -c"):
        read_traces(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: is '', and must be 'device,from_s,until_s'"),
        ("device,from_s,until_s\n", "holds no window"),
        ("device,from_s,until_s\n1,0,5\n1,9\n", "line 3: '1,9' is no window; write a device"),
        ("device,from_s,until_s\n1,7,5\n", "line 2: '1,7,5' is no window"),
        ("device,from_s,until_s\n1,-1,5\n", "line 2"),
        ("device,from_s,until_s\n1,0,nan\n", "line 2"),
        ('{"a": ', "is no JSON"),
        ('{"a": {"b": 1}}', "in a form that is not known"),
        ("[]", "in a form that is not known"),
        (flash("2020-01-28 22:00:00 wifi", None), r"of 2 users in FLASH's form none is ever there"),
        ('{"7": {"active": [1], "inactive": [2]}}', "client '7': expected is {active"),
        ('{"7": {"active": [1], "inactive": [], "finish_time": 9}}', "client '7': active and inactive must be lists"),
        ('{"7": {"active": [3], "inactive": [2], "finish_time": 9}}', "client '7': window 0 does not begin"),
        ('{"7": {"active": [1], "inactive": [2], "finish_time": 0}}', "client '7': finish_time=0 must be above 0"),
    ],
)
def test_a_bad_file_is_a_sentence_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "trace"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as told:
        read_traces(file)
    assert str(file) in str(told.value)


def test_a_file_that_is_not_there_is_told_with_where_it_was_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"path=gone.csv: cannot be read .* beside the config file"):
        read_traces(Path("gone.csv"))
