"""The system of a run: which device is what, and what its work takes. One value that server and workers both make."""

from dataclasses import dataclass
from functools import cached_property

from flsim.config.ranges import ConfigError
from flsim.config.system import SystemConfig
from flsim.system.asking import jitter
from flsim.system.classes import DeviceClass, Fleet, Link
from flsim.system.joules import Joules, joules_of
from flsim.system.seconds import (
    MICROSECONDS,
    Spans,
    asked_bytes,
    cloud_seconds,
    compute_seconds,
    helping_seconds,
    micro,
    transfer_seconds,
)
from flsim.system.shapes import Shape
from flsim.system.work import Work


@dataclass(frozen=True)
class System:
    """What devices, links and the cloud take."""

    config: SystemConfig
    shape: Shape
    """Of the model that devices hold, or that theirs stands for."""
    seed: int
    """Of the stream."""
    carried: float = 1.0
    """Bytes of the shape's adapter for each byte of the run's own: above 1 where it stands for a larger model."""

    @cached_property
    def fleet(self) -> Fleet:
        """Which device is what."""
        return Fleet.of(self.config, self.seed)

    @cached_property
    def layers(self) -> Shape | None:
        """Of the cloud's model, as a device would hold it; None where its size is not given."""
        return Shape.of_cloud(self.config.stands_for)

    def class_of(self, device: int) -> DeviceClass:
        """What a device is."""
        return self.fleet.class_of(device)

    def link_of(self, device: int) -> Link:
        """How it is connected."""
        return self.fleet.link_of(device)

    def spans(self, device: int, round_: int, work: Work) -> Spans:
        """How long a device takes for a round."""
        of, link, cloud = self.class_of(device), self.link_of(device), self.config.cloud
        factor = self._jitter(device, round_)
        down, up = (
            transfer_seconds(self.carried * size, mbit, link.rtt_ms) if size else 0.0
            for size, mbit in ((work.down_bytes, link.down_mbit), (work.up_bytes, link.up_mbit))
        )
        at_once = self.config.samples == "group"
        return Spans(
            down=micro(factor * down),
            compute=micro(compute_seconds(self.shape, of, work, at_once=at_once, cloud=self.layers)),
            cloud=micro(factor * cloud_seconds(cloud, link, work)),
            up=micro(factor * up),
            overlap=self.config.overlap,
            helping=micro(helping_seconds(self.shape, of, work, at_once=at_once, cloud=self.layers)),
        )

    def moved(self, work: Work, *, came: bool) -> int:
        """Bytes over a device's link in a round: adapters of the size that is stood for, and all of its requests.

        Args:
            work: what it did.
            came: whether its update came; what of one that did not was on its way is not counted.
        """
        adapters = round(self.carried * (work.down_bytes + (work.up_bytes if came else 0)))
        return adapters + sum(asked_bytes(self.config.cloud, work))

    def joules(self, device: int, work: Work, spans: Spans) -> Joules:
        """What that takes in energy."""
        parts = self.config.cloud, self.class_of(device), self.link_of(device), work, spans
        return joules_of(*parts, billions=self.config.stands_for.cloud)

    def question(self, device: int, work: Work) -> tuple[float, float]:
        """Seconds until one test question is answered, and joules of the device for it.

        Args:
            device: its index.
            work: of this question alone: what was read and sampled for it, and what the cloud was asked.
        """
        of, link = self.class_of(device), self.link_of(device)
        own, between = (each(self.shape, of, work, cloud=self.layers) for each in (compute_seconds, helping_seconds))
        spans = Spans(0, micro(own), micro(cloud_seconds(self.config.cloud, link, work)), 0, helping=micro(between))
        return spans.total / MICROSECONDS, self.joules(device, work, spans).device

    def refuse_small(self, tokens: int, held: float = 0.0) -> None:
        """Refuse a class whose memory does not hold the training of the model, with what devices hold of the cloud's.

        Args:
            tokens: of the longest prompt and response together, one sequence at a time.
            held: share of the layers of the cloud's model that devices hold, for modes of help that cut it.

        Raises:
            ConfigError: naming the class, or the size that is missing.
        """
        if held and self.layers is None:
            raise ConfigError(
                f"client.helping has devices hold {held:.0%} of the layers of the cloud's model, and nobody says how "
                f"large it is; set system.stands_for.cloud to its parameters in billions, such as 1.5"
            )
        beside, needed = self._beside(held), self._needed(tokens, held)
        also = f" and, beside it, {beside:.2g} GB of the cloud's model" if beside else ""
        smaller = "system.stands_for.device, model.rank" + (", client.helping.layer" if beside else "")
        for share, of in self.fleet.classes:
            if share and needed > of.memory_gb:
                raise ConfigError(
                    f"system.classes.{of.name}.memory_gb={of.memory_gb:g} does not hold the training of "
                    f"{self.shape.name}{also}, which takes {needed:.2g} GB; raise it, name the classes that are to "
                    f"take part (system.classes.high.share=1), or have devices hold less (model.path, {smaller})"
                )

    def holds(self, device: int, tokens: int, held: float) -> bool:
        """Whether a device's memory holds that, with the arguments of `refuse_small`."""
        return self._needed(tokens, held) <= self.class_of(device).memory_gb

    def _needed(self, tokens: int, held: float) -> float:
        """In GB."""
        return self.shape.memory(tokens) / 1e9 + self._beside(held)

    def _beside(self, held: float) -> float:
        """What a share of the layers of the cloud's model takes, in GB; 0 where its size is not known."""
        return held * self.layers.weights / 1e9 if self.layers is not None else 0.0

    def _jitter(self, device: int, round_: int) -> float:
        return jitter(self.config.jitter, self.seed, device, round_)
