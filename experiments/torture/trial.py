"""What one trial of the campaign came to, and the table of all of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from experiments.torture.processes import Command, Ending
from flsim.metrics.rows import read_rows, without_timing

SURVIVED, REFUSED, LOST, SKIPPED = "survived", "refused", "lost", "skipped"
"""What may come of a trial: the run's rows are those of a run in peace; one sentence and a status other than 0, and
nothing was lost; anything else; or this machine cannot try it."""
SHORT = (
    *("rounds=6", "fleet.devices=6", "engine.pack=3", "evaluation.every_rounds=3", "evaluation.prompts_per_task=4"),
    *("client.steps=1", "client.prompts=4", "client.group_size=4"),
)
"""The demo in short: six rounds of six devices."""
LOCAL = ("engine.kind=local",)
RAY = ("engine.kind=ray", "engine.workers=2")


@dataclass(frozen=True)
class Trial:
    """One thing that was done to a run."""

    family: str
    """The kind of it, a line of the table."""
    what: str
    """What was done, for whoever wants to do it again."""
    outcome: str
    note: str = ""
    """What the run said, or what was lost; for a trial that is skipped, why."""


@dataclass(frozen=True)
class Ground:
    """Where the trials of a campaign take place, and what their rows are held against."""

    root: Path
    seed: int
    """Decides every moment and every byte."""
    scale: float = 1.0
    """How many trials, as a part of the whole campaign's."""

    def times(self, whole: int) -> int:
        """How often to try what the whole campaign tries so often; at least once."""
        return max(1, round(whole * self.scale))

    @cached_property
    def peace(self) -> pd.DataFrame:
        """The rows of a run that is left in peace."""
        self.seconds(LOCAL)
        return without_timing(read_rows(self.root / _peace(LOCAL)))

    def seconds(self, engine: tuple[str, ...]) -> float:
        """How long a run takes that is left in peace, from its start to its report."""
        folder = self.root / _peace(engine)
        noted = folder.with_suffix(".seconds")
        if not noted.is_file():
            began = time.monotonic()
            finished(run(folder, *engine))
            noted.write_text(str(time.monotonic() - began))
        return float(noted.read_text())

    def judged(self, family: str, what: str, folder: Path, ending: Ending) -> Trial:
        """The trial of a run that ended for good: it must have ended well, with the rows of a run in peace."""
        if ending.status != 0:
            return Trial(family, what, LOST, f"status {ending.status}: {ending.last}")
        same = without_timing(read_rows(folder)).equals(self.peace)
        return Trial(family, what, SURVIVED if same else LOST, "" if same else "its rows are others")


def _peace(engine: tuple[str, ...]) -> str:
    return f"peace-{engine[0].removeprefix('engine.kind=')}"


def run(folder: Path | str, *more: str, environment: dict[str, str] | None = None) -> Command:
    """Start the short demo in a folder."""
    return Command(["run", "demo", *SHORT, *more, f"run_dir={folder}"], environment)


def finished(command: Command) -> None:
    """Wait for a run that nobody disturbs.

    Raises:
        RuntimeError: if even so it does not end well: there is nothing to hold trials against.
    """
    ending = command.finish()
    if ending.status != 0:
        raise RuntimeError(f"a run left in peace ends with status {ending.status}: {ending.last}")


def resume(folder: Path | str, *more: str, environment: dict[str, str] | None = None) -> Command:
    """Go on with it; a run that was stopped before it had a config is started again, as a user would."""
    if not (Path(folder) / "config.yaml").is_file():
        return run(folder, *more, environment=environment)
    return Command(["resume", str(folder), *more], environment)


def refused(family: str, what: str, ending: Ending) -> Trial:
    """The trial of a command that had to refuse: status 2, and one sentence."""
    as_due = ending.status == 2 and ending.is_one_sentence
    note = ending.last if as_due else f"status {ending.status}: {ending.last}"
    return Trial(family, what, REFUSED if as_due else LOST, note)


def table(trials: Sequence[Trial]) -> list[list[str]]:
    """Tried, survived, refused in a sentence, lost: a line per family and one for all."""
    outcomes = (SURVIVED, REFUSED, LOST)
    rows = [["what was done", "tried", "survived", "refused in a sentence", "lost"]]
    for family in dict.fromkeys(trial.family for trial in trials):
        own = [trial.outcome for trial in trials if trial.family == family and trial.outcome != SKIPPED]
        rows.append([family, str(len(own)), *(str(own.count(outcome)) for outcome in outcomes)])
    every = [trial.outcome for trial in trials if trial.outcome != SKIPPED]
    return [*rows, ["all", str(len(every)), *(str(every.count(outcome)) for outcome in outcomes)]]
