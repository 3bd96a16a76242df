"""When a round is over in virtual time, and who counts: pure functions of when devices begin, finish and leave.

A device that is not done when the round ends, or that left before it was done, is set aside; what it spent until then
is wasted. Times are integer microseconds since the start of the run; ties go to the device with the lower index.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flsim.config.system import DEADLINE, FIRST, RoundEndConfig
from flsim.system.seconds import micro


@dataclass(frozen=True)
class Stint:
    """A device's part in a round."""

    device: int
    start: int
    """When it begins: as soon as it is there."""
    finish: int
    """When its update would have come."""
    leaves: int | None = None
    """When it goes away or its battery is empty; None: not before it is done."""

    @property
    def over(self) -> int:
        """When the server knows that nothing more will come of it."""
        return self.finish if self.leaves is None else self.leaves

    def worked(self, until: int) -> float:
        """The share of its work that it has done by then, in [0, 1]."""
        whole = self.finish - self.start
        done = min(self.over, until) - self.start
        return 1.0 if whole <= 0 else min(1.0, max(0.0, done / whole))


@dataclass(frozen=True)
class Ended:
    """How a round ended."""

    time: int
    """When."""
    counted: frozenset[int]
    late: frozenset[int]
    """Devices that were not done."""
    left: frozenset[int]
    """Devices that went away before they were done."""


def ended(stints: Sequence[Stint], end: RoundEndConfig, *, now: int, count: int, opened: int = 0) -> Ended:
    """How a round ends.

    Laws: `first n of n` and a deadline that nobody misses are `all`; to invite more never makes `first` slower.

    Args:
        stints: of those who were invited.
        end: of the config; `buffered` ends elsewhere.
        now: when the round began.
        count: how many are to count, for `first`.
        opened: from when on a deadline counts, where somebody was awaited after `now`.
    """
    done = sorted((one.finish, one.device) for one in stints if one.leaves is None)
    last = max((one.over for one in stints), default=now)
    if end.kind == DEADLINE:
        time = min(max(now, opened) + micro(end.deadline_s), last)
    elif end.kind == FIRST and len(done) >= count:
        time = done[count - 1][0]
    else:
        time = last
    in_time = [device for finish, device in done if finish <= time]
    counted = frozenset(in_time[:count] if end.kind == FIRST else in_time)
    left = frozenset(one.device for one in stints if one.leaves is not None and one.leaves <= time)
    late = frozenset(one.device for one in stints) - counted - left
    return Ended(max(time, now), counted, late, left)
