"""What is sent of a round, by hand; and of a real run the numbers that its summary has."""

import cProfile

import pandas as pd
import pytest

import flsim
from flsim.metrics.rows import COLUMNS, Row, fleet_row, rows_frame
from flsim.metrics.timed import round_rows
from flsim.trackers.measures import OneFrame, added, costs_of, measures_of
from tests.flsim.trackers.recorder import told_in
from tests.flsim.trackers.test_named import RECORDER
from tests.tiny import TinyRun, without_pictures


def trained(device: int, name: str, total: float, weight: float = 1.0) -> Row:
    return Row(3, f"device-{device:03d}", "all", "train", "own", name, total, weight)


def of_test(device: int, right: float, of: float, model: str = "global", name: str = "accuracy") -> Row:
    return Row(3, f"device-{device:03d}", "arithmetic", "test", model, name, right, of)


def test_accuracy_of_users_by_hand() -> None:
    """0.9, 0.5 and 0: each user counts once, and of three users the worst tenth is one."""
    found = measures_of(rows_frame([of_test(0, 9, 10), of_test(1, 1, 2), of_test(2, 0, 8)]), 0.3)
    assert found["accuracy/mean"] == pytest.approx(1.4 / 3)
    assert found["accuracy/worst_tenth"] == 0
    assert found["accuracy/p10"] == pytest.approx(0.1)  # a fifth of the way from 0 to 0.5
    assert found["accuracy/p90"] == pytest.approx(0.82)  # four fifths of the way from 0.5 to 0.9
    assert not [name for name in found if not name.startswith("accuracy/")]  # what was not measured is left out


def test_own_adapters_and_references_have_names_of_their_own() -> None:
    rows = [of_test(0, 1, 2, "own"), of_test(0, 1, 4, "frozen"), of_test(0, 3, 4, "own", "alone_accuracy")]
    found = measures_of(rows_frame(rows), None)
    assert found["own_accuracy/mean"] == 0.5
    assert found["accuracy/frozen"] == 0.25
    assert found["own_alone_accuracy/mean"] == 0.75


def test_usage_is_held_against_tau() -> None:
    rows = [trained(0, "cloud_requests", 2, 8), trained(1, "cloud_requests", 6, 8), trained(0, "dual_variable", 0.5)]
    found = measures_of(rows_frame(rows), 0.3)
    assert found["usage/mean"] == 0.5
    assert found["usage/worst_tenth"] == 0.75  # who asks most
    assert (found["usage/tau"], found["usage/users_above_tau"]) == (0.3, 1)
    assert found["lambda/mean"] == 0.5
    assert "usage/tau" not in measures_of(rows_frame(rows), None)


def test_costs_add_up_to_what_was_spent_so_far() -> None:
    first = costs_of(OneFrame(rows_frame([trained(0, "cloud_calls", 2), trained(1, "cloud_calls", 3), *round_rows(
        3, now=7_200_000_000, lasted=1, wasted=0, joules=0)])))  # fmt: skip
    assert first == {"calls": 5, "hours": 2}
    assert added(added({}, first), {"calls": 4, "money": 0.5}) == {"calls": 9, "money": 0.5}


def test_health_of_the_aggregation() -> None:
    rows = [fleet_row(3, "aggregation_bias", 0.25), fleet_row(3, "dual_variable", 1.5), trained(0, "downlink_bytes", 8)]
    rows += [trained(1, "downlink_bytes", 8), Row(3, "device-001", "crash", "train", "own", "set_aside", 1.0, 1.0)]
    found = measures_of(rows_frame(rows), 0.3)
    assert found["health/aggregation_bias"] == 0.25
    assert (found["health/devices"], found["health/set_aside"]) == (2, 1)
    assert found["lambda/fleet"] == 1.5


@pytest.fixture(scope="module")
def followed(tiny_runs: TinyRun, one_thread: None) -> "flsim.Run":
    """A run of two phases with a system, and what its recorder was told."""
    phases = ("rounds=4", "stream.phases=[[arithmetic],[strings]]", "client.path=clients.da_grpo:DaGrpo")
    with without_pictures():
        return flsim.run(tiny_runs("followed", *phases, "system={}", f"track=[{RECORDER}]"), progress=False)


def test_what_is_told_equals_the_summary(followed: "flsim.Run") -> None:
    told = {one["round"]: one["values"] for one in told_in(followed.folder) if one["what"] == "measures"}
    assert list(told) == [0, 1, 2, 3, 4]
    summary = followed.summary
    at_end = summary.at_end["global"]["accuracy"]
    last = told[4]
    assert (last["accuracy/mean"], last["accuracy/p10"]) == (at_end.user_mean, at_end.p10)
    assert last["accuracy/worst_tenth"] == at_end.worst_decile_mean
    assert told[0]["accuracy/frozen"] == summary.at_end["frozen"]["accuracy"].user_mean
    for name in ("calls", "tokens", "money"):
        total = summary.totals[name]
        assert last[f"cost_so_far/{name}"] == pytest.approx(0.0 if total is None else total)
        assert sum(one.get(f"cost/{name}", 0.0) for one in told.values()) == pytest.approx(total)
    assert last["cost/hours"] == pytest.approx(summary.measured["virtual_end"] / 3600)
    assert last["cost_so_far/joules"] == pytest.approx(summary.measured["joules"])


def test_ends_of_phases_bring_forgetting_and_findings(followed: "flsim.Run") -> None:
    told = told_in(followed.folder)
    values = {one["round"]: one["values"] for one in told if one["what"] == "measures"}
    (drop,) = followed.summary.continual["accuracy"].forgetting
    assert values[4]["forgetting/accuracy"] == drop.mean
    assert [round_ for round_, own in values.items() if "forgetting/accuracy" in own] == [4]  # nothing is old before
    found = followed.summary.findings
    assert values[4]["findings/warnings"] == sum(one.severity == "warning" for one in found)
    texts = [one for one in told if one["what"] == "text"]
    assert [one["round"] for one in texts] == [2, 4]
    assert all(one.sentence in texts[-1]["text"] for one in found)


def test_the_frame_of_one_round_is_read_as_a_whole() -> None:
    """A thousand devices take hardly more calls than ten, so that it stays a small part of any round of theirs."""

    def calls(devices: int) -> int:
        names = [f"name_{number}" for number in range(40)]
        told = [(3, f"device-{d:04d}", "all", "train", "own", name, 1.0, 1.0) for d in range(devices) for name in names]
        tests = rows_frame([of_test(d, 1, 2) for d in range(devices)])
        frame = pd.concat([pd.DataFrame(told, columns=list(COLUMNS)), tests], ignore_index=True)
        with cProfile.Profile() as profile:
            measures_of(frame, 0.3)
        return sum(int(one.callcount) for one in profile.getstats())

    calls(10)  # what is imported and looked up but once is not counted
    assert calls(1000) < 1.2 * calls(10)
