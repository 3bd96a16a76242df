"""What one question to the cloud takes of a device: seconds until it is answered, and joules of its battery."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flsim.config.system import SystemConfig
from flsim.devices import device_name
from flsim.seeding import generator
from flsim.system.classes import DeviceClass, Fleet
from flsim.system.joules import joules_of
from flsim.system.seconds import Spans, asked_bytes, cloud_seconds, compute_seconds, lower_seconds, micro
from flsim.system.shapes import Shape
from flsim.system.work import Work


@dataclass(frozen=True)
class Asking:
    """The part of a system that needs to know nothing of the model that devices hold, unless these help themselves."""

    config: SystemConfig
    seed: int
    """Of the stream."""
    shape: Shape | None = None
    """Of the model that devices hold, for modes of help in which they compute; None: what they compute counts not."""

    @cached_property
    def fleet(self) -> Fleet:
        """Which device is what."""
        return Fleet.of(self.config, self.seed)

    def cost(self, device: int, round_: int, work: Work) -> tuple[int, int]:
        """Microseconds from request to answer, and microjoules of radio, waiting and computing for it, rounded up.

        A question is taken by itself: the device waits for it and computes nothing meanwhile but what its mode of help
        has it compute, and a tail of the radio follows it. In a round questions may share tails, and a device may
        compute on; then it takes less. Both numbers grow with every count of `work`, as long as no more requests wait
        in the cloud's queue, so that they are bounds for an answer where the counts are.

        Args:
            device: its index.
            round_: in which it asks; its link may be slower or faster in it (`system.jitter`).
            work: of the question alone: what the cloud was asked, and what the device read and drew for that.

        Raises:
            ConfigError: if the device passed tokens through layers of a model whose size is not known.
        """
        of, link, cloud = self.fleet.class_of(device), self.fleet.link_of(device), self.config.cloud
        factor = jitter(self.config.jitter, self.seed, device, round_)
        own = self._computing(of, work)
        spans = Spans(0, own, micro(factor * cloud_seconds(cloud, link, work)), 0, helping=own)
        joules = joules_of(cloud, of, link, work, spans, billions=None)
        return spans.total, math.ceil(joules.device * 1_000_000)

    def _computing(self, of: DeviceClass, work: Work) -> int:
        """What a device computes for a question, in microseconds."""
        layers = Shape.of_cloud(self.config.stands_for)
        if self.shape is None:
            return micro(lower_seconds(layers, of, work))
        return micro(compute_seconds(self.shape, of, work, cloud=layers))

    def bytes(self, work: Work) -> int:
        """Up and down, texts and all else."""
        return sum(asked_bytes(self.config.cloud, work))


def jitter(sigma: float, seed: int, device: int, round_: int) -> float:
    """A device's factor on its transfers in a round: `exp(sigma z - sigma^2 / 2)`, of mean 1."""
    if not sigma:
        return 1.0
    z = generator(seed, "link", device_name(device), round_).standard_normal()
    return float(np.exp(sigma * z - sigma * sigma / 2))
