"""The state of the server at the end of a round: one `.npz` per round; the CRCs of the zip format detect damage.

A checkpoint also names all else that the run needs to go on from it (`Inventory`), with the SHA-256 of each file, and
who wrote it, so that a process can tell whether the newest checkpoint is its own.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from ray import cloudpickle

from flsim.budget.fleet import FleetState
from flsim.files import DamagedFileError, write_atomically
from flsim.flower.contract import Stage, state_of
from flsim.flower.probe import kept_pack
from flsim.flower.store import Saved
from flsim.loop.place import checkpoints_in
from flsim.loop.timekeeper import TimeState
from flsim.models.adapter import Adapter
from flsim.storage.mirror import CHECKPOINTS, Mirror, shown

KEPT = 2
"""The newest, and one to fall back to if it is damaged."""
_BAD = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError)  # what reading a damaged file raises


@dataclass(frozen=True)
class Mark:
    """Which checkpoint this is."""

    round: int
    token: str = ""
    """Of the process that wrote it."""
    config: str = ""
    """The run's `config.yaml`; empty in checkpoints of the release before."""


@dataclass(frozen=True)
class Inventory:
    """What the run's folder must hold for the run to go on from a checkpoint."""

    rows: tuple[bytes, ...]
    """The SHA-256 of the rows of every round, from 0."""
    states: Mapping[int, Saved]
    """The newest state of each device that left one."""
    pack: int | None = None
    """The size of the run's packs, which enters the last bits of a float; None if it is not known."""
    world: Mapping[str, str] = field(default_factory=dict)
    """What lies outside it, by setting: fingerprints of the model, and of what devices hold of each data set."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after a round."""

    mark: Mark
    adapter: Adapter
    strategy: dict[str, Any]
    """The strategy's state (`flsim.flower.contract.state_of`)."""
    stage: dict[str, Any]
    """That of the server's stage; empty if there is none."""
    fleet: FleetState | None = None
    """What the server keeps of the fleet's budget; None if it has none."""
    time: TimeState | None = None
    """What the server keeps of virtual time; None without a system."""
    inventory: Inventory | None = None
    """None in checkpoints of the release before."""

    @property
    def round(self) -> int:
        """After which it was written."""
        return self.mark.round


def save_checkpoint(
    run_dir: Path,
    mark: Mark | int,
    adapter: Adapter,
    strategy: Strategy,
    *,
    stage: Stage | None = None,
    fleet: FleetState | None = None,
    time: TimeState | None = None,
    inventory: Inventory | None = None,
    mirror: Mirror | None = None,
) -> None:
    """Write a checkpoint, and drop those that are no longer kept.

    Args:
        run_dir: the run's folder.
        mark: which checkpoint it is, or just its round.
        adapter: the server's.
        strategy: the server's, with its state.
        stage: the server's; None if it has none.
        fleet: the fleet's budget; None if it has none.
        time: virtual time; None without a system.
        inventory: what else the run needs; None names nothing.
        mirror: the store in which it counts: it is put there first; None has it count in the folder.
    """
    states = {"strategy": state_of(strategy), "stage": {} if stage is None else state_of(stage)}
    kept = {**states, "fleet": fleet, "time": time}
    mark = mark if isinstance(mark, Mark) else Mark(mark)
    arrays: dict[str, NDArray[Any]] = {f"adapter/{name}": tensor for name, tensor in adapter.items()}
    arrays |= {name: np.frombuffer(cloudpickle.dumps(value), dtype=np.uint8) for name, value in kept.items()}
    _write(run_dir, mark, arrays, inventory, mirror)
    for old in paths(run_dir)[:-KEPT]:
        old.unlink(missing_ok=True)
    if mirror is not None:
        mirror.forget([f"{CHECKPOINTS}/{path.name}" for path in paths(run_dir)])


