"""The realised partition of a data set as files: which labels each device holds, and how much of each split."""

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from flsim.files import write_atomically
from flsim.problems.problem import SPLITS
from flsim.report.html import heading, paragraph, picture, table
from flsim.report.plot import COLOURS, INK, QUIET, new_figure, save_if_drawn
from flsim.tasks.heterogeneity import Heterogeneity, as_lines, counts_table, heterogeneity, label_counts
from flsim.tasks.item import Item
from flsim.tasks.partition import Assignment
from flsim.tasks.sets import DataTask
from flsim.text import amount, percent

_LOG = logging.getLogger("flsim.run.report")  # in the run's log


_MOST_LABELS = 24  # lines of the picture; rarer labels share the last one


_MOST_NAMES = 40  # devices that have room for a name


_LONGEST = 26  # letters of a label


_LONGEST_NAME = 11  # letters of a device's name


_SPLIT_COLOURS = {"train": COLOURS["global"], "validation": COLOURS["alone"], "test": COLOURS["random"]}


_SHADES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#9CC6E3", COLOURS["global"], "#00304D"])


def write_partition(folder: Path, table: pd.DataFrame, assignment: Assignment, *, title: str) -> Heterogeneity:
    """Write `partition.parquet` (the table) and `partition.png` into a folder.

    Args:
        folder: made when missing.
        table: of `flsim.tasks.heterogeneity.counts_table`.
        assignment: that it was made of.
        title: of the picture.

    Returns:
        The figures of heterogeneity.
    """
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(folder / "partition.parquet", buffer.getvalue(), what="the partition of a data set")
    figures = heterogeneity(table, assignment)
    save_if_drawn(lambda: partition_figure(table, assignment, figures, title=title), folder / "partition.png")
    return figures


def partition_figure(table: pd.DataFrame, assignment: Assignment, figures: Heterogeneity, *, title: str) -> Figure:
    """Draw labels x devices, shaded by the device's shares, and the items of each device by split below."""
    counts = _folded(label_counts(table, assignment.devices))  # (D, L)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    order = _by_main_label(shares)
    labels = len(counts.columns)
    height = 3.9 + 0.24 * labels
    figure = new_figure(10, height)
    top, bottom, between = 1.05 / height, 0.75 / height, 0.55 / height
    low = 1.5 / height  # of the lower panel
    left = 0.08 + 0.0065 * min(_LONGEST, max(len(str(name)) for name in counts.columns))
    figure.text(0.02, 1 - 0.32 / height, title, size=13, weight="bold", color=INK)
    figure.text(0.02, 1 - 0.5 / height, "\n".join(as_lines(figures)[2:]), size=9, color=QUIET, va="top")
    above = figure.add_axes((left, bottom + low + between, 0.86 - left, 1 - top - bottom - low - between))
    below = figure.add_axes((left, bottom, 0.86 - left, low))
    _draw_shares(figure, above, shares.loc[order])
    _draw_quantities(below, table, assignment, order)
    below.text(0, 1.04, "; ".join(as_lines(figures)[:2]), transform=below.transAxes, size=9, color=QUIET, va="bottom")
    return figure


def _folded(counts: pd.DataFrame) -> pd.DataFrame:
    """The labels by frequency, the rarest in one column if there are too many."""
    ordered = counts[counts.sum().sort_values(ascending=False, kind="stable").index]
    if len(ordered.columns) <= _MOST_LABELS:
        return ordered
    kept = ordered.iloc[:, : _MOST_LABELS - 1].copy()
    rest = ordered.iloc[:, _MOST_LABELS - 1 :]
    kept[f"{len(rest.columns)} others"] = rest.sum(axis=1)
    return kept


def _by_main_label(shares: pd.DataFrame) -> list[int]:
    """Devices sorted by the label that they hold most of, then by how much, so that like lies by like."""
    values = shares.to_numpy()
    main, much = values.argmax(axis=1), values.max(axis=1)
    return sorted(range(len(values)), key=lambda device: (main[device], -much[device], device))


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _draw_shares(figure: Figure, axes: Axes, shares: pd.DataFrame) -> None:
    """Labels x devices, white for none; the scale ends at the largest share."""
    values = shares.to_numpy().T  # (L, D)
    picture = axes.imshow(values, aspect="auto", interpolation="nearest", cmap=_SHADES, vmin=0, vmax=values.max())
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(values)), [_shortened(str(name), _LONGEST) for name in shares.columns], size=9)
    axes.set_xticks([])
    for edge in np.arange(1, values.shape[0]) - 0.5:
        axes.axhline(edge, color="#EEEEEE", linewidth=0.8)
    box = axes.get_position()
    scale = figure.add_axes((0.885, box.y0 + box.height - min(box.height, 0.3), 0.018, min(box.height, 0.3)))
    bar = figure.colorbar(picture, cax=scale, format=lambda share, _: f"{100 * share:.0f} %")
    bar.outline.set_visible(False)
    scale.grid(visible=False)
    scale.tick_params(length=0, labelsize=9)
    axes.text(1.0, 1.02, "share of the device's items", transform=axes.transAxes, size=9, color=QUIET, ha="right")


