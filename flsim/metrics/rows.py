"""Rows: every measurement is one (total, weight) pair of one device, written by round and averaged only when read.

    round  device      task        split  model   name      total  weight
       12  device-003  arithmetic  test   global  accuracy   14.0    20.0

says that after round 12 the global adapter was right on 14 of device-003's 20 arithmetic test prompts. The rows of a
run are `runs/NAME/rows/round-00012.parquet`, one file per round; round 0 is the state before training.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flsim.files import DamagedFileError, digest_of, write_atomically
from flsim.metrics.compact import TEXTS, is_among, joined, plain
from flsim.metrics.renamed import as_of_today

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TYPES = (
    ("round", "int64"),
    ("device", "str"),
    ("task", "str"),
    ("split", "str"),
    ("model", "str"),
    ("name", "str"),
    ("total", "float64"),
    ("weight", "float64"),
)


COLUMNS = tuple(column for column, _ in _TYPES)
"""The columns of a rows frame, in order."""


TIMING_NAMES = frozenset(
    {
        "seconds",
        *("bought_calls", "bought_tokens", "bought_money", "cached_tokens", "cloud_retries", "unkept_answers"),
        *("lost_calls", "lost_tokens", "lost_money"),
    }
)
"""Names whose values differ between two equal runs: how long it took, what a cache had already, what was sent again,
what could not be kept, and what a process that was killed took with it."""


EVERY_TASK = "all"
"""The task of training rows that hold for all tasks together."""
USER = "user"
"""Split and model of what a user weighs (`test_items`, `traffic`), whatever is measured of it; written once, and
`test_items` again in rounds with a smaller test."""
FLEET, WHOLE, STAGE, WARMUP = "", "fleet", "stage", "warmup"
"""Device, and split and model, of what the round loop measures of the whole fleet; split of what the stage after
aggregation (`flsim/flower/contract.py`) reports; split and model of what a warm-up took. None of it is in a mean over
users."""
ASKED = ("cloud_requests", "cloud_purchases")
"""Training rows that say how often the cloud was asked: what a method wished that samples and may ask, granted or not,
and what one bought that learns the cloud's answers. No run has both."""
WEIGHED = "weighed_requests"
"""Training rows of requests by what each counts in `budget.unit`, of runs where that is not `calls`: tau is a share of
these."""

MALICIOUS = "malicious"
"""The name of a row that marks a device as one that does not learn honestly."""

_FILE_ORDER = ["device", "task", "split", "model", "name", "round", "total", "weight"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of one device; its value is `total / weight`.

    Raises:
        ValueError: unless both numbers are finite and either `weight > 0` or the row is empty, `(0, 0)`.
    """

    round: int
    """Round after which it was measured; 0 is before training."""
    device: str
    """Id of the device, such as `device-003`; `FLEET` in rows of the whole fleet."""
    task: str
    """Task, `all`, or the reason of a `set_aside`."""
    split: str
    """`train`, `validation` or `test`; `user` in rows of what a user weighs, `fleet` in those of the whole fleet,
    `stage` in those of the stage, `warmup` in those of a warm-up."""
    model: str
    """`frozen`, `random`, `cloud`, `base`, `global` or `own`; `user`, `fleet` and `warmup` as for
    `split`."""
    name: str
    """What was measured, such as `accuracy`."""
    total: float
    """Sum of the measured values."""
    weight: float
    """How many values were summed: prompts, responses, or 1."""

    def __post_init__(self) -> None:
        finite = math.isfinite(self.total) and math.isfinite(self.weight)
        if not (finite and (self.weight > 0 or (self.weight == 0 and self.total == 0))):
            raise ValueError(
                f"row {self.name!r} of {self.device} in round {self.round} is ({self.total}, {self.weight}); allowed "
                f"are finite pairs with weight > 0, or (0, 0); count the values that were summed and drop the others"
            )


@dataclass(frozen=True)
class Subject:
    """What is measured: a device with a model, on a split, after a round; it makes the rows that say of it."""

    round: int
    device: str
    split: str
    model: str

    def row(self, name: str, total: float, weight: float = 1.0, *, task: str = EVERY_TASK) -> Row:
        """One measurement of it."""
        return Row(self.round, self.device, task, self.split, self.model, name, total, weight)


def fleet_row(round_: int, name: str, total: float, weight: float = 1.0) -> Row:
    """A measurement of the whole fleet and all tasks, such as what its budget was charged."""
    return Row(round_, FLEET, EVERY_TASK, WHOLE, WHOLE, name, total, weight)


def rows_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Lay rows out as a frame with the columns `COLUMNS`, in the given order; no rows give an empty frame."""
    import pandas as pd  # not above: a worker has rows and no frames, and a config should not wait for it

    cells = [(r.round, r.device, r.task, r.split, r.model, r.name, r.total, r.weight) for r in rows]
    return pd.DataFrame(cells, columns=list(COLUMNS)).astype(dict(_TYPES))


def rows_path(run_dir: Path, round_: int) -> Path:
    """The file of a round's rows."""
    return run_dir / "rows" / f"round-{round_:05d}.parquet"


def write_rows(path: Path, rows: Iterable[Row]) -> bytes:
    """Write the rows of one round, sorted, so that equal sets of rows give equal files in whatever order they came.

    Args:
        path: such as `runs/NAME/rows/round-00012.parquet`; written under a temporary name, then renamed.
        rows: of one round; none give a file without rows.

    Returns:
        The SHA-256 of the file.
    """
    return write_rows_frame(path, rows_frame(rows))


def write_rows_frame(path: Path, rows: pd.DataFrame) -> bytes:
    """The same of a frame."""
    frame = rows.sort_values(_FILE_ORDER, kind="stable", ignore_index=True)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue(), what="the rows of a round")
    return digest_of(buffer.getvalue())


