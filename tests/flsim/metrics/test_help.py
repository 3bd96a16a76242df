"""Measures of how devices are helped, by hand: requests, bytes and drafts of test questions, by user and per right."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from flsim.metrics.formulas import AtEnd, MeanUser
from flsim.metrics.measures import MEASURES, of_table
from flsim.metrics.measures_of_help import share, tokens_per_request
from flsim.metrics.rows import Row, rows_frame
from flsim.metrics.run_rows import RunRows
from flsim.report.system_summary import measured_of

TESTED = {
    "accuracy": (6.0, 8.0),
    "cloud_test_trips": (9.0, 3.0),
    "cloud_test_tokens": (80.0, 40.0),
    "cloud_test_bytes": (900.0, 500.0),
    "drafted_tokens": (36.0, 12.0),
    "accepted_tokens": (18.0, 9.0),
    "computed_again": (1.0, 0.0),
}
"""Of 10 questions of each of two users."""


def run_of(tested: Mapping[str, Sequence[float]]) -> RunRows:
    rows = [
        Row(4, f"device-00{k}", "arithmetic", "test", "global", name, total, 10.0)
        for name, totals in tested.items()
        for k, total in enumerate(totals)
    ]
    rows += [Row(r, "device-000", "all", "train", "own", "accepted_tokens", 3.0, 2.0 + r) for r in (1, 2)]
    return RunRows(rows_frame(rows), (), tau=0.3)


def test_what_a_question_takes_by_user() -> None:
    run = run_of(TESTED)
    formulas = {name: MEASURES[name].of for name in ("trips", "question_bytes", "drafted", "computed_again")}
    assert {name: of(run).tolist() for name, of in formulas.items() if isinstance(of, AtEnd)} == {
        "trips": [0.9, 0.3],
        "question_bytes": [90.0, 50.0],
        "drafted": [3.6, 1.2],
        "computed_again": [0.1, 0.0],
    }


def test_ratios_are_of_the_mean_user() -> None:
    """Per question 0.6 requests, 70 bytes, 6 tokens, 2.4 drafted and 1.35 accepted; 0.7 of the answers are right."""
    found = measured_of(run_of(TESTED))
    wanted = {
        "acceptance": 1.35 / 2.4,
        "tokens_per_request": 1 + 1.35 / 0.6,
        "trips_per_right": 0.6 / 0.7,
        "bytes_per_right": 70 / 0.7,
        "cloud_tokens_per_right": 6 / 0.7,
        "training_acceptance": 6 / 7,
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_without_drafts_nothing_is_said_of_them() -> None:
    found = measured_of(run_of({name: TESTED[name] for name in ("accuracy", "cloud_test_trips")}))
    assert "trips_per_right" in found
    assert not {"drafted", "acceptance", "tokens_per_request", "bytes_per_right"} & found.keys()


def test_nothing_of_nothing_is_not_a_number() -> None:
    assert np.isnan(share(0.0, 0.0))
    assert np.isnan(tokens_per_request(0.0, 0.0))
    assert tokens_per_request(6.0, 3.0) == 3.0


def test_every_ratio_is_of_measures_that_there_are() -> None:
    ratios = [one.of for one in of_table("help") if isinstance(one.of, MeanUser)]
    assert len(ratios) == 5
    assert all(name in MEASURES for ratio in ratios for name in ratio.needs)
