"""A round in virtual time as a picture: a bar per device with its parts, and the server's versions above them.

Of more devices than fit, a bar per class shows the mean of each part, and strokes show when each device was done.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flsim.metrics.rows import training
from flsim.metrics.systems import classes_of, is_buffered, stints_of, virtual_seconds
from flsim.report.plot import COLOURS, INK, QUIET, new_figure
from flsim.text import duration, unit_for

MOST_BARS = 40
LOOKS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "waited": ("#E2E2E2", "", "until it is there"),
        "down": (COLOURS["alone"], "", "receives"),
        "compute": ("#E69F00", "", "computes"),
        "cloud": (COLOURS["cloud"], "////", "waits for the cloud"),
        "up": (COLOURS["global"], "", "sends"),
    }
)
"""Parts in their order in time: colour, hatching and what they are."""
WASTED = "#B0B0B0"
_UNKNOWN = "untested"  # devices that are not tested have no row of their class


def shown_round(rows: pd.DataFrame) -> int | None:
    """The round of median length, the later of two; None if no device has seconds."""
    timed = sorted(set(training(rows, name="round_seconds")["round"]))
    lengths = virtual_seconds(rows).diff().reindex(timed).dropna()
    if lengths.empty:
        return None
    ordered = sorted(lengths.index, key=lambda round_: (lengths[round_], round_))
    return int(ordered[len(ordered) // 2])


def bars_of(rows: pd.DataFrame, round_: int) -> pd.DataFrame:
    """A line per device that was at work in a round, sorted by class and by when it was done.

    Where rounds are buffered these are also those who were asked in an earlier round and were not done before this one.

    Returns:
        Columns `device`, `class` (the slowest first), `start` (when it was invited, in virtual seconds), seconds of
        each part in a column of `LOOKS`, `done` (virtual seconds) and `wasted` (whether its update did not count).
    """
    stints, begins = stints_of(rows), virtual_seconds(rows).get(round_ - 1, 0.0)
    earlier = (stints["round"] < round_) & (stints["done"] > begins) & is_buffered(rows)
    own = stints[(stints["round"] == round_) | earlier]
    classes = classes_of(rows)
    classes = classes.cat.add_categories([_UNKNOWN]).reindex(own["device"]).fillna(_UNKNOWN)
    parts = {
        "waited": own["begun"] - own["invited"],
        "down": own["link"] - own["up"],
        "compute": own["compute"],
        "cloud": np.clip(own["whole"] - own["link"] - own["compute"], 0.0, own["cloud"]),
        "up": own["up"],
    }
    found = pd.DataFrame({"device": own["device"], "class": classes.to_numpy(), "start": own["invited"]})
    found["class"] = pd.Categorical(found["class"], classes.cat.categories, ordered=True)
    edge = own["invited"]
    for part, length in parts.items():
        after = edge + length
        found[part] = np.clip(np.minimum(after, own["done"]) - edge, 0.0, None)  # who stops early has not done the rest
        edge = after
    found = found.assign(done=own["done"], wasted=~own["counted"])
    return found.sort_values(["class", "done", "device"], ignore_index=True)


def round_figure(rows: pd.DataFrame, round_: int) -> Figure:
    """Draw a round."""
    bars, ends = bars_of(rows, round_), virtual_seconds(rows)
    crowded = len(bars) > MOST_BARS
    lines = bars["class"].nunique() if crowded else len(bars)
    height = 1.75 + (0.55 if crowded else 0.26 if lines <= 20 else 0.2) * max(lines, 3)
    figure = new_figure(10, height)
    figure.subplots_adjust(left=0.2 if crowded else 0.13, right=0.74, top=1 - 0.5 / height, bottom=0.62 / height)
    axes = figure.subplots()
    first, last = float(bars["start"].min()), float(ends[round_])
    length = max(float(bars["done"].max()), last) - first
    size, unit = unit_for("seconds", length)
    (_draw_classes if crowded else _draw_devices)(axes, bars, first, size)
    axes.set_ylim(lines - 0.4, -1.55)
    _draw_server(axes, ends, first, size, round_)
    axes.set_xlim(0, 1.02 * length / size or 1.0)
    axes.set_xlabel(f"virtual time{f' since {duration(first)}' if first else ''}, in {unit}")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines[["left"]].set_visible(False)
    axes.set_title(f"Round {round_}: {duration(float(ends.diff()[round_]))}, {len(bars)} devices", pad=10)
    _draw_key(axes, bars, crowded)
    return figure


def _draw_devices(axes: Axes, bars: pd.DataFrame, first: float, size: float) -> None:
    for place, (_, bar) in enumerate(bars.iterrows()):
        left = (bar["start"] - first) / size
        for part in LOOKS:
            colour, hatch, _ = LOOKS[part]
            length = bar[part] / size
            colour = WASTED if bar["wasted"] and part != "waited" else colour
            axes.barh(place, length, 0.8, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            left += length
    axes.set_yticks(range(len(bars)), bars["device"].tolist(), size=8, color=INK)
    for name, own in bars.groupby("class", observed=True):
        axes.text(1.01, own.index.to_numpy().mean(), str(name), transform=axes.get_yaxis_transform(), va="center")
        if own.index[0]:
            axes.axhline(own.index[0] - 0.5, color="#CCCCCC", linewidth=1)


def _draw_classes(axes: Axes, bars: pd.DataFrame, first: float, size: float) -> None:
    """The mean of each part by class; strokes above the bar where its devices were done."""
    names = bars["class"].unique().tolist()
    for place, name in enumerate(names):
        own = bars[bars["class"] == name]
        left = float((own["start"] - first).mean()) / size
        for part in LOOKS:
            colour, hatch, _ = LOOKS[part]
            length = float(own[part].mean()) / size
            axes.barh(place + 0.1, length, 0.5, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            left += length
        for wasted, done in own.groupby("wasted")["done"]:
            colour = WASTED if wasted else INK
            places = np.full(len(done), place - 0.3)  # (devices,)
            axes.plot((done - first) / size, places, "|", color=colour, markersize=7, alpha=0.6)
    counts, lost = bars["class"].value_counts(), bars.groupby("class", observed=True)["wasted"].sum()
    texts = [
        f"{name}: {counts[name]} devices" + (f"\n{lost[name]} did not count" if lost[name] else "") for name in names
    ]
    axes.set_yticks(range(len(names)), texts, size=9, color=INK)


def _draw_server(axes: Axes, ends: pd.Series, first: float, size: float, round_: int) -> None:
    """The server's versions as a line above the bars, and the end of the round through them."""
    seen = ends[(ends >= first) & (ends.index <= round_)]
    places = ((seen - first) / size).to_numpy(dtype=float)  # (versions,)
    axes.plot(places, np.full(len(places), -1.0), color=INK, linewidth=1.6, marker="|", markersize=11, clip_on=False)
    apart = (places[-1] - places[0]) / 14 if len(places) > 1 else 0.0
    shown = places[-1] + 1e9
    for place, version in zip(places[::-1], seen.index[::-1], strict=True):
        if shown - place >= apart:
            axes.text(place, -1.28, f"v{version}", size=8.5, ha="center", va="bottom", color=INK)
            shown = place
    bottom = axes.get_ylim()[0]
    axes.plot([places[-1]] * 2, [-1.0, bottom], color=INK, linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
    axes.text(-0.01, -1.0, "server", transform=axes.get_yaxis_transform(), ha="right", va="center", size=9, color=INK)


def _draw_key(axes: Axes, bars: pd.DataFrame, crowded: bool) -> None:
    named = {part: text for part, (_, _, text) in LOOKS.items()}
    named |= {} if bars["up"].any() else {"down": "sends and receives"}  # rows do not tell them apart
    handles = [
        Patch(facecolor=LOOKS[part][0], hatch=LOOKS[part][1], edgecolor="white", label=named[part])
        for part in LOOKS
        if bars[part].any()
    ]
    if bars["wasted"].any():
        handles.append(Patch(facecolor=WASTED, edgecolor="white", label="did not count"))
    place = (1.02, 1.0) if crowded else (1.08, 1.0)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=place, borderaxespad=0, fontsize=9, labelcolor=INK)
    if crowded:
        axes.text(1.02, 0.0, "a stroke: a device\nis done", transform=axes.transAxes, size=9, color=QUIET, va="bottom")
