"""The realised partition of a data set as files: which labels each device holds, and how much of each split."""

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
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
from flsim.report.plot import COLOURS, INK, QUIET, drawable, new_figure, save_if_drawn, text_inches
from flsim.tasks.heterogeneity import Heterogeneity, as_lines, counts_table, heterogeneity, label_counts
from flsim.tasks.item import Item
from flsim.tasks.item_table import NONE, column_of, table_of
from flsim.tasks.partition import OVER, Assignment
from flsim.tasks.sets import DataTask
from flsim.text import amount, percent

_LOG = logging.getLogger("flsim.run.report")  # in the run's log


_MOST_LABELS = 24  # lines of the picture; rarer labels share the last one


_MOST_NAMES = 40  # devices that have room for a name


_WIDTH = 10.0  # inches of the picture


_LABEL, _NAME = (2.6, 9.0), (1.1, 8.0)  # inches that a label, and a device's name, may take, and its size in points


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
    """Draw labels x devices, shaded by the device's shares, and the items of each device by split below.

    Texts are measured, and what is longer than its room is shortened, so that nothing runs out of the picture.
    """
    counts = _folded(label_counts(table, assignment.devices))  # (D, L)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    order = _by_main_label(shares)
    labels = [_fitting(str(name), *_LABEL) for name in counts.columns]
    named = assignment.devices <= _MOST_NAMES
    names = [_fitting(assignment.names[device], *_NAME) for device in order] if named else []
    low, bottom = 1.5, 0.25 + max([0.4, *(text_inches(name, _NAME[1]) for name in names)])  # inches of the lower panel
    top, between = 1.1, 0.6
    height = top + 0.24 * max(len(labels), 2) + between + low + bottom
    figure = new_figure(_WIDTH, height)
    left = (0.35 + max(0.5, *(text_inches(name, _LABEL[1]) for name in labels))) / _WIDTH
    wide = 0.86 - left
    shown = _fitting(title, 0.96 * _WIDTH, 13, weight="bold")
    figure.text(0.02, 1 - 0.32 / height, shown, size=13, weight="bold", color=INK)
    figure.text(0.02, 1 - 0.5 / height, "\n".join(as_lines(figures)[2:]), size=9, color=QUIET, va="top")
    above = figure.add_axes(
        (left, (bottom + low + between) / height, wide, 1 - (top + bottom + low + between) / height)
    )
    below = figure.add_axes((left, bottom / height, wide, low / height))
    _draw_shares(figure, above, shares.loc[order], labels)
    _draw_quantities(below, table, order, names)
    lines = as_lines(figures)[:2]
    said = ("; " if text_inches("; ".join(lines), 9) < wide * _WIDTH else "\n").join(lines)
    below.text(0, 1.04, said, transform=below.transAxes, size=9, color=QUIET, va="bottom")
    return figure


def _fitting(text: str, room: float, size: float, weight: str = "normal") -> str:
    """A text on one line that is no wider than so many inches, cut in its middle, as names differ at their ends."""
    text = " ".join(drawable(text).split())
    wide = text_inches(text, size, weight)
    kept, shown = min(len(text), int(1.2 * len(text) * room / wide)), text
    while wide > room and kept > 1:
        shown = _shortened(text, kept)
        wide, kept = text_inches(shown, size, weight), kept - 1
    return shown


def _shortened(text: str, kept: int) -> str:
    """So many letters of a text, the middle left out."""
    head = (kept + 1) // 2
    return f"{text[:head]}…{text[len(text) - (kept - head) :]}"


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


def _draw_shares(figure: Figure, axes: Axes, shares: pd.DataFrame, labels: Sequence[str]) -> None:
    """Labels x devices, white for none; the scale ends at the largest share."""
    values = shares.to_numpy().T  # (L, D)
    picture = axes.imshow(values, aspect="auto", interpolation="nearest", cmap=_SHADES, vmin=0, vmax=values.max())
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(values)), labels, size=_LABEL[1])
    axes.set_xticks([])
    for edge in np.arange(1, values.shape[0]) - 0.5:
        axes.axhline(edge, color="#EEEEEE", linewidth=0.8)
    box = axes.get_position()
    scale = figure.add_axes((0.885, box.y0 + box.height - min(box.height, 0.3), 0.018, min(box.height, 0.3)))
    bar = figure.colorbar(picture, cax=scale, format=lambda share, _: f"{100 * share:.0f} %")
    bar.outline.set_visible(False)
    scale.grid(visible=False)
    scale.tick_params(length=0, labelsize=9)
    said, above = "share of the device's items", (0, 3)  # points
    axes.annotate(said, (1, 1), above, "axes fraction", "offset points", size=9, color=QUIET, ha="right", va="bottom")


def _draw_quantities(axes: Axes, table: pd.DataFrame, order: list[int], names: Sequence[str]) -> None:
    """Items of each device, the splits stacked; without names only their number is said."""
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
    axes.set_xticks(range(len(names)), names, rotation=90, size=_NAME[1])
    axes.set_xlabel("" if names else f"{len(order):,} devices, sorted by the label that they hold most of")
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


_SAID = ("over", "rule", "told", "fingerprint", *(figure.name for figure in fields(Heterogeneity)))
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
        counts = counts_table(items, assignment, over=over, keep_user_ids=group.config.keep_user_ids)
        figures = write_partition(folder, counts, assignment, title=f"{group.name} by {over}, {_rule(group)}")
        said = {"over": over, "rule": _rule(group), "told": group.told, **asdict(figures)}
        said["fingerprint"] = group.source.fingerprint
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
            before = said.get("left_out")  # what runs of 0.2.0 told: one sentence, or None
            said = {"told": [] if before is None else [before], "fingerprint": None, **said}
            found[path.parent.name] = {key: said[key] for key in _SAID}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
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
        pieces += [paragraph(text) for text in found["told"]]
    return pieces


def _counted(group: DataTask) -> tuple[Sequence[Item], str]:
    """The items, and the field to count them by: what was dealt by, else the first that all of them have."""
    items, config = table_of(group.source.items), group.config
    wished = [config.over] if config.partition == "dirichlet" else ["label", "level", "user"]
    named = config.partition_settings.get("partition_by")
    for field in [named, *wished] if named in OVER else wished:
        if bool((items.columns[field].codes != NONE).all()):
            return items, field
    return items.having(label=column_of([group.name] * len(items))), "label"


def _rule(group: DataTask) -> str:
    """How it was dealt, for people."""
    config = group.config
    if config.partition == "user":
        return (
            "all users dealt out" if config.users_per_device is None else f"{config.users_per_device} user per device"
        )
    if ":" in config.partition:
        settings = ", ".join(f"{name} {value}" for name, value in config.partition_settings.items())
        return f"dealt by {config.partition.rpartition(':')[2]}" + (f", {settings}" if settings else "")
    skew = f", quantities log-normal with sigma {config.quantity_sigma:g}" if config.quantity_sigma else ""
    return (f"Dirichlet with alpha {config.alpha:g}" if config.partition == "dirichlet" else "dealt evenly") + skew
