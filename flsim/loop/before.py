"""The state of a run before one of its rounds, in a folder of its own: copied where it is kept, else made again.

A run keeps its two newest checkpoints. So the state before the last round lies in its folder; that before any other is
made by running the rounds up to there again, which gives the same bits. What was made so stays, a folder each, and the
next round that is asked for begins from the nearest. Nothing of the run itself is changed.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flsim.cloud.journal import PURCHASES
from flsim.config.schema import ConfigError
from flsim.flower.probe import PACK
from flsim.loop.checkpoints import paths
from flsim.loop.place import CONFIG
from flsim.timing import read_timings

REPLAYS = "replays"
"""The folder, in a run's, of the states that were made again."""
_ALONE = ("environment.json", PACK)
_NUMBERED = ("checkpoints", "rows", "timing", f"{PURCHASES}/*")
_NOTHING = -1  # the round of a state before anything was measured


@dataclass(frozen=True)
class Before:
    """Where the state before a round lies, or will."""

    run: Path
    """The run's folder."""
    round: int
    """The round that is to follow, from 1."""
    folder: Path
    """Which holds the state, or is to."""
    source: Path
    """What it is copied from, if it is not there: the run, or another state of it."""
    reached: int
    """The round that it begins from: `round - 1` where nothing has to be run, -1 before the first measurement."""

    @property
    def is_complete(self) -> bool:
        """Whether no round has to be run for it."""
        return self.reached == self.round - 1

    @property
    def seconds(self) -> float | None:
        """About how long the rounds took that are to be run, as the run's timing says; None if it does not."""
        known = {timing.round: timing.wall_s for timing in read_timings(self.run)}
        if not known:
            return None
        mean = sum(known.values()) / len(known)
        return sum(known.get(number, mean) for number in range(self.reached + 1, self.round))

    def fill(self) -> None:
        """Have the folder hold what there is to begin from.

        Raises:
            ConfigError: if files went away while they were copied, or cannot be written.
        """
        if (self.folder / CONFIG).is_file():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in _needed(self.source, self.reached):
                place = self.folder / file.relative_to(self.source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place)
            shutil.copy2(self.source / CONFIG, self.folder / CONFIG)  # last: with it the folder counts as filled
        except OSError as error:
            raise ConfigError(
                f"{self.source} cannot be copied to {self.folder} ({error.filename}: {error.strerror}); a run that is "
                f"at work deletes files that it needs no more: try again, or name a folder with room by --folder"
            ) from error

    def forget_later(self) -> None:
        """Delete what an earlier attempt has written of the round: its purchases, which would be taken for paid."""
        for journal in self.folder.glob(f"{PURCHASES}/*/round-*"):
            if _round_of(journal) >= self.round:
                journal.unlink()

    def take_purchases(self) -> None:
        """Copy what the run has written of its round's purchases, for answers that are kept nowhere else."""
        for journal in self.run.glob(f"{PURCHASES}/*/round-{self.round:05d}.*"):
            place = self.folder / journal.relative_to(self.run)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(journal, place)


def state_before(run: Path, round_: int, room: Path | None = None) -> Before:
    """The nearest that there is to the state before a round; nothing is written.

    Args:
        run: the folder of a run that has reached the round.
        round_: from 1.
        room: folder of the states that were made again; None is the run's own, `replays`.
    """
    room = run / REPLAYS if room is None else room
    folder = room / f"round-{round_ - 1:05d}"
    begun = _newest(folder)
    if begun is not None or (folder / CONFIG).is_file():
        return Before(run, round_, folder, folder, _NOTHING if begun is None else begun)
    found = [(_round_of(path), run) for path in paths(run)]
    found += [(newest, other) for other in room.glob("round-*") if (newest := _newest(other)) is not None]
    near = max((one for one in found if one[0] < round_), key=lambda one: one[0], default=(_NOTHING, run))
    return Before(run, round_, folder, near[1], near[0])


def _newest(folder: Path) -> int | None:
    """The round of the newest checkpoint in a folder that is filled."""
    there = paths(folder) if (folder / CONFIG).is_file() else []
    return _round_of(there[-1]) if there else None


def _needed(source: Path, reached: int) -> Iterator[Path]:
    """The files of a run's folder from which it can go on after a round, but for its config."""
    yield from (source / name for name in _ALONE if (source / name).is_file())
    yield from (path for path in (source / "warmup").glob("**/*") if path.is_file())
    if reached == _NOTHING:
        return
    for room in _NUMBERED:
        yield from (path for path in source.glob(f"{room}/round-*") if _round_of(path) <= reached)
    for room in ("devices", "flights"):  # of any round: what is newer than the checkpoint is dropped before it goes on
        yield from (path for path in (source / room).glob("**/round-*") if path.is_file())


def _round_of(path: Path) -> int:
    return int(path.name.removeprefix("round-").partition(".")[0])
