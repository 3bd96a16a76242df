"""Who is there when: pure functions of time, in whole microseconds since the run began, which was at midnight.

Nothing here moves on: a device may be asked about any moment, in any order and any number of times. The answer hangs on
the settings, `stream.seed` and the device's index, never on how large the fleet is.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from flsim.config.ranges import ConfigError
from flsim.config.system import ALWAYS, DAILY, FILE, RENEWAL, AvailabilityConfig
from flsim.seeding import python_random, seed_for
from flsim.system.seconds import MICROSECONDS
from flsim.system.traces import Traces, read_traces

HOUR = 3600 * MICROSECONDS
DAY = 24 * HOUR
_SIGNALS = 8  # of a kind in a block of time, in the mean: few blocks are empty, and none is long


class Availability(ABC):
    """When each device of a fleet is there."""

    @staticmethod
    def of(config: AvailabilityConfig, seed: int) -> "Availability":
        """What the settings say.

        Args:
            config: `system.availability`.
            seed: `stream.seed`, so that runs on one stream have the same people at the same hours.

        Raises:
            ConfigError: for a setting without meaning, or a trace that cannot be read.
        """
        if config.path is not None and config.kind != FILE:
            raise ConfigError(
                f"system.availability.path={config.path} is given, and kind={config.kind} reads no trace; set "
                f"system.availability.kind={FILE}, or leave the path out"
            )
        if config.kind == ALWAYS:
            return Always()
        if config.kind == DAILY:
            return Daily.of(config, seed)
        if config.kind == RENEWAL:
            return Renewal.of(config, seed)
        if config.path is None:
            raise ConfigError(
                "system.availability.kind=file needs a trace; name it by system.availability.path, such as traces.json"
            )
        return Traced(read_traces(Path(config.path)))

    @abstractmethod
    def earliest(self, device: int, time: int) -> int | None:
        """The first moment from `time` on at which a device is there; None if it never is."""

    @abstractmethod
    def until(self, device: int, time: int) -> int | None:
        """The end of the window that holds `time`, at which the device is gone; None if it has no end.

        A device that is away at `time` has nothing left: the answer is `time` itself.
        """

    def share(self, device: int, start: int, end: int) -> float:
        """The part of the time from `start` to `end`, which is later, that a device is there."""
        there, begin = 0, self.earliest(device, start)
        while begin is not None and begin < end:
            until = self.until(device, begin)
            stop = end if until is None else min(until, end)
            there += stop - begin
            begin = self.earliest(device, stop)
        return there / (end - start)


@dataclass(frozen=True)
class Always(Availability):
    """Everybody, at any time."""

    def earliest(self, device: int, time: int) -> int | None:
        """Now."""
        return time

    def until(self, device: int, time: int) -> int | None:
        """For ever."""
        return None


@dataclass(frozen=True)
class Daily(Availability):
    """One window a day, at the same hour of every day; each device has its own hour."""

    seed: int
    start: int
    """The middle of the hours at which windows begin, in microseconds after midnight."""
    spread: int
    """How far from it a device's own may begin, both ways."""
    length: int
    """Of a window, at least 1 and below a day."""

    @staticmethod
    def of(config: AvailabilityConfig, seed: int) -> "Daily":
        """What the settings say.

        Raises:
            ConfigError: for windows of a day or more.
        """
        if config.length_h >= 24:
            raise ConfigError(
                f"system.availability.length_h={config.length_h:g} must be below 24, the hours of a day; for devices "
                f"that are always there set system.availability.kind={ALWAYS}"
            )
        start, spread, length = (round(hours * HOUR) for hours in (config.start_h, config.spread_h, config.length_h))
        return Daily(seed, start, spread, max(1, length))

    def earliest(self, device: int, time: int) -> int | None:
        """Now, or when the next window begins."""
        into = (time - self._start(device)) % DAY
        return time if into < self.length else time + DAY - into

    def until(self, device: int, time: int) -> int | None:
        """When the window is over."""
        into = (time - self._start(device)) % DAY
        return time + max(0, self.length - into)

    def _start(self, device: int) -> int:
        draw = seed_for(self.seed, "availability", "daily", device)  # in [0, 2^63)
        return self.start - self.spread + (2 * self.spread * draw >> 63)


