"""The devices that are measured: fresh ones for a round, and an algorithm that counts its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flwr.app import RecordDict
from torch import Tensor

from clients.da_grpo import DaGrpo
from clients.device.answering import Problems
from clients.device.device import Device, remember
from clients.device.rollout import Rollout, Wishes
from clients.device.weighing import Weights
from clients.device.world import World
from flsim.flower.messages import DeviceUpdate
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
TOKEN = ("client.policy=token", "client.dual_lr=0.1", "client.imitate=0", "client.replay=0")
"""The policy that is measured: the paper's, which is what other implementations of the same work can do, too."""
TOKENS = "tokens"


def fresh_pack(world: World, adapter: Adapter, indices: Sequence[int], round_: int = 1) -> list[Device]:
    """Devices that were sent `adapter` and have not learned before."""
    budget = world.config.budget
    return [remember(RecordDict(), index, round_, adapter, budget=budget, dual=0.5) for index in indices]


@dataclass(frozen=True)
class CountingDaGrpo(DaGrpo):
    """DA-GRPO whose updates carry one row more, `tokens`: generated tokens and how many responses they are of."""

    _steps: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Of each step, tokens and responses per device."""

    def local_update(self, world: World, devices: Sequence[Device]) -> list[DeviceUpdate]:
        """One round of a pack of devices."""
        self._steps.clear()
        updates = super().local_update(world, devices)
        return [
            replace(update, rows=(*update.rows, self._row(k, device)))
            for k, (update, device) in enumerate(zip(updates, devices, strict=True))
        ]

    def _roll_out(
        self,
        world: World,
        devices: Sequence[Device],
        problems: Problems,
        step: int,
        bias: Tensor | None = None,
        wishes: Wishes | None = None,
        explored: Tensor | None = None,
        weighing: Weights | None = None,
    ) -> Rollout:
        rollout = super()._roll_out(world, devices, problems, step, bias, wishes, explored, weighing)
        tokens = rollout.completions.mask.flatten(1).sum(1).tolist()  # (K,)
        self._steps.append((tokens, [len(row) * self.group_size for row in problems]))
        return rollout

    def _row(self, k: int, device: Device) -> Row:
        tokens, responses = (float(sum(part[k] for part in parts)) for parts in zip(*self._steps, strict=True))
        return Row(device.round, device.name, "all", "train", "own", TOKENS, tokens, responses)


def tokens_of(rows: Sequence[Row]) -> tuple[float, float]:
    """Generated tokens and responses, summed over the rows of updates."""
    own = [row for row in rows if row.name == TOKENS]
    return sum(row.total for row in own), sum(row.weight for row in own)
