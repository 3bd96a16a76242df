"""Rows of a run on a system, made up for tests and pictures: three classes of devices, and ends of rounds in turn."""

import math

from flsim.config.system import BUFFERED, EVERYBODY, FIRST
from flsim.metrics.rows import USER, Row, fleet_row
from flsim.seeding import generator

CLASSES = {"high": 0.5, "low": 4.0, "mid": 1.0}
"""How long a class computes, in parts of what `mid` does."""


def system_rows(
    *,
    devices: int = 12,
    rounds: int = 6,
    cohort: int = 6,
    end: str = EVERYBODY,
    seconds: float = 60.0,
    away: float = 0.0,
    seed: int = 0,
    gain: float = 0.08,
) -> list[Row]:
    """All rows of a run of which pictures and measures are made.

    Args:
        devices: of the fleet; the class of each is dealt in turn.
        rounds: of training; tests are after every second.
        cohort: whose updates count in a round; with `first` so many more are invited and late.
        end: `all`, `first` or `buffered` (an update is then a version or two old).
        seconds: that a device of class `mid` computes.
        away: chance that an invited device is waited for, for up to 20 times `seconds`.
        seed: of the draws.
        gain: of accuracy in a round.
    """
    rng, kinds = generator(seed, "system_rows"), sorted(CLASSES)
    named = [f"device-{number:03d}" for number in range(devices)]
    kind = {device: kinds[number % len(kinds)] for number, device in enumerate(named)}
    rows = [Row(0, device, "all", USER, USER, f"class_{kind[device]}", 1.0, 1.0) for device in named]
    rows += [Row(0, device, "all", USER, USER, "link_wifi", 1.0, 1.0) for device in named]
    rows += _tested(0, kind, 0.2, seconds)
    clock = 0.0
    for round_ in range(1, rounds + 1):
        invited = cohort if end != FIRST else min(devices, math.ceil(1.5 * cohort))
        chosen = sorted(str(device) for device in rng.choice(named, invited, replace=False))
        spans = {device: _spans(rng, kind[device], seconds, away) for device in chosen}
        order = sorted(chosen, key=lambda device: (sum(spans[device].values()), device))
        length = sum(spans[order[cohort - 1]].values()) / (2 if end == BUFFERED else 1)
        wasted = whole = 0.0
        for place, device in enumerate(order):
            late, stale = place >= cohort, min(round_ - 1, place % 3) if end == BUFFERED else 0
            own = _trained(round_, device, spans[device], late=late, stale=stale)
            joules = sum(row.total for row in own if row.name == "joules")
            wasted, whole = wasted + joules * late, whole + joules
            rows += own
        clock += length
        rows += [fleet_row(round_, "virtual_seconds", clock), fleet_row(round_, "round_seconds", length)]
        rows.append(fleet_row(round_, "wasted_joules", wasted, whole))
        if round_ % 2 == 0 or round_ == rounds:
            rows += _tested(round_, kind, min(0.9, 0.2 + gain * round_), seconds)
    return rows


def _spans(rng, kind: str, seconds: float, away: float) -> dict[str, float]:  # type: ignore[no-untyped-def]
    factor = float(rng.lognormal(0.0, 0.4))
    waited = float(rng.uniform(1, 20)) * seconds if rng.uniform() < away else 0.0
    compute = CLASSES[kind] * seconds * factor
    return {"waited": waited, "link": 0.2 * seconds, "compute": compute, "cloud": 0.1 * seconds * factor}


def _trained(round_: int, device: str, spans: dict[str, float], *, late: bool, stale: int) -> list[Row]:
    own = {f"{part}_seconds": value for part, value in spans.items()}
    own["round_seconds"] = sum(spans.values()) - spans["waited"]
    parts = {"compute": 4 * spans["compute"], "waiting": 0.6 * spans["cloud"], "radio": 1.5 * spans["link"]}
    own |= {f"{part}_joules": value for part, value in parts.items()}
    own |= {"joules": sum(parts.values()), "cloud_joules": 20.0, "staleness": float(stale)}
    own |= {"read_tokens": 200.0, "sampled_tokens": 100.0, "learned_tokens": 80.0}
    own |= {"cloud_up_bytes": 2000.0, "cloud_down_bytes": 3000.0, "uplink_bytes": 5e5, "downlink_bytes": 6e5}
    own |= {"cloud_money": 0.01, "cloud_calls": 2.0}
    rows = [Row(round_, device, "all", "train", "own", name, value, 1.0) for name, value in own.items()]
    rows += [Row(round_, device, "arithmetic", "train", "own", "reward", 4.0, 10.0)]
    rows += [Row(round_, device, "late", "train", "own", "set_aside", 1.0, 1.0)] if late else []
    return rows


def _tested(round_: int, kind: dict[str, str], accuracy: float, seconds: float) -> list[Row]:
    rows = []
    for device, own in kind.items():
        right = round(100 * accuracy) + {"high": 4, "low": -6, "mid": 0}[own]
        takes = 1.5 * CLASSES[own] * seconds / 60
        values = {"accuracy": right, "alone_accuracy": right - 5, "question_seconds": 100 * takes}
        values["question_joules"] = 400 * takes
        for limit in (1, 2, 5):
            share = 1 - math.exp(-limit / takes)
            values |= {f"within_{limit}s": 100 * share, f"right_within_{limit}s": right * share}
        rows += [Row(round_, device, "arithmetic", "test", "global", n, float(v), 100.0) for n, v in values.items()]
    return rows
