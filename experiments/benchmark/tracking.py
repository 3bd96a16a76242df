"""What it costs to follow a run: trackers, each alone, and a page of `flsim watch`.

Two measurements. A short run is made without a tracker and with each in turn, as often as `--repeats` says, each in a
process of its own; "more" is the difference of its rounds to those without, repeat by repeat. On a machine that others
use that says little, so the work of a tracker is measured by itself, too: the rounds of the run without are sent to it,
and "CPU a round" is what its process and those that it starts compute for one, reading the rows included; "of a round"
is that beside the CPU seconds of a round without. "start" is what it computes once, mostly for importing its package;
that happens beside the first round. Round 1 is left out of all figures.

W&B writes offline, MLflow and Trackio to local databases: what a server takes is not the run's. `watch` is a server of
the page that a client asks every two seconds; its CPU is that of its own process.
"""

import argparse
import contextlib
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import psutil

import flsim
from experiments.benchmark.measuring import conditions, spread
from flsim.config.load import load_config, settings_of
from flsim.config.schema import Config
from flsim.diagnosis.seen import Facts
from flsim.tasks.stream import TaskStream
from flsim.text import markdown_table as table
from flsim.timing import read_timings
from flsim.trackers.named import SHIPPED, trackers_of
from flsim.trackers.told import Told
from flsim.trackers.tracking import tracked_run

