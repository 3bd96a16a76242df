"""Where joules go as a picture: a stacked bar per class of device, for a round and for a test question."""

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flsim.charts.systems import JOULES, joules_by_class
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import of_classes
from flsim.metrics.users import per_user
from flsim.report.plot import COLOURS, INK, new_figure
from flsim.text import energy, unit_for

LOOKS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        name: (colour, *(("////", f"{text} (the second number)") if name == "cloud_joules" else ("", text)))
        for name, (colour, text) in JOULES.items()
    }
)
"""Rows of the parts, in their order in a bar: colour, hatching and what they are."""


def energy_figure(run: RunRows) -> Figure:
    """A round at the left; a test question at the right, where tests say what they take."""
    rounds = joules_by_class(run).reindex(run.classes.cat.categories, fill_value=0.0)
    questions = of_classes(per_user(run.at_end("question_joules")), run.classes)
    height = 1.65 + 0.5 * len(rounds)
    figure = new_figure(11, height)
    figure.subplots_adjust(left=0.09, right=0.97, top=1 - 0.5 / height, bottom=0.95 / height, wspace=0.12)
    panels = figure.subplots(1, 1 if questions.empty else 2, squeeze=False, sharey=True)[0]
    _draw_stacked(panels[0], rounds)
    panels[0].set_title("A device's round", pad=10)
    if len(questions):
        _draw_stacked(panels[1], questions.reindex(rounds.index).to_frame("question"))
        panels[1].set_title("A test question, from the battery", pad=10)
    handles = [
        Patch(facecolor=LOOKS[part][0], hatch=LOOKS[part][1], edgecolor="white", label=LOOKS[part][2])
        for part in LOOKS
        if rounds[part].any()
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.08, 0.0), ncols=len(LOOKS), labelcolor=INK)
    return figure


def _draw_stacked(axes: Axes, parts: pd.DataFrame) -> None:
    sums = parts.sum(axis=1)
    size, unit = unit_for("joules", float(sums.max()))
    for place, (_, line) in enumerate(parts.iterrows()):
        left = 0.0
        for part, value in line.items():
            colour, hatch, _ = LOOKS.get(str(part), (COLOURS["dual"], "", ""))
            length = float(value) / size
            axes.barh(place, length, 0.62, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
            left += length
        cloud = float(line.get("cloud_joules", 0.0))
        said = energy(float(sums.iloc[place]) - cloud) + (f" and {energy(cloud)}" if cloud else "")
        axes.text(left, place, f"  {said if sums.iloc[place] else 'nobody took part'}", va="center", size=9.5)
    axes.set_yticks(range(len(parts)), [str(name) for name in parts.index], color=INK)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(0, 1.3 * float(sums.max()) / size or 1.0)
    axes.set_xlabel(unit)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
