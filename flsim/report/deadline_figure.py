"""Right within d seconds as a picture: over deadlines, the share of test questions answered right in time, by class."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.charts.systems import class_colour, named_deadlines, right_in_time
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import of_classes
from flsim.report.plot import EndLabel, as_percent_axis, label_ends, new_figure, percent


def deadline_figure(run: RunRows) -> Figure:
    """At the left all that is answered in time, at the right what is also right; of tests that were held so."""
    figure = new_figure(11, 4.2)
    figure.subplots_adjust(left=0.075, right=0.84, top=0.88, bottom=0.14, wspace=0.42)
    left, right = figure.subplots(1, 2)
    _draw(left, run, "")
    left.set_title("Answered in time", pad=10)
    _draw(right, run, "right_")
    right.set_title("Right and in time", pad=10)
    return figure


def _draw(axes: Axes, run: RunRows, before: str) -> None:
    """A line per class and one of all users; where it is of right answers, short lines show them without a deadline."""
    limits, lines, classes = named_deadlines(run), right_in_time(run, before), run.classes
    places, labels, top = np.arange(len(limits)), [], 0.0  # (deadlines,)
    ends = {**of_classes(run.accuracy, classes), "all": float(run.accuracy.mean())} if before else {}
    for number, (name, values) in enumerate(lines.items()):
        colour = class_colour(number, name)
        dashes = (0, (5, 3)) if name == "all" else "solid"
        axes.plot(places, values, color=colour, linewidth=2.2, linestyle=dashes, marker="o", markersize=5)
        if name in ends:
            axes.plot(len(limits) - 0.45, ends[name], "_", color=colour, markersize=14, markeredgewidth=2.4)
        top = max(top, *values, ends.get(name, 0.0))
        labels.append(EndLabel(float(values[-1]), f"{name} {percent(float(values[-1]))}", colour))
    axes.set_xticks(places, limits)
    axes.set_xlim(-0.3, len(limits) - (0.25 if before else 0.7))
    axes.set_ylim(0, 1.08 * top or 1.0)
    as_percent_axis(axes)
    axes.set_xlabel("deadline" + ("; short lines: right at any time" if before else ""))
    axes.set_ylabel("test questions")
    label_ends(axes, labels)
