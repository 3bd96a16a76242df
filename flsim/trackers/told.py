"""What all trackers of a run are told of a round: read once from the files of the run, whoever asks first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pandas as pd

from flsim.diagnosis.finding import SEVERITIES, Finding, counted
from flsim.diagnosis.seen import Facts
from flsim.diagnosis.stuck import STUCK
from flsim.diagnosis.table import findings_of
from flsim.metrics.rows import read_compact, read_rows_file, rows_path
from flsim.metrics.run_rows import RunRows
from flsim.report.summarise import summary_from
from flsim.trackers.measures import OneFrame, added, costs_of, measures_of

_KEPT = 4  # rounds that are held for trackers that are a little behind


@dataclass(frozen=True)
class Round:
    """What is said of one round."""

    measures: Mapping[str, float]
    texts: Mapping[str, str]
    """In Markdown; empty in most rounds."""


@dataclass
class Told:
    """What a run's rows say, round by round; it reads files, and never waits for the run."""

    folder: Path
    """The run's."""
    facts: Facts
    """What its rows do not say."""
    last: int
    """The last round of the run; it and the ends of phases are diagnosed."""
    _rounds: dict[int, Round] = field(default_factory=dict)
    _so_far: list[dict[str, float]] = field(default_factory=list)
    """What the run had cost by the end of every round, from 0."""
    _lock: Lock = field(default_factory=Lock)

    def of(self, round_: int) -> Round:
        """A committed round.

        Raises:
            FileNotFoundError: if its rows are not there any more.
            DamagedFileError: if they cannot be read.
        """
        with self._lock:
            if round_ not in self._rounds:
                self._rounds[round_] = self._made(round_)
                while len(self._rounds) > _KEPT:
                    self._rounds.pop(next(iter(self._rounds)))
            return self._rounds[round_]

    def _made(self, round_: int) -> Round:
        rows = self._read(round_)
        found = measures_of(rows, self.facts.tau)
        found |= {f"cost_so_far/{name}": value for name, value in self._cost(round_, found).items()}
        texts = dict[str, str]()
        if self._is_diagnosed(round_, rows):
            more, texts = self._diagnosed(round_)
            found |= more
        return Round(found, texts)

    def _read(self, round_: int) -> pd.DataFrame:
        path = rows_path(self.folder, round_)
        if not path.is_file():
            raise FileNotFoundError(f"the rows of round {round_} are not at {path}")
        return read_rows_file(path)

    def _cost(self, round_: int, found: Mapping[str, float]) -> dict[str, float]:
        """All that was spent by the end of a round; of a run that goes on, earlier rounds are read for it once."""
        while len(self._so_far) <= round_:
            at = len(self._so_far)
            costs = {name.removeprefix("cost/"): value for name, value in found.items() if name.startswith("cost/")}
            if at < round_:
                costs = costs_of(OneFrame(self._read(at)))
            self._so_far.append(added(self._so_far[-1] if self._so_far else {}, costs))
        return self._so_far[round_]

    def _is_diagnosed(self, round_: int, rows: pd.DataFrame) -> bool:
        ends = {self.last, *(phase.last_round for phase in self.facts.phases)}
        return round_ > 0 and (round_ in ends or bool((rows["name"] == STUCK).any()))

    def _diagnosed(self, round_: int) -> tuple[dict[str, float], dict[str, str]]:
        """What a diagnosis finds by then, and what was forgotten, as the report's summary has it."""
        rows = read_compact(self.folder)
        run = RunRows.under(rows[rows["round"] <= round_], self.facts.phases, self.facts.tau)
        findings = findings_of(run, self.facts)
        found = {f"findings/{one}s": float(sum(f.severity == one for f in findings)) for one in SEVERITIES}
        courses = summary_from(run).continual
        for name, course in courses.items():
            if course.forgetting and course.forgetting[-1].round == round_ and course.forgetting[-1].mean is not None:
                found[f"forgetting/{name}"] = course.forgetting[-1].mean
                if course.backward_transfer.mean is not None:
                    found[f"backward_transfer/{name}"] = course.backward_transfer.mean
        return found, {"findings": findings_text(findings, round_)}


def findings_text(findings: Sequence[Finding], round_: int) -> str:
    """Findings as Markdown, the worst first."""
    lines = [f"- **{one.severity}: {one.name}** {one.sentence} {one.mend}" for one in findings]
    return "\n".join([f"After round {round_}: {counted(findings)}", "", *lines]).strip()
