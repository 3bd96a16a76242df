"""A battery over virtual time: what a round takes from it, and what a charger gives while the device is there."""

from dataclasses import dataclass

from flsim.system.availability import Availability
from flsim.system.seconds import MICROSECONDS

LEAST = 0.1
"""The share of its capacity from which a device takes part in a round again."""
_WINDOWS = 10_000  # most windows that are looked at: 27 years of nights, or a week of minutes


@dataclass(frozen=True)
class Battery:
    """Of a device."""

    joules: float
    """Left in it."""
    at: int
    """When, in microseconds."""

    def charged(self, device: int, now: int, *, capacity: float, watts: float, there: Availability) -> "Battery":
        """As it is later, if the device has not worked since.

        Args:
            device: whose.
            now: later than `at`.
            capacity: in joules.
            watts: of the charger, while the device is there.
            there: when that is.
        """
        level, time = self.joules, self.at
        for _ in range(_WINDOWS):
            start = there.earliest(device, time)
            if start is None or start >= now or level >= capacity:
                break
            end = there.until(device, start)
            time = now if end is None else min(end, now)
            level = min(capacity, level + watts * (time - start) / MICROSECONDS)
        return Battery(level, max(now, self.at))

    def ready(self, device: int, *, capacity: float, watts: float, there: Availability) -> int | None:
        """When it holds `LEAST` of its capacity; None if it never will, or not within a year."""
        level, time = self.joules, self.at
        for _ in range(_WINDOWS):
            needed = LEAST * capacity - level
            start = there.earliest(device, time)
            if needed <= 0 or start is None:
                return time if needed <= 0 else None
            end = there.until(device, start)
            full = start + round(needed / watts * MICROSECONDS) if watts else None
            if full is not None and (end is None or full <= end):
                return full
            if end is None:
                return None
            level, time = level + watts * (end - start) / MICROSECONDS, end
        return None
