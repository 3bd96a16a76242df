"""Seconds and memory of the report of a large run: 1,000 devices over 36 rounds, of which each repeat is a process.

The rows have the shape of the demo's: a small run of it is made, and each device of the large fleet gets, round for
round, the rows of a device of the small one, with every share drawn anew. Processor seconds are told by part, each
without the parts within it; "other" is what is written beside them. The peak is of the whole process, which has
imported what a report needs; one that has trained has its libraries, too.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.benchmark.measuring import conditions, spread
from experiments.benchmark.reporting_side import Reported, in_a_process
from flsim.config.load import load_config, to_yaml
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.metrics.rows import FLEET, USER, read_rows, rows_path, write_rows_frame
from flsim.seeding import generator
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import milestones
from flsim.text import markdown_table

_SMALL = 4  # devices of the small run


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--devices", type=int, default=1000, help="of the fleet (default 1000)")
    parser.add_argument("--rounds", type=int, default=36, help="of the run, a third of them a phase (default 36)")
    parser.add_argument("--repeats", type=int, default=3, help="processes (default 3)")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch) / "small", Path(scratch) / "large"
        make_small(small)
        count = deal_out(small, large, devices=args.devices, rounds=args.rounds)
        found = [in_a_process(large) for _ in range(args.repeats)]
    what = f"{args.devices:,} devices, {args.rounds} rounds, {count:,} rows"
    print(conditions(what, f"median (min..max) of {args.repeats}"))
    print(table(found))


def table(found: Sequence[Reported]) -> str:
    """A line a part, from the first to the last, and all together."""
    parts = [name for name in found[0].parts if name != "other"]
    rows = [["part", "processor s"]]
    rows += [[name, spread([one.parts[name] for one in found]).text(2)] for name in (*parts, "other")]
    rows.append(["all", spread([sum(one.parts.values()) for one in found]).text(2)])
    wall, peak = spread([one.wall_s for one in found]), spread([one.peak / 2**20 for one in found])
    return f"{markdown_table(rows)}\n\n{wall.text(1)} s on the clock, peak {peak.text(0)} MB"


def make_small(folder: Path) -> None:
    """The run whose rows are dealt out: the demo of a few devices and a round a phase, each with a test."""
    import flsim

    work = ("client.steps=1", "client.prompts=4", "client.group_size=4", "engine.kind=local")
    few = (f"fleet.devices={_SMALL}", "rounds=3", "evaluation.every_rounds=1")
    flsim.run("demo", [f"run_dir={folder}", *few, *work], progress=False)


def deal_out(small: Path, folder: Path, *, devices: int, rounds: int) -> int:
    """Write the rows and the config of the large run.

    Args:
        small: folder of a run of few devices, one round a phase, every round tested.
        folder: of the large one.
        devices: of its fleet.
        rounds: as many or more than it has phases; tests are when the demo's are.

    Returns:
        How many rows it has.
    """
    shape, rows = load_config("demo"), read_rows(small)
    config = replace(shape, rounds=rounds, run_dir=str(folder), fleet=replace(shape.fleet, devices=devices))
    stream = TaskStream(config.stream, rounds)
    tests = milestones(stream) | set(range(0, rounds + 1, config.evaluation.every_rounds))
    count = 0
    for round_ in range(rounds + 1):
        phase = next((n for n, one in enumerate(stream.phases, 1) if one.first_round <= round_ <= one.last_round), 0)
        own = rows[rows["round"] == phase]
        own = own if round_ in tests else own[~own["split"].isin(["test", "validation"])]
        frame = _redrawn(_for_fleet(own, devices), round_).assign(round=round_)
        write_rows_frame(rows_path(folder, round_), frame)
        count += len(frame)
    _save(config, folder)
    return count


def _save(config: Config, folder: Path) -> None:
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "environment.json").write_text("{}")


def _for_fleet(rows: pd.DataFrame, devices: int) -> pd.DataFrame:
    """The rows of the small run's devices in turn, until all devices of the large one have some."""
    given = sorted(set(rows["device"]) - {FLEET})
    places = {name: np.flatnonzero(rows["device"] == name) for name in given}
    of = [places[given[device % len(given)]] for device in range(devices)]
    names = [device_name(device) for device, own in enumerate(of) for _ in range(len(own))]
    dealt = rows.iloc[np.concatenate(of)].assign(device=pd.array(names, dtype="str"))
    return pd.concat([rows[rows["device"] == FLEET], dealt], ignore_index=True)


def _redrawn(rows: pd.DataFrame, round_: int) -> pd.DataFrame:
    """The same with every share of a whole number drawn anew, so that users differ."""
    total, weight = (rows[name].to_numpy(dtype=float) for name in ("total", "weight"))  # (rows,) each
    counts: NDArray[np.bool_] = (weight > 1) & (weight == np.floor(weight)) & (total == np.floor(total))
    counts &= (total >= 0) & (total <= weight) & (rows["split"] != USER).to_numpy(dtype=bool)
    drawn = generator(0, "reporting", round_).binomial(weight[counts].astype(int), total[counts] / weight[counts])
    total = total.copy()
    total[counts] = drawn
    return rows.assign(total=total)
