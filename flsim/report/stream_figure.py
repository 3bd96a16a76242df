"""The realised stream as a picture: which tasks each device met in each round, and how hard they were."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flsim.metrics.users import over_rounds
from flsim.report.plot import (
    COLOURS,
    GROUP_COLOURS,
    INK,
    EndLabel,
    as_rounds_axis,
    draw_band,
    label_ends,
    mark_phases,
    new_figure,
)
from flsim.report.summarise import ordered_tasks
from flsim.tasks.stream import Phase

_STRIPES = 480  # horizontal stripes of the picture, shared out among devices
_MOST_STRIPES = 20  # per device
_FEWEST_STRIPES = 6  # with room for fewer, a device takes the colour of its largest group
_ABSENT = (0.94, 0.94, 0.94)  # a device that met nothing in a round


def stream_figure(stream: pd.DataFrame, phases: Sequence[Phase]) -> Figure:
    """Draw the mix of tasks, devices x rounds, and the fleet's difficulty below.

    Args:
        stream: columns `round, device, task, prompts, mean_difficulty` (0 easiest, 1 hardest of its group).
        phases: the run's phases.
    """
    devices = sorted(stream["device"].unique())
    groups = ordered_tasks(phases, sorted(stream["task"].unique()))
    first, last = int(stream["round"].min()), int(stream["round"].max())
    figure = new_figure(10, 7.5)
    figure.subplots_adjust(left=0.12, right=0.82, top=0.9, bottom=0.075, hspace=0.42)
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [2.6, 1]})
    crowded = stripes_of(len(devices)) == 1
    devices = by_mix(stream, devices, groups) if crowded else devices
    picture = mix_picture(stream, devices, groups)
    above.imshow(picture, aspect="auto", interpolation="nearest", extent=(first - 0.5, last + 0.5, len(devices), 0))
    above.set_yticks([] if crowded else [row + 0.5 for row in range(len(devices))], [] if crowded else devices, size=8)
    above.set_ylabel(f"{len(devices)} devices, sorted by their mix" if crowded else "")
    above.tick_params(axis="y", length=0)
    above.grid(visible=False)
    above.spines[:].set_visible(False)
    as_rounds_axis(above, last, first_round=first)
    mark_phases(above, phases, last)
    colours = {group: GROUP_COLOURS[number % len(GROUP_COLOURS)] for number, group in enumerate(groups)}
    handles = [Patch(color=colour, label=group) for group, colour in colours.items()]
    above.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), labelcolor=INK, borderaxespad=0)
    above.set_title("Tasks that each device met")
    _draw_difficulty(below, stream, phases, first=first, last=last)
    return figure


def stripes_of(devices: int) -> int:
    """Horizontal stripes of one device's row: 20 for a few devices, fewer for many, 1 for more than 80."""
    stripes = min(_MOST_STRIPES, _STRIPES // devices)
    return stripes if stripes >= _FEWEST_STRIPES else 1


def by_mix(stream: pd.DataFrame, devices: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Sort devices by their shares of prompts over the whole stream, first group first, so that like lies by like."""
    counts = stream.pivot_table(index="device", columns="task", values="prompts", aggfunc="sum", fill_value=0)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).reindex(columns=list(groups))
    of = dict(zip(shares.index, shares.itertuples(index=False, name=None), strict=True))
    return sorted(devices, key=lambda device: (*of[device], device), reverse=True)


def mix_picture(stream: pd.DataFrame, devices: Sequence[str], groups: Sequence[str]) -> npt.NDArray[np.float64]:
    """Colour every (device, round) by its mix: the device's stripes are shared out among groups by prompts.

    With many devices a device has one stripe, which takes the colour of the largest group; grey means no prompts.

    Args:
        stream: as for `stream_figure`.
        devices: D devices, from top to bottom.
        groups: tasks, in the order of their colours.

    Returns:
        Red, green and blue from 0 to 1, shape `(D * stripes, rounds, 3)`.
    """
    rounds = range(int(stream["round"].min()), int(stream["round"].max()) + 1)
    stripes = stripes_of(len(devices))
    colours = np.array([to_rgb(GROUP_COLOURS[g % len(GROUP_COLOURS)]) for g in range(len(groups))] + [_ABSENT])
    counts = np.zeros((len(devices), len(rounds), len(groups)))  # (D, R, J)
    which, task = (
        pd.Index(names).get_indexer(pd.Index(stream[of])) for names, of in ((devices, "device"), (groups, "task"))
    )
    when = stream["round"].to_numpy(dtype=int) - rounds[0]  # (lines,)
    np.add.at(counts, (which, when, task), stream["prompts"].to_numpy(dtype=float))
    met = counts.sum(axis=-1, keepdims=True)  # (D, R, 1)
    edges = np.cumsum(counts / np.maximum(met, 1e-9), axis=-1)  # (D, R, J)
    middles = (np.arange(stripes) + 0.5) / stripes  # (S,)
    chosen = (middles[None, :, None, None] > edges[:, None]).sum(axis=-1)  # (D, S, R)
    if stripes == 1:
        chosen = counts.argmax(axis=-1)[:, None]  # (D, 1, R)
    chosen = np.where(met[:, None, :, 0] > 0, np.minimum(chosen, len(groups) - 1), len(groups))  # (D, S, R)
    picture = colours[chosen]  # (D, S, R, 3)
    if stripes > 1:
        picture[:, -1] = 1.0  # a white line between devices
    return np.asarray(picture.reshape(len(devices) * stripes, len(rounds), 3), dtype=np.float64)


def _draw_difficulty(axes: Axes, stream: pd.DataFrame, phases: Sequence[Phase], *, first: int, last: int) -> None:
    """Mean relative difficulty of the prompts, over devices."""
    pairs = pd.DataFrame(
        {
            "round": stream["round"],
            "device": stream["device"],
            "total": stream["mean_difficulty"] * stream["prompts"],
            "weight": stream["prompts"].astype(float),
        }
    )
    curve = over_rounds(pairs)
    draw_band(axes, curve, COLOURS["dual"])
    axes.set_ylim(0, 1)
    axes.set_ylabel("difficulty (0 to 1)")
    as_rounds_axis(axes, last, first_round=first)
    mark_phases(axes, phases, last)
    end = float(curve["mean"].iloc[-1])
    label_ends(axes, [EndLabel(end, f"mean {end:.2f}", COLOURS["dual"])])
    axes.set_title("Difficulty of their prompts")
