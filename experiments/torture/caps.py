"""Fleets that want far more than their caps allow, clouds and drivers that die over it: what is sent is booked."""

import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

from experiments.torture.kills import began
from experiments.torture.processes import ROOT, Command
from experiments.torture.trial import LOCAL, LOST, RAY, SURVIVED, Ground, Trial, resume, run
from flsim.metrics.rows import read_rows
from flsim.seeding import python_random

_CAP = 1000
_MEMORISE = (
    *("client.path=clients.sft:Sft", "client.group_size=1", "budget.tau=1", "evaluation.prompts_per_task=1"),
    *("rounds=3", "evaluation.every_rounds=3"),
)
"""Every prompt is wished to be sent; nothing is sampled, so that there can be many."""
_GREEDY = ("fleet.devices=64", "engine.pack=8", "client.steps=6", "client.prompts=31")
"""Some 34,000 wishes in three rounds."""
_FEW = ("fleet.devices=6", "engine.pack=2", "client.steps=2", "client.prompts=10")
_CAPS = {
    "caps of their own": (f"budget.calls_total={_CAP // 64}",),
    "a fleet budget, shared equally": (f"budget.fleet.calls_total={_CAP}",),
    "a fleet budget, shared by traffic": (f"budget.fleet.calls_total={_CAP}", "budget.fleet.division=traffic"),
}


class Server:
    """A local stand-in for a cloud, as a process of its own that can be killed; it counts what reaches it."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; nothing is started yet."""
        self.counted = folder / "requests"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: Popen[bytes] | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Those of a run that asks it, with a cache of its own."""
        return (
            *("cloud.path=flsim.cloud.endpoint:Endpoint", f"cloud.url=http://127.0.0.1:{self.port}/v1"),
            *("cloud.model=stand-in", "cloud.concurrency=64", "cloud.backoff_s=0.1", "evaluation.cloud=granted"),
            f"cloud.cache={self.counted.parent / 'cache'}",
        )

    @property
    def requests(self) -> int:
        """How many reached it, over all its lives."""
        return self.counted.stat().st_size

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "experiments.torture.stand_in", str(self.port), str(self.counted)]
        self._process = Popen(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the stand-in for a cloud does not listen at port {self.port}")

    def kill(self) -> None:
        """SIGKILL, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Books:
    """What the rows of a run say of its cloud, summed over rounds and devices."""

    charged: int
    """Calls that the caps were charged in training."""
    bought: int
    """Answers that came from the cloud, in training and tests."""
    lost: int
    """What was sent and may have been answered, by processes that died."""
    failed: int
    """Requests that were sent and certainly came to nothing."""
    wished: int


def books_of(folder: Path) -> Books:
    """Read them."""
    rows = read_rows(folder)
    sums: Counter[str] = Counter()
    for name, total in zip(rows["name"], rows["total"], strict=True):
        sums[str(name)] += total
    charged = int(rows[(rows["name"] == "cloud_calls") & (rows["split"] == "train")]["total"].sum())
    failed = int(4 * sums["cloud_failures"] + sums["cloud_retries"])  # one question is tried four times at most
    lost = int(sums["lost_calls"])
    return Books(charged, int(sums["bought_calls"]), lost, failed, charged + int(sums["cloud_refused"]))


def greedy(ground: Ground) -> Iterator[Trial]:
    """A hundred thousand wishes at once against caps of a thousand: the server's own count is that of the books."""
    for number, (name, caps) in enumerate(_CAPS.items()):
        folder = ground.root / f"greedy-{number}"
        folder.mkdir()
        server = Server(folder)
        server.start()
        ending = run(folder / "run", *RAY, *_MEMORISE, *_GREEDY, *caps, *server.settings).finish()
        server.kill()
        if ending.status != 0:
            yield Trial("wishes far above caps", name, LOST, f"status {ending.status}: {ending.last}")
            continue
        books = books_of(folder / "run")
        holds = server.requests == books.bought and books.charged <= _CAP and books.lost == 0
        yield Trial("wishes far above caps", name, SURVIVED if holds else LOST, _told(server, books))


def dying(ground: Ground) -> Iterator[Trial]:
    """The cloud's server, or the driver that asks it, is killed again and again: every request stays in the books."""
    for number in range(ground.times(8)):
        rng = python_random(ground.seed, "torture", "cloud", number)
        engine, drivers = (LOCAL, RAY)[number % 2], number // 2 % 2 == 1
        folder = ground.root / f"dying-{number}"
        folder.mkdir()
        server = Server(folder)
        server.start()
        settings = (*engine, *_MEMORISE, *_FEW, *server.settings, "budget.calls_total=30")
        command = run(folder / "run", *settings)
        for _ in range(3):
            began(command, folder / "run")
            command.wait(rng.uniform(0.0, 3.0))
            command = _strike(server, command, rng, folder / "run", settings, drivers=drivers)
        ending = command.finish()
        server.kill()
        what = f"{'driver' if drivers else 'server'} killed three times, {engine[0]}"
        family = f"kill of the {'driver while it buys' if drivers else 'cloud'}"
        if ending.status != 0:
            yield Trial(family, what, LOST, f"status {ending.status}: {ending.last}")
            continue
        books = books_of(folder / "run")
        known = books.bought <= server.requests <= books.bought + books.lost + books.failed
        holds = known and books.charged + books.lost <= 6 * 30
        yield Trial(family, what, SURVIVED if holds else LOST, _told(server, books))


def _strike(
    server: Server, command: Command, rng: random.Random, folder: Path, settings: tuple[str, ...], *, drivers: bool
) -> Command:
    """Kill the one or the other, and start it again; returns the command that goes on."""
    if not drivers:
        server.kill()
        command.wait(rng.uniform(0.0, 1.0))
        server.start()
        return command
    command.kill()
    if not (folder / "config.yaml").is_file():
        return run(folder, *settings)
    return resume(folder)


def _told(server: Server, books: Books) -> str:
    return f"{server.requests} requests; {books}"
