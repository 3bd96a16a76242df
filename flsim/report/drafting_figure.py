"""When drafting pays, as a picture: the round trip across, acceptance up, the best length of a draft in every cell.

Where the trip is longer than the line, the cloud's own stream gives a token sooner than any draft (the inequality of
`flsim/collaboration/worth.py`, after arXiv 2606.25091). Devices of a fleet lie on it as rings. A second picture holds
what was measured of drafts against the law of equal and independent chances.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flsim.collaboration.worth import Pace, expected_tokens
from flsim.report.plot import COLOURS, GROUP_COLOURS, INK, QUIET, as_percent_axis, new_figure
from flsim.text import seconds

TRIPS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Round trips of the columns, in seconds."""
ACCEPTANCES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Of the rows, from the lowest."""
LONGEST = 12
"""Longest draft that is looked at."""
_MAP = LinearSegmentedColormap.from_list("pays", (COLOURS["random"], "#FFFFFF", COLOURS["global"]))
_ENOUGH = 40  # verifications from which on a histogram says something
_WIDE = 4.0  # times as fast or as slow at which a cell has its full colour


@dataclass(frozen=True)
class Panel:
    """One class of device before one cloud."""

    title: str
    pace: Pace
    """Its trip is not looked at."""
    rings: Sequence[tuple[float, float]] = ()
    """Of its devices: round trip in seconds, and acceptance."""


def best_lengths(
    pace: Pace, trips: Sequence[float] = TRIPS_S, acceptances: Sequence[float] = ACCEPTANCES, longest: int = LONGEST
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best length of a draft for every trip and acceptance, and how many times as fast it is as a stream.

    Args:
        pace: of device and cloud.
        trips: R of them, in seconds.
        acceptances: A of them.
        longest: draft that is allowed.

    Returns:
        k* `(A, R)`, of 1 to `longest`, and seconds per token of a stream over those of drafting `(A, R)`.
    """
    lengths, gains = np.zeros((2, len(acceptances), len(trips)))  # (A, R) each
    for row, acceptance in enumerate(acceptances):
        for column, trip in enumerate(trips):
            there = replace(pace, rtt_s=trip)
            best = min(range(1, longest + 1), key=lambda k: (there.per_token(acceptance, k), k))
            lengths[row, column] = best
            gains[row, column] = pace.verify_s / there.per_token(acceptance, best)
    return lengths.astype(np.int64), gains


def longest_trip(pace: Pace, acceptance: float, longest: int = LONGEST) -> float:
    """The trip in seconds below which the best draft gives a token sooner than a stream; at most 0 where none does."""
    return max(pace.longest_rtt(acceptance, drafted) for drafted in range(1, longest + 1))


def acceptance_of(gained: float, length: int) -> float:
    """The chance a with which drafts of so many tokens give so many for each request, `E(a, k) = gained`.

    Where answers end within drafts it is a little low, as fewer tokens were to be had. By hand: 1.8 of drafts of one
    token are 0.8.

    Args:
        gained: tokens for each request; 1 and less are chance 0, `length + 1` and more chance 1.
        length: k, at least 1.
    """
    low, high = 0.0, 1.0
    for _ in range(50):  # halves: far below what a float tells apart
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(middle, length) < gained else (low, middle)
    return high if gained > 1 else 0.0


def drafting_figure(panels: Sequence[Panel]) -> Figure:
    """A map for every class of device."""
    figure = new_figure(1.2 + 4.6 * len(panels), 4.9)
    left, right = 0.75 / figure.get_figwidth(), 1 - 0.15 / figure.get_figwidth()
    figure.subplots_adjust(left=left, right=right, top=0.87, bottom=0.2, wspace=0.08)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
        _draw_map(axes, panel)
    figure.axes[0].set_ylabel("chance that a drafted token is accepted")
    figure.axes[0].set_yticks(range(len(ACCEPTANCES)), [f"{100 * a:g} %" for a in ACCEPTANCES])
    said = "cells: best length of a draft; blue: drafting is faster; orange: the stream is; line: equal; rings: devices"
    figure.text(left, 0.025, said, size=9.5, color=INK)
    return figure


