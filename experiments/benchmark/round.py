"""Where the time of a round goes, per pack size.

One process, one thread, the demo's settings. Every figure is the median over `--repeats` rounds of a pack; "transport"
is what Ray and Flower add to a message of the adapter's size and back, measured with a client that does nothing.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from clients.da_grpo import DaGrpo
from clients.device.rollout import roll_out
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack
from experiments.benchmark.devices import DEMO, TOKEN, fresh_pack
from experiments.benchmark.measuring import conditions, median_seconds
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.flower.arrays import to_arrays
from flsim.flower.grid import store_in
from flsim.flower.ray_grid import RayGrid
from flsim.models.base import first_adapter
from flsim.text import markdown_table as table


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 4, 8, 16], help="pack sizes (default 1 4 8 16)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per figure (default 5)")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    config = load_config(DEMO, list(TOKEN))
    fleet = replace(config.fleet, devices=max(config.fleet.devices, *args.packs))
    print(conditions("1 thread", "demo settings", f"seed {config.seed}", f"median of {args.repeats}") + "\n")
    print(round_table(replace(config, fleet=fleet), args.packs, args.repeats))


def round_table(config: Config, sizes: list[int], repeats: int) -> str:
    """Seconds per device-step, and shares of a device's round with one evaluation."""
    algorithm = DaGrpo(**{key: value for key, value in config.client.items() if key != "path"})
    world = load_world(config, extras=algorithm.extras)
    transport = transport_seconds(config, max(sizes), repeats)
    rows = [["pack", "s per device-step", "rollout", "training", "transport", "evaluation"]]
    for size in sizes:
        in_rollout, in_update, in_evaluation = (
            seconds / size for seconds in _seconds_of_a_pack(world, algorithm, size, repeats)
        )
        whole = in_update + transport + in_evaluation
        shares = [in_rollout / whole, (in_update - in_rollout) / whole, transport / whole, in_evaluation / whole]
        rows.append([str(size), f"{in_update / algorithm.steps:.4f}", *(f"{share:.1%}" for share in shares)])
    return table(rows)


def _seconds_of_a_pack(world: World, algorithm: DaGrpo, size: int, repeats: int) -> tuple[float, float, float]:
    """Of the rollouts of a round, of the whole update, and of one evaluation."""
    adapter = first_adapter(world.config.model, world.config.seed, algorithm.extras)
    devices = fresh_pack(world, adapter, range(size))
    adapters = [dict(adapter) for _ in devices]  # as after a round: equal in size, but each device's own
    theta = world.lora.stack(adapters)  # (K, n)

    def rollouts() -> None:
        world.lora.attach(theta)
        for step in range(algorithm.steps):
            roll_out(
                world,
                devices,
                algorithm.problems(world, devices, step),
                algorithm.sampling,
                step=step,
            )

    return (
        median_seconds(rollouts, repeats),
        median_seconds(lambda: algorithm.local_update(world, fresh_pack(world, adapter, range(size))), repeats),
        median_seconds(lambda: evaluate_pack(world, range(size), adapters, model="global", round_=1), repeats),
    )


def transport_seconds(config: Config, devices: int, repeats: int) -> float:
    """Seconds that one device's message takes to a Ray worker and back, beyond the client's own work."""
    arrays = to_arrays(first_adapter(config.model, config.seed))
    echo = ClientApp()

    @echo.train()
    def train(message: Message, context: Context) -> Message:
        same = ArrayRecord(dict(message.content.array_records[wire.ARRAYS].items()))
        metrics = MetricRecord({wire.NUM_EXAMPLES: 1})
        return Message(RecordDict({wire.ARRAYS: same, wire.METRICS: metrics}), reply_to=message)

    with (
        tempfile.TemporaryDirectory() as folder,
        RayGrid(echo, store_in(Path(folder)), devices, int(config.engine.pack), workers=config.engine.workers) as grid,
    ):
        content = wire.instruction(arrays, round_=1)
        nodes = grid.get_node_ids()
        return (
            median_seconds(
                lambda: grid.send_and_receive([Message(content, n, MessageType.TRAIN) for n in nodes]), repeats
            )
            / devices
        )
