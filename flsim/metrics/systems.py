"""What the rows of a system say of a run: classes of devices, who took part, what was wasted, and who was in time.

A run without `system` has no such rows: its series are empty, its numbers nan.
"""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.metrics.rows import USER, WHOLE, of_fleet, picked, training

WORK = ("read_tokens", "sampled_tokens", "learned_tokens", "learned_examples")
"""Training rows whose sum is the work of a device: tokens that it read, sampled and learned from, or examples."""
LOST = ("set_aside", "late")
"""Training rows that say that a device's update of a round did not count."""
PARTS = ("compute", "waiting", "radio")
"""What a device's joules go into: rows `compute_joules` and so on; the cloud's stand apart."""
BUSIEST = 0.3
"""The part of the fleet whose share of the work is told (FLASH: the busiest 30 % did 86 %)."""
_DEADLINE = re.compile(r"right_within_(?P<seconds>[\d.e+-]+)s")


def has_system(rows: pd.DataFrame) -> bool:
    """Whether a run has virtual time."""
    return bool((rows["name"] == "virtual_seconds").any())


def classes_of(rows: pd.DataFrame) -> pd.Series:
    """By device, the class that it is of, as rows of round 0 say; sorted by device.

    Its categories are the classes from the slowest to the fastest, by how long their devices compute in a round; a
    class of which nobody took part comes first.
    """
    found = picked(rows, split=USER)
    found = found[found["name"].str.startswith("class_")]
    own = found.set_index("device")["name"].str.removeprefix("class_").sort_index()
    sums = training(rows, name="compute_seconds").groupby("device")[["total", "weight"]].sum()
    sums = sums.groupby(own.reindex(sums.index)).sum()
    means = (sums["total"] / sums["weight"].where(sums["weight"] > 0)).to_dict()
    order = sorted(own.unique(), key=lambda name: (-means.get(name, np.inf), name))
    return own.astype(pd.CategoricalDtype(order, ordered=True))


def virtual_seconds(rows: pd.DataFrame) -> pd.Series:
    """By round, the virtual time at its end; 0 at round 0."""
    found = of_fleet(rows)
    ends = found[found["name"] == "virtual_seconds"].set_index("round")["total"].sort_index()
    return ends if ends.empty else pd.concat([pd.Series({0: 0.0}), ends[ends.index > 0]])


def is_buffered(rows: pd.DataFrame) -> bool:
    """Whether devices work over the end of a round."""
    return bool((of_fleet(rows)["name"] == "dropped").any())


def stints_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per device and round in which it was invited, sorted by them.

    Where rounds are not buffered, who is not done when the round ends stops then.

    Returns:
        Columns `round, device`; `invited`, `begun` (when it was there) and `done`, in virtual seconds; `counted`,
        whether its update was aggregated; and in seconds what it would have taken in full, `whole`, and of it
        `compute`, `link`, of that `up` (0 where rows do not tell it), and `cloud`, which may overlap computing.
    """
    parts = ("waited", "compute", "link", "up", "cloud")
    names = {"round_seconds": "whole", **{f"{part}_seconds": part for part in parts}}
    own = pd.concat([training(rows, name=name) for name in names])
    wide = own.groupby(["round", "device", "name"])["total"].sum().unstack("name").reindex(columns=list(names))
    wide = wide.rename(columns=names)
    wide = wide[wide["whole"].notna()].fillna(0.0).rename_axis(columns=None).reset_index()
    ends = virtual_seconds(rows)
    invited = (wide["round"] - 1).map(ends).astype(float)
    begun = invited + wide["waited"]
    done = begun + wide["whole"]
    if not is_buffered(rows):
        done = done.clip(upper=wide["round"].map(ends).astype(float)).clip(lower=begun)
    found = wide.drop(columns="waited").assign(invited=invited, begun=begun, done=done)
    lost = pd.MultiIndex.from_frame(_lost(rows))
    return found.assign(counted=~pd.MultiIndex.from_frame(found[["round", "device"]]).isin(lost))


def _lost(rows: pd.DataFrame) -> pd.DataFrame:
    """Round in which it was invited, and device, of every update that did not count; each once."""
    lost = picked(rows, split="train", name=LOST)[["round", "device"]].drop_duplicates()
    old = picked(rows, split="train", name="staleness")[["round", "device", "total"]]  # in the round in which it came
    both = lost.merge(old, how="left").fillna({"total": 0.0})
    return both.assign(round=both["round"] - both["total"].astype(int))[["round", "device"]]


def work_of(rows: pd.DataFrame) -> pd.Series:
    """By device of the fleet, the work whose update counted, in tokens (and examples); 0 for who never took part.

    Law: it does not depend on how fast a device is; a device of whom all was late has done nothing that counts.
    """
    done = pd.concat([training(rows, name=name) for name in WORK])
    kept = done.merge(_lost(rows), on=["round", "device"], how="left", indicator=True)
    sums = kept[kept["_merge"] == "left_only"].groupby("device")["total"].sum()
    fleet = classes_of(rows).index.union(pd.Index(done["device"].unique()))
    return sums.reindex(fleet, fill_value=0.0)


def lorenz(work: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Lorenz curve of work, the busiest device first.

    By hand: work 6, 3, 1 gives devices 0, 1/3, 2/3, 1 and work 0, 0.6, 0.9, 1.

    Args:
        work: of D devices, at least 0, and above 0 for one of them.

    Returns:
        Shares of devices and of work, `(D + 1,)` each, both rising from 0 to 1.
    """
    done = np.sort(work.to_numpy(dtype=float))[::-1]  # (D,)
    shares = np.concatenate([[0.0], np.cumsum(done) / done.sum()])  # (D + 1,)
    return np.linspace(0.0, 1.0, len(shares)), shares


def share_of_busiest(work: pd.Series, part: float = BUSIEST) -> float:
    """The share of all work that the busiest `part` of devices did, on the lines of the Lorenz curve; nan without."""
    if not work.sum() > 0:
        return float("nan")
    return float(np.interp(part, *lorenz(work)))


def dropped_share(rows: pd.DataFrame) -> float:
    """Of the replies that came, the share that was too old; nan where rounds are not buffered."""
    return _share_of(rows, "dropped")


def waste_share(rows: pd.DataFrame) -> float:
    """The share of all joules whose update did not count."""
    return _share_of(rows, "wasted_joules")


def _share_of(rows: pd.DataFrame, name: str) -> float:
    """Totals over weights of rows of the fleet."""
    found = picked(rows, split=WHOLE, name=name)
    return float(found["total"].sum() / found["weight"].sum()) if found["weight"].sum() > 0 else float("nan")


def staleness(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Of every update that came where rounds are buffered, how many versions old it was; `(updates,)`."""
    found = training(rows, name="staleness")
    found = found[found["weight"] > 0]
    return (found["total"] / found["weight"]).to_numpy(dtype=float)


def deadlines(rows: pd.DataFrame) -> dict[float, str]:
    """The deadlines that tests were held against, in seconds, ascending, and their rows' names after `right_`."""
    found = (_DEADLINE.fullmatch(name) for name in rows["name"].unique())
    return dict(sorted((float(own["seconds"]), own[0].removeprefix("right_")) for own in found if own))


def of_classes(values: pd.Series, classes: pd.Series) -> pd.Series:
    """By class, the slowest first, the mean of its users' values; users whose class is not known are left out."""
    means = values.groupby(classes.reindex(values.index), observed=True).mean()
    return means.set_axis(means.index.astype(str))