def latest_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, or None if no round was finished.

    Raises:
        DamagedFileError: if it cannot be read, with what can be done.
    """
    there = paths(run_dir)
    if not there:
        return None
    with _newest(there) as file:
        arrays = {name: file[name] for name in file.files}
        mark = _mark(arrays["meta"])
        strategy, stage, fleet = (cloudpickle.loads(arrays[n].tobytes()) for n in ("strategy", "stage", "fleet"))
        time = cloudpickle.loads(arrays["time"].tobytes()) if "time" in arrays else None  # not in the release before
        inventory = _inventory(arrays)
    adapter = {n.removeprefix("adapter/"): tensor for n, tensor in arrays.items() if n.startswith("adapter/")}
    return Checkpoint(mark, adapter, strategy, stage, fleet, time, inventory)


def latest_mark(run_dir: Path) -> Mark | None:
    """The mark of the newest checkpoint, without reading the rest of it; None if there is none.

    Raises:
        DamagedFileError: if it cannot be read, with what can be done.
    """
    there = paths(run_dir)
    if not there:
        return None
    with _newest(there) as file:
        return _mark(file["meta"])


@contextmanager
def _newest(there: list[Path]) -> Iterator[NpzFile]:
    """The newest of these checkpoints, opened; what shows within that it cannot be read is told with what can be done.

    Raises:
        DamagedFileError: in the place of whatever reading it raises.
    """
    try:
        with np.load(there[-1], allow_pickle=False) as file:
            yield file
    except _BAD as error:
        raise _damaged(there, error) from error


def replace_inventory(run_dir: Path, config: str, rows: tuple[bytes, ...]) -> None:
    """Have the newest checkpoint name another config and other rows, for a folder that was made from another run's.

    The checkpoint before it is dropped.
    """
    *older, newest = paths(run_dir)
    with np.load(newest, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    mark, inventory = _mark(arrays["meta"]), _inventory(arrays)
    inventory = Inventory(rows, {}) if inventory is None else replace(inventory, rows=rows)
    _write(run_dir, Mark(mark.round, mark.token, config), arrays, inventory)
    for path in older:
        path.unlink()


def paths(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, by round."""
    return sorted(checkpoints_in(run_dir))


def _write(
    run_dir: Path,
    mark: Mark,
    arrays: dict[str, NDArray[Any]],
    inventory: Inventory | None,
    mirror: Mirror | None = None,
) -> None:
    meta: dict[str, Any] = {"round": mark.round, "token": mark.token, "config": mark.config}
    if inventory is not None:
        meta |= {"pack": inventory.pack, "world": dict(inventory.world)}
        states = inventory.states
        arrays = {
            **arrays,
            "rows": _stacked(inventory.rows),
            "states/devices": np.array(list(states), dtype=np.int64),  # (D,) of the devices that left one
            "states/rounds": np.array([one.round for one in states.values()], dtype=np.int64),  # (D,)
            "states/digests": _stacked([one.digest for one in states.values()]),  # (D, 32)
        }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    path = run_dir / CHECKPOINTS / f"round-{mark.round:05d}.npz"
    if mirror is not None:
        mirror.commit(f"{CHECKPOINTS}/{path.name}", buffer.getvalue())
    write_atomically(path, buffer.getvalue(), what=f"the checkpoint of round {mark.round}")


def _stacked(digests: Any) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)  # (digests, 32)


def _mark(meta: NDArray[Any]) -> Mark:
    said = json.loads(meta.tobytes())
    return Mark(int(said["round"]), said.get("token", ""), said.get("config", ""))


def _inventory(arrays: Mapping[str, NDArray[Any]]) -> Inventory | None:
    if "rows" not in arrays:
        return None
    devices, rounds, digests = (arrays[f"states/{part}"] for part in ("devices", "rounds", "digests"))
    states = {
        int(device): Saved(int(round_), digest.tobytes())
        for device, round_, digest in zip(devices, rounds, digests, strict=True)
    }
    said = json.loads(arrays["meta"].tobytes())
    return Inventory(tuple(digest.tobytes() for digest in arrays["rows"]), states, said["pack"], said["world"])


def _damaged(there: list[Path], error: Exception) -> DamagedFileError:
    """What can be done if the last of these cannot be read."""
    run_dir = there[-1].parent.parent
    if len(there) > 1:
        mend = "delete it to go on from the round before it"
    elif there[-1].stem == "round-00000":
        mend = "delete it to begin again"
    else:
        mend = again(run_dir)
    return DamagedFileError(f"the checkpoint {shown(there[-1])} is damaged ({error}); {mend}")


def again(run_dir: Path) -> str:
    """What to do where the folder alone does not hold enough to go on."""
    try:
        pack = kept_pack(run_dir)
    except DamagedFileError:
        pack = None
    size = "" if pack is None else f" engine.pack={pack}"  # another one would give other last bits
    return (
        f"put a copy of it back, or have the same rows made anew by flsim run {run_dir / 'config.yaml'} "
        f"run_dir=NEW{size}, where NEW is another folder"
    )
