"""The two federated sides, each in a process of its own since each starts Ray: `python -m ... SIDE SETTING`.

`flower` is TRL in Flower's `run_simulation`; `flower_frozen` the same with its garbage collector frozen; `engine` is
our client on our grid. All run this server: stock FedAvg configures, the grid sends and receives, FedAvg aggregates,
and the clock runs from before the first to after the last. Every round starts from the first adapter, so that all
sides sample from the same policy.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

import flsim.flower.messages as wire
from clients.app import DeviceApp
from experiments.benchmark.devices import tokens_of
from experiments.benchmark.setting import WORKERS, Measured, Setting
from flsim.flower.arrays import to_arrays
from flsim.flower.grid import store_in
from flsim.flower.probe import Rehearsal, pack_of
from flsim.flower.ray_grid import RayGrid
from flsim.models.base import first_adapter


class SeededApp(DeviceApp):
    """Our client, with the seed that the message names."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Train a pack."""
        seed = int(str(messages[0].content.config_records[wire.CONFIG]["seed"]))
        self.world = replace(self.world, config=replace(self.config, seed=seed))
        return super().answer(messages, contexts)


def serve(grid: Grid, setting: Setting, *, freeze: bool = False) -> Measured:
    """All rounds of a setting."""
    while len(list(grid.get_node_ids())) < setting.devices:  # Flower's nodes register one after the other
        time.sleep(0.05)
    strategy = FedAvg(fraction_train=1.0, min_train_nodes=setting.devices, min_available_nodes=setting.devices)
    arrays = to_arrays(first_adapter(setting.config.model, setting.config.seed, setting.algorithm.extras))
    seconds, tokens, responses = [], 0.0, 0.0
    for round_ in setting.rounds:
        config = ConfigRecord({"seed": round_.seed, "setting": setting.to_json(), "freeze": freeze})
        started = time.perf_counter()
        replies = list(grid.send_and_receive(strategy.configure_train(round_.number, arrays, config, grid)))
        aggregated, _ = strategy.aggregate_train(round_.number, replies)
        took = time.perf_counter() - started
        wrong = [reply.error.reason for reply in replies if reply.has_error()]
        if wrong or aggregated is None or len(replies) != setting.devices:
            raise RuntimeError(f"round {round_.number}: {len(replies)} replies, {len(wrong)} failed, first {wrong[:1]}")
        if not round_.warm_up:
            seconds.append(took)
            counts = [_tokens(reply) for reply in replies]
            tokens += sum(count for count, _ in counts)
            responses += sum(count for _, count in counts)
    return Measured(tuple(seconds), tokens, responses)


def _tokens(reply: Message) -> tuple[float, float]:
    """Generated tokens and responses of a device."""
    metrics = reply.content.metric_records[wire.METRICS]
    if "tokens" in metrics:
        return float(str(metrics["tokens"])), float(str(metrics["responses"]))
    return tokens_of(wire.rows_of(reply))


def flower(setting: Setting, *, freeze: bool) -> Measured:
    """TRL in stock Flower, two actors of one CPU each."""
    from experiments.benchmark.flower_client import app

    found: list[Measured] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        found.append(serve(grid, setting, freeze=freeze))

    ray = {"address": "local", "num_cpus": WORKERS, "logging_level": "ERROR", "log_to_driver": False}
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": ray}
    run_simulation(server, app, num_supernodes=setting.devices, backend_config=backend)  # type: ignore[arg-type]
    return found[0]


def engine(setting: Setting) -> Measured:
    """Our client on our grid, two Ray workers; with `auto` the packs are the engine's choice."""
    config = setting.config
    app = SeededApp(config, setting.algorithm)
    first = ConfigRecord({wire.ROUND: 1, "seed": setting.seeds[0]})
    adapter = first_adapter(config.model, config.seed, app.extras)
    content = RecordDict({wire.ARRAYS: to_arrays(adapter), wire.CONFIG: first})
    with (
        tempfile.TemporaryDirectory() as folder,
        RayGrid(app, store_in(Path(folder)), setting.devices, 1, workers=WORKERS) as grid,
    ):
        nodes = grid.get_node_ids()

        def rehearse(devices: int) -> Rehearsal:
            return grid.rehearse([Message(content, node, MessageType.TRAIN) for node in nodes[:devices]])

        grid.pack = pack_of(config.engine.pack, Path(folder), rehearse, cohort=config.cohort_size, workers=WORKERS)
        return replace(serve(grid, setting), pack=grid.pack)


def main() -> None:
    """Measure one side and print it as the last line."""
    torch.set_num_threads(1)
    side, setting = sys.argv[1], Setting.from_json(sys.argv[2])
    measured = engine(setting) if side == "engine" else flower(setting, freeze=side == "flower_frozen")
    print("\n" + json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
