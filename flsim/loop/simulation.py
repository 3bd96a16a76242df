"""Run a federation: the round loop, over any Flower ClientApp and any Flower Strategy. It knows no algorithm."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

import flsim.flower.messages as wire
from flsim.cloud.protocol import Cloud
from flsim.config.load import load_config, settings_of
from flsim.config.model import ModelConfig
from flsim.config.schema import Config, ConfigError
from flsim.config.session import path_of, taken_along
from flsim.devices import node_of
from flsim.files import log_to, remove_parts, said_in
from flsim.flower.arrays import to_arrays
from flsim.flower.contract import (
    BringsModel,
    Deals,
    Stage,
    WarmsUp,
    begin,
    restore,
    speaks,
)
from flsim.flower.grid import FleetGrid, LocalGrid, store_in
from flsim.flower.probe import Rehearsal, pack_of
from flsim.flower.ray_grid import RayGrid
from flsim.loop.bar import bar_of, said_of
from flsim.loop.checks import refuse_until
from flsim.loop.commits import Commits
from flsim.loop.diagnosing import facts_of
from flsim.loop.folder import CONFIG, open_again, open_new
from flsim.loop.home import at_home, found_again, move_in
from flsim.loop.inspection import inspect, world_of
from flsim.loop.lock import RunLock
from flsim.loop.ready import Ready, prepare
from flsim.loop.rounds import Rounds, cohort
from flsim.loop.timekeeper import Timekeeper
from flsim.loop.treasurer import Treasurer
from flsim.loop.warm_start import adapter_in, refuse_another, warmed
from flsim.loop.warmup import Warmed, Warmup
from flsim.loop.watch import AskingWatch
from flsim.metrics.rows import Row, of_users, read_rows
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users_frame import users_frame
from flsim.models.adapter import Adapter, mismatch, save_adapter, stacked, told_of_head
from flsim.report.summary import Summary
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import milestones
from flsim.timing import booked, spend, write_timing
from flsim.trackers.named import trackers_of
from flsim.trackers.told import Told
from flsim.trackers.tracking import Tracking, tracked_run


@dataclass(frozen=True)
class Run:
    """A finished run and what it left in its folder."""

    folder: Path
    summary: Summary
    """What `summary.json` holds."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every measurement: `round, device, task, split, model, name, total, weight`."""
        return read_rows(self.folder)

    @cached_property
    def users(self) -> pd.DataFrame:
        """A line per user: what it ended at, asked and spent; columns as `flsim.metrics.users_frame` says."""
        tau = float("nan") if self.summary.tau is None else self.summary.tau
        return users_frame(RunRows(of_users(self.rows), self.summary.phases, tau))

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    def plot(self, name: str = "accuracy", axes: Any = None) -> Any:
        """Draw one figure of the report, and return its matplotlib axes to go on with.

        Args:
            name: `accuracy`, `alone_accuracy`, `usage`, `lambda`, `users`, `worst_users` or `matrix`.
            axes: to draw in; None makes a figure.

        Raises:
            ConfigError: for another name.
        """
        from flsim.report.notebook import draw_panel  # only now: drawing takes memory that rounds need not have

        return draw_panel(name, self.folder, self.summary, axes)

    def _repr_html_(self) -> str:
        """The run as a notebook shows it."""
        from flsim.report.notebook import run_html

        return run_html(self.folder, self.summary)


def run(
    config: str | Path | Config | None = None,
    overrides: Sequence[str] = (),
    *,
    strategy: Strategy | type | None = None,
    client: ClientApp | type | None = None,
    stage: Stage | type | None = None,
    cloud: Cloud | type | None = None,
    resume: str | Path | None = None,
    until: int | None = None,
    progress: bool = True,
    on: FleetGrid | None = None,
) -> Run:
    """Run a simulation from start to report, or go on with one that was stopped.

    A class in the place of an object is built from the config's settings, and the run's config has its path, so that a
    resume and a replay find it: `client=MyLearner` is `client.path=__main__:MyLearner` of a notebook's cell.

    Args:
        config: a YAML file or a `Config`; None takes the defaults, or with `resume` the run's own.
        overrides: `key=value` over the file.
        strategy: any Flower strategy; None builds the one that `strategy.path` names.
        client: any Flower ClientApp (Message API); None builds the one that `client.path` names.
        stage: what the server does after each aggregation; None builds what `stage.path` names, if anything.
        cloud: what devices and server ask (`flsim/cloud/protocol.py`), which must survive pickling; None builds the one
            that `cloud.path` names.
        resume: folder, or address, of a run to go on with; a finished run gets its report again.
        until: stop after this round, as if it were the last; `resume` goes on from there. None runs to the end.
        progress: whether to show a bar.
        on: the grid to run on, such as that of a real federation; None opens the one that `engine.kind` names.

    Raises:
        ConfigError: for anything wrong in the settings, before long work starts.
        DamagedFileError: if a file of a resumed run cannot be read.
        UnwritableError: if a file of the run cannot be written; what was committed stays, and a resume goes on.
        RayDiedError: if a process that Ray stands on dies; likewise.
    """
    refuse_until(until)
    given = {"strategy": strategy, "client": client, "stage": stage, "cloud": cloud}
    classes = {key: path_of(key, part) for key, part in given.items() if isinstance(part, type)}
    parts: list[Any] = [None if isinstance(part, type) else part for part in given.values()]
    if resume is None:
        ready = prepare(move_in(_settings(config, overrides, None, classes)), *parts)
        with RunLock(ready.config.folder) as lock, at_home(lock):
            open_new(ready.config)
            if lock.mirror is not None:
                lock.mirror.push()  # now, so that a run that is killed in its first round can be found
            return _carry_out(ready, lock, until=until, progress=progress, on=on)
    folder = found_again(resume)
    with RunLock(folder) as lock, at_home(lock):  # before anything long, and before a config is read that may be mended
        settings = replace(_settings(config, overrides, folder, classes), run_dir=str(folder))
        ready = prepare(settings, *parts)
        return _carry_out(ready, lock, until=until, progress=progress, on=on)


