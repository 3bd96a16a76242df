"""The state of the server at the end of a round: one `.npz` per round; the CRCs of the zip format detect damage."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from ray import cloudpickle

from flsim.budget.fleet import FleetState
from flsim.files import DamagedFileError, write_atomically
from flsim.flower.contract import Stage, state_of
from flsim.models.adapter import Adapter

_KEPT = 2  # the newest, and one to fall back to if it is damaged


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after `round`."""

    round: int
    adapter: Adapter
    strategy: dict[str, Any]
    """The strategy's state (`flsim.flower.contract.state_of`)."""
    stage: dict[str, Any]
    """That of the server's stage; empty if there is none."""
    fleet: FleetState | None = None
    """What the server keeps of the fleet's budget; None if it has none."""


def save_checkpoint(
    run_dir: Path,
    round_: int,
    adapter: Adapter,
    strategy: Strategy,
    *,
    stage: Stage | None = None,
    fleet: FleetState | None = None,
) -> None:
    """Commit a round; the checkpoint is the last thing a round writes."""
    arrays: dict[str, NDArray[Any]] = {f"adapter/{name}": tensor for name, tensor in adapter.items()}
    states = {"strategy": state_of(strategy), "stage": {} if stage is None else state_of(stage)}
    kept = {**states, "fleet": fleet}
    arrays |= {name: np.frombuffer(cloudpickle.dumps(value), dtype=np.uint8) for name, value in kept.items()}
    arrays["meta"] = np.frombuffer(json.dumps({"round": round_}).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(_path(run_dir, round_), buffer.getvalue(), what=f"the checkpoint of round {round_}")
    for old in sorted(_folder(run_dir).glob("round-*.npz"))[:-_KEPT]:
        old.unlink()


def latest_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, or None if no round was finished.

    Raises:
        DamagedFileError: if it cannot be read.
    """
    paths = sorted(_folder(run_dir).glob("round-*.npz"))
    if not paths:
        return None
    try:
        with np.load(paths[-1], allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays["meta"].tobytes())
        strategy, stage, fleet = (cloudpickle.loads(arrays[n].tobytes()) for n in ("strategy", "stage", "fleet"))
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError) as error:
        raise DamagedFileError(
            f"the checkpoint {paths[-1]} is damaged ({error}); delete it to go on from the round before it"
        ) from error
    adapter = {n.removeprefix("adapter/"): tensor for n, tensor in arrays.items() if n.startswith("adapter/")}
    return Checkpoint(int(meta["round"]), adapter, strategy, stage, fleet)


def _folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def _path(run_dir: Path, round_: int) -> Path:
    return _folder(run_dir) / f"round-{round_:05d}.npz"
