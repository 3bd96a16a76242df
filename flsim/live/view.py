"""What is shown of a run that goes: the summary that its report would have now, and its rows as charts draw them."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from flsim.diagnosis.seen import Facts
from flsim.diagnosis.table import findings_of
from flsim.files import DamagedFileError
from flsim.live.finding import ROWS, names_in, readable, round_of, signature
from flsim.metrics.rows import read_rows_file
from flsim.metrics.run_rows import RunRows
from flsim.report.summarise import summarise_run
from flsim.report.summary import Summary


class KeptRows:
    """The rows of one run, of which each round is read once, and again only if it was replaced."""

    def __init__(self, run: Path, root: Path) -> None:
        """Of that run; links that lead out of `root` are not followed."""
        self._run, self._root = run, root
        self._rounds: dict[str, tuple[object, pd.DataFrame | None]] = {}
        self.notes: tuple[str, ...] = ()
        """What could not be read at the last look."""

    def read(self) -> pd.DataFrame | None:
        """All rows that there are now, by round; those that are damaged are left out. None before there are any."""
        folder, notes = self._run / ROWS, []
        names = sorted(name for name in names_in(folder) if round_of(name) is not None)
        for name in self._rounds.keys() - set(names):
            del self._rounds[name]  # a resume has given it up
        for name in names:
            version = signature(folder / name)
            kept = self._rounds.get(name)
            if kept is not None and kept[0] == version:
                frame = kept[1]
            else:
                frame = _round(folder / name, self._root)
                self._rounds[name] = (version, frame)
            if frame is None:
                notes.append(f"{ROWS}/{name} cannot be read, and its round is left out")
        rounds = [number for name in names if (number := round_of(name)) is not None]
        if missing := sorted(set(range(max(rounds, default=-1))) - set(rounds)):
            notes.append(f"{ROWS} of round {', '.join(map(str, missing))} are missing")
        self.notes = tuple(notes)
        frames = [frame for _, frame in (self._rounds[name] for name in names) if frame is not None]
        return pd.concat(frames, ignore_index=True) if frames else None

    @property
    def size(self) -> int:
        """How many rows are kept."""
        return sum(len(frame) for _, frame in self._rounds.values() if frame is not None)


def _round(path: Path, root: Path) -> pd.DataFrame | None:
    if not readable(path, root):
        return None
    try:
        return read_rows_file(path)
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
        tau = self.facts.tau
        return RunRows(rows, self.facts.phases, float("nan") if tau is None else tau)


def summary_of(rows: pd.DataFrame, known: Known) -> Summary:
    """What `summary.json` would hold if the run ended with these rows.

    Law: of a finished run it is what lies there, but for pictures of data sets, which only the run can draw.
    """
    facts = known.facts
    findings = findings_of(rows, facts)
    found = summarise_run(rows, facts.phases, name=known.name, tau=facts.tau, findings=findings)
    return found if known.devices is None else replace(found, devices=known.devices)
