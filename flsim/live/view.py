"""What is shown of a run that goes: the summary that its report would have now, and its rows as charts draw them."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from flsim.diagnosis.seen import Facts
from flsim.diagnosis.table import findings_of
from flsim.files import DamagedFileError
from flsim.live.finding import ROWS, names_in, readable, round_of, signature
from flsim.metrics.rows import rows_table, under_one_another
from flsim.metrics.run_rows import RunRows
from flsim.report.summarise import summary_from
from flsim.report.summary import Summary


class KeptRows:
    """The rows of one run, of which each round is read once, and again only if it was replaced."""

    def __init__(self, run: Path, root: Path) -> None:
        """Of that run; links that lead out of `root` are not followed."""
        self._run, self._root = run, root
        self._rounds: dict[str, tuple[object, pa.Table | None]] = {}
        self.notes: tuple[str, ...] = ()
        """What could not be read at the last look."""

    def read(self) -> pd.DataFrame | None:
        """All rows that there are now, compact, by round; None before there are any.

        Rounds that are damaged are left out.
        """
        folder, notes = self._run / ROWS, []
        names = sorted(name for name in names_in(folder) if round_of(name) is not None)
        for name in self._rounds.keys() - set(names):
            del self._rounds[name]  # a resume has given it up
        for name in names:
            version = signature(folder / name)
            kept = self._rounds.get(name)
            if kept is not None and kept[0] == version:
                table = kept[1]
            else:
                table = _round(folder / name, self._root)
                self._rounds[name] = (version, table)
            if table is None:
                notes.append(f"{ROWS}/{name} cannot be read, and its round is left out")
        rounds = [number for name in names if (number := round_of(name)) is not None]
        if missing := sorted(set(range(max(rounds, default=-1))) - set(rounds)):
            notes.append(f"{ROWS} of round {', '.join(map(str, missing))} are missing")
        self.notes = tuple(notes)
        tables = [table for _, table in (self._rounds[name] for name in names) if table is not None]
        return under_one_another(tables) if tables else None

    @property
    def size(self) -> int:
        """How many rows are kept."""
        return sum(len(table) for _, table in self._rounds.values() if table is not None)


def _round(path: Path, root: Path) -> pa.Table | None:
    if not readable(path, root):
        return None
    try:
        return rows_table(path)
    except DamagedFileError:
        return None


@dataclass(frozen=True)
class Known:
    """What is known of a run beside its rows."""

    name: str
    facts: Facts
    devices: int | None
    """Of its fleet; None takes as many as have rows."""

    def as_run(self, rows: pd.DataFrame) -> RunRows:
        """The rows as measures read them."""
        return RunRows.under(rows, self.facts.phases, self.facts.tau)


def summary_of(run: RunRows, known: Known) -> Summary:
    """What `summary.json` would hold if the run ended with these rows.

    Law: of a finished run it is what lies there, but for pictures of data sets, which only the run can draw.
    """
    found = summary_from(run, name=known.name, findings=findings_of(run, known.facts))
    return found if known.devices is None else replace(found, devices=known.devices)
