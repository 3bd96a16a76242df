"""Right within d seconds as a picture: over deadlines, the share of test questions answered right in time, by class."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import deadlines, of_classes
from flsim.metrics.users import per_user
from flsim.report.plot import COLOURS, GROUP_COLOURS, EndLabel, as_percent_axis, label_ends, new_figure, percent
from flsim.text import seconds


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
    limits = deadlines(run.rows)
    users = {limit: per_user(run.at_end(f"{before}{name}")) for limit, name in limits.items()}
    classes = run.classes
    names = classes.cat.categories
    lines = {str(name): [of_classes(own, classes).get(name, np.nan) for own in users.values()] for name in names}
    lines["all"] = [float(own.mean()) for own in users.values()]
    places, labels, top = np.arange(len(limits)), [], 0.0  # (deadlines,)
    ends = {**of_classes(run.accuracy, classes), "all": float(run.accuracy.mean())} if before else {}
    for number, (name, values) in enumerate(lines.items()):
        colour = COLOURS["frozen"] if name == "all" else GROUP_COLOURS[number % len(GROUP_COLOURS)]
        dashes = (0, (5, 3)) if name == "all" else "solid"
        axes.plot(places, values, color=colour, linewidth=2.2, linestyle=dashes, marker="o", markersize=5)
        if name in ends:
            axes.plot(len(limits) - 0.45, ends[name], "_", color=colour, markersize=14, markeredgewidth=2.4)
        top = max(top, *values, ends.get(name, 0.0))
        labels.append(EndLabel(float(values[-1]), f"{name} {percent(float(values[-1]))}", colour))
    axes.set_xticks(places, [seconds(limit) if limit != int(limit) else f"{limit:.0f} s" for limit in limits])
    axes.set_xlim(-0.3, len(limits) - (0.25 if before else 0.7))
    axes.set_ylim(0, 1.08 * top or 1.0)
    as_percent_axis(axes)
    axes.set_xlabel("deadline" + ("; short lines: right at any time" if before else ""))
    axes.set_ylabel("test questions")
    label_ends(axes, labels)
