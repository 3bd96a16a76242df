"""Run a federation: the round loop, over any Flower ClientApp and any Flower Strategy. It knows no algorithm."""

import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from flsim.cloud.protocol import Cloud
from flsim.config.schema import Config, ConfigError
from flsim.config.session import taken_along
from flsim.devices import node_of
from flsim.flower.arrays import to_arrays
from flsim.flower.contract import (
    WarmsUp,
    begin,
    restore,
    speaks,
)
from flsim.flower.grid import FleetGrid, LocalGrid, store_in
from flsim.flower.probe import Rehearsal, pack_of
from flsim.flower.ray_grid import RayGrid
from flsim.loop.bar import bar_of, said_of
from flsim.loop.commits import Commits
from flsim.loop.inspection import inspect, world_of
from flsim.loop.lock import RunLock
from flsim.loop.place import CONFIG
from flsim.loop.ready import Ready
from flsim.loop.rounds import Rounds, cohort
from flsim.loop.timekeeper import Timekeeper
from flsim.loop.treasurer import Treasurer
from flsim.loop.warm_start import adapter_in, warmed
from flsim.loop.warmup import Warmed, Warmup
from flsim.loop.watch import AskingWatch
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter, mismatch
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import milestones
from flsim.timing import booked, spend, write_timing
from flsim.trackers.tracking import Tracking


def go_on(
    ready: Ready,
    lock: RunLock,
    *,
    last: int,
    log: logging.Logger,
    progress: bool,
    on: FleetGrid | None = None,
    tracking: Tracking | None = None,
    ending: ExitStack | None = None,
) -> Adapter:
    """The rounds that are still to do, up to `last`; returns the last adapter.

    They run on the grid that `engine.kind` names, unless another is given. It has stopped when this returns, or, given
    an `ending`, when that is left. What follows the run, if anything does, is told of what was committed before and of
    every round.
    """
    strategy, stage, folder = ready.strategy, ready.stage, lock.folder
    config = replace(ready.config, run_dir=str(folder))  # wherever it lies by now
    adapter, first, treasurer = ready.adapter, 0, Treasurer(config)
    timekeeper = None if ready.system is None else Timekeeper(config, ready.system)
    store = store_in(folder)
    world = world_of(config, ready.stream)
    away = on is not None and not on.keeps_states
    checkpoint, inventory, states = inspect(folder, store, config, world, last=last, log=log, away=away)
    if checkpoint is not None:
        _refuse_another(checkpoint.adapter, ready.adapter, folder)
        adapter, first = checkpoint.adapter, checkpoint.round + 1
        restore(strategy, checkpoint.strategy)
        if stage is not None:
            restore(stage, checkpoint.stage)
        treasurer.state = checkpoint.fleet
        if timekeeper is not None and checkpoint.time is not None:
            timekeeper.state = checkpoint.time
            timekeeper.hangar.go_on(checkpoint.time.flights)
        if tracking is not None:
            tracking.committed(checkpoint.round)
    warm = _warmed(ready, config, folder, progress=progress) if config.warmup.steps and first <= last else None
    if warm is not None:
        config = replace(config, model=replace(config.model, adapter=str(adapter_in(folder))))
    if warm is not None and checkpoint is None:
        adapter = warm.adapter
        treasurer.charge(warm.account)
    begin(strategy, stage, config, ready.cloud)
    if first > last:
        return adapter
    if isinstance(ready.client, WarmsUp):
        ready.client.start_from(config.model.adapter)
    mark = None if checkpoint is None else checkpoint.mark
    commits = Commits(lock, (folder / CONFIG).read_text(), store, world, list(inventory.rows), mark)
    due = _evaluation_rounds(config, ready.stream)
    own = {"always": due, "phases": due & milestones(ready.stream), "never": set()}[config.evaluation.own]
    with ExitStack() as here:
        grid = (ending or here).enter_context(on or open_grid(config, folder, ready.client, ready.cloud))
        grid.states = states
        grid.pack = _pack_of(config, folder, grid, adapter)
        rounds = Rounds(config, strategy, stage, treasurer, timekeeper, grid, log)
        where = f"{config.engine.kind} in packs of {grid.pack}"
        log.info("rounds %d to %d, %d devices on %s", first, last, config.fleet.devices, where)
        watch = AskingWatch.of(ready.client, config.budget.tau, folder, log, first=first, shows=progress)
        with bar_of(last, initial=max(0, first - 1), desc=folder.name, unit="round", shown=progress) as bar:
            told: dict[str, str] = {}
            for round_ in range(first, last + 1):
                started = time.perf_counter()
                rows: list[Row] = [] if warm is None or round_ else warm.rows()
                if round_ > 0:
                    adapter, rows = rounds.train(adapter, round_, measured=round_ in own)
                if round_ in due:
                    rows += rounds.evaluate(adapter, round_)
                rows += watch.look(round_, rows)
                with spend("commit"):
                    commits.commit(rounds, round_, rows, adapter)
                write_timing(folder, grid.timing(round_, time.perf_counter() - started))
                if tracking is not None:
                    tracking.committed(round_)
                if progress:
                    told |= said_of(rows)
                    bar.set_postfix(told, refresh=False)
                bar.update(round_ > 0)
        grid.release()
    return adapter


def _warmed(ready: Ready, config: Config, folder: Path, *, progress: bool) -> Warmed:
    """What the small model was taught before round 1."""
    plan = Warmup(config, ready.stream, ready.cloud, ready.adapter, speaks(ready.client))
    found = warmed(plan, adapter_in(folder), folder, progress=progress)
    booked()  # what was booked of it is no part of a round
    return found


def _refuse_another(kept: Adapter, first: Adapter, folder: Path) -> None:
    """Refuse to go on with devices that learn something else than a checkpoint holds: it would never be averaged."""
    reason = mismatch(kept, first)
    if reason is not None:
        raise ConfigError(
            f"{folder} holds another adapter than its devices would learn now: {reason}; go on with the client that "
            f"the run was begun with"
        )


def open_grid(config: Config, folder: Path, client: ClientApp, cloud: Cloud) -> FleetGrid:
    """The grid that `engine.kind` names."""
    store, devices, engine = store_in(folder), config.fleet.devices, config.engine
    if engine.kind == "local":
        return LocalGrid(client, store, devices, 1)
    where: dict[str, Any] = {"workers": engine.workers, "address": engine.address, "gpus": engine.gpus}
    where |= {"cloud": cloud if cloud.shared else None, "brought": taken_along(config)}
    return RayGrid(client, store, devices, 1, **where)


def _pack_of(config: Config, folder: Path, grid: FleetGrid, adapter: Adapter) -> int:
    """The size of the run's packs, found by rehearsing the first round if it is to be."""
    content = RecordDict({**wire.instruction(to_arrays(adapter), round_=1)})

    def rehearse(devices: int) -> Rehearsal:
        nodes = [node_of(device) for device in cohort(config, 1)[:devices]]
        return grid.rehearse([Message(content, node, MessageType.TRAIN) for node in nodes])

    return pack_of(config.engine.pack, folder, rehearse, cohort=config.cohort_size, workers=grid.workers)


def _evaluation_rounds(config: Config, stream: TaskStream) -> set[int]:
    """Round 0, every so many rounds, and the last round of each phase."""
    return milestones(stream) | set(range(0, config.rounds + 1, config.evaluation.every_rounds))
