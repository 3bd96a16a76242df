"""Commits: how a round becomes part of a run for good, and what has to be there when a run goes on.

A round is committed by its checkpoint. Before that its states and rows are on the disk, and the process has made sure
that the folder is still its own: that nobody has taken the lock over, and that the newest checkpoint is the one that it
wrote or went on from itself.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flsim.cloud.journal import PURCHASES, TESTS, TRAINING, path_of
from flsim.config.schema import Config
from flsim.devices import device_index
from flsim.files import called
from flsim.flower.states import States
from flsim.flower.store import DeviceStore
from flsim.loop.checkpoints import Inventory, Mark, latest_mark, save_checkpoint
from flsim.loop.lock import FolderInUseError, RunLock
from flsim.loop.rounds import Rounds
from flsim.metrics.rows import Row, rows_path, write_rows
from flsim.models.adapter import Adapter
from flsim.storage.behind import bucket_behind


@dataclass
class Commits:
    """What this process has committed to a run's folder, and what it went on from."""

    lock: RunLock
    config: str
    """The run's `config.yaml`."""
    store: DeviceStore
    world: dict[str, str]
    """What the run needs outside of its folder."""
    rows: list[bytes] = field(default_factory=list)
    """The SHA-256 of the rows of every round so far."""
    last: Mark | None = None
    """The newest checkpoint; None before the first."""

    def commit(self, rounds: Rounds, round_: int, rows: Iterable[Row], adapter: Adapter) -> None:
        """Commit a round; the checkpoint is the last thing that it writes.

        Args:
            rounds: what the run's rounds share, as the round leaves it.
            round_: the next one.
            rows: what was measured in it.
            adapter: as it leaves it.

        Raises:
            FolderInUseError: if the folder is no longer this process's.
        """
        folder, grid = self.lock.folder, rounds.grid
        states = grid.states.newest()
        self.store.settle(grid.states.files_of(round_), f"the states of round {round_}")
        timekeeper = rounds.timekeeper
        if timekeeper is not None and timekeeper.buffered:
            timekeeper.hangar.flush(timekeeper.state.flights, round_)
        self.refuse_others()
        digest = write_rows(rows_path(folder, round_), rows)
        if self.lock.mirror is not None:
            self.lock.mirror.push()
        self.refuse_others()
        mark = Mark(round_, self.lock.owner.token, self.config)
        inventory = Inventory((*self.rows, digest), states, grid.pack, self.world)
        save_checkpoint(
            folder,
            mark,
            adapter,
            rounds.strategy,
            stage=rounds.stage,
            fleet=rounds.treasurer.state,
            time=None if timekeeper is None else timekeeper.state,
            inventory=inventory,
            mirror=self.lock.mirror,
        )
        self.rows.append(digest)
        self.last = mark
        self.refuse_others()  # before anything is deleted that another, who has the folder by now, may need
        grid.states.tidy(self.store, round_)
        if timekeeper is not None and timekeeper.buffered:
            timekeeper.hangar.tidy(timekeeper.state.flights)
        _forget_purchases(rounds.config, grid.states, round_)

    def refuse_others(self) -> None:
        """See that nobody else has the folder or has had it meanwhile.

        Raises:
            FolderInUseError: saying what was found.
        """
        self.lock.check()
        strangers = [] if self.lock.mirror is None else self.lock.mirror.strangers()
        if strangers:
            raise FolderInUseError(
                f"{called(self.lock.folder)} has {strangers[-1]}, which this process ({self.lock.owner.pid} on "
                f"{self.lock.owner.host}) did not commit: another one was at work there; this one ends and commits "
                f"nothing more"
            )
        newest = latest_mark(self.lock.folder)
        if newest != self.last:
            found = "no checkpoint" if newest is None else f"a checkpoint of round {newest.round} that is not its own"
            own = "none yet" if self.last is None else f"that of round {self.last.round}"
            raise FolderInUseError(
                f"{self.lock.folder} has {found}, where this process ({self.lock.owner.pid} on "
                f"{self.lock.owner.host}) had committed {own}: another one was at work here; this one ends and "
                f"commits nothing more"
            )


def _forget_purchases(config: Config, states: States, round_: int) -> None:
    """Once a round is committed: delete journals of the round two before it, which nobody can run again.

    Of a device that lost that round with its reply, what it spent stands in its journal alone: it stays.

    Args:
        config: of the run, with its folder.
        states: what devices have left.
        round_: of the newest checkpoint.
    """
    room, late = config.folder / PURCHASES, round_ - 2
    if late < 0:
        return
    bucket, over = bucket_behind(room), list[Path]()
    there = [] if bucket is None else list(bucket.sizes())
    for own in {*room.glob("device-*"), *(room / name.partition("/")[0] for name in there)}:
        if not own.name.startswith("device-"):  # stage and warm-up keep theirs
            continue
        device = device_index(own.name)
        newest = states.before(device, round_ + 1)
        over.append(path_of(own, late, TESTS))
        if newest is not None and newest.round >= late:
            over.append(path_of(own, late, TRAINING))
    if bucket is not None:
        bucket.delete({path.relative_to(room).as_posix() for path in over} & set(there))
    for path in over:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty, or not there
            path.parent.rmdir()
