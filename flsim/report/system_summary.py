"""What a run's summary says of devices as systems: its measures by name, and a line per class of device."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flsim.metrics.formulas import MeanUser
from flsim.metrics.measures import MEASURES, of_table
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import of_classes, work_of
from flsim.metrics.users import per_user

SHOWN = ("work", "systems", "energy", "questions", "help", "participation")
"""Tables of measures that are taken."""


@dataclass(frozen=True)
class DeviceClassSummary:
    """A class of devices; None stands for what was not measured."""

    name: str
    devices: int
    accuracy: float | None
    """Mean over its users at the end, when they may ask."""
    alone_accuracy: float | None
    work: float | None
    """Its share of all work whose update counted, in tokens."""
    round_seconds: float | None
    """Of a device in a round in which it takes part."""
    joules: float | None
    """Likewise."""
    question_seconds: float | None
    """Until a test question is answered."""
    question_joules: float | None


def measured_of(run: RunRows) -> dict[str, float]:
    """The measures of `SHOWN` that the run has rows of: of users their plain mean, else the number of the run."""
    found = {}
    for one in (one for table in SHOWN for one in of_table(table)):
        if isinstance(one.of, MeanUser):
            means = np.array([_value(MEASURES[name].of(run)) for name in one.of.needs])  # type: ignore[operator]
            value = float("nan") if np.isnan(means).any() else one.of.ratio(means)
        else:
            value = _value(one.of(run))
        if np.isfinite(value):
            found[one.name] = value
    return found


def classes_of_devices(run: RunRows) -> tuple[DeviceClassSummary, ...]:
    """Classes, the slowest first."""
    classes = run.classes
    if classes.empty:
        return ()
    work = work_of(run.rows)
    done = work.groupby(classes.reindex(work.index), observed=True).sum()
    columns = {
        "accuracy": of_classes(run.accuracy, classes),
        "alone_accuracy": of_classes(run.value_at_end("alone_accuracy"), classes),
        "work": done / done.sum() if done.sum() > 0 else pd.Series(dtype=float),
        "round_seconds": of_classes(per_user(run.trained("round_seconds")), classes),
        "joules": of_classes(per_user(run.trained("joules")), classes),
        "question_seconds": of_classes(run.value_at_end("question_seconds"), classes),
        "question_joules": of_classes(run.value_at_end("question_joules"), classes),
    }
    return tuple(
        DeviceClassSummary(
            name=str(name),
            devices=int(count),
            **{key: float(own[str(name)]) if name in own.index else None for key, own in columns.items()},
        )
        for name, count in classes.value_counts().sort_index().items()
    )


def _value(found: pd.Series | float) -> float:
    return float(found.mean()) if isinstance(found, pd.Series) else float(found)
