"""The clock: in order, ties by device, small in a checkpoint; and order statistics of exponential durations."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.system.clock import Clock
from flsim.system.seconds import MICROSECONDS as SECOND


@given(ends=st.dictionaries(st.integers(0, 50), st.integers(0, 9), min_size=1), cut=st.integers(0, 50))
def test_devices_land_in_order_however_they_were_sent(ends: dict[int, int], cut: int) -> None:
    early = {device: end for device, end in ends.items() if device < cut}
    clock = Clock().sent(early).sent({device: end for device, end in ends.items() if device >= cut})
    assert clock == Clock().sent(ends)
    half, first = clock.landed(len(ends) // 2)
    over, rest = half.landed(len(half.flights))
    assert [*first, *rest] == sorted((end, device) for device, end in ends.items())
    assert over == Clock(max(ends.values()))


def test_what_cannot_be_is_refused() -> None:
    clock = Clock(5).sent({1: 9})
    for wrong in (
        lambda: clock.sent({1: 12}),
        lambda: clock.sent({2: 4}),
        lambda: clock.landed(2),
        lambda: clock.at(10),
    ):
        with pytest.raises(ValueError, match=r"in flight|done"):
            wrong()
    assert clock.at(9).landed(1) == (Clock(9), ((9, 1),))


def test_ten_thousand_in_flight_are_a_small_part_of_a_checkpoint() -> None:
    ends = np.random.default_rng(0).integers(0, 10**12, 10_000).tolist()
    clock = Clock().sent(dict(enumerate(ends)))
    kept = pickle.dumps(clock)
    assert len(kept) < 200_000
    assert pickle.loads(kept) == clock


def ends_of(rng: np.random.Generator, now: int, devices: list[int]) -> dict[int, int]:
    """When these are done whose durations are exponential with a mean of a second."""
    return {
        device: now + round(one * SECOND)
        for device, one in zip(devices, rng.exponential(size=len(devices)), strict=True)
    }


@pytest.mark.parametrize(("invited", "counted", "mean"), [(10, 10, 2.929), (13, 10, 1.347)])
def test_a_round_of_exponential_durations_takes_what_order_statistics_say(
    invited: int, counted: int, mean: float
) -> None:
    """The n-th of m: H(m) - H(m - n)."""
    harmonic = sum(1 / k for k in range(invited - counted + 1, invited + 1))
    assert round(harmonic, 3) == mean
    rng = np.random.default_rng(1)
    waves = [Clock().sent(ends_of(rng, 0, list(range(invited)))) for _ in range(4000)]
    times = np.array([wave.landed(counted)[0].now for wave in waves]) / SECOND  # (4000,)
    assert abs(times.mean() - harmonic) < 4 * times.std() / math.sqrt(len(times))


@pytest.mark.parametrize("at_once", [True, False])
def test_buffered_rounds_of_exponential_durations(at_once: bool) -> None:
    """K = 5 of C = 10. A slot that is filled at once: K / C a version and (C - 1) / K versions of staleness.

    Filled at each aggregation, as waves are: H(C) - H(C - K) a version, and C / K - 1 versions.
    """
    buffer, flying, versions = 5, 10, 4000
    rng, clock = np.random.default_rng(2), Clock()
    clock = clock.sent(ends_of(rng, 0, list(range(flying))))
    given, staleness = dict.fromkeys(range(flying), 0), list[int]()
    for version in range(versions):
        landed = list[int]()
        for _ in range(buffer):
            clock, ((_, device),) = clock.landed(1)
            staleness.append(version - given[device])
            landed.append(device)
            if at_once:  # the last one of a version gets the next, as it is there by then
                given[device] = version + (len(landed) == buffer)
                clock = clock.sent(ends_of(rng, clock.now, [device]))
        if not at_once:
            given |= dict.fromkeys(landed, version + 1)
            clock = clock.sent(ends_of(rng, clock.now, landed))
    wave = sum(1 / k for k in range(flying - buffer + 1, flying + 1))
    assert abs(clock.now / SECOND / versions - (buffer / flying if at_once else wave)) < 0.015
    late = staleness[50 * buffer :]
    assert abs(np.mean(late) - ((flying - 1) / buffer if at_once else flying / buffer - 1)) < 0.05
