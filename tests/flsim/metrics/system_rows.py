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
        cohort: whose updates count in a round; with `first` half as many more are invited.
        end: `all`, `first` or `buffered` (an update is then some versions old).
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
    clock, flights = 0.0, dict[str, tuple[float, int]]()  # of whom is in flight: when it is done, and its round
    for round_ in range(1, rounds + 1):
        free = [device for device in named if device not in flights]
        most = {FIRST: math.ceil(1.5 * cohort), BUFFERED: 2 * cohort - len(flights)}.get(end, cohort)
        chosen = sorted(str(device) for device in rng.choice(free, min(most, len(free)), replace=False))
        spans = {device: _spans(rng, kind[device], seconds, away) for device in chosen}
        flights |= {device: (clock + sum(spans[device].values()), round_) for device in chosen}
        landed = sorted(flights, key=lambda device: (flights[device][0], device))[:cohort]
        over = max(clock, flights[landed[-1]][0])
        late = set() if end == BUFFERED else set(chosen) - set(landed)
        own = [row for d in chosen for row in _trained(round_, d, spans[d], until=over - clock if d in late else None)]
        joules = {device: sum(r.total for r in own if r.name == "joules" and r.device == device) for device in chosen}
        rows += [*own, fleet_row(round_, "virtual_seconds", over), fleet_row(round_, "round_seconds", over - clock)]
        rows.append(fleet_row(round_, "wasted_joules", sum(joules[d] for d in sorted(late)), sum(joules.values())))
        if end == BUFFERED:
            stale = {device: round_ - flights[device][1] for device in landed}
            rows += [Row(round_, d, "all", "train", "own", "staleness", float(n), 1.0) for d, n in stale.items()]
            rows.append(fleet_row(round_, "dropped", 0.0, float(len(landed))))
        flights = {d: one for d, one in flights.items() if d not in landed} if end == BUFFERED else {}
        clock = over
        if round_ % 2 == 0 or round_ == rounds:
            rows += _tested(round_, kind, min(0.9, 0.2 + gain * round_), seconds)
    return rows


def _spans(rng, kind: str, seconds: float, away: float) -> dict[str, float]:  # type: ignore[no-untyped-def]
    factor = float(rng.lognormal(0.0, 0.4))
    waited = float(rng.uniform(1, 20)) * seconds if rng.uniform() < away else 0.0
    compute = CLASSES[kind] * seconds * factor
    return {"waited": waited, "link": 0.2 * seconds, "compute": compute, "cloud": 0.1 * seconds * factor}


def _trained(round_: int, device: str, spans: dict[str, float], *, until: float | None) -> list[Row]:
    """Of a device; one that is late worked until then, and nothing came of it."""
    own = {f"{part}_seconds": value for part, value in spans.items()}
    whole = own["round_seconds"] = sum(spans.values()) - spans["waited"]
    done = 1.0 if until is None else min(1.0, max(0.0, until - spans["waited"]) / whole)
    parts = {"compute": 4 * spans["compute"], "waiting": 0.6 * spans["cloud"], "radio": 1.5 * spans["link"]}
    own |= {f"{part}_joules": done * value for part, value in parts.items()}
    own |= {"joules": done * sum(parts.values()), "cloud_joules": done * 20.0}
    own |= {"read_tokens": 200.0, "sampled_tokens": 100.0, "learned_tokens": 80.0, "downlink_bytes": 6e5}
    own |= {"cloud_up_bytes": 2000.0, "cloud_down_bytes": 3000.0, "cloud_money": 0.01, "cloud_calls": 2.0}
    own |= {"uplink_bytes": 5e5} if until is None else {}
    rows = [Row(round_, device, "all", "train", "own", name, value, 1.0) for name, value in own.items()]
    rows += [Row(round_, device, "arithmetic", "train", "own", "reward", 4.0, 10.0)]
    return rows + ([Row(round_, device, "late", "train", "own", "set_aside", 1.0, 1.0)] if until is not None else [])


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
