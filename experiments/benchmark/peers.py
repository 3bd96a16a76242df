"""Seconds per device-step of ours against TRL and Flower, the same work on every side.

A device-step is one step of one device: sampling its groups, verdicts, loss, backward and update; a round is 5 of them
per device. All sides have the built-in SLM, LoRA on all seven targets, the demo's learning rate, length limit and
G = 8, temperature 1, the same questions in the same round, and responses that end with <eos> or the help token. The
cloud is the oracle on every side, so that it costs no time on any; asking responses get its verdict. Every round
starts from the same adapter.

  a   TRL's GRPOTrainer in stock Flower `run_simulation`, 2 actors, model loaded once per actor, a trainer per message
  a'  the same with `gc.freeze()` in the actors: each training begins with a garbage collection
  b   TRL in one warm process, one thread: a model and a trainer per device, made once and kept; `gc.freeze()`
  c   ours, one device after the other, one process, one thread
  d   ours, all devices in one pack, one process, one thread
  d8  ours, in packs of 8 devices, one process, one thread
  e   ours through the engine: our client on our grid, 2 Ray workers, packs as engine.pack=auto chooses them

a, a' and e are wall time with two processes at work, b, c and d with one. b, c and d run in turn, round by round.
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from clients.device.world import World, load_world
from experiments.benchmark.devices import fresh_pack, tokens_of
from experiments.benchmark.measuring import clock_argument, conditions, seconds_of, spread
from experiments.benchmark.setting import Measured, Round, Setting
from flsim.models.base import first_adapter
from flsim.text import markdown_table as table

FEDERATED = {"a": "flower", "a'": "flower_frozen", "e": "engine"}
IN_PROCESS = ("b", "c", "d", "d8")
SIDES = ("a", "a'", "b", "c", "d", "d8", "e")
_SMALL_PACK = 8
RATIOS = (("a", "d"), ("b", "d"), ("c", "d"), ("a", "e"))
INSTALL = "TRL is missing; install it with: pip install -e '.[bench]' (add -c constraints.txt for the tested versions)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4, 16, 64], help="K (default 1 4 16 64)")
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[1], help="prompts per step, a table each (default 1)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of questions and sampling (0 1 2)")
    parser.add_argument("--repeats", type=int, default=2, help="measured rounds per seed (default 2)")
    parser.add_argument("--pack", type=_pack, default="auto", help="engine.pack of e, a number or auto (default auto)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="which columns (default all)")
    clock_argument(parser, of="b, c, d and d8; the others are always on the wall")


def _pack(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main(args: argparse.Namespace) -> None:
    """Measure and print, a table per number of prompts."""
    if {"a", "a'", "b"} & set(args.sides) and not importlib.util.find_spec("trl"):
        sys.exit(INSTALL)
    torch.set_num_threads(1)
    for prompts in args.prompts:
        measured = {}
        for devices in args.devices:
            setting = Setting(devices, prompts, tuple(args.seeds), args.repeats, args.pack)
            measured[devices] = measure(setting, args.sides, args.clock)
            print(peers_table({devices: measured[devices]}, args.sides).splitlines()[-1], file=sys.stderr, flush=True)
        rounds = f"median (min..max) of {args.repeats} rounds x seeds {' '.join(map(str, args.seeds))}"
        print(
            "\n"
            + conditions(f"1 thread per process, {args.clock} time", f"{prompts} prompts x 8 responses a step", rounds)
            + "\n"
        )
        print(peers_table(measured, args.sides), flush=True)


def peers_table(measured: dict[int, dict[str, Measured]], sides: list[str]) -> str:
    """Milliseconds per device-step, ratios of medians, and tokens per response."""
    ratios = [(above, below) for above, below in RATIOS if above in sides and below in sides]
    header = ["K", *(f"{side} (ms)" for side in sides), *(f"{a}/{b}" for a, b in ratios)]
    rows = [[*header, *(["packs of e"] if "e" in sides else []), "tokens per response"]]
    for devices, found in measured.items():
        steps = devices * Setting.steps
        times = {side: spread([1000 * s / steps for s in found[side].seconds]) for side in sides}
        lengths = " ".join(f"{side} {found[side].tokens / found[side].responses:.2f}" for side in sides)
        quotients = [f"{times[above].median / times[below].median:.1f}" for above, below in ratios]
        packs = [str(found["e"].pack)] if "e" in sides else []
        rows.append([str(devices), *(times[side].text(1) for side in sides), *quotients, *packs, lengths])
    return table(rows)


def measure(setting: Setting, sides: list[str], clock: str) -> dict[str, Measured]:
    """All wanted sides of one setting."""
    found = in_turn(setting, [side for side in IN_PROCESS if side in sides], clock)
    for side in sides:
        if side in FEDERATED:
            found[side] = in_subprocess(setting, FEDERATED[side])
    return found


def in_subprocess(setting: Setting, name: str) -> Measured:
    """One federated side."""
    command = [sys.executable, "-m", "experiments.benchmark.federated", name, setting.to_json()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    values = json.loads(done.stdout.splitlines()[-1])
    return Measured(**{**values, "seconds": tuple(values["seconds"])})


Learn = Callable[[Round], tuple[float, float]]  # one round of all devices; generated tokens and responses


def in_turn(setting: Setting, sides: list[str], clock: str) -> dict[str, Measured]:
    """The sides that share this process, round by round in turn; garbage is frozen after the warm-up."""
    if not sides:
        return {}
    world = load_world(setting.config, extras=setting.algorithm.extras)
    learners: dict[str, Learn] = {side: _learner(side, setting, world) for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    counts: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with frozen_garbage() as freeze:
        for round_ in setting.rounds:
            for side, learn in learners.items():
                found: list[tuple[float, float]] = []
                took = seconds_of(lambda learn=learn, round_=round_, found=found: found.append(learn(round_)), clock)  # type: ignore[misc]
                if not round_.warm_up:
                    seconds[side].append(took)
                    counts[side] += found
            if round_.warm_up:
                freeze()
    return {
        side: Measured(tuple(seconds[side]), sum(t for t, _ in counts[side]), sum(n for _, n in counts[side]))
        for side in sides
    }


@contextlib.contextmanager
def frozen_garbage() -> Iterator[Callable[[], None]]:
    """Hands over a function that freezes what lives now; thawed at the end."""

    def freeze() -> None:
        gc.collect()
        gc.freeze()

    try:
        yield freeze
    finally:
        gc.unfreeze()


def _learner(side: str, setting: Setting, world: World) -> Learn:
    if side == "b":
        return _trl(setting)
    return _ours(setting, world, {"c": 1, "d": setting.devices, "d8": _SMALL_PACK}[side])


def _ours(setting: Setting, world: World, pack: int) -> Learn:
    """Our algorithm, pack after pack."""
    adapter = first_adapter(setting.config.model, setting.config.seed, setting.algorithm.extras)

    def learn(round_: Round) -> tuple[float, float]:
        seeded = replace(world, config=replace(world.config, seed=round_.seed))
        rows = []
        for first in range(0, setting.devices, pack):
            devices = fresh_pack(seeded, adapter, range(first, min(first + pack, setting.devices)), round_.number)
            rows += [row for update in setting.algorithm.local_update(seeded, devices) for row in update.rows]
        return tokens_of(rows)

    return learn


def _trl(setting: Setting) -> Learn:
    """TRL, device after device."""
    from experiments.benchmark.trl_device import TrlDevice

    adapter = first_adapter(setting.config.model, setting.config.seed)
    fleet = [TrlDevice(setting) for _ in range(setting.devices)]

    def learn(round_: Round) -> tuple[float, float]:
        before = sum(trl.tokens for trl in fleet), sum(trl.responses for trl in fleet)
        for device, trl in enumerate(fleet):
            trl.learn(device, round_, adapter, keep_trainer=True)
        return sum(trl.tokens for trl in fleet) - before[0], sum(trl.responses for trl in fleet) - before[1]

    return learn
