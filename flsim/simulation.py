"""Run a federation: the round loop, over any Flower ClientApp and any Flower Strategy. It knows no algorithm."""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from tqdm import tqdm

import flsim.messages as wire
from flsim.checkpoints import latest_checkpoint, save_checkpoint
from flsim.config import Config, check
from flsim.config_files import load_config
from flsim.engine.cluster import check_gpus
from flsim.engine.grid import FleetGrid, LocalGrid, store_in
from flsim.engine.probe import Rehearsal, pack_of
from flsim.engine.ray_grid import RayGrid
from flsim.engine.streaming import TakesMean
from flsim.metrics.rows import Row, read_rows, write_rows
from flsim.models.adapter import Adapter, save_adapter
from flsim.plugins import build
from flsim.run_folder import log_to, open_again, open_new
from flsim.seeding import generator, seed_for
from flsim.tasks.stream import device_name
from flsim.timing import spend, write_timing
from flsim.world import first_adapter, stream_of


@dataclass(frozen=True)
class Run:
    """A finished run and what it left in its folder."""

    folder: Path
    summary: dict[str, Any]
    """What `summary.json` holds."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every measurement: `round, device, task, split, model, name, total, weight`."""
        return read_rows(self.folder)

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"


def run(
    config: str | Path | Config | None = None,
    overrides: Sequence[str] = (),
    *,
    strategy: Strategy | None = None,
    client: ClientApp | None = None,
    resume: str | Path | None = None,
    until: int | None = None,
    progress: bool = True,
) -> Run:
    """Run a simulation from start to report, or go on with one that was stopped.

    Args:
        config: a YAML file or a `Config`; None takes the defaults, or with `resume` the run's own.
        overrides: `key=value` over the file.
        strategy: any Flower strategy; None builds the one that `strategy.path` names.
        client: any Flower ClientApp (Message API); None builds the one that `client.path` names.
        resume: folder of a run to go on with; a finished run gets its report again.
        until: stop after this round, as if it were the last; `resume` goes on from there. None runs to the end.
        progress: whether to show a bar.

    Raises:
        ConfigError: for anything wrong in the settings, before long work starts.
        DamagedFileError: if a file of a resumed run cannot be read.
    """
    settings = _settings(config, overrides, resume)
    check_gpus(settings.engine)
    strategy = strategy or build("strategy", settings.strategy)
    client = client or build("client", settings.client, settings)
    adapter = first_adapter(settings)
    folder = open_new(settings) if resume is None else Path(resume)
    last = settings.rounds if until is None else min(until, settings.rounds)
    adapter = _go(settings, folder, strategy, client, adapter, last=last, log=log_to(folder), progress=progress)
    save_adapter(folder / "adapter", adapter, settings.model)
    from flsim.report.finish import finish_run  # only now: drawing takes memory that rounds need not have

    return Run(folder, finish_run(folder, phases=stream_of(settings).phases, tau=settings.budget.tau))


def _settings(config: str | Path | Config | None, overrides: Sequence[str], resume: str | Path | None) -> Config:
    """The config to run with; on resume it must agree with the run's own."""
    if isinstance(config, Config):
        check(config)
        return config if resume is None else open_again(Path(resume), config)
    if resume is None:
        return load_config(config, overrides)
    saved = open_again(Path(resume), None)
    base = Path(resume) / "config.yaml" if config is None else config
    return saved if config is None and not overrides else open_again(Path(resume), load_config(base, overrides))


def _go(
    config: Config,
    folder: Path,
    strategy: Strategy,
    client: ClientApp,
    adapter: Adapter,
    *,
    last: int,
    log: logging.Logger,
    progress: bool,
) -> Adapter:
    """The rounds that are still to do, up to `last`; returns the last adapter."""
    first = 0
    checkpoint = latest_checkpoint(folder)
    if checkpoint is not None:
        adapter, first = checkpoint.adapter, checkpoint.round + 1
        vars(strategy).update(checkpoint.strategy)
    if first > last:
        return adapter
    due = _evaluation_rounds(config)
    with open_grid(config, folder, client) as grid:
        grid.pack = _pack_of(config, folder, grid, adapter)
        where = f"{config.engine.kind} in packs of {grid.pack}"
        log.info("rounds %d to %d, %d devices on %s", first, last, config.fleet.devices, where)
        with tqdm(total=last, initial=max(0, first - 1), desc=folder.name, unit="round", disable=not progress) as bar:
            for round_ in range(first, last + 1):
                started = time.perf_counter()
                rows: list[Row] = []
                if round_ > 0:
                    adapter, rows = _train(config, strategy, grid, adapter, round_, round_ in due, log)
                if round_ in due:
                    rows += _evaluate(config, strategy, grid, adapter, round_, log)
                with spend("commit"):
                    write_rows(folder / "rows" / f"round-{round_:05d}.parquet", rows)
                    save_checkpoint(folder, round_, adapter, strategy)
                write_timing(folder, grid.timing(round_, time.perf_counter() - started))
                bar.update(round_ > 0)
    return adapter


