"""One fleet in a process of its own: `python -m ... DEVICES COHORT ROUNDS [key=value ...]`; prints one line of JSON."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import psutil

import flsim
from experiments.benchmark.devices import TOKEN
from experiments.benchmark.scale_side import WORKERS, Memory, Watch
from flsim.config.load import load_config
from flsim.timing import read_timings

PANEL = 50
LEARNER = (*TOKEN, "client.steps=1", "client.prompts=4", "client.group_size=4", "engine.pack=10", "model.rank=4")
"""Settings of the devices: little work, so that what a round costs beside it can be seen."""
_LONGEST_S = 3600


@dataclass(frozen=True)
class Population:
    """What a run of one fleet measured."""

    start_s: float
    """From the start of the process, with all that it imports, until the first test begins."""
    test_s: float
    """The test of the panel before training."""
    wall_s: tuple[float, ...]
    """Of each steady round: the first is left out, which warms up, and the last, which tests."""
    cpu_s: float
    """Processor time of driver and workers over the steady rounds."""
    report_s: float
    """From the end of the last round to the end: adapter, summary, figures, page."""
    memory: Memory
    """Until the last round ended."""
    bytes_on_disk: int
    files: int
    """In the run's folder before the report."""
    states: int
    """Files among them that hold what devices keep."""


def run(devices: int, cohort: int, rounds: int, folder: Path, more: Sequence[str] = ()) -> Population:
    """A fleet of so many devices, of which a cohort learns in a round and a panel is tested; `more` are settings."""
    last = rounds + 2
    config = load_config(
        None,
        [
            f"run_dir={folder / 'run'}",
            f"rounds={last}",
            f"fleet.devices={devices}",
            f"fleet.cohort={cohort}",
            f"evaluation.devices={PANEL}",
            f"evaluation.every_rounds={last}",
            "evaluation.prompts_per_task=1",
            "strategy.path=strategies.fedavg:FedAvg",
            "budget.fleet.division=traffic",
            f"engine.workers={WORKERS}",
            "stream.phases=[[arithmetic]]",
            "cloud.kind=oracle",
            *LEARNER,
            *more,
        ],
    )
    timing = config.folder / "timing"
    watch = Watch(*(timing / f"round-{round_:05d}.json" for round_ in (1, last - 1, last)))
    flsim.run(config, progress=False)
    ended = (config.folder / "report.html").stat().st_mtime
    cpu_s = watch.stop()
    timings = read_timings(config.folder)
    first = (timing / "round-00000.json").stat().st_mtime - timings[0].wall_s
    made = (timing / f"round-{last:05d}.json").stat().st_mtime
    before = [path for path in config.folder.rglob("*") if path.is_file() and path.stat().st_mtime <= made]
    return Population(
        start_s=first - psutil.Process().create_time(),
        test_s=timings[0].wall_s,
        wall_s=tuple(one.wall_s for one in timings if 1 < one.round < last),
        cpu_s=cpu_s,
        report_s=ended - made,
        memory=watch.memory,
        bytes_on_disk=sum(path.stat().st_size for path in before),
        files=len(before),
        states=sum(path.suffix == ".states" for path in before),
    )


def measure(devices: int, cohort: int, rounds: int, more: Sequence[str] = ()) -> Population:
    """One fleet in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, str(devices), str(cohort), str(rounds), *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=_LONGEST_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Population(**{**found, "wall_s": tuple(found["wall_s"]), "memory": Memory(**found["memory"])})


if __name__ == "__main__":
    sizes = [int(given) for given in sys.argv[1:4]]
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(asdict(run(sizes[0], sizes[1], sizes[2], Path(scratch), sys.argv[4:]))))
