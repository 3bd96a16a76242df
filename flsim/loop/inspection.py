"""What is looked at before a run goes on: all that its checkpoint names must be there as it was left.

What is not is refused with what can be done about it. What a round left that was given up, newer than the checkpoint,
is deleted: the round is run again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from flsim.config.model import AUTO
from flsim.config.schema import Config, ConfigError
from flsim.config.system import FILE
from flsim.files import DamagedFileError, called, digest_of
from flsim.flower.probe import PACK, kept_pack
from flsim.flower.states import Files, States
from flsim.flower.store import DeviceStore, Saved, round_of
from flsim.loop.checkpoints import Checkpoint, Inventory, again, latest_checkpoint, paths
from flsim.loop.folder import FEDERATION
from flsim.metrics.rows import rows_path
from flsim.models.folder import sketch
from flsim.storage.mirror import shown
from flsim.tasks.stream import TaskStream

_READERS = 8  # files that are read at a time
_TRACE = "system.availability.path"
_MOVED = {"model.path": "is another checkpoint", _TRACE: "is another trace"}


def world_of(config: Config, stream: TaskStream) -> dict[str, str]:
    """A fingerprint of what a run needs outside of its folder, by the setting that names it."""
    data = {f"data.{group.name}": group.source.fingerprint for group in stream.data}
    return {"model.path": sketch(config.model.path), **data, **_trace_of(config)}


def _trace_of(config: Config) -> dict[str, str]:
    """The trace that says who is there, if one does."""
    there = None if config.system is None else config.system.availability
    if there is None or there.kind != FILE or there.path is None or not Path(there.path).is_file():
        return {}
    return {_TRACE: digest_of(Path(there.path).read_bytes()).hex()}


def inspect(
    folder: Path,
    store: DeviceStore,
    config: Config,
    world: Mapping[str, str],
    *,
    last: int,
    log: logging.Logger,
    away: bool = False,
) -> tuple[Checkpoint | None, Inventory, States]:
    """Find out what a run goes on from, and leave its folder as it was then.

    Args:
        folder: the run's.
        store: of its devices.
        config: the run's.
        world: what the run needs outside of its folder, as it is now.
        last: the last round to run; where there is none to run, states are not looked at.
        log: the run's.
        away: whether the states are with the nodes of a federation, where each is looked at before its device goes on.

    Returns:
        The newest checkpoint, None if no round was committed, what it names, and where the states lie.

    Raises:
        ConfigError: if the states are with nodes, and `away` says that they are not.
        DamagedFileError: for the first file that is not as it was left, with what can be done.
    """
    checkpoint, files = latest_checkpoint(folder), store.files()
    if checkpoint is None:
        _refuse_lost_checkpoints(folder)
        _drop_newer(folder, -1)
        store.delete(files)
        return None, Inventory((), {}), States()
    round_ = checkpoint.round
    inventory = checkpoint.inventory
    if inventory is None:
        said = "round %d was committed by the release before, which named no files: they are taken as they are"
        log.warning(said, round_)
        inventory = _found(folder, files, round_)
    inventory = replace(inventory, states=_placed(inventory.states, files))
    _check_rows(folder, inventory, round_)
    if round_ < last:
        if not away:
            _refuse_away(folder)
            _check_states(folder, store, inventory, round_)
        _check_pack(folder, config, inventory)
        _check_world(folder, inventory, world)
    _drop_newer(folder, round_)
    gone = _given_up(inventory.states, files, round_)
    store.delete(gone)
    left = {name: held for name, held in files.items() if name not in gone}
    return checkpoint, inventory, States(inventory.states, left)


def _placed(states: Mapping[int, Saved], files: Files) -> dict[int, Saved]:
    """The states that a checkpoint names, with the place where each lies."""
    lying = {(device, one.round, one.digest): one.place for held in files.values() for device, one in held}
    return {d: replace(one, place=lying.get((d, one.round, one.digest))) for d, one in states.items()}


def _given_up(states: Mapping[int, Saved], files: Files, round_: int) -> set[str]:
    """The files of rounds that were given up: all that they hold is newer than what is named of its device."""

    def is_of_the_run(name: str) -> bool:
        held = files[name]
        if not held:  # it cannot be read
            return round_of(name) <= round_
        return any(device in states and one.round <= states[device].round for device, one in held)

    return {name for name in files if not is_of_the_run(name)}


def _refuse_away(folder: Path) -> None:
    if (folder / FEDERATION).is_file():
        raise ConfigError(
            f"{folder} is of a run on a federation, whose nodes keep the devices' states; go on with the app that it "
            f"was begun with: flwr run APP --run-config 'resume=true' (docs/flower.md)"
        )


def _refuse_lost_checkpoints(folder: Path) -> None:
    later = [path for path in _numbered(folder, "rows") if _round_of(path) > 0]
    if later:
        raise DamagedFileError(
            f"{folder} has rows up to round {_round_of(later[-1])} and no checkpoint in {folder / 'checkpoints'}; "
            f"{again(folder)}"
        )


def _found(folder: Path, files: Files, round_: int) -> Inventory:
    """What a checkpoint of the release before would have named: of each device the newest state up to the round."""
    found = [(device, one) for held in files.values() for device, one in held if one.round <= round_]
    newest = dict(sorted(found, key=lambda pair: pair[1].round))

    def digest(at: int) -> bytes:
        try:
            return digest_of(rows_path(folder, at).read_bytes())
        except OSError:
            return b""  # which no file has

    return Inventory(tuple(digest(at) for at in range(round_ + 1)), newest)


def _check_rows(folder: Path, inventory: Inventory, round_: int) -> None:
    there = paths(folder)

    def wrong(at: int) -> str | None:
        path = rows_path(folder, at)
        try:
            if digest_of(path.read_bytes()) == inventory.rows[at]:
                return None
            how = "is not as round {} left it"
        except OSError as error:
            how = f"cannot be read ({error.strerror}), which round {{}} left"
        mend = again(folder)
        if at == round_ and (at == 0 or len(there) > 1):
            mend = f"delete {shown(there[-1])}, and flsim resume {called(folder)} runs round {at} again"
        return f"{shown(path)} {how.format(at)}; {mend}"

    _refuse_first(wrong, range(round_ + 1))


def _check_states(folder: Path, store: DeviceStore, inventory: Inventory, round_: int) -> None:
    there = paths(folder)

    def wrong(named: tuple[int, Saved]) -> str | None:
        device, saved = named
        mend = again(folder)
        if saved.round == round_ and len(there) > 1:
            mend = f"delete {shown(there[-1])} to go on from the round before it"
        try:
            store.read(device, saved, mend)
        except DamagedFileError as error:
            return str(error)
        return None

    _refuse_first(wrong, inventory.states.items())


def _check_pack(folder: Path, config: Config, inventory: Inventory) -> None:
    """Another pack size gives other last bits."""
    if config.engine.pack == AUTO and inventory.pack is not None and kept_pack(folder) != inventory.pack:
        raise DamagedFileError(
            f"{folder / PACK} does not hold the pack size that the run began with; "
            f'write {{"pack": {inventory.pack}}} into it'
        )


def _check_world(folder: Path, inventory: Inventory, world: Mapping[str, str]) -> None:
    for setting, was in inventory.world.items():
        if world.get(setting) != was:
            what = _MOVED.get(setting, "gives the devices other items")
            raise DamagedFileError(
                f"{setting} {what} than when {folder} was begun, though it is called the same; put the files of then "
                f"back, or start a new run"
            )


def _refuse_first(wrong: Callable[[Any], str | None], named: Iterable[Any]) -> None:
    with ThreadPoolExecutor(_READERS) as pool:
        said = next((one for one in pool.map(wrong, named) if one is not None), None)
    if said is not None:
        raise DamagedFileError(said)


def _drop_newer(folder: Path, round_: int) -> None:
    for room in ("rows", "timing"):
        for path in _numbered(folder, room):
            if _round_of(path) > round_:
                path.unlink()


def _numbered(folder: Path, room: str) -> list[Path]:
    """The files of rounds in a folder, by round."""
    return sorted((folder / room).glob("round-*.*"))


def _round_of(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))
