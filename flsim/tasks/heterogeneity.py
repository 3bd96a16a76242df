"""How unequal the devices of a realised partition are: in what they hold, and in how much.

device  algebra  geometry     total variation to the fleet (1/2, 1/2):  1/2 (|1 - 1/2| + |0 - 1/2|) = 1/2, for both
0          10        0        effective labels:                         exp(0) = 1 of 2
1           0       10        Gini of quantities:                       0
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from flsim.problems.problem import SPLITS
from flsim.tasks.item import Item
from flsim.tasks.partition import Assignment, coded
from flsim.tasks.people import numbered

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Heterogeneity:
    """Figures of a partition; every mean is over devices, so that each device counts once."""

    devices: int
    labels: int
    """Labels that some device holds."""
    items: int
    """Items dealt, of all splits."""
    used: float
    """Share of the items that were dealt, of those that a split has."""
    smallest: int
    """Items of the device with the fewest."""
    largest: int
    gini: float
    """Gini coefficient of the number of items: 0 for equal devices, near 1 if one has all."""
    total_variation: float
    """Mean distance of a device's label shares to the fleet's, 0 to 1."""
    jensen_shannon: float
    """Mean Jensen-Shannon distance (square root of the divergence in bits) to the fleet, 0 to 1."""
    effective_labels: float
    """Mean of exp(entropy of a device's labels): the number of equally frequent labels that would be as mixed."""
    fleet_effective_labels: float
    """The same for all devices together."""


def counts_table(
    items: Sequence[Item], assignment: Assignment, *, over: str = "label", keep_user_ids: bool = False
) -> pd.DataFrame:
    """The realised partition.

    Args:
        items: N items.
        assignment: of them.
        over: what to count by.
        keep_user_ids: whether users are called by their ids where they are counted by; else they are numbered.

    Returns:
        A line per (device, label, split) that is not empty, with the columns `device` (from 0), `name`, `label` (as
        text), `split`, `items`; sorted.
    """
    shown = items if keep_user_ids else numbered(items)
    codes, values = coded(shown, over)
    labels = np.array([str(value) for value in values])[codes]  # (N,)
    dealt = (assignment.device >= 0) & (assignment.split >= 0)
    lines = pd.DataFrame(
        {
            "device": assignment.device[dealt],
            "label": labels[dealt],
            "split": np.array(SPLITS)[assignment.split[dealt]],
        }
    )
    table = lines.groupby(["device", "label", "split"], as_index=False).size().rename(columns={"size": "items"})
    table.insert(1, "name", [assignment.names[device] for device in table["device"]])
    return table


def label_counts(table: pd.DataFrame, devices: int) -> pd.DataFrame:
    """Items by device (a line for each, also for empty ones) and label, all splits together."""
    wide = table.pivot_table(index="device", columns="label", values="items", aggfunc="sum", fill_value=0)
    return wide.reindex(range(devices), fill_value=0)


def heterogeneity(table: pd.DataFrame, assignment: Assignment) -> Heterogeneity:
    """Figures of a partition from its table; devices without items count in the quantities only."""
    counts = label_counts(table, assignment.devices).to_numpy(dtype=np.float64)  # (D, L)
    sizes = counts.sum(axis=1)  # (D,)
    held = counts[sizes > 0] / sizes[sizes > 0, None]  # (D', L)
    fleet = counts.sum(axis=0) / max(counts.sum(), 1.0)  # (L,)
    return Heterogeneity(
        devices=assignment.devices,
        labels=int((counts.sum(axis=0) > 0).sum()),
        items=int(counts.sum()),
        used=float(counts.sum() / max((assignment.split >= 0).sum(), 1)),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        gini=gini(sizes),
        total_variation=float(np.mean(total_variation(held, fleet))),
        jensen_shannon=float(np.mean(jensen_shannon(held, fleet))),
        effective_labels=float(np.mean(effective_number(held))),
        fleet_effective_labels=float(effective_number(fleet)),
    )


def total_variation(p: Floats, q: Floats) -> Floats:
    """Half the sum of absolute differences along the last axis."""
    return np.asarray(np.abs(p - q).sum(axis=-1) / 2, dtype=np.float64)


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Square root of the Jensen-Shannon divergence in bits (Lin 1991; a metric by Endres and Schindelin 2003)."""
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return np.asarray(np.sqrt(np.clip(divergence / np.log(2), 0.0, 1.0)), dtype=np.float64)


def effective_number(p: Floats) -> Floats:
    """Exp(entropy), Hill's number of order 1 (Hill 1973): 1 for one label, L for L equal ones."""
    return np.asarray(np.exp(_entropy(p)), dtype=np.float64)


def gini(sizes: ArrayLike) -> float:
    """Gini coefficient: half the mean absolute difference of two devices over the mean size.

    By hand: sizes 1 and 3: the mean difference over the four ordered pairs is 1, the mean size 2, so 1/4.
    """
    x = np.sort(np.asarray(sizes, dtype=np.float64))  # (D,)
    if not x.sum():
        return 0.0
    ranks = np.arange(1, len(x) + 1)
    return float((2 * ranks - len(x) - 1) @ x / (len(x) * x.sum()))


def _entropy(p: Floats) -> Floats:
    """In nats, along the last axis."""
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1), dtype=np.float64)


def as_lines(figures: Heterogeneity) -> list[str]:
    """The figures for people, a line each."""
    f = figures
    return [
        f"{f.items:,} items on {f.devices} devices, {100 * f.used:.1f} % of those there are",
        f"items per device: {f.smallest:,} to {f.largest:,}, Gini {f.gini:.2f}",
        f"labels: {f.labels}; effective number per device {f.effective_labels:.1f}, of the fleet "
        f"{f.fleet_effective_labels:.1f}",
        f"distance of a device to the fleet: total variation {f.total_variation:.2f}, Jensen-Shannon "
        f"{f.jensen_shannon:.2f} (0 to 1, mean of devices)",
    ]
