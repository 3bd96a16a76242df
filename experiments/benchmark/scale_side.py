"""One side of `scale` in a process of its own, since each starts Ray: `python -m ... SIDE DEVICES ROUNDS`.

`engine` is `flsim.run` with the client of `scale_client` and FedAvg; `flower` the same client in Flower's
`run_simulation` with Flower's FedAvg; `learner` is `flsim.run` with DA-GRPO on the built-in model. Prints one line of
JSON: per steady round the seconds on the wall and the seconds of the clients, and the largest memory of driver, worker
and all processes together.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import psutil
from flwr.app import ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import flsim
from experiments.benchmark.devices import TOKEN
from experiments.benchmark.scale_client import COMPUTE, app
from flsim.config.load import load_config
from flsim.flower.arrays import to_arrays
from flsim.models.base import first_adapter
from flsim.timing import read_timings

WORKERS = 2
ADAPTER = ("model.rank=4",)
"""Settings of the plain client's runs: 0.1 MB of adapter."""
LEARNER = (
    *TOKEN,
    "client.steps=1",
    "client.prompts=4",
    "client.group_size=4",
)
"""Settings of DA-GRPO's runs: few steps, since the time per device is what matters."""
_COMPUTING = ("rollout", "cloud", "reward", "train")
_TICK_S, _LOOK_S = 0.02, 0.5  # between two looks at the marks, and at the memory
_LONGEST_S = 3600


@dataclass
class Memory:
    """The largest resident memory seen, in bytes; what processes share is counted in each."""

    driver: int = 0
    worker: int = 0
    total: int = 0

    def look(self) -> None:
        """Look once more."""
        own = psutil.Process().memory_info().rss
        sizes = [(is_worker, process.memory_info().rss) for is_worker, process in _children()]
        self.driver = max(self.driver, own)
        self.worker = max([self.worker, *(size for is_worker, size in sizes if is_worker)])
        self.total = max(self.total, own + sum(size for _, size in sizes))


def cpu_seconds() -> float:
    """Processor time that driver and workers have spent so far."""
    processes = [psutil.Process(), *(process for is_worker, process in _children() if is_worker)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _children() -> list[tuple[bool, psutil.Process]]:
    """The processes below this one, and which are Ray workers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may have ended meanwhile
            found.append((" ".join(child.cmdline()[:1]).startswith("ray::Worker"), child))
    return found


@dataclass(frozen=True)
class Side:
    """What one side measured."""

    wall_s: tuple[float, ...]
    """Of each steady round."""
    compute_s: tuple[float, ...]
    """Of all clients of that round together."""
    cpu_s: float
    """Processor time of driver and workers over the steady rounds; 0 where it was not measured."""
    memory: Memory
    """Until the last round ended."""


class Watch:
    """Looks at memory and processor time from a thread while rounds run."""

    def __init__(self, begin: Path | None = None, end: Path | None = None, last: Path | None = None) -> None:
        """Start looking.

        Args:
            begin: the file that the round before the steady ones leaves.
            end: the file that the last steady round leaves.
            last: the file after which memory does not count any more.
        """
        self.memory = Memory()
        self._cpu: dict[Path, float] = {}
        self._marks = [mark for mark in (begin, end) if mark is not None]
        self._last = last
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop looking; the processor time of the steady rounds."""
        self._over.set()
        self._thread.join()
        return self._cpu[self._marks[1]] - self._cpu[self._marks[0]] if self._marks else 0.0

    def _run(self) -> None:
        looked = 0.0
        while not self._over.wait(_TICK_S) and not (self._last is not None and self._last.exists()):
            for mark in self._marks:
                if mark not in self._cpu and mark.exists():
                    self._cpu[mark] = cpu_seconds()
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                with suppress(psutil.Error):
                    self.memory.look()


def through_flsim(devices: int, rounds: int, folder: Path, client: ClientApp | None, *settings: str) -> Side:
    """`flsim.run` with every device in every round; the evaluated rounds, the first and the last, are left out."""
    last = rounds + 2
    config = load_config(
        None,
        [
            f"run_dir={folder / 'run'}",
            f"rounds={last}",
            f"fleet.devices={devices}",
            "strategy.path=strategies.fedavg:FedAvg",
            f"engine.workers={WORKERS}",
            "stream.phases=[[arithmetic]]",
            "stream.quantity_sigma=0",
            "cloud.kind=oracle",
            f"evaluation.every_rounds={last}",
            "evaluation.prompts_per_task=1",
            *settings,
        ],
    )
    watch = Watch(*(config.folder / "timing" / f"round-{round_:05d}.json" for round_ in (1, last - 1, last)))
    finished = flsim.run(config, client=client, progress=False)
    cpu_s = watch.stop()
    if (finished.rows["name"] == "set_aside").any():
        raise RuntimeError(f"devices were set aside; see {config.folder / 'run.log'}")
    steady = [timing for timing in read_timings(config.folder) if 1 < timing.round < last]
    compute = tuple(sum(timing.parts.get(part, 0.0) for part in _COMPUTING) for timing in steady)
    return Side(tuple(timing.wall_s for timing in steady), compute, cpu_s, watch.memory)


def through_flower(devices: int, rounds: int) -> Side:
    """Flower's own simulation and FedAvg; nothing is written, and the first round is left out."""
    from flwr.simulation import run_simulation  # only here: it would count in the memory of our driver

    server = ServerApp()
    wall, compute = [], []
    config = load_config(None, list(ADAPTER))
    arrays = to_arrays(first_adapter(config.model, config.seed))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < devices:  # Flower's nodes register one after the other
            time.sleep(0.05)
        strategy = FedAvg(fraction_train=1.0, min_train_nodes=devices, min_available_nodes=devices)
        current = arrays
        for round_ in range(1, rounds + 2):
            started = time.perf_counter()
            replies = list(grid.send_and_receive(strategy.configure_train(round_, current, ConfigRecord(), grid)))
            new, _ = strategy.aggregate_train(round_, replies)
            took = time.perf_counter() - started
            if new is None or len(replies) != devices or any(reply.has_error() for reply in replies):
                raise RuntimeError(f"round {round_}: {len(replies)} of {devices} replies")
            current = new
            if round_ > 1:
                wall.append(took)
                compute.append(sum(float(str(reply.content["metrics"][COMPUTE])) for reply in replies))

    ray = {"num_cpus": WORKERS, "logging_level": "ERROR", "log_to_driver": False}
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": ray}
    watch = Watch()
    run_simulation(server, app, num_supernodes=devices, backend_config=backend)  # type: ignore[arg-type]
    return Side(tuple(wall), tuple(compute), watch.stop(), watch.memory)


def measure(side: str, devices: int, rounds: int) -> Side:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmark.scale_side", side, str(devices), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=_LONGEST_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Side(tuple(found["wall_s"]), tuple(found["compute_s"]), found["cpu_s"], Memory(**found["memory"]))


def main(side: str, devices: int, rounds: int) -> None:
    """Measure a side and print it."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "flower":
            found = through_flower(devices, rounds)
        elif side == "engine":
            found = through_flsim(devices, rounds, Path(folder), app, *ADAPTER)
        else:
            found = through_flsim(devices, rounds, Path(folder), None, *LEARNER)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
