"""One side of `writers` in a process of its own, since each starts Ray: `python -m ... SIDE NETWORK WRITERS ROUNDS`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from safetensors.numpy import load_file

import flsim
from clients.supervised import MODEL
from experiments.benchmark.writers_client import WORKERS, app, config_of, world_of
from flsim.config.schema import Config
from flsim.timing import read_timings

_LONGEST_S = 3600


@dataclass(frozen=True)
class Side:
    """What one side measured."""

    wall_s: tuple[float, ...]
    """Of each timed round."""
    parameters: int
    sample: tuple[float, ...]
    """Every so many of the parameters that it ended with."""


def difference(one: Side, other: Side) -> float:
    """The largest difference of the parameters that were looked at."""
    return float(np.abs(np.array(one.sample) - np.array(other.sample)).max())


def through_flsim(config: Config) -> Side:
    """`flsim.run`; the first round and the last, which is evaluated, are left out."""
    done = flsim.run(config, progress=False)
    steady = [timing.wall_s for timing in read_timings(done.folder) if 1 < timing.round < config.rounds]
    return _side(steady, load_file(done.folder / "adapter" / MODEL))


def through_flower(network: str, writers: int, rounds: int, folder: str) -> Side:
    """Flower's simulation and FedAvg, as many rounds as ours."""
    from flwr.simulation import run_simulation  # only here: it starts what our side does not need

    setting = json.dumps([network, writers, rounds, folder])
    world = world_of(setting)
    wall: list[float] = []
    ended: dict[str, NDArray[Any]] = {}
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < writers:  # Flower's nodes register one after the other
            time.sleep(0.05)
        strategy = FedAvg(fraction_train=1.0, min_train_nodes=writers, min_available_nodes=writers)
        current = ArrayRecord({name: torch.from_numpy(value) for name, value in world.stacked.first.items()})
        for round_ in range(1, world.config.rounds + 1):
            started = time.perf_counter()
            sent = strategy.configure_train(round_, current, ConfigRecord({"round": round_, "setting": setting}), grid)
            replies = list(grid.send_and_receive(sent))
            new, _ = strategy.aggregate_train(round_, replies)
            wrong = [reply.error.reason for reply in replies if reply.has_error()]
            if new is None or len(replies) != writers or wrong:
                raise RuntimeError(f"round {round_}: {len(replies)} of {writers} replies, {wrong[:1]}")
            current = new
            if 1 < round_ < world.config.rounds:
                wall.append(time.perf_counter() - started)
        ended.update({name: array.numpy() for name, array in current.items()})

    ray = {"num_cpus": WORKERS, "logging_level": "ERROR", "log_to_driver": False}
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": ray}
    run_simulation(server, app, num_supernodes=writers, backend_config=backend)  # type: ignore[arg-type]
    return _side(wall, ended)


def _side(wall_s: list[float], ended: dict[str, NDArray[Any]]) -> Side:
    flat = np.concatenate([ended[name].ravel() for name in sorted(ended)])  # (n,)
    return Side(tuple(wall_s), len(flat), tuple(flat[:: len(flat) // 1000].astype(float).tolist()))


def measure(side: str, network: str, writers: int, rounds: int) -> Side:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmark.writers_side", side, network, str(writers), str(rounds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_LONGEST_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Side(tuple(found["wall_s"]), found["parameters"], tuple(found["sample"]))


def main(side: str, network: str, writers: int, rounds: int) -> None:
    """Measure a side and print it."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "flower":
            found = through_flower(network, writers, rounds, folder)
        else:
            found = through_flsim(config_of(network, writers, rounds, Path(folder)))
    print("\n" + json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
