"""Pictures of drafting: the map against numbers by hand and its law, and measured drafts against the geometric law."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from flsim.collaboration.worth import Pace
from flsim.report.drafting_figure import (
    ACCEPTANCES,
    TRIPS_S,
    Drafted,
    Panel,
    acceptance_of,
    accepted_figure,
    best_lengths,
    drafting_figure,
    longest_trip,
)
from flsim.report.plot import save_if_drawn

PACE = Pace(draft_s=0.02, verify_s=0.03, rtt_s=0.0)


def test_cells_by_hand() -> None:
    """Of the reference: a = 0.8, 20 and 30 ms; trips of 10, 50, 100 and 200 ms give k = 2, 3, 5 and 6."""
    lengths, gains = best_lengths(PACE, (0.01, 0.05, 0.1, 0.2), (0.8,))
    assert lengths.tolist() == [[2, 3, 5, 6]]
    assert (1000 * PACE.verify_s / gains[0]).round(1).tolist() == [32.8, 47.4, 62.3, 88.6]
    assert 1000 * longest_trip(PACE, 0.8) == pytest.approx(4.0)
    assert 1000 * longest_trip(Pace(0.02, 0.1, 0.0), 0.8) == pytest.approx(176.0, abs=0.5)


def test_the_best_length_grows_with_trip_and_acceptance_and_drafting_pays_left_of_the_line() -> None:
    for pace in (PACE, Pace(0.005, 0.05, 0.0)):
        lengths, gains = best_lengths(pace)
        assert (np.diff(lengths, axis=0) >= 0).all()
        assert (np.diff(lengths, axis=1) >= 0).all()
        for row, acceptance in enumerate(ACCEPTANCES):
            end = longest_trip(pace, acceptance)
            apart = [abs(trip - end) > 1e-9 for trip in TRIPS_S]  # at the end itself both are as fast
            assert (gains[row] > 1)[apart].tolist() == [trip < end for trip in np.array(TRIPS_S)[apart]]


def test_acceptance_is_of_tokens_that_were_judged() -> None:
    found = Drafted(4, [2, 0, 4])
    assert found.acceptance == 6 / 8
    assert found.gained == 3.0
    assert math.isnan(Drafted(4, []).acceptance)


def test_a_chance_is_found_again_from_what_it_gives() -> None:
    assert acceptance_of(1.8, 1) == pytest.approx(0.8)
    assert acceptance_of(3.3616, 4) == pytest.approx(0.8)
    assert (acceptance_of(1.0, 4), acceptance_of(0.9, 4)) == (0.0, 0.0)
    assert acceptance_of(5.0, 4) == pytest.approx(1.0)


def test_both_pictures_are_drawn(tmp_path: Path) -> None:
    panels = [Panel("low", PACE, [(0.02, 0.7), (0.07, 0.4)]), Panel("high", Pace(0.005, 0.05, 0.0))]
    assert save_if_drawn(lambda: drafting_figure(panels), tmp_path / "map.png")
    figure = drafting_figure(panels)
    assert [len(axes.texts) for axes in figure.axes] == [len(TRIPS_S) * len(ACCEPTANCES)] * 2
    drafts = {k: Drafted(k, [0, k, k // 2]) for k in (1, 2, 4)}
    assert save_if_drawn(lambda: accepted_figure(drafts), tmp_path / "accepted.png")


def test_a_picture_that_cannot_be_drawn_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The one of an earlier report goes, since it would show something else; numbers are not held up."""

    def draw() -> Figure:
        raise ZeroDivisionError("no users")

    (tmp_path / "map.png").write_bytes(b"of an earlier report")
    assert not save_if_drawn(draw, tmp_path / "map.png")
    assert "map.png is left out: it cannot be drawn (ZeroDivisionError: no users)" in caplog.text
    assert not list(tmp_path.iterdir())