@dataclass(frozen=True)
class Renewal(Availability):
    """There and away in turn, for exponential times, as a stationary process.

    Signals `on` come as a Poisson process with a mean distance of `off` seconds, signals `off` as another with `on`
    seconds, and a device is there if the last signal was `on`. Since exponential times have no memory, the times from
    the first `on` to the next `off` and back are independent and exponential with these means: the law is exactly that
    of the alternating renewal process, and at time 0 a device is there with probability on / (on + off). Numbers of
    events of a Poisson process in disjoint blocks of time are independent, so that each block is drawn by its own seed,
    and a moment is found by looking at a block or two, however late it is.
    """

    seed: int
    on: float
    """Mean seconds that a device is there."""
    off: float
    """Mean seconds that it is away."""

    @staticmethod
    def of(config: AvailabilityConfig, seed: int) -> "Renewal":
        """What the settings say.

        Raises:
            ConfigError: for times that are no longer than the clock can tell, or endless.
        """
        for name, mean in (("on_s", config.on_s), ("off_s", config.off_s)):
            if not 1e-3 <= mean <= 1e10:
                raise ConfigError(
                    f"system.availability.{name}={mean:g} must be in [0.001, 1e10] seconds; for devices that are "
                    f"always there set system.availability.kind={ALWAYS}"
                )
        return Renewal(seed, config.on_s, config.off_s)

    def earliest(self, device: int, time: int) -> int | None:
        """Now, or the next `on` that no `off` of the same microsecond undoes."""
        while not self._is_there(device, time):
            time = self._next("on", self.off, device, time)
        return time

    def until(self, device: int, time: int) -> int | None:
        """The next `off`."""
        return self._next("off", self.on, device, time) if self._is_there(device, time) else time

    def _is_there(self, device: int, time: int) -> bool:
        return self._last("on", self.off, device, time) > self._last("off", self.on, device, time)

    def _last(self, signal: str, mean: float, device: int, time: int) -> int:
        block = time // _length(mean)
        while True:
            signals = _signals(self.seed, signal, mean, device, block)
            place = bisect_right(signals, time)
            if place:
                return signals[place - 1]
            block -= 1

    def _next(self, signal: str, mean: float, device: int, time: int) -> int:
        block = time // _length(mean)
        while True:
            signals = _signals(self.seed, signal, mean, device, block)
            place = bisect_right(signals, time)
            if place < len(signals):
                return signals[place]
            block += 1


def _length(mean: float) -> int:
    """Of a block of time, in microseconds."""
    return round(_SIGNALS * mean * MICROSECONDS)


@lru_cache(maxsize=2**14)
def _signals(seed: int, signal: str, mean: float, device: int, block: int) -> tuple[int, ...]:
    """The moments of a device's signals of a kind in a block of time, in order."""
    rng, end, found = python_random(seed, "availability", signal, device, block), _length(mean), list[int]()
    seconds = rng.expovariate(1 / mean)
    while (into := int(seconds * MICROSECONDS)) < end:
        found.append(block * end + into)
        seconds += rng.expovariate(1 / mean)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Traced(Availability):
    """As people were: device k has the trace of user k, and after the last user it goes on with the first."""

    traces: Traces

    def earliest(self, device: int, time: int) -> int | None:
        """Now, or the next window of the trace, which begins again at its end."""
        of = self.traces
        user, first, end = of.windows(device)
        if first == end:
            return None
        period = int(of.periods[user])
        place = (time + int(of.offsets[user])) % period
        window = first + int(np.searchsorted(of.ends[first:end], place, side="right"))
        if window == end:
            return time - place + period + int(of.starts[first])
        return time + max(0, int(of.starts[window]) - place)

    def until(self, device: int, time: int) -> int | None:
        """The end of the window; one that lasts to the end of the trace goes on where it begins again."""
        of = self.traces
        user, first, end = of.windows(device)
        period = int(of.periods[user])
        place = (time + int(of.offsets[user])) % period
        window = first + int(np.searchsorted(of.ends[first:end], place, side="right"))
        if window == end or of.starts[window] > place:
            return time
        stop = int(of.ends[window])
        if stop < period or of.starts[first] > 0:
            return time - place + stop
        return None if window == first else time - place + period + int(of.ends[first])
