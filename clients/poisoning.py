"""DA-GRPO on a fleet in which some devices are malicious: they learn as all do, and send back something else.

    client.path=clients.poisoning:Poisoned client.poison=flip client.poison_share=0.2 client.poison_size=10

`flip` sends `sent - size * (learned - sent)`, an amplified step backwards; `noise` sends Gaussian noise of `size` times
the norm of what was learned, tensor by tensor. Who they are is a function of `stream.seed` (`malicious_devices`);
rows named `malicious` mark them, so that they are no users in a comparison of runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import Mod

import flsim.flower.messages as wire
from clients.app import DeviceApp, LocalAlgorithm
from clients.asking.rule import AskingRule
from clients.da_grpo import DaGrpo
from flsim.cloud.protocol import Cloud
from flsim.config.schema import Config
from flsim.devices import device_at, device_name
from flsim.flower.arrays import to_arrays
from flsim.metrics.rows import EVERY_TASK, MALICIOUS, Row
from flsim.models.adapter import Adapter
from flsim.seeding import generator

ATTACKS = ("flip", "noise")


@dataclass(frozen=True)
class Poison:
    """What malicious devices do to their replies."""

    attack: str = "flip"
    """`flip` or `noise`."""
    share: float = 0.2
    """Of the fleet, at least 0 and at most 1; rounded down to whole devices."""
    size: float = 10.0
    """How many times as large as an honest step it is; at least 0."""

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        if self.attack not in ATTACKS:
            raise ValueError(f"poison={self.attack!r} is not known; choose one of: {', '.join(ATTACKS)}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"poison_share={self.share} must be in [0, 1]: it is a share of the fleet")
        if not 0 <= self.size < math.inf:
            raise ValueError(f"poison_size={self.size} must be at least 0 and finite")

    def instead(self, sent: Adapter, learned: Adapter, seed: int, *names: int) -> Adapter:
        """What goes to the server for what was learned, by tensor name."""
        rng = generator(seed, "poison", *names)
        poisoned = {}
        for name, tensor in learned.items():
            step = tensor - sent[name]
            if self.attack == "noise":
                drawn = rng.normal(size=step.shape)
                step = -drawn * np.linalg.norm(step) / max(np.linalg.norm(drawn), 1e-30)
            poisoned[name] = (sent[name] - self.size * step).astype(np.float32)
        return poisoned


def malicious_devices(config: Config, share: float) -> set[int]:
    """The malicious devices of a run, a pure function of (stream.seed, share)."""
    count = int(share * config.fleet.devices + 1e-9)
    chosen = generator(config.stream.seed, "malicious").choice(config.fleet.devices, count, replace=False)
    return {int(device) for device in chosen}


class PoisonedApp(DeviceApp):
    """A fleet whose malicious devices poison their training replies."""

    def __init__(
        self,
        config: Config,
        algorithm: LocalAlgorithm,
        mods: Sequence[Mod],
        asking: AskingRule,
        cloud: Cloud | None,
        poison: Poison,
    ) -> None:
        super().__init__(config, algorithm, mods, asking, cloud)
        self.poison = poison
        self.malicious = malicious_devices(config, poison.share)

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """As honest devices do; then the malicious ones poison what they learned and are marked in their tests."""
        replies = super().answer(messages, contexts)
        for message, context, reply in zip(messages, contexts, replies, strict=True):
            device, round_ = device_at(context.node_id), wire.round_of(message)
            if device not in self.malicious or reply.has_error():
                continue
            if message.metadata.message_type == MessageType.TRAIN:
                learned = wire.adapter_of(reply)
                poisoned = self.poison.instead(wire.expected_of(message), learned, self.config.seed, round_, device)
                reply.content[wire.ARRAYS] = to_arrays(poisoned)
            else:
                where = (round_, device_name(device), EVERY_TASK, self.config.evaluation.split, "own")
                wire.add_rows(reply, (Row(*where, MALICIOUS, 1.0, 1.0),))
        return replies


@dataclass(frozen=True)
class Poisoned(DaGrpo):
    """DA-GRPO, and what the malicious devices of the fleet do to its replies."""

    poison: str = "flip"
    """Their attack, `flip` or `noise`."""
    poison_share: float = 0.2
    """Of the fleet that is malicious, in [0, 1]; rounded down to whole devices."""
    poison_size: float = 10.0
    """How many times as large as an honest step it is; at least 0."""

    def app(self, config: Config, mods: Sequence[Mod], asking: AskingRule, cloud: Cloud | None) -> DeviceApp:
        """The fleet with its malicious devices."""
        poison = Poison(self.poison, self.poison_share, self.poison_size)
        return PoisonedApp(config, self, mods, asking, cloud, poison)
