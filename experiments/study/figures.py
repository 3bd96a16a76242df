"""Figures of the paper's questions: usage and lambda over rounds, and what a switch costs of what was learned."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.study.phases import BAND
from flsim.comparison.result import Compared
from flsim.report.plot import COLOURS, INK, QUIET, as_percent_axis, as_rounds_axis, new_figure
from flsim.tasks.stream import Phase

_ACROSS = 3


def asking_figure(comparison: Compared, labels: Sequence[str], phases: Sequence[Phase], tau: float) -> Figure:
    """Mean over seeds of the mean user, with the band of users from p10 to p90; lambda where a method moves one."""
    down = math.ceil(len(labels) / _ACROSS)
    height = 0.9 + 2.3 * down
    figure = new_figure(12, height)
    figure.subplots_adjust(left=0.06, right=0.985, top=1 - 0.45 / height, bottom=0.75 / height, hspace=0.5, wspace=0.1)
    panels = figure.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
    curves = comparison.curves
    for axes, label in zip(panels, labels, strict=False):
        _draw(axes, curves[curves["method"] == label], phases, tau)
        axes.set_title(label, pad=8)
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    for axes in panels[: len(labels)][:-_ACROSS]:
        axes.set_xlabel("")
    for axes in panels[: len(labels)][-_ACROSS:]:
        axes.tick_params(labelbottom=True)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=4, fontsize=10)
    return figure


def switch_figure(found: Mapping[str, Mapping[str, tuple[float, float]]], first_phase: str) -> Figure:
    """A line per method: accuracy on the groups of phase 1 at its end (a ring) and after the next phase (a disc).

    Args:
        found: what `over_switch` says of each method.
        first_phase: what phase 1 is called.
    """
    height = 1.3 + 0.3 * len(found)
    figure = new_figure(12, height)
    figure.subplots_adjust(left=0.21, right=0.97, top=1 - 0.5 / height, bottom=0.75 / height, wspace=0.06)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, measure, title in zip(panels, ("alone_accuracy", "accuracy"), ("alone", "may ask"), strict=True):
        for place, measures in enumerate(found.values()):
            before, after = measures[measure]
            lost = COLOURS["dual"] if after < before else COLOURS["global"]
            axes.plot([before, after], [place, place], color=lost, lw=2, zorder=1)
            axes.scatter([before], [place], s=36, facecolor="white", edgecolor=lost, lw=1.6, zorder=2)
            axes.scatter([after], [place], s=40, color=lost, zorder=3)
        axes.set_title(title, pad=8)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.margins(x=0.08)
    panels[0].set_yticks(range(len(found)), list(found))
    panels[0].invert_yaxis()
    figure.supxlabel(
        f"accuracy on group {first_phase}: at its end (ring), at the end of the next phase (disc)", fontsize=10
    )
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, phases: Sequence[Phase], tau: float) -> None:
    usage = curves[curves["measure"] == "training_usage"].groupby("round")[["mean", "p10", "p90"]].mean()
    dual = curves[curves["measure"] == "dual_variable"].groupby("round")["mean"].mean()
    axes.axhspan(tau - BAND, tau + BAND, color="#EEEEEE", zorder=0, label=f"tau ± {BAND:g}")
    axes.fill_between(
        usage.index, usage["p10"], usage["p90"], color=COLOURS["global"], alpha=0.18, lw=0, label="p10 to p90"
    )
    axes.plot(usage.index, usage["mean"], color=COLOURS["global"], lw=2, label="usage of the mean user")
    if len(dual) and float(dual.abs().max()) > 0:
        axes.plot(
            dual.index,
            dual.clip(upper=1.05),
            color=COLOURS["dual"],
            lw=1.6,
            ls=(0, (5, 2)),
            label="lambda (1 is 100 %)",
        )
    for phase in phases[1:]:
        axes.axvline(phase.first_round - 0.5, color=QUIET, lw=0.8, ls=":")
    for phase in phases:
        axes.text((phase.first_round + phase.last_round) / 2, 1.02, phase.name, color=INK, ha="center", fontsize=9)
    axes.set_ylim(0, 1.1)
    as_percent_axis(axes)
    as_rounds_axis(axes, phases[-1].last_round, first_round=1)
