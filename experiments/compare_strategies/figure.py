"""The figure of a part: every arm's accuracy against the one it is paired with, the worst-off tenth beside the mean."""

import statistics
from pathlib import Path

from experiments.compare_strategies.plan import Part
from experiments.compare_strategies.tables import Outcomes, difference, worst_tenth
from flsim.report.drawing import COLOURS, INK, QUIET, drawing_style, new_figure, save_figure


def draw_part(part: Part, outcomes: Outcomes, path: Path) -> None:
    """Two panels with a line per arm: the paired difference with its interval, and user mean and worst tenth."""
    base = part.against[-1]
    names = [arm.name for arm in part.arms]
    places = range(len(names), 0, -1)
    with drawing_style():
        figure = new_figure(9.6, 1.5 + 0.34 * len(names))
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1.15, 1]})
        left.axvline(0, color=QUIET, linewidth=1, linestyle="--")
        for place, name in zip(places, names, strict=True):
            if name == base:
                left.plot(0, place, "o", color=QUIET)
            else:
                gap = difference(outcomes, name, base)
                left.plot([100 * gap.low, 100 * gap.high], [place, place], color=INK, linewidth=2)
                left.plot(100 * gap.mean, place, "o", color=COLOURS["global"])
            runs = outcomes[name]
            mean = 100 * statistics.mean(float(run.accuracy.mean()) for run in runs)
            worst = 100 * statistics.mean(worst_tenth(run.accuracy.to_numpy(dtype=float)) for run in runs)
            right.plot([worst, mean], [place, place], color=QUIET, linewidth=1)
            right.plot(mean, place, "o", color=COLOURS["global"], label="mean user" if place == 1 else None)
            right.plot(worst, place, "s", color=COLOURS["random"], label="worst-off tenth" if place == 1 else None)
        left.set_yticks(list(places), names, color=INK)
        left.set_title(f"minus {base}, paired by user", loc="left")
        left.set_xlabel("points of accuracy, 95 % interval")
        right.set_title("accuracy at the end", loc="left")
        right.set_xlabel("% of the user's test prompts")
        right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25 - 1.2 / (2 + len(names))), ncols=2)
        figure.suptitle(part.question, x=0.01, ha="left", fontsize=11)
        save_figure(figure, path)
