"""Run a federation from a config to its report, or go on with one: what `flsim.run` is."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from flsim.cloud.protocol import Cloud
from flsim.config.load import load_config, settings_of
from flsim.config.model import ModelConfig
from flsim.config.schema import Config, ConfigError
from flsim.config.session import path_of
from flsim.files import log_to, remove_parts, said_in
from flsim.flower.contract import (
    BringsModel,
    Deals,
    Stage,
    speaks,
)
from flsim.flower.grid import FleetGrid
from flsim.loop.checks import refuse_until
from flsim.loop.diagnosing import facts_of
from flsim.loop.folder import open_again, open_new
from flsim.loop.home import at_home, found_again, move_in
from flsim.loop.lock import RunLock
from flsim.loop.ready import Ready, prepare
from flsim.loop.simulation import go_on
from flsim.loop.warm_start import refuse_another, warmed
from flsim.loop.warmup import Warmed, Warmup
from flsim.metrics.rows import of_users, read_rows
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users_frame import users_frame
from flsim.models.adapter import Adapter, save_adapter, stacked, told_of_head
from flsim.report.summary import Summary
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
        return users_frame(RunRows.under(of_users(self.rows), self.summary.phases, self.summary.tau))

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

    def __repr__(self) -> str:
        """Where it is, and how it ended."""
        from flsim.report.table import answer

        return f"Run({str(self.folder)!r}): {answer(self.summary)}"

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
    with (
        said_in(log),
        Tracking(trackers_of(config.track), of_run, told, log, shows=progress) as tracking,
        ExitStack() as ending,  # Ray stops while the report is made
    ):
        parts: dict[str, Any] = {"tracking": tracking, "on": on, "ending": ending}
        adapter = go_on(ready, lock, last=last, log=log, progress=progress, **parts)
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
