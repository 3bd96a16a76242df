"""The realised partitions of a run's data sets: written into its folder, read back for its summary, and on its page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flsim.files import write_atomically
from flsim.report.markup import heading, paragraph, picture, table
from flsim.report.partition_figure import write_partition
from flsim.report.table import amount, share
from flsim.tasks.data.groups import DataGroup
from flsim.tasks.data.heterogeneity import counts_table
from flsim.tasks.data.item import Item

_FOLDER, _PICTURE, _FIGURES = "partitions", "partition.png", "figures.json"
_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("items", "items dealt", amount),
    ("used", "of those there are", share),
    ("smallest", "fewest of a device", amount),
    ("largest", "most", amount),
    ("gini", "Gini", "{:.2f}".format),
    ("total_variation", "total variation to the fleet", "{:.2f}".format),
    ("jensen_shannon", "Jensen-Shannon", "{:.2f}".format),
    ("effective_labels", "effective labels of a device", "{:.1f}".format),
    ("fleet_effective_labels", "of the fleet", "{:.1f}".format),
)
"""What the page tells of a partition (`flsim/tasks/data/heterogeneity.py`): field, title and form."""
_CAPTION = (
    "The realised partition. Above, every device's shares of what it holds: a column is a device, devices that hold "
    "most of the same lie side by side. Below, how many items of each split it has; it meets no others."
)


def write_partitions(run_dir: Path, groups: Sequence[DataGroup]) -> None:
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
        write_atomically(folder / _FIGURES, json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False).encode())


def read_partitions(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Data set -> what was written of it, such as `{"gini": 0.1, ...}`; empty for a run without data sets."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(run_dir.glob(f"{_FOLDER}/*/{_FIGURES}"))}


def partition_pieces(run_dir: Path, summary: dict[str, Any]) -> list[str]:
    """Whose items are whose, as pieces of the page: a picture and the figures for each data set."""
    pieces = []
    for name, found in summary.get("partitions", {}).items():
        path = run_dir / _FOLDER / name / _PICTURE
        pieces.append(heading(f"Who holds what of {name}"))
        pieces += [picture(path, _CAPTION)] if path.is_file() else []
        cells = [f"by {found['over']}, {found['rule']}", *(form(found[field]) for field, _, form in _COLUMNS)]
        pieces.append(table(["dealt", *(title for _, title, _ in _COLUMNS)], [cells]))
        pieces += [paragraph(found["left_out"])] if found["left_out"] else []
    return pieces


def _counted(group: DataGroup) -> tuple[Sequence[Item], str]:
    """The items, and the field to count them by: what was dealt by, else the first that all of them have."""
    items, config = group.source.items, group.config
    wished = [config.over] if config.partition == "dirichlet" else ["label", "level", "user"]
    for field in wished:
        if all(getattr(item, field) is not None for item in items):
            return items, field
    return [replace(item, label=group.name) for item in items], "label"


def _rule(group: DataGroup) -> str:
    """How it was dealt, for people."""
    config = group.config
    if config.partition == "user":
        return (
            "all users dealt out" if config.users_per_device is None else f"{config.users_per_device} user per device"
        )
    skew = f", quantities log-normal with sigma {config.quantity_sigma:g}" if config.quantity_sigma else ""
    return (f"Dirichlet with alpha {config.alpha:g}" if config.partition == "dirichlet" else "dealt evenly") + skew
