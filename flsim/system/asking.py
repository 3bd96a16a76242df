"""What one question to the cloud takes of a device: seconds until it is answered, and joules of its battery."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flsim.config.system import SystemConfig
from flsim.devices import device_name
from flsim.seeding import generator
from flsim.system.classes import Fleet
from flsim.system.joules import joules_of
from flsim.system.seconds import Spans, asked_bytes, cloud_seconds, micro
from flsim.system.work import Work


@dataclass(frozen=True)
class Asking:
    """The part of a system that knows nothing of the model that devices hold."""

    config: SystemConfig
    seed: int
    """Of the stream."""

    @cached_property
    def fleet(self) -> Fleet:
        """Which device is what."""
        return Fleet.of(self.config, self.seed)

    def cost(self, device: int, round_: int, work: Work) -> tuple[int, int]:
        """Microseconds from request to answer, and microjoules of radio and waiting, rounded up.

        A question is taken by itself: the device waits for it and computes nothing meanwhile, and a tail of the radio
        follows it. In a round questions may share tails, and a device may compute on; then it takes less. Both numbers
        grow with every count of `work`, so that they are bounds for an answer where the counts are.

        Args:
            device: its index.
            round_: in which it asks; its link may be slower or faster in it (`system.jitter`).
            work: of the question alone; only what the cloud was asked counts.
        """
        of, link, cloud = self.fleet.class_of(device), self.fleet.link_of(device), self.config.cloud
        factor = jitter(self.config.jitter, self.seed, device, round_)
        spans = Spans(0, 0, micro(factor * cloud_seconds(cloud, link, work)), 0)
        joules = joules_of(cloud, of, link, work, spans, billions=None)
        return spans.cloud, math.ceil((joules.waiting + joules.radio) * 1_000_000)

    def bytes(self, work: Work) -> int:
        """Up and down, texts and all else."""
        return sum(asked_bytes(self.config.cloud, work))


def jitter(sigma: float, seed: int, device: int, round_: int) -> float:
    """A device's factor on its transfers in a round: `exp(sigma z - sigma^2 / 2)`, of mean 1."""
    if not sigma:
        return 1.0
    z = generator(seed, "link", device_name(device), round_).standard_normal()
    return float(np.exp(sigma * z - sigma * sigma / 2))
