"""Measure speed: `python -m experiments.benchmark round` prints where the time of a round goes, per pack size.

One process, one thread, the demo's settings. Every figure is the median over `--repeats` rounds of a pack; "transport"
is what Ray and Flower add to a message of the adapter's size and back, measured with a client that does nothing.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import flsim.messages as wire
from clients.da_grpo import DaGrpo
from clients.device import Device, remember
from clients.evaluate import evaluate_pack
from clients.rollout import roll_out
from flsim.config import Config
from flsim.config_files import load_config
from flsim.engine.grid import store_in
from flsim.engine.ray_grid import RayGrid
from flsim.world import World, first_adapter, load_world

_DEMO = Path(__file__).parent / "configs" / "demo.yaml"


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of `work`, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def pack_of(world: World, size: int) -> list[Device]:
    """Fresh devices in round 1."""
    adapter = first_adapter(world.config)
    budget = world.config.budget
    return [remember(RecordDict(), index, 1, adapter, budget=budget, dual=0.5) for index in range(size)]


def round_table(config: Config, sizes: list[int], repeats: int) -> str:
    """The table of `round`: seconds per device-step and shares of a device's round."""
    world = load_world(config)
    algorithm = DaGrpo(**{key: value for key, value in config.client.items() if key != "path"})
    transport = transport_seconds(config, max(sizes), repeats)
    lines = [
        "pack  s per device-step  rollout  training  transport  evaluation   (shares of a round with one evaluation)",
    ]
    for size in sizes:
        devices = pack_of(world, size)
        theta = world.lora.stack([device.adapter for device in devices])  # (K, n)

        def rollouts(devices: list[Device] = devices, theta: torch.Tensor = theta) -> None:
            world.lora.use(theta)
            for step in range(algorithm.steps):
                roll_out(
                    world,
                    devices,
                    algorithm.problems(world, devices, step),
                    step=step,
                    group_size=algorithm.group_size,
                    temperature=algorithm.temperature,
                    max_new_tokens=algorithm.max_new_tokens,
                )

        def update(size: int = size) -> None:
            algorithm.local_update(world, pack_of(world, size))

        def evaluation(size: int = size, theta: torch.Tensor = theta) -> None:
            evaluate_pack(world, range(size), theta, model="global", round_=1)

        in_rollout = median_seconds(rollouts, repeats) / size
        in_update = median_seconds(update, repeats) / size
        in_evaluation = median_seconds(evaluation, repeats) / size
        whole = in_update + transport + in_evaluation
        shares = [in_rollout / whole, (in_update - in_rollout) / whole, transport / whole, in_evaluation / whole]
        rollout, training, moving, measuring = (f"{share:.1%}" for share in shares)
        per_step = in_update / algorithm.steps
        lines.append(f"{size:4d}  {per_step:17.4f}  {rollout:>7}  {training:>8}  {moving:>9}  {measuring:>10}")
    return "\n".join(lines)


def transport_seconds(config: Config, devices: int, repeats: int) -> float:
    """Seconds that one device's message takes to a Ray worker and back, beyond the client's own work."""
    arrays = wire.to_arrays(first_adapter(config))
    echo = ClientApp()

    @echo.train()
    def train(message: Message, context: Context) -> Message:
        same = ArrayRecord(dict(message.content.array_records[wire.ARRAYS].items()))
        metrics = MetricRecord({wire.NUM_EXAMPLES: 1})
        return Message(RecordDict({wire.ARRAYS: same, wire.METRICS: metrics}), reply_to=message)

    with (
        tempfile.TemporaryDirectory() as folder,
        RayGrid(echo, store_in(Path(folder)), devices, config.engine.pack, workers=config.engine.workers) as grid,
    ):
        content = wire.instruction(arrays, round_=1)
        nodes = grid.get_node_ids()
        return (
            median_seconds(
                lambda: grid.send_and_receive([Message(content, n, MessageType.TRAIN) for n in nodes]), repeats
            )
            / devices
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["round"], help="which benchmark")
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 4, 8, 16], help="pack sizes (default 1 4 8 16)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per figure (default 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(_DEMO)
    fleet = replace(config.fleet, devices=max(config.fleet.devices, *args.packs))
    print(f"{platform.machine()}, torch {torch.__version__}, 1 thread, demo settings, median of {args.repeats}\n")
    print(round_table(replace(config, fleet=fleet), args.packs, args.repeats))


if __name__ == "__main__":
    main()