def _draw_quantities(axes: Axes, table: pd.DataFrame, assignment: Assignment, order: list[int]) -> None:
    """Items of each device, the splits stacked."""
    by_split = table.pivot_table(index="device", columns="split", values="items", aggfunc="sum", fill_value=0)
    by_split = by_split.reindex(index=order, columns=list(SPLITS), fill_value=0)
    base = np.zeros(len(order))
    for split in SPLITS:
        if by_split[split].sum():
            axes.bar(
                range(len(order)), by_split[split], bottom=base, width=0.85, color=_SPLIT_COLOURS[split], label=split
            )
            base += by_split[split].to_numpy(dtype=float)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylabel("items")
    named = len(order) <= _MOST_NAMES
    names = [_shortened(assignment.names[device], _LONGEST_NAME) for device in order] if named else []
    axes.set_xticks(range(len(order)) if named else [], names, rotation=90, size=8)
    axes.set_xlabel("" if named else f"{len(order)} devices, sorted by the label that they hold most of")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, labelcolor=INK, fontsize=9)


# The realised partitions of a run's data sets: written into its folder, read back for its summary, and on its
# page.

_FOLDER, _PICTURE, _FIGURES = "partitions", "partition.png", "figures.json"


_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("items", "items dealt", amount),
    ("used", "of those there are", percent),
    ("smallest", "fewest of a device", amount),
    ("largest", "most", amount),
    ("gini", "Gini", "{:.2f}".format),
    ("total_variation", "total variation to the fleet", "{:.2f}".format),
    ("jensen_shannon", "Jensen-Shannon", "{:.2f}".format),
    ("effective_labels", "effective labels of a device", "{:.1f}".format),
    ("fleet_effective_labels", "of the fleet", "{:.1f}".format),
)
"""What the page tells of a partition (`flsim/tasks/heterogeneity.py`): field, title and form."""


_SAID = ("over", "rule", "left_out", *(figure.name for figure in fields(Heterogeneity)))
"""What is written of a partition."""


_CAPTION = (
    "The realised partition. Above, every device's shares of what it holds: a column is a device, devices that hold "
    "most of the same lie side by side. Below, how many items of each split it has; it meets no others."
)


def write_partitions(run_dir: Path, groups: Sequence[DataTask]) -> None:
    """Write `partitions/NAME/` for every data set: `partition.parquet`, `partition.png` and `figures.json`.

    Args:
        run_dir: the run's folder.
        groups: its data sets; of those that are not given, what was written before stays.
    """
    for group in groups:
        items, over = _counted(group)
        folder, assignment = run_dir / _FOLDER / group.name, group.source.assignment
        counts = counts_table(items, assignment, over=over)
        figures = write_partition(folder, counts, assignment, title=f"{group.name} by {over}, {_rule(group)}")
        said = {"over": over, "rule": _rule(group), "left_out": group.said, **asdict(figures)}
        text = json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / _FIGURES, text.encode(), what="the partition of a data set")


def read_partitions(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Data set -> what was written of it, such as `{"gini": 0.1, ...}`; empty for a run without data sets.

    What is damaged is left out with a warning: it is made of the data set, and the numbers of the run need none of it.
    """
    found = {}
    for path in sorted(run_dir.glob(f"{_FOLDER}/*/{_FIGURES}")):
        try:
            said = json.loads(path.read_text())
            found[path.parent.name] = {key: said[key] for key in _SAID}
        except (OSError, ValueError, TypeError, KeyError) as error:
            _LOG.warning("%s cannot be read as figures of a partition (%s); it is left out", path, error)
    return found


def partition_pieces(run_dir: Path, partitions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whose items are whose, as pieces of the page: a picture and the figures for each data set."""
    pieces = []
    for name, found in partitions.items():
        path = run_dir / _FOLDER / name / _PICTURE
        pieces.append(heading(f"Who holds what of {name}"))
        pieces += [picture(path, _CAPTION)] if path.is_file() else []
        cells = [f"by {found['over']}, {found['rule']}", *(form(found[field]) for field, _, form in _COLUMNS)]
        pieces.append(table(["dealt", *(title for _, title, _ in _COLUMNS)], [cells]))
        pieces += [paragraph(found["left_out"])] if found["left_out"] else []
    return pieces


def _counted(group: DataTask) -> tuple[Sequence[Item], str]:
    """The items, and the field to count them by: what was dealt by, else the first that all of them have."""
    items, config = group.source.items, group.config
    wished = [config.over] if config.partition == "dirichlet" else ["label", "level", "user"]
    for field in wished:
        if all(getattr(item, field) is not None for item in items):
            return items, field
    return [replace(item, label=group.name) for item in items], "label"


def _rule(group: DataTask) -> str:
    """How it was dealt, for people."""
    config = group.config
    if config.partition == "user":
        return (
            "all users dealt out" if config.users_per_device is None else f"{config.users_per_device} user per device"
        )
    skew = f", quantities log-normal with sigma {config.quantity_sigma:g}" if config.quantity_sigma else ""
    return (f"Dirichlet with alpha {config.alpha:g}" if config.partition == "dirichlet" else "dealt evenly") + skew
