"""The bar of a run: one line that is written over, on a terminal and in a notebook, with how right the mean user is.

In a notebook it is tqdm's widget where ipywidgets is there, and else a display that is updated in place, since tqdm's
bar for terminals would leave a line for every update, and warn.
"""

import importlib
import importlib.util
import io
import sys
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from typing import Any

from tqdm import tqdm

from flsim.metrics.rows import ASKED, EVERY_TASK, WEIGHED, Row
from flsim.text import percent


def bar_of(total: int, *, initial: int = 0, desc: str, unit: str, shown: bool) -> "tqdm[Any]":
    """A bar where this process shows one best.

    Args:
        total: of units.
        initial: done before.
        desc: what stands before it.
        unit: in the singular.
        shown: False shows none.
    """
    kind = _kind() if shown else tqdm
    return kind(total=total, initial=initial, desc=desc, unit=unit, disable=not shown)


def said_of(rows: Iterable[Row]) -> dict[str, str]:
    """What the bar says of a round's rows: accuracy of the mean user and usage, where they were measured.

    By hand: a device right on 3 of 4 and one on 1 of 4 are `accuracy=50.0 %`.
    """
    tested, asked, weighed = (defaultdict[str, dict[str, list[float]]](dict) for _ in range(3))
    for row in rows:
        if row.name == "accuracy" and row.model == "global" and row.split in ("test", "validation"):
            _add(tested, row)
        elif row.split == "train" and row.name in ASKED:
            _add(asked, row)
        elif row.split == "train" and row.name == WEIGHED:
            _add(weighed, row)
    found = {"accuracy": _mean_user(tested), "usage": _mean_user(weighed or asked)}
    return {name: percent(value, digits=1) for name, value in found.items() if value is not None}


def _add(by_device: dict[str, dict[str, list[float]]], row: Row) -> None:
    sums = by_device[row.device].setdefault(row.task, [0.0, 0.0])
    sums[0] += row.total
    sums[1] += row.weight


def _mean_user(by_device: dict[str, dict[str, list[float]]]) -> float | None:
    """Mean over users of their own value; rows of all tasks together stand for those of each."""
    values = []
    for tasks in by_device.values():
        counted = [tasks[EVERY_TASK]] if EVERY_TASK in tasks else list(tasks.values())
        total, weight = (sum(one[place] for one in counted) for place in (0, 1))
        if weight > 0:
            values.append(total / weight)
    return sum(values) / len(values) if values else None


def _kind() -> "type[tqdm[Any]]":
    """The bar for where this process shows things."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        return tqdm
    if importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as widget

        return widget
    return DisplayBar


class DisplayBar(tqdm):  # type: ignore[type-arg]
    """A bar in a notebook without widgets: HTML in place of what it showed before, and text for who has no HTML."""

    def __init__(self, **settings: Any) -> None:
        self._handle: Any = None
        super().__init__(file=io.StringIO(), ascii=False, ncols=100, **settings)  # nothing is written to a terminal

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show how far it is, as tqdm asks for."""
        text = str(self) if msg is None else msg
        told = text.rpartition("|")[2].strip()
        html = f'<progress value="{self.n}" max="{self.total}" style="vertical-align: middle; width: 40%"></progress>'
        html = f"<div><code>{escape(self.desc or '')}</code> {html} <code>{escape(told)}</code></div>"
        shown = {"text/plain": text, "text/html": html}
        if self._handle is None:
            show = importlib.import_module("IPython.display").display
            self._handle = show(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)
