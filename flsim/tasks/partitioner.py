"""Deal items by a partitioner of Flower's `flwr-datasets`, or by a class of one's own with the same methods.

    partition: flwr_datasets.partitioner:DirichletPartitioner
    partition_settings: {partition_by: label, alpha: 0.5, min_partition_size: 0}

It is given one data set with a row per item, those of all splits together, so that a device is tested on what it learns
from. Its rows stand in the order of a hash of their text, so that a deal follows no order of files.
"""

import importlib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flsim.config.given import shown
from flsim.config.plugins import call, resolve
from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS
from flsim.seeding import seed_for
from flsim.tasks.item import Item
from flsim.tasks.item_table import ItemTable, table_of
from flsim.tasks.partition import NOBODY, OVER, Assignment, Indices, in_dealing_order, numbered_devices

_NUMBER = "item"
"""The column that says which item a row is."""
_CLASS = "class"
"""The column of the number of an item's label, from 0 in the order of the labels."""
_FIELDS = (*OVER, "score_label", "question", "answer")
_MEND = "pip install 'flsim-continual[partitioners]'"


class Partitioner(Protocol):
    """What `flwr_datasets.partitioner.Partitioner` promises."""

    dataset: Any
    """A `datasets.Dataset`; set once, before anything is asked."""
    num_partitions: int
    """How many parts there are."""

    def load_partition(self, partition_id: int) -> Any:
        """The rows of one part, as a `datasets.Dataset`."""
        ...


def by_partitioner(
    items: Sequence[Item],
    splits: NDArray[np.int8],
    *,
    path: str,
    settings: Mapping[str, Any],
    devices: int,
    seed: int = 0,
) -> Assignment:
    """Deal items by a partitioner: device i holds its part i.

    The partitioner sees the columns `label`, `level`, `user`, `score_label`, `question` and `answer`, as far as items
    have them, `class` (the label as a number from 0), `split`, and `item`, which must stay. Within every value of what
    it deals by, splits are spread evenly over the rows, so that a stretch of rows holds about its share of each.

    Args:
        items: N items.
        splits: from `split_items`, shape `(N,)`.
        path: of the class, as `module:Name` or `my_file.py:Name`.
        settings: its keyword arguments; `num_partitions` and `seed` are given to it where it takes them and they are
            not set.
        devices: D.
        seed: of the partition.

    Raises:
        ConfigError: if the class is not there, refuses its settings or the items, makes another number of parts, or
            deals an item twice.
    """
    _refuse_missing(path)
    table = table_of(items)
    partitioner = _made(path, settings, devices, seed_for(seed, "partitioner") % 2**32)
    order = _spread(table, splits, str(settings.get("partition_by")), seed)
    owners = np.full(len(table), NOBODY, dtype=np.int64)
    columns = _columns(table, splits, order)
    for device, part in enumerate(_parts(path, settings, partitioner, columns, devices)):
        if (owners[part] != NOBODY).any() or len(np.unique(part)) < len(part):
            raise ConfigError(f"partition={path!r} gives an item to two devices, or twice to one; each is dealt once")
        owners[part] = device
    return Assignment(owners, splits, numbered_devices(devices))


def _refuse_missing(path: str) -> None:
    """Say which package lacks.

    Raises:
        ConfigError: with what installs it.
    """
    for name in ("datasets", *(["flwr_datasets"] if path.startswith("flwr_datasets") else [])):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"partition={path!r} needs the package {name} ({error}); {_MEND}") from None


def _made(path: str, settings: Mapping[str, Any], devices: int, seed: int) -> Partitioner:
    """The partitioner with its settings, the number of devices and the seed.

    Raises:
        ConfigError: if there is none, it deals columns, or does not take its settings.
    """
    kind = resolve("partition", path)
    if getattr(kind, "__name__", "").startswith("Vertical"):
        raise ConfigError(
            f"partition={path!r} deals the columns of a row to several devices; devices here hold whole items, so take "
            f"one that deals rows, such as flwr_datasets.partitioner:DirichletPartitioner"
        )
    try:
        taken = inspect.signature(kind).parameters if callable(kind) else {}
    except ValueError:  # of a class without a signature
        taken = {}
    given = {name: value for name, value in (("num_partitions", devices), ("seed", seed)) if name in taken}
    made = call(kind, "partition_settings", {"path": path, **given, **settings})
    if not hasattr(made, "load_partition"):
        raise ConfigError(
            f"partition={path!r} gives {made!r}, which is no partitioner, as it lacks load_partition; derive it from "
            f"flwr_datasets.partitioner.Partitioner"
        )
    found: Partitioner = made
    return found


def _spread(table: ItemTable, splits: NDArray[np.int8], by: str, seed: int) -> Indices:
    """The items that are of a split, in dealing order, the splits spread evenly within each value of a field, `(M,)`.

    By hand: of one label, two items to train and one to test stand as train, test, train: at 1/4, 1/2 and 3/4.
    """
    order = in_dealing_order(table, seed)
    order = order[splits[order] >= 0]  # (M,)
    codes = table.columns[by if by in OVER else "label"].codes[order]  # (M,)
    kinds = codes.astype(np.int64) * len(SPLITS) + splits[order]  # (M,), of a value and a split
    place = np.zeros(len(order))
    for kind in np.unique(kinds).tolist():
        mine = np.flatnonzero(kinds == kind)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    return order[np.argsort(place, kind="stable")]


def _columns(table: ItemTable, splits: NDArray[np.int8], order: Indices) -> dict[str, list[Any]]:
    """What the partitioner sees of the items, in this order; fields that no item has are left out."""
    fields = {
        name: list(table.questions(order)) if name == "question" else table.of_field(name, order) for name in _FIELDS
    }
    known = {name: values for name, values in fields.items() if any(value is not None for value in values)}
    if None not in known.get("label", [None]):  # some partitioners take numbers from 0 only
        numbers = {label: number for number, label in enumerate(sorted(set(known["label"])))}
        known[_CLASS] = [numbers[label] for label in known["label"]]
    return {_NUMBER: order.tolist(), "split": [SPLITS[split] for split in splits[order].tolist()], **known}


def _parts(
    path: str, settings: Mapping[str, Any], partitioner: Partitioner, columns: Mapping[str, list[Any]], devices: int
) -> list[Indices]:
    """The items of each device.

    Raises:
        ConfigError: if it cannot deal them, or makes another number of parts.
    """
    import datasets

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it tries again; where it gives up it raises
            partitioner.dataset = datasets.Dataset.from_dict(dict(columns))
            number = int(partitioner.num_partitions)
            parts = [partitioner.load_partition(device) for device in range(number if number == devices else 0)]
            found = [np.array(part[_NUMBER], dtype=np.int64) for part in parts]
    except Exception as error:  # partitioners raise what they like, and those of one's own anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"partition={path!r} cannot deal these {len(columns[_NUMBER])} items to {devices} devices by the "
            f"partition_settings {shown(dict(settings))} ({said}); it sees the columns {', '.join(columns)}"
        ) from error
    if number != devices:
        raise ConfigError(
            f"partition={path!r} makes {number} parts of these items, and there are {devices} devices; set "
            f"fleet.devices={number}, or change its partition_settings"
        )
    return found
