"""The clock of a run: what time it is, and who is at work until when. It knows no device's speed and no server's rule.

    clock = Clock().sent({3: 9_000_000, 5: 2_000_000})
    clock, done = clock.landed(1)       # done == ((2_000_000, 5),), clock.now == 2_000_000

A clock never changes; whoever moves time on keeps the new one. It is a heap that is kept sorted: a wave is merged into
it in one pass, and those that are done are its beginning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

Landing = tuple[int, int]
"""The microsecond at which a device is done, and the device; sorted so that ties go by device."""


@dataclass(frozen=True)
class Clock:
    """Microseconds since the run began, and the devices in flight."""

    now: int = 0
    flights: tuple[Landing, ...] = ()
    """Sorted."""

    def sent(self, ends: Mapping[int, int]) -> "Clock":
        """The clock with more devices in flight.

        Args:
            ends: by device, the microsecond at which it will be done.

        Raises:
            ValueError: for one that is in flight already, or would be done before now.
        """
        flying = {device for _, device in self.flights}
        for device, end in ends.items():
            if device in flying:
                raise ValueError(f"device {device} is in flight already; it can be sent again once it has landed")
            if end < self.now:
                raise ValueError(f"device {device} would be done at {end} us, and it is {self.now} us already")
        wave = sorted((end, device) for device, end in ends.items())
        return replace(self, flights=tuple(sorted([*self.flights, *wave])))  # two sorted runs: a merge

    def landed(self, count: int) -> tuple["Clock", tuple[Landing, ...]]:
        """The clock when the next `count` are done, and who they are, in order.

        Raises:
            ValueError: if fewer are in flight.
        """
        if not 0 <= count <= len(self.flights):
            raise ValueError(f"count={count} must be in [0, {len(self.flights)}], how many are in flight")
        done = self.flights[:count]
        return Clock(done[-1][0] if done else self.now, self.flights[count:]), done

    def at(self, time: int) -> "Clock":
        """The clock at a later moment, with the same devices in flight.

        Raises:
            ValueError: if it is past, or somebody would be done before it.
        """
        first = self.flights[0][0] if self.flights else time
        if not self.now <= time <= first:
            raise ValueError(
                f"it is {self.now} us, and the next device is done at {first} us; {time} us is not between"
            )
        return replace(self, now=time)