def _draw_map(axes: Axes, panel: Panel) -> None:
    lengths, gains = best_lengths(panel.pace)
    shown = np.clip(np.log(gains) / math.log(_WIDE), -1, 1)  # (A, R)
    axes.imshow(shown, cmap=_MAP, vmin=-1.4, vmax=1.4, aspect="auto", origin="lower", interpolation="nearest")
    for row, column in np.ndindex(lengths.shape):
        pays = gains[row, column] > 1
        weight, colour = ("bold", INK) if pays else ("normal", QUIET)
        axes.text(
            column, row, str(lengths[row, column]), ha="center", va="center", size=9.5, weight=weight, color=colour
        )
    fine = np.linspace(ACCEPTANCES[0], ACCEPTANCES[-1], 200)  # (200,)
    ends = np.array([longest_trip(panel.pace, a) for a in fine])  # (200,)
    some = ends >= TRIPS_S[0]  # (200,)
    axes.plot(_columns(ends[some]), _rows(fine[some]), color="black", linewidth=2.2)
    if panel.rings:
        trips, chances = np.array(panel.rings, dtype=float).T  # (D,) each
        axes.plot(_columns(trips), _rows(chances), "o", color="none", markeredgecolor="black", markersize=14)
    axes.set_xticks(range(len(TRIPS_S)), [seconds(trip).removesuffix(" ms") for trip in TRIPS_S])
    axes.set_xlim(-0.5, len(TRIPS_S) - 0.5)
    axes.set_ylim(-0.5, len(ACCEPTANCES) - 0.5)
    axes.set_xlabel("round trip in ms")
    axes.set_title(panel.title, pad=8)
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _columns(trips: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where trips lie between the columns, by their logarithms."""
    return np.asarray(np.interp(np.log(trips), np.log(TRIPS_S), np.arange(len(TRIPS_S))), dtype=np.float64)


def _rows(acceptances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where acceptances lie between the rows."""
    return np.asarray(np.interp(acceptances, ACCEPTANCES, np.arange(len(ACCEPTANCES))), dtype=np.float64)


@dataclass(frozen=True)
class Drafted:
    """What was measured of drafts of one length."""

    length: int
    """k, tokens of a draft."""
    lengths: Sequence[int]
    """How many tokens were accepted in each verification of a whole draft whose answer did not end within it."""

    @property
    def acceptance(self) -> float:
        """Chance that a token is accepted, given that those before it were: accepted over those that were judged.

        Of a draft whose third token is the first to be wrong, three were judged; accepted over drafted is lower, since
        what follows a wrong token counts there as well. By hand: lengths 2, 0 and 4 of drafts of 4 are 6 of 8.
        """
        judged = sum(min(own + 1, self.length) for own in self.lengths)
        return sum(self.lengths) / judged if judged else float("nan")

    @property
    def gained(self) -> float:
        """Mean tokens of an answer for each of these verifications."""
        return 1 + float(np.mean(self.lengths)) if len(self.lengths) else float("nan")


def accepted_figure(found: Mapping[int, Drafted]) -> Figure:
    """At the left tokens per verification against E(a, k); at the right how long drafts hold, against a^n (1 - a)."""
    figure = new_figure(11, 4.2)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.88, bottom=0.14, wspace=0.2)
    left, right = figure.subplots(1, 2)
    lengths = sorted(found)
    left.plot(lengths, [found[k].gained for k in lengths], "o", color=COLOURS["global"], label="measured")
    law = [expected_tokens(found[k].acceptance, k) for k in lengths]
    left.plot(lengths, law, color=COLOURS["random"], linewidth=2, label="E(a, k), a measured at each k")
    left.set(xlabel="k, tokens of a draft", ylabel="tokens of the answer for each request")
    left.set_title("Tokens per verification", pad=8)
    left.legend(loc="upper left")
    one = found[max(lengths, key=lambda k: (min(len(found[k].lengths), _ENOUGH), k))]
    places = np.arange(one.length + 1)  # (k + 1,)
    shares = np.bincount(one.lengths, minlength=len(places)) / max(1, len(one.lengths))  # (k + 1,)
    right.bar(places, shares, 0.7, color=GROUP_COLOURS[4], label=f"measured, {len(one.lengths)} verifications")
    right.plot(
        places, _geometric(one.acceptance, one.length), "D", color=COLOURS["random"], label="independent chances"
    )
    right.set_xticks(places)
    right.set_ylim(top=1.3 * right.get_ylim()[1])  # room for the legend
    as_percent_axis(right)
    right.set(xlabel="accepted tokens of a draft", ylabel="verifications")
    right.set_title(f"Drafts of {one.length} tokens", pad=8)
    right.legend(loc="upper left", ncols=2, fontsize=9.5)
    return figure


def _geometric(chance: float, length: int) -> NDArray[np.float64]:
    """How likely 0 to k accepted tokens are, `(k + 1,)`: `a^n (1 - a)`, and `a^k` for all of them."""
    places = np.arange(length + 1)  # (k + 1,)
    return np.where(places < length, (1 - chance) * chance**places, chance**length)