def warm_up(
    config: str | Path | Config, folder: str | Path, overrides: Sequence[str] = (), *, progress: bool = True
) -> Warmed:
    """Make the warm-up of a run and nothing else: its adapter and `warmup.json` in a folder, for `model.adapter`.

    Args:
        config: a YAML file or a `Config`, with `warmup.steps` above 0.
        folder: where it is to lie; one that holds this very warm-up already is left as it is.
        overrides: `key=value` over the file.
        progress: whether to show bars.

    Raises:
        ConfigError: for anything wrong in the settings, a folder with another adapter, or nothing to teach.
        DamagedFileError: if what is kept of it cannot be read.
        UnwritableError: if it cannot be written.
    """
    settings, place = _settings(config, overrides, None), Path(folder)
    if not settings.warmup.steps:
        raise ConfigError("warmup.steps=0 is no warm-up; set it, such as warmup.steps=30")
    ready = prepare(settings, None, None, None, None)
    plan = Warmup(settings, ready.stream, ready.cloud, ready.adapter, speaks(ready.client))
    refuse_another(plan, place)
    return warmed(plan, place, place, progress=progress)


def _carry_out(ready: Ready, lock: RunLock, *, until: int | None, progress: bool, on: FleetGrid | None) -> Run:
    """The rounds that are still to do, and the report."""
    config, stream, folder = ready.config, ready.stream, lock.folder
    remove_parts(folder)
    log = log_to(folder)
    for group in stream.data:
        for text in group.told:
            log.warning(text)
    begun_with = config.model.adapter
    of_head = None if begun_with is None else told_of_head(Path(begun_with), ready.adapter)
    if of_head is not None:
        log.warning(of_head)
    last = config.rounds if until is None else min(until, config.rounds)
    asks = not isinstance(ready.client, BringsModel) or ready.client.asks
    tau = config.budget.tau if asks else None
    facts = facts_of(config, ready.client)
    of_run = tracked_run(folder, config.name, settings_of(config))
    told = Told(folder, replace(facts, tau=tau), config.rounds)
    with said_in(log), Tracking(trackers_of(config.track), of_run, told, log, shows=progress) as tracking:
        adapter = go_on(ready, lock, last=last, log=log, progress=progress, tracking=tracking, on=on)
        lock.check()
        if isinstance(ready.client, BringsModel):
            ready.client.save_model(folder / "adapter", adapter)
        else:
            save_adapter(folder / "adapter", *_whole(config, ready.strategy, adapter))
        from flsim.report.finish import finish_run  # only now: drawing takes memory that rounds need not have

        found = finish_run(
            folder, phases=stream.phases, tau=tau, data=stream.data, devices=config.fleet.devices, facts=facts
        )
        if last == config.rounds:
            tracking.finished()
    return Run(folder, found)


def _whole(config: Config, strategy: Strategy, adapter: Adapter) -> tuple[Adapter, ModelConfig]:
    """The adapter with what the strategy has devices merge into their base, as one adapter of a larger rank."""
    residual = strategy.residual if isinstance(strategy, Deals) else None
    if residual is None:
        return adapter, config.model
    joined, rank = stacked(adapter, config.shape, residual)
    plain = {name: value for name, value in config.model.lora.items() if name != "use_rslora"}
    return joined, replace(config.model, rank=rank, alpha=float(rank), lora=plain)


def _settings(
    config: str | Path | Config | None,
    overrides: Sequence[str],
    resume: str | Path | None,
    classes: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """The config to run with, and with the paths of the classes that were given; on resume it must be the run's own."""
    overrides = [*overrides, *(f"{key}.path={path}" for key, path in classes.items())]
    if isinstance(config, Config):
        named: dict[str, Any] = {
            key: {**(getattr(config, key) or {}), "path": path} for key, path in classes.items() if key != "cloud"
        }
        named |= {"cloud": replace(config.cloud, path=classes["cloud"])} if "cloud" in classes else {}
        config = replace(config, **named)
        return config if resume is None else open_again(Path(resume), config)
    if resume is None:
        return load_config(config, overrides)
    saved = open_again(Path(resume), None)
    base = Path(resume) / "config.yaml" if config is None else config
    return saved if config is None and not overrides else open_again(Path(resume), load_config(base, overrides))


def go_on(
    ready: Ready,
    lock: RunLock,
    *,
    last: int,
    log: logging.Logger,
    progress: bool,
    on: FleetGrid | None = None,
    tracking: Tracking | None = None,
) -> Adapter:
    """The rounds that are still to do, up to `last`; returns the last adapter.

    They run on the grid that `engine.kind` names, unless another is given. What follows the run, if anything does, is
    told of what was committed before and of every round.
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
    with on or open_grid(config, folder, ready.client, ready.cloud) as grid:
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