NONE, WATCH = "none", "watch"
_SETTLE_S = 2.0  # until what a tracker does beside its calls is done
_LOOK_S = 2.0  # between two looks of a page


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("config", nargs="?", default="demo", help="a name or a YAML file (default demo)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings laid over it")
    parser.add_argument("--rounds", type=int, default=8, help="of the short run (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="of every figure (default 3)")
    parser.add_argument("--sides", nargs="+", choices=(*SHIPPED, WATCH), default=[*SHIPPED, WATCH], help="default all")


@dataclass
class Seen:
    """What was measured of a side."""

    rounds: list[float] = field(default_factory=list)
    """Of every repeat, the median seconds of a round on the clock on the wall."""
    sent: list[float] = field(default_factory=list)
    """Of every repeat, CPU seconds of its own for a round."""
    start: list[float] = field(default_factory=list)
    """CPU seconds of its own before the first round."""


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    there = [side for side in args.sides if side == WATCH or importlib.util.find_spec(side)]
    for side in [side for side in args.sides if side not in there]:
        print(f"{side} is left out, since it is missing; install it with: pip install {side}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, _alone(Path(folder)):
        seen, cpu = measure(args.config, args.settings, there, args.rounds, args.repeats, Path(folder))
    print(conditions(args.config, f"{args.rounds} rounds", f"{args.repeats} repeats", "median (low..high)") + "\n")
    print(table(rows_of(seen, cpu)))


def measure(
    name: str, settings: Sequence[str], sides: Sequence[str], rounds: int, repeats: int, root: Path
) -> tuple[dict[str, Seen], float]:
    """All figures by side, and the CPU seconds of a round without any."""
    seen = {side: Seen() for side in (NONE, *sides)}
    cpu = list[float]()
    for repeat in range(repeats):
        order = list(seen)[repeat:] + list(seen)[:repeat]  # nobody is always the first
        for side in order:
            config = load_config(name, ["engine.kind=local", *settings, f"run_dir={root / f'{side}-{repeat}' / 'run'}"])
            config.folder.parent.mkdir()
            with _watched(config.folder.parent) if side == WATCH else contextlib.nullcontext([0.0, 0.0]) as watcher:
                walls, used = _in_a_process(_run, config, side, rounds)
            seen[side].rounds.append(walls)
            if side == WATCH:
                seen[side].start.append(watcher[0])
                seen[side].sent.append(watcher[1] / rounds)
            elif side == NONE:
                cpu.append(used)
            else:
                start, sent = _in_a_process(_send, load_config(config.folder / "config.yaml"), side, rounds)
                seen[side].start.append(start)
                seen[side].sent.append(sent)
    return seen, statistics.median(cpu)


def rows_of(seen: dict[str, Seen], cpu: float) -> list[list[str]]:
    """The table."""
    rows = [["followed by", "s a round", "more", "CPU ms a round", "of a round", "start, CPU s"]]
    plain = seen[NONE].rounds
    for side, own in seen.items():
        shown = [side, spread(own.rounds).text(2)]
        if side == NONE:
            rows.append([*shown, "", f"{1000 * cpu:.0f} (the round's own)", "", ""])
            continue
        more = spread([100 * (one / other - 1) for one, other in zip(own.rounds, plain, strict=True)])
        sent = spread([1000 * one for one in own.sent])
        rows.append(
            [
                *shown,
                f"{more.text(1)} %",
                sent.text(1),
                f"{sent.median / 10 / cpu:.2f} %",
                f"{spread(own.start).text(1)}",
            ]
        )
    return rows


def _run(config: Config, side: str, rounds: int) -> tuple[float, float]:
    """A run in this process: the median seconds of a round, and CPU seconds of one (this process and its children).

    CPU seconds are the difference of a longer and a shorter run, so that start and report drop out.
    """
    track = () if side in (NONE, WATCH) else (side,)
    used = list[float]()
    for last in (2, 2, rounds) if side == NONE else (rounds,):  # packages are imported in the first
        own = replace(
            config,
            track=track,
            run_dir=f"{config.run_dir}{'-short' * (last < rounds)}{len(used) if last < rounds else ''}",
        )
        before = _cpu()
        flsim.run(own, until=last, progress=False)
        used.append(_cpu() - before)
    timings = [timing.wall_s for timing in read_timings(config.folder) if timing.round > 1]
    return statistics.median(timings), (used[-1] - used[-2]) / (rounds - 2) if side == NONE else 0.0


def _send(config: Config, side: str, rounds: int) -> tuple[float, float]:
    """The rounds of a finished run to a tracker: CPU seconds of its start, and of a round."""
    (named,) = trackers_of([side])
    stream = TaskStream(config.stream, config.rounds)
    told = Told(config.folder, Facts(stream.phases, config.budget.tau, config.fleet.devices), config.rounds)
    tracker, begun = named.tracker, _cpu()
    tracker.start(replace(tracked_run(config.folder, config.name, settings_of(config)), id=uuid.uuid4().hex[:16]))
    for round_ in (0, 1):
        tracker.measures(round_, told.of(round_).measures)
    time.sleep(_SETTLE_S)
    started = _cpu()
    for round_ in range(2, rounds + 1):
        of = told.of(round_)
        for name, text in of.texts.items():
            tracker.text(round_, name, text)
        tracker.measures(round_, of.measures)
    time.sleep(_SETTLE_S)
    return started - begun, (_cpu() - started) / max(1, rounds - 1)


def _cpu() -> float:
    """CPU seconds of this process and of those that it has started."""
    own, found = psutil.Process(), time.process_time()
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            found += times.user + times.system
    return found


def _in_a_process(work: Callable[..., tuple[float, float]], *given: object) -> tuple[float, float]:
    """What a fresh process returns, which prints nothing between the lines of the table and leaves nothing here."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=_be_apart, initargs=(folder,)) as pool,
    ):
        return pool.submit(work, *given).result()


def _be_apart(folder: str) -> None:
    """MLflow keeps artefacts where it is started, and trackers print."""
    os.chdir(folder)
    sys.stdout = sys.stderr


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Trackers write below a folder that is deleted, and no server is asked."""
    own = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "TRACKIO_DIR": str(folder / "trackio"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _watched(root: Path) -> Iterator[list[float]]:
    """`flsim watch` with a client that looks on; afterwards its CPU seconds, before the first look and since."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "flsim", "watch", str(root), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    over, found = threading.Event(), [0.0, 0.0]

    def look() -> None:
        while not over.wait(_LOOK_S):
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/runs.json", timeout=30) as page,
            ):
                page.read()
                found[0] = found[0] or _of(server)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join(35)
        found[1] = _of(server) - found[0]
        server.terminate()
        server.wait()


def _of(process: "subprocess.Popen[bytes]") -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system