def read_rows(run_dir: Path) -> pd.DataFrame:
    """Read all rows of a run.

    Args:
        run_dir: the run's folder, which holds `rows/`.

    Returns:
        The rows in the order of their files, that is by round, with the columns and types of `COLUMNS`.

    Raises:
        FileNotFoundError: when the run has no rows files.
        DamagedFileError: naming the first file that cannot be read, and the mend.
    """
    return plain(read_compact(run_dir))


def read_compact(run_dir: Path) -> pd.DataFrame:
    """The same, compact (`flsim/metrics/compact.py`): for who looks at all rows of a run and at few of them at a time.

    Raises:
        FileNotFoundError: as `read_rows`.
        DamagedFileError: likewise.
    """
    paths = sorted((Path(run_dir) / "rows").glob("round-*.parquet"))
    if not paths:
        raise FileNotFoundError(f"no rows/round-*.parquet in {run_dir}; give the folder of a run that has begun")
    return under_one_another(rows_table(path) for path in paths)


def under_one_another(tables: Iterable[pa.Table]) -> pd.DataFrame:
    """The rows of several files, of which there is at least one, compact and under their names of today."""
    return as_of_today(joined(tables))


def read_rows_file(path: Path) -> pd.DataFrame:
    """Read what `write_rows` wrote, with the rows of the release before under their names of today (`RENAMED`).

    Raises:
        DamagedFileError: if it cannot be read, with the mend.
    """
    return plain(under_one_another([rows_table(path)]))


def rows_table(path: Path) -> pa.Table:
    """What a file of rows holds, its texts as dictionaries.

    Raises:
        DamagedFileError: if it cannot be read, with the mend.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([(column, text if kind == "str" else kind) for column, kind in _TYPES])
    try:
        with pq.ParquetFile(path, read_dictionary=list(TEXTS)) as file:
            missing = [column for column in COLUMNS if column not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"it lacks the columns {', '.join(missing)}")
            return file.read(list(COLUMNS), use_threads=False).select(list(COLUMNS)).cast(schema)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"{path} cannot be read as rows ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            f"put a good copy in its place; flsim resume of its run says what else can be done"
        ) from error


def of_users(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of devices that are marked `MALICIOUS`: they are part of the fleet and no users of it."""
    marked = set(rows.loc[is_among(rows["name"], [MALICIOUS]), "device"])
    return rows[~is_among(rows["device"], marked)] if marked else rows


