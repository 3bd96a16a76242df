"""Seconds and memory of reading and dealing a large data set by user, and of finding it where another process has.

The set is drawn, in the form and the size of MovieLens 1M: 1,000,209 ratings of 3,706 films by 6,040 users, in a
`ratings.dat` of 25 MB with 20 ratings or more a user; nothing is downloaded. "Made" is the first process of a machine:
it reads the files, makes the questions, looks for doubts, deals a user to each device, and writes what came of it into
a cache folder that the benchmark throws away. "Found" is any later process, such as a worker. Each is a process of its
own, so its peak holds the libraries, too.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flsim.text import markdown_table

_RATINGS, _FILMS, _USERS = 1_000_209, 3_706, 6_040
_LEAST, _MOST = 20, 2_314  # ratings of a user
_STARS = (0.056, 0.107, 0.261, 0.349, 0.227)  # shares of 1 to 5


@dataclass(frozen=True)
class Side:
    """What one process took."""

    wall_s: float
    cpu_s: float
    peak: int
    """Bytes, of the whole process."""
    items: int
    train: int
    """Train items of device 0."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--ratings", type=int, default=_RATINGS, help=f"how many (default {_RATINGS:,})")
    parser.add_argument("--devices", type=int, default=1000, help="of the fleet (default 1000)")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of processes (default 3)")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    made: list[Side] = []
    found: list[Side] = []
    with tempfile.TemporaryDirectory() as folder:
        write_ratings(Path(folder), args.ratings, min(_USERS, args.ratings // _LEAST))
        for repeat in range(args.repeats):
            cache = str(Path(folder) / f"cache-{repeat}")
            for sides in (made, found):
                sides.append(in_a_process(folder, args.devices, cache))
    rows = [["process", "seconds", "processor seconds", "peak, MB"]]
    rows += [[name, *_cells(sides)] for name, sides in (("made", made), ("found", found))]
    said = f"{args.ratings:,} ratings, {made[0].items:,} questions, {args.devices:,} devices; median (min..max)"
    print(f"{os.cpu_count()} cores, {said} of {args.repeats}\n\n{markdown_table(rows)}")


def write_ratings(folder: Path, ratings: int, users: int) -> None:
    """`ratings.dat` and `movies.dat`; a user rates no film twice, and popular ones more often."""
    rng = np.random.default_rng(0)
    films = np.sort(rng.choice(np.arange(1, _FILMS + 247), _FILMS, replace=False))
    sizes = np.exp(rng.normal(4.5, 0.95, users))
    counts = np.clip((sizes / sizes.sum() * ratings).astype(int), _LEAST, _MOST)
    while counts.sum() != ratings:
        room = np.flatnonzero(counts < _MOST if counts.sum() < ratings else counts > _LEAST)
        some = room[: abs(ratings - counts.sum())]
        counts[some] += np.sign(ratings - counts.sum())
    liked = np.exp(rng.normal(0, 1.2, _FILMS))
    (folder / "movies.dat").write_text(
        "".join(f"{film}::Film \xe9 {film}, The ({1920 + film % 80})::Drama|War\n" for film in films.tolist()),
        encoding="latin-1",
    )
    with (folder / "ratings.dat").open("w") as file:
        for user, count in enumerate(counts.tolist(), 1):
            seen = rng.choice(films, count, replace=False, p=liked / liked.sum()).tolist()
            stars = rng.choice(5, count, p=_STARS).tolist()
            begin = 956_703_932 + int(rng.integers(0, 90_000_000))
            file.writelines(
                f"{user}::{film}::{star + 1}::{begin + 60 * at}\n"
                for at, (film, star) in enumerate(zip(seen, stars, strict=True))
            )


def in_a_process(root: str, devices: int, cache: str) -> Side:
    """Deal in a process that has imported nothing yet."""
    os.environ["XDG_CACHE_HOME"] = cache  # it inherits that
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(dealt, root, devices).result()


def dealt(root: str, devices: int) -> Side:
    """Read and deal, or find what has been dealt."""
    from experiments.benchmark.measuring import peak_bytes, reset_peak
    from flsim.config.load import load_config
    from flsim.tasks.stream import stream_of

    films = [f"data.films.{setting}" for setting in ("kind=movielens", f"root={root}", "partition=user")]
    config = load_config(None, ["stream.phases=[[films]]", "rounds=1", f"fleet.devices={devices}", *films])
    reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    source = stream_of(config).data[0].source
    return Side(
        time.perf_counter() - wall,
        time.process_time() - cpu,
        peak_bytes(),
        len(source.items),
        source.size(0, "train"),
    )


def _cells(sides: Sequence[Side]) -> list[str]:
    from experiments.benchmark.measuring import spread

    seconds = [spread([getattr(side, name) for side in sides]).text(1) for name in ("wall_s", "cpu_s")]
    return [*seconds, spread([side.peak / 1e6 for side in sides]).text(0)]
