"""Tokens per second of a whole DA-GRPO round of a pack, against a bare loop of the same passes.

Ours is `DaGrpo.local_update`: stream, tokenizer, sampling, texts, verdicts, cloud and ledger, rewards, advantages,
dual variable, loss, backward, optimizer, notes, adapters in and out. The bare loop (experiments/benchmark/bare.py) runs
the forward and backward passes of the very same round on recorded token ids and nothing else; it ends at the same
adapters. There are two of it, on the same stacked LoRA layers: "bare" runs our passes, "bare HF" the model's own
`forward` with a `DynamicCache`. When rows that have ended are dropped, and in how many parts the plain passes score the
completions, is chosen for speed beforehand.

The settings are the demo's, except that all devices have equally many prompts and that the cloud is the oracle: the
cloud model's own passes are not the round's. A token is a generated token. Ours and the bare loops run in turn; a share
is bare time / our time of neighbours, so 1 means that everything else costs nothing.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from clients.da_grpo import DaGrpo
from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.world import World, load_world
from clients.reinforcement import Judged
from experiments.benchmark.bare import Layout, Passes, bare_round, our_passes, plain_passes, prepare
from experiments.benchmark.devices import fresh_pack
from experiments.benchmark.measuring import clock_argument, conditions, seconds_of, spread
from experiments.benchmark.setting import Setting
from flsim.learning.adam import Adam, fresh_state
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from flsim.models.decoding import Completions, Prompts
from flsim.models.lora_linear import WASTE
from flsim.text import markdown_table as table

_PASSES = (our_passes, plain_passes)
_PARTS = (1, 4)
_DROPPING = ((0.75, math.inf), (0.9, math.inf), (0.75, WASTE), (0.9, WASTE), (0.99, 1.0))  # drop_at, waste


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 8, 16], help="devices in the pack (default 1 8 16)")
    parser.add_argument("--prompts", type=int, default=8, help="prompts per step and device (default 8, the demo's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of questions and sampling (0 1 2)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds per seed (default 5)")
    clock_argument(parser, of="all figures")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    rows = [["pack", "ours, tokens/s", "bare, tokens/s", "bare HF, tokens/s", "ours / bare", "ours / bare HF"]]
    for pack in args.packs:
        setting = Setting(pack, args.prompts, tuple(args.seeds), args.repeats, pack)
        rows.append([str(pack), *limit_cells(setting, args.clock)])
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    rounds = f"median (min..max) of {args.repeats} rounds x seeds {' '.join(map(str, args.seeds))}"
    print(
        conditions(
            f"1 thread, {args.clock} time",
            f"{args.prompts} prompts x 8 responses a step, {Setting.steps} steps",
            rounds,
        )
        + "\n"
    )
    print(table(rows))


Recorded = tuple[Prompts, Completions, Tensor]  # one step; the tensor is the weight of every token in the loss


@dataclass(frozen=True)
class RecordingDaGrpo(DaGrpo):
    """DA-GRPO that remembers what it sampled and how its loss weighs every token."""

    recorded: list[Recorded] = field(default_factory=list)

    def _gradient(self, pack: Pack, judged: Judged, update: int) -> Tensor:
        responses = judged.kept.sum(-1)[:, None, None] * self.group_size  # (K, 1, 1)
        weight = (-judged.advantage / responses)[..., None] * judged.mask  # (K, P, G, T)
        self.recorded.append((judged.rollout.prompts, judged.rollout.completions, weight))
        return super()._gradient(pack, judged, update)


@dataclass(frozen=True)
class Case:
    """A pack's round: the setting, the loaded models, and the adapter that it starts from."""

    setting: Setting
    world: World
    adapter: Adapter

    def record(self) -> tuple[list[Recorded], list[Adapter]]:
        """Run our round once; what it sampled in each step, and the adapters that it ended at."""
        algorithm = RecordingDaGrpo(
            **{key: value for key, value in self.setting.config.client.items() if key != "path"}
        )
        updates = algorithm.local_update(self.world, self.pack())
        return algorithm.recorded, [update.adapter for update in updates]

    def ours(self) -> Callable[[], object]:
        """Our round."""
        pack = self.pack()
        return lambda: self.setting.algorithm.local_update(self.world, pack)

    def bare(self, recorded: Sequence[Recorded], passes: Passes, layout: Layout) -> Callable[[], Tensor]:
        """The bare loop over the recorded steps; each call begins anew and returns the last theta `(K, n)`."""
        client = self.setting.algorithm
        adam = Adam(lr=client.lr, clip_norm=client.clip_norm)
        steps = [prepare(*step, layout) for step in recorded]

        def work() -> Tensor:
            theta = self.world.lora.stack([self.adapter] * self.setting.devices)  # (K, n)
            bare_round(passes, self.world.base, self.world.lora, adam, theta, fresh_state(*theta.shape), steps)
            return theta

        return work

    def fastest(self, recorded: Sequence[Recorded], passes: Passes, clock: str) -> Layout:
        """The layout that takes the least time, each the best of two."""
        parts = _PARTS if passes is plain_passes else (1,)
        layouts = [Layout(part, *dropping) for part, dropping in itertools.product(parts, _DROPPING)]
        times = []
        for layout in layouts:
            work = self.bare(recorded, passes, layout)
            times.append(min(seconds_of(work, clock) for _ in range(2)))
        return layouts[times.index(min(times))]

    def pack(self) -> list[Device]:
        """Fresh devices."""
        return fresh_pack(self.world, self.adapter, range(self.setting.devices))


def limit_cells(setting: Setting, clock: str) -> list[str]:
    """The cells of one pack."""
    world = load_world(setting.config, extras=setting.algorithm.extras)
    adapter = first_adapter(setting.config.model, setting.config.seed, setting.algorithm.extras)
    layouts: list[Layout] = []
    speeds: list[list[float]] = []
    for seed in setting.seeds:
        case = Case(setting, replace(world, config=replace(world.config, seed=seed)), adapter)
        recorded, _ = case.record()
        tokens = sum(int(completions.mask.sum()) for _, completions, _ in recorded)
        layouts = layouts or [case.fastest(recorded, passes, clock) for passes in _PASSES]
        loops = [case.bare(recorded, *pair) for pair in zip(_PASSES, layouts, strict=True)]
        speeds += [[tokens / seconds_of(work, clock) for work in (case.ours(), *loops)] for _ in range(setting.repeats)]
    ours, bare, hugging_face = zip(*speeds, strict=True)
    ratios = [[own / limit for own, limit in zip(ours, other, strict=True)] for other in (bare, hugging_face)]
    return [spread(values).text(0) for values in (ours, bare, hugging_face)] + [
        spread(values).text(2) for values in ratios
    ]
