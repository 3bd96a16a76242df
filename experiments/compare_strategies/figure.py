"""The figure of a part: every arm's accuracy against the one it is paired with, the worst-off tenth beside the mean."""

import statistics
import textwrap
from pathlib import Path

from matplotlib.axes import Axes

from experiments.compare_strategies.plan import Part
from experiments.compare_strategies.tables import Outcomes, difference
from flsim.metrics.users import worst_decile_mean
from flsim.report.plot import COLOURS, INK, QUIET, drawing_style, new_figure, save_figure

_WIDTH, _LINE, _ABOVE, _BELOW, _NAMES = 9.6, 0.34, 1.0, 1.0, 2.1  # inches


def draw_part(part: Part, outcomes: Outcomes, path: Path) -> None:
    """Two panels with a line per arm: the paired difference with its interval, and user mean and worst tenth."""
    names = [arm.name for arm in part.arms]
    height = _ABOVE + _LINE * len(names) + _BELOW
    with drawing_style():
        figure = new_figure(_WIDTH, height)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.15, 1])
        _draw_differences(left, names, outcomes, base=part.against[-1])
        _draw_accuracy(right, names, outcomes)
        left.set_yticks(_places(names), names, color=INK)
        left.set_ylim(0.4, len(names) + 0.6)
        figure.subplots_adjust(_NAMES / _WIDTH, _BELOW / height, 0.98, 1 - _ABOVE / height, wspace=0.08)
        question = "\n".join(textwrap.wrap(part.question, 110))
        figure.text(0.012, 1 - 0.14 / height, question, ha="left", va="top", color=INK, fontsize=11)
        figure.legend(*right.get_legend_handles_labels(), loc="lower right", ncols=2, frameon=False)
        save_figure(figure, path)


def _draw_differences(axes: Axes, names: list[str], outcomes: Outcomes, *, base: str) -> None:
    axes.axvline(0, color=QUIET, linewidth=1, linestyle="--")
    for place, name in zip(_places(names), names, strict=True):
        if name == base:
            axes.plot(0, place, "o", color=QUIET)
            continue
        gap = difference(outcomes, name, base)
        axes.plot([100 * gap.low, 100 * gap.high], [place, place], color=INK, linewidth=2)
        axes.plot(100 * gap.mean, place, "o", color=COLOURS["global"])
    axes.set_title(f"minus {base},\npaired by user", loc="left")
    axes.set_xlabel("points of accuracy, 95 % interval")


def _draw_accuracy(axes: Axes, names: list[str], outcomes: Outcomes) -> None:
    means = [100 * statistics.mean(float(run.accuracy.mean()) for run in outcomes[name]) for name in names]
    worst = [
        100 * statistics.mean(worst_decile_mean(run.accuracy.to_numpy(dtype=float)) for run in outcomes[name])
        for name in names
    ]
    axes.hlines(_places(names), worst, means, color=QUIET, linewidth=1)
    axes.plot(worst, _places(names), "s", color=COLOURS["random"], label="worst-off tenth")
    axes.plot(means, _places(names), "o", color=COLOURS["global"], label="mean user")
    axes.set_title("accuracy at the end", loc="left")
    axes.set_xlabel("% of the user's test prompts")


def _places(names: list[str]) -> list[int]:
    """From the top down."""
    return list(range(len(names), 0, -1))
