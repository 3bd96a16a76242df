"""Accuracy over the share of prompts that are sent, a panel per domain."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from experiments.real_outcomes.outcomes import Outcome
from experiments.real_outcomes.rules import CALIBRATED
from flsim.metrics.formulas import SENDING
from flsim.metrics.intervals import Interval
from flsim.report.plot import COLOURS, GROUP_COLOURS, QUIET, as_percent_axis, drawing_style, new_figure, save_figure

_DRAWN = {
    CALIBRATED: COLOURS["global"],
    "router, own outcomes": GROUP_COLOURS[1],
    "router, all outcomes": GROUP_COLOURS[5],
    "long questions": GROUP_COLOURS[3],
    "at random": QUIET,
    "oracle": COLOURS["cloud"],
}
"""Rules that a line is drawn for; the others are in the tables."""


def spending_figure(domains: Mapping[str, Mapping[str, Outcome]], path: Path) -> None:
    """Mean user over seeds, with the interval of DA-GRPO's as a band.

    Args:
        domains: outcomes by rule, by the title of their panel.
        path: of the picture.
    """
    with drawing_style():
        width = 1.2 + 4.4 * len(domains)
        figure = new_figure(width, 5.0)
        figure.subplots_adjust(left=0.85 / width, right=1 - 0.35 / width, top=0.9, bottom=0.3, wspace=0.22)
        panels = figure.subplots(1, len(domains), squeeze=False)[0]
        for axes, (title, outcomes) in zip(panels, domains.items(), strict=True):
            _draw(axes, outcomes)
            axes.set_title(title, pad=8)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=10)
        save_figure(figure, path)


def _draw(axes: Axes, outcomes: Mapping[str, Outcome]) -> None:
    for name, colour in _DRAWN.items():
        points = _curve(outcomes[name])
        shares = [share / 100 for share in points]
        axes.plot(
            shares, [of.mean for of in points.values()], color=colour, lw=2.2 if name == CALIBRATED else 1.5, label=name
        )
        if name == CALIBRATED:
            low, high = [of.low for of in points.values()], [of.high for of in points.values()]
            axes.fill_between(shares, low, high, color=colour, alpha=0.16, lw=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the prompts sent to the cloud")
    as_percent_axis(axes)


def _curve(outcome: Outcome) -> dict[int, Interval]:
    """By percent sent, from none to all."""
    inner = {share: outcome.means[f"sending_{share}"] for share in SENDING}
    return {0: outcome.means["alone_accuracy"], **inner, 100: outcome.means["cloud_accuracy"]}
