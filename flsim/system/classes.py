"""Classes of devices and links: what ships, what a config makes of it, and which device is of which.

The figures are effective rates, not peaks, and assumptions of ours: decoding on phones is bound by memory bandwidth
(MELT, arXiv 2403.12844), and peaks overstate by about ten times. The radio's power is that of Huang et al. (MobiSys
2012): P = a_up R_up + a_down R_down + b, and a tail after each transfer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from flsim.config.ranges import ConfigError, near
from flsim.config.system import ClassConfig, LinkConfig, SystemConfig
from flsim.seeding import seed_for

_BITS = 64
_PLASTIC = 1.32471795724474602596  # the root of x^3 = x + 1, whose powers spread points evenly in two dimensions


@dataclass(frozen=True)
class DeviceClass:
    """What a device is."""

    name: str
    flops: float
    """Effective operations per second."""
    bandwidth: float
    """Effective bytes per second of memory."""
    memory_gb: float
    battery_wh: float
    busy_w: float
    waiting_w: float


@dataclass(frozen=True)
class Link:
    """How a device is connected."""

    name: str
    down_mbit: float
    up_mbit: float
    rtt_ms: float
    up_mw_per_mbit: float
    down_mw_per_mbit: float
    base_mw: float
    tail_s: float
    tail_mw: float


CLASSES: dict[str, tuple[float, DeviceClass]] = {
    "low": (0.3, DeviceClass("low", 0.05e12, 8e9, 0.6, 12.0, 3.0, 0.5)),
    "mid": (0.5, DeviceClass("mid", 0.15e12, 20e9, 0.8, 15.0, 4.0, 0.6)),
    "high": (0.2, DeviceClass("high", 1.0e12, 40e9, 1.2, 19.0, 5.0, 0.7)),
}
"""Classes that ship, with their share of a fleet that names none."""
LINKS: dict[str, tuple[float, Link]] = {
    "wifi": (0.7, Link("wifi", 34.0, 26.0, 20.0, 283.17, 137.01, 132.86, 0.24, 132.86)),
    "lte": (0.3, Link("lte", 13.0, 6.0, 70.0, 438.39, 51.97, 1288.04, 11.576, 1060.0)),
    "slow": (0.0, Link("slow", 2.0, 0.5, 200.0, 438.39, 51.97, 1288.04, 11.576, 1060.0)),
}
"""Links that ship, likewise."""
Kind = TypeVar("Kind", DeviceClass, Link)


@dataclass(frozen=True)
class Fleet:
    """Which device is of which class and on which link: a pure function of its index, whatever fleet is around it.

    Shares are held up to a few devices by an additive sequence in two dimensions (Roberts' R2, of the plastic number),
    so that classes and links are spread over each other, too.
    """

    classes: Sequence[tuple[float, DeviceClass]]
    """Each with its share; they add up to 1."""
    links: Sequence[tuple[float, Link]]
    seed: int
    """Of the stream."""

    @classmethod
    def of(cls, system: SystemConfig, seed: int) -> "Fleet":
        """That of a config.

        Raises:
            ConfigError: for a class or link of one's own that lacks a figure, or if no share is above 0.
        """
        return cls(
            _shared("system.classes", system.classes, CLASSES, DeviceClass),
            _shared("system.links", system.links, LINKS, Link),
            seed,
        )

    def class_of(self, device: int) -> DeviceClass:
        """What a device is."""
        return _at(self._place("class", device, 1), self.classes)

    def link_of(self, device: int) -> Link:
        """How it is connected."""
        return _at(self._place("link", device, 2), self.links)

    def _place(self, name: str, device: int, power: int) -> float:
        """In [0, 1)."""
        step = int(2.0**_BITS / _PLASTIC**power)
        place: int = (seed_for(self.seed, "system", name) + device * step) % 2**_BITS
        return place / 2.0**_BITS


def _at(place: float, shares: Sequence[tuple[float, Kind]]) -> Kind:
    below = 0.0
    for share, kind in shares:
        below += share
        if place < below:
            return kind
    return next(kind for share, kind in reversed(shares) if share)


def _shared(
    key: str, given: Mapping[str, ClassConfig | LinkConfig], shipped: Mapping[str, tuple[float, Kind]], kind: type[Kind]
) -> tuple[tuple[float, Kind], ...]:
    """The kinds of a config with shares that add up to 1; those that ship if it names none."""
    found = [_one(f"{key}.{name}", name, one, shipped, kind) for name, one in given.items()] or list(shipped.values())
    whole = sum(share for share, _ in found)
    if not whole > 0:
        raise ConfigError(f"{key} gives nobody a share above 0; set {key}.NAME.share, such as 0.5")
    return tuple((share / whole, one) for share, one in found)


def _one(
    key: str, name: str, given: ClassConfig | LinkConfig, shipped: Mapping[str, tuple[float, Kind]], kind: type[Kind]
) -> tuple[float, Kind]:
    share, base = shipped.get(name, (1.0, None))
    values: dict[str, Any] = {"name": name}
    for field in fields(kind):
        if field.name != "name":
            value = getattr(given, field.name)
            values[field.name] = getattr(base, field.name, None) if value is None else value
    missing = [field for field, value in values.items() if value is None]
    if missing:
        raise ConfigError(
            f"{key} is none of those that ship ({', '.join(shipped)}){near(name, shipped)}, so it must say all: it "
            f"lacks {', '.join(missing)}"
        )
    return (share if given.share is None else given.share), kind(**values)
