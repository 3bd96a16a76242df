"""How a round ends: laws between the ends, then durations by hand."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flsim.config.system import DEADLINE, FIRST, RoundEndConfig
from flsim.system.availability import Always, Daily
from flsim.system.battery import Battery
from flsim.system.ends import Stint, ended
from flsim.system.seconds import micro

ALL = RoundEndConfig()
BY_HAND = [Stint(device, 0, micro(seconds)) for device, seconds in enumerate((3, 1, 2, 9, 4))]
HOUR = micro(3600)
SECONDS = st.floats(0.0, 1e4)
STINTS = st.lists(st.tuples(SECONDS, SECONDS, st.booleans()), min_size=1, max_size=12).map(
    lambda drawn: [
        Stint(device, micro(wait), micro(wait) + micro(takes), micro(wait) + micro(takes / 2) if leaves else None)
        for device, (wait, takes, leaves) in enumerate(drawn)
    ]
)


def test_durations_by_hand() -> None:
    """Of 3, 1, 2, 9 and 4 s: all take 9; by 3.5 s three are done; the first three take 3 s, and half of it is waste."""
    assert ended(BY_HAND, ALL, now=0, count=5).time == micro(9)
    deadline = ended(BY_HAND, RoundEndConfig(DEADLINE, deadline_s=3.5), now=0, count=5)
    assert (deadline.time, deadline.counted, deadline.late) == (micro(3.5), frozenset({0, 1, 2}), frozenset({3, 4}))
    first = ended(BY_HAND, RoundEndConfig(FIRST), now=0, count=3)
    assert (first.time, first.counted, first.late) == (micro(3), frozenset({0, 1, 2}), frozenset({3, 4}))
    worked = {one.device: one.worked(first.time) * (one.finish - one.start) for one in BY_HAND}
    assert sum(worked[device] for device in first.late) / sum(worked.values()) == 0.5


def test_nobody_in_time_is_an_empty_round_of_that_length() -> None:
    over = ended(BY_HAND, RoundEndConfig(DEADLINE, deadline_s=0.5), now=0, count=5)
    assert (over.time, over.counted, len(over.late)) == (micro(0.5), frozenset(), 5)


def test_who_leaves_is_waited_for_no_longer() -> None:
    gone = [*BY_HAND[:3], replace(BY_HAND[3], leaves=micro(2.5)), BY_HAND[4]]
    over = ended(gone, ALL, now=0, count=5)
    assert (over.time, over.left, over.counted) == (micro(4), frozenset({3}), frozenset({0, 1, 2, 4}))
    assert gone[3].worked(over.time) == 2.5 / 9


@given(stints=STINTS, seconds=SECONDS, count=st.integers(1, 12))
def test_everybody_is_in_one_place_and_no_end_is_later_than_that_of_all(
    stints: list[Stint], seconds: float, count: int
) -> None:
    all_ = ended(stints, ALL, now=0, count=count)
    for end in (ALL, RoundEndConfig(DEADLINE, deadline_s=max(seconds, 1e-6)), RoundEndConfig(FIRST)):
        over = ended(stints, end, now=0, count=count)
        assert sorted([*over.counted, *over.late, *over.left]) == [one.device for one in stints]
        assert 0 <= over.time <= all_.time
        assert all(0 <= one.worked(over.time) <= 1 for one in stints)


@given(stints=STINTS)
def test_first_of_as_many_and_a_deadline_that_nobody_misses_are_all(stints: list[Stint]) -> None:
    all_ = ended(stints, ALL, now=0, count=len(stints))
    assert ended(stints, RoundEndConfig(FIRST), now=0, count=len(stints)) == all_
    assert ended(stints, RoundEndConfig(DEADLINE, deadline_s=1e6), now=0, count=len(stints)) == all_


@given(stints=STINTS, more=STINTS, count=st.integers(1, 6))
def test_to_invite_more_is_never_slower(stints: list[Stint], more: list[Stint], count: int) -> None:
    staying = [one for one in stints if one.leaves is None]
    others = [replace(one, device=one.device + 100) for one in more]
    if len(staying) >= count:
        few = ended(staying, RoundEndConfig(FIRST), now=0, count=count)
        many = ended([*staying, *others], RoundEndConfig(FIRST), now=0, count=count)
        assert many.time <= few.time
        assert len(few.counted) == len(many.counted) == count


def test_a_battery_is_charged_while_its_device_is_there() -> None:
    """10 W from 22 h to 5 h; empty at noon, it holds a tenth of its 54,000 J after 9 minutes of the night."""
    night = Daily(0, 22 * HOUR, 0, 7 * HOUR)
    own: dict[str, Any] = {"capacity": 54_000.0, "watts": 10.0, "there": night}
    empty = Battery(0.0, 12 * HOUR)
    assert empty.ready(3, **own) == 22 * HOUR + micro(540)
    assert empty.charged(3, 20 * HOUR, **own).joules == 0
    assert empty.charged(3, 23 * HOUR, **own).joules == 36_000
    assert empty.charged(3, 40 * HOUR, **own).joules == 54_000
    assert Battery(0.0, 0).ready(3, capacity=54_000.0, watts=0.0, there=Always()) is None