def without_timing(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows that differ between two equal runs; what is left is equal bit for bit."""
    return rows[~rows["name"].isin(TIMING_NAMES)].reset_index(drop=True)


# What follows picks from a frame what a measure needs: rows of tests, rows of training, and the latest of a window.

REFERENCES = ("frozen", "random", "cloud", "base")
"""Models that do not learn: evaluated once, at round 0, and valid for all rounds. `frozen`, which `random` is, too, is
the model that the run starts from; `base` is there where that is not the bare base."""


LEARNERS = ("global", "own")
"""Models that learn: the aggregated adapter, and the device's own after its local steps."""


def evaluation_split(rows: pd.DataFrame) -> str:
    """The split to report: `test` when it was measured, else `validation`."""
    return "test" if bool(is_among(rows["split"], ["test"]).any()) else "validation"


def picked(
    rows: pd.DataFrame, *, split: str | None = None, model: str | None = None, name: str | tuple[str, ...] | None = None
) -> pd.DataFrame:
    """The rows of a split, a model and a name, or one of several; None takes any. Of a compact frame they are plain."""
    return _plainly(rows, _wanted(rows, split=split, model=model, name=name))


def _wanted(
    rows: pd.DataFrame, *, split: str | None = None, model: str | None = None, name: str | tuple[str, ...] | None = None
) -> NDArray[np.bool_]:
    """Of every row whether it is of a split, a model and a name, or one of several, `(rows,)`."""
    wanted = [(column, [value]) for column, value in (("split", split), ("model", model)) if value is not None]
    if name is not None:
        wanted.append(("name", [name] if isinstance(name, str) else list(name)))
    found: NDArray[np.bool_] = np.logical_and.reduce([is_among(rows[column], texts) for column, texts in wanted])
    return found


def _plainly(rows: pd.DataFrame, wanted: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows that are wanted; of a compact frame they are plain."""
    return plain(rows if wanted.all() else rows[wanted])


def evaluation(
    rows: pd.DataFrame,
    *,
    model: str,
    name: str | tuple[str, ...],
    split: str | None = None,
    items: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Evaluation rows of one model and one name or several, all rounds and tasks; a sample stands for all a user has.

    Totals and weights of a user that was tested on some of its items are scaled to all of them: 15 right of 20 tested
    of 300 count as 225 of 300. Laws: no user's own value changes, which is of the prompts that it is tested on; over
    all samples of a task that could have been drawn, the mean of the totals is the total of all its items.

    Args:
        rows: all rows of a run; without rows `test_items`, as of the release before, nothing is scaled.
        model: of `Row`.
        name: of `Row`.
        split: of the tests; None takes that of `evaluation_split`, which must see all rows.
        items: rows `test_items` of the run, as `items_of` gives; None looks for them among `rows`.
    """
    found = picked(rows, split=evaluation_split(rows) if split is None else split, model=model, name=name)
    items = items_of(rows) if items is None else items
    if found.empty or (items["total"] == items["weight"]).all():
        return found
    small = set(items["round"]) - {items["round"].min()}  # rounds whose tests have fewer prompts say so themselves
    tests = [(~found["round"].isin(small), ~items["round"].isin(small))]
    tests += [(found["round"] == number, items["round"] == number) for number in sorted(small)]
    factor = np.ones(len(found))  # (rows,)
    for own, of in tests:
        factor[own] = found.loc[own, "device"].map(_items_per_test(items[of], found[own])).fillna(1.0)
    scaled: pd.DataFrame = found.assign(total=found["total"] * factor, weight=found["weight"] * factor)
    return scaled


def items_of(rows: pd.DataFrame) -> pd.DataFrame:
    """How many items every user has for its tests, and on how many of them it is tested; of any round that says so."""
    return picked(rows, split=USER, name="test_items")


def user_facts(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of what users weigh, `test_items` or `traffic`, from before training; none in a run of the release before.

    A later round has `test_items` only if its test is smaller.
    """
    found = picked(rows, split=USER, name=name)
    first: pd.DataFrame = found[found["round"] == found["round"].min()]
    return first


def _items_per_test(items: pd.DataFrame, measured: pd.DataFrame) -> pd.Series:
    """How many items of a user each tested one stands for, by device, over the tasks that it was measured on."""
    import pandas as pd

    pairs = measured[["device", "task"]].drop_duplicates()
    whole = items["device"].isin(pairs.loc[pairs["task"] == EVERY_TASK, "device"])
    own = pd.concat([items[whole], items[~whole].merge(pairs, on=["device", "task"])])
    sums = own.groupby("device")[["total", "weight"]].sum()
    return sums["total"] / sums["weight"]


def training(rows: pd.DataFrame, *, name: str | tuple[str, ...]) -> pd.DataFrame:
    """Training rows of a name, or of several that mean one thing, such as `ASKED`.

    Where rows for all tasks together exist it is those alone, so that nothing counts twice.
    """
    wanted = _wanted(rows, split="train", name=name)
    together = wanted & is_among(rows["task"], [EVERY_TASK])
    return _plainly(rows, together if together.any() else wanted)


def of_fleet(rows: pd.DataFrame) -> pd.DataFrame:
    """What the round loop measures of the whole fleet, all rounds and names."""
    return picked(rows, split=WHOLE)


def in_rounds(rows: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    """Rows of the rounds from `first` to `last`, both included."""
    return rows[rows["round"].between(first, last)]


def latest(rows: pd.DataFrame, *, first: int = 0, last: int | None = None) -> pd.DataFrame:
    """Rows of the last round that has any.

    Args:
        rows: such as `evaluation(...)` gives.
        first: earliest round that counts.
        last: latest round that counts; None is no bound.

    Returns:
        The rows of one round; empty when no round in the window has rows.
    """
    if first == 0 and last is None:
        window = rows
    else:
        window = rows[rows["round"] >= first] if last is None else in_rounds(rows, first, last)
    if window.empty:
        return window
    is_latest: pd.Series[bool] = window["round"] == window["round"].max()
    return window[is_latest]