def _train(
    config: Config, strategy: Strategy, grid: FleetGrid, adapter: Adapter, round_: int, due: bool, log: logging.Logger
) -> tuple[Adapter, list[Row]]:
    """One round: the cohort learns, the strategy aggregates what can be used."""
    grid.open_to(cohort(config, round_))
    weight = strategy.streamed_weight if isinstance(strategy, TakesMean) else None
    with spend("aggregate"):
        _seed_globals(config, round_)
        instructions = ConfigRecord({wire.EVALUATE_LOCAL: due})
        sent = list(strategy.configure_train(round_, wire.to_arrays(adapter), instructions, grid))
    replies, total = grid.send_and_sum(sent, weight, timeout=config.engine.timeout_s)
    with spend("transport"):
        usable, rows = _inspect(sent, replies, round_, log)
    with spend("aggregate"):
        _seed_globals(config, round_)  # again: a client in this process may have drawn
        if weight is not None and isinstance(strategy, TakesMean):
            new, _ = strategy.aggregate_mean(round_, usable, total)
        else:
            new, _ = strategy.aggregate_train(round_, usable)
        return (adapter if new is None else wire.to_adapter(new)), rows


def _evaluate(
    config: Config, strategy: Strategy, grid: FleetGrid, adapter: Adapter, round_: int, log: logging.Logger
) -> list[Row]:
    """Measure the adapter on every device of the fleet, whatever part of it the strategy would sample."""
    grid.open_to(range(config.fleet.devices))
    content = wire.instruction(wire.to_arrays(adapter), round_=round_, references=round_ == 0)
    sent = [Message(content, node, MessageType.EVALUATE) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(sent, timeout=config.engine.timeout_s)
    with spend("aggregate"):
        strategy.aggregate_evaluate(round_, replies)
    rows: list[Row] = []
    with spend("transport"):
        for reply in replies:
            if reply.has_error():
                log.warning("round %d: no evaluation of %s: %s", round_, _name(reply), reply.error.reason)
            else:
                rows += wire.rows_of(reply)
    return rows


def _inspect(
    sent: Sequence[Message], replies: Sequence[Message], round_: int, log: logging.Logger
) -> tuple[list[Message], list[Row]]:
    """The replies that can be aggregated, and the rows of all; who is set aside is logged with the reason.

    The workers have judged each reply against what its device was sent, and turned what cannot be used into errors.
    """
    usable, rows = [], []
    sizes = {id(message.content): wire.size_of(message) for message in {id(m.content): m for m in sent}.values()}
    for message in sent:
        device = wire.device_at(message.metadata.dst_node_id)
        rows.append(_fact(round_, device, "downlink_bytes", sizes[id(message.content)]))
    for reply in replies:
        device = wire.device_of(reply)
        if reply.has_error():
            word, detail = wire.reason_of(reply)
            log.warning("round %d: %s is set aside, %s: %s", round_, device_name(device), word, detail)
            rows.append(_fact(round_, device, "set_aside", 1.0, task=word))
            continue
        usable.append(reply)
        rows += wire.rows_of(reply)
        rows.append(_fact(round_, device, "uplink_bytes", wire.uplink_of(reply)))
        seconds = wire.seconds_of(reply)
        if seconds is not None:
            rows.append(_fact(round_, device, "seconds", seconds))
    return usable, rows


def cohort(config: Config, round_: int) -> list[int]:
    """The devices of a round, a pure function of (seed, round), sorted."""
    chosen = generator(config.seed, "cohort", round_).choice(config.fleet.devices, config.cohort_size, replace=False)
    return sorted(int(device) for device in chosen)


def open_grid(config: Config, folder: Path, client: ClientApp) -> FleetGrid:
    """The grid that `engine.kind` names."""
    store, devices, engine = store_in(folder), config.fleet.devices, config.engine
    if engine.kind == "local":
        return LocalGrid(client, store, devices, 1)
    where: dict[str, Any] = {"workers": engine.workers, "address": engine.address, "gpus": engine.gpus}
    return RayGrid(client, store, devices, 1, **where)


def _pack_of(config: Config, folder: Path, grid: FleetGrid, adapter: Adapter) -> int:
    """The size of the run's packs, found by rehearsing the first round if it is to be."""
    content = RecordDict({**wire.instruction(wire.to_arrays(adapter), round_=1)})

    def rehearse(devices: int) -> Rehearsal:
        nodes = [wire.node_of(device) for device in cohort(config, 1)[:devices]]
        return grid.rehearse([Message(content, node, MessageType.TRAIN) for node in nodes])

    return pack_of(config, folder, rehearse, grid.workers)


def _evaluation_rounds(config: Config) -> set[int]:
    """Round 0, every so many rounds, and the last round of each phase."""
    ends = {phase.last_round for phase in stream_of(config).phases}
    return ends | {0, config.rounds} | set(range(0, config.rounds + 1, config.evaluation.every_rounds))


def _seed_globals(config: Config, round_: int) -> None:
    """Stock Flower strategies sample from Python's and NumPy's global generators."""
    random.seed(seed_for(config.seed, "strategy", round_))
    np.random.seed(seed_for(config.seed, "strategy", round_) % 2**32)


def _fact(round_: int, device: int, name: str, total: float, *, task: str = "all") -> Row:
    return Row(round_, device_name(device), task, "train", "local", name, total, 1.0)


def _name(message: Message) -> str:
    return device_name(wire.device_of(message))
