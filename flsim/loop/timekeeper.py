"""Virtual time in the round loop: who is invited, when everyone is done, whose update counts, what it took.

No client and no strategy knows of it: they count, and here counts become seconds and joules (`flsim/system`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import Message

import flsim.flower.messages as wire
from flsim.config.schema import Config
from flsim.config.system import ALWAYS, EVERYBODY
from flsim.devices import device_at, device_name
from flsim.metrics.rows import USER, Row, Subject, fleet_row
from flsim.seeding import generator
from flsim.system.availability import Availability
from flsim.system.battery import Battery
from flsim.system.ends import Ended, Stint, ended
from flsim.system.joules import Joules
from flsim.system.seconds import MICROSECONDS, Spans
from flsim.system.system import System
from flsim.system.work import Work

WATT_HOUR = 3600.0
_TRIES = 20  # so many times as many devices as are wanted are looked at, to find those who are there
_LARGE = 100_000  # devices, above which no permutation of the fleet is drawn


@dataclass(frozen=True)
class TimeState:
    """What is kept between rounds; saved with the checkpoint."""

    now: int = 0
    """Microseconds since the start of the run."""
    batteries: Mapping[int, Battery] = field(default_factory=dict)
    """Of devices that have taken part; any other's is full."""
    busy: frozenset[int] = frozenset()
    """Devices that are at work over the end of a round."""


@dataclass(frozen=True)
class Taken:
    """What a device's round took."""

    work: Work
    spans: Spans
    joules: Joules
    stint: Stint


@dataclass(frozen=True)
class Closed:
    """A round in virtual time."""

    set_aside: Mapping[int, str]
    """Devices whose update does not count, with the word for it."""
    rows: list[Row]


NOT_TIMED = Closed({}, [])
"""A round without virtual time: everybody's update counts."""


class Timekeeper:
    """Keeps the time of a run."""

    def __init__(self, config: Config, system: System) -> None:
        """Begin at 0.

        Args:
            config: of the run.
            system: what devices take.

        Raises:
            ConfigError: for an availability that cannot be.
        """
        self.config, self.system = config, system
        self.there = Availability.of(system.config.availability, config.stream.seed)
        self.state = TimeState()
        self.starts: dict[int, int] = {}
        """When each device of the round begins."""

    @property
    def selects(self) -> bool:
        """Whether it is known only after a round who of it counts, so that workers cannot sum for the server."""
        own = self.system.config
        return own.end.kind != EVERYBODY or own.availability.kind != ALWAYS or bool(own.charge_w)

    def invite(self, drawn: Sequence[int], round_: int) -> list[int]:
        """The devices of a round, sorted: those drawn who are there, and others in place of who is not.

        Where too few of those that are looked at are there, the others that come soonest are awaited.

        Args:
            drawn: the round's cohort as it would be if everybody were there.
            round_: from 1.
        """
        now, ready, away = self.state.now, dict[int, int](), list[tuple[int, int]]()
        for device in self._candidates(drawn, round_):
            time = self._ready(device)
            if time is not None and time <= now:
                ready[device] = now
            elif time is not None:
                away.append((time, device))
            if len(ready) == len(drawn):
                break
        away.sort()
        self.starts = ready | {device: time for time, device in away[: len(drawn) - len(ready)]}
        if not self.starts:
            raise RuntimeError(
                f"round {round_}: nobody of the fleet ever comes again (system.availability, system.charge_w); give "
                f"devices longer windows, or a charger"
            )
        return sorted(self.starts)

    def close(self, sent: Sequence[Message], replies: Sequence[Message], round_: int) -> Closed:
        """How the round went: who is set aside, and the rows of everybody.

        Args:
            sent: the round's training messages.
            replies: of their devices; one without counts, since it failed, takes no time.
            round_: the round.

        Raises:
            ConfigError: if the client does not say what it did.
        """
        taken = dict(self._taken(sent, replies, round_))
        for reply in replies:
            if wire.device_of(reply) in taken:
                wire.stamp_virtual(reply, taken[wire.device_of(reply)].spans.total / MICROSECONDS)
        stints, end = [one.stint for one in taken.values()], self.system.config.end
        over = ended(stints, end, now=self.state.now, count=self.config.counted)
        rows = [row for device, one in taken.items() for row in self._rows(device, one, over, round_)]
        rows += self._fleet_rows(taken, over, round_)
        self._go_on(taken, over)
        words = dict.fromkeys(over.late, wire.LATE) | dict.fromkeys(over.left, wire.LEFT)
        return Closed(words, rows)

    def _candidates(self, drawn: Sequence[int], round_: int) -> Iterator[int]:
        """Those drawn, then others at random, each once; a bounded number of them."""
        yield from drawn
        seen, devices = set(drawn), self.config.fleet.devices
        most = min(devices, max(1000, _TRIES * len(drawn)))
        rng = generator(self.config.seed, "invite", round_)
        if devices <= _LARGE:
            yield from [int(d) for d in rng.permutation(devices) if d not in seen][: most - len(seen)]
            return
        while len(seen) < most:
            device = int(rng.integers(devices))
            if device not in seen:
                seen.add(device)
                yield device

    def _ready(self, device: int) -> int | None:
        """When a device can begin, at the earliest now; None for never."""
        time, battery = self.state.now, self._battery(device)
        if device in self.state.busy:
            return None
        if battery is not None:
            ready = battery.ready(device, there=self.there, **self._charging(device))
            if ready is None:
                return None
            time = max(time, ready)
        return self.there.earliest(device, time)

    def _battery(self, device: int) -> Battery | None:
        """As it is now; None where batteries are not followed."""
        if not self.system.config.charge_w:
            return None
        charging = self._charging(device)
        known = self.state.batteries.get(device)
        if known is None:
            return Battery(charging["capacity"], self.state.now)
        return known.charged(device, self.state.now, there=self.there, **charging)

    def _charging(self, device: int) -> dict[str, float]:
        capacity = WATT_HOUR * self.system.class_of(device).battery_wh
        return {"capacity": capacity, "watts": self.system.config.charge_w}

    def _taken(self, sent: Sequence[Message], replies: Sequence[Message], round_: int) -> Iterator[tuple[int, Taken]]:
        """What each device's round took, by device."""
        down = {device_at(message.metadata.dst_node_id): wire.size_of(message) for message in sent}
        for reply in replies:
            device = wire.device_of(reply)
            if reply.has_error():
                continue
            rows = [(row.name, row.total, row.weight) for row in wire.rows_of(reply) if row.split == "train"]
            up = wire.uplink_of(reply)
            work = Work.counted(rows, down=down[device], up=up, device=device_name(device))
            spans = self.system.spans(device, round_, work)
            joules = self.system.joules(device, work, spans)
            start = self.starts.get(device, self.state.now)
            leaves = self._leaves(device, start, spans, joules)
            yield device, Taken(work, spans, joules, Stint(device, start, start + spans.total, leaves))

    def _leaves(self, device: int, start: int, spans: Spans, joules: Joules) -> int | None:
        """When a device goes away, or its battery is empty, before it is done; None if neither."""
        until, battery = self.there.until(device, start), self._battery(device)
        gone = [until] if until is not None and until < start + spans.total else []
        if battery is not None and joules.device > battery.joules:
            gone.append(start + int(spans.total * battery.joules / joules.device))
        return min(gone, default=None)

    def _rows(self, device: int, one: Taken, over: Ended, round_: int) -> list[Row]:
        """Of a device."""
        of, spans = Subject(round_, device_name(device), "train", "own"), one.spans
        done = one.stint.worked(over.time)
        seconds = {
            "compute_seconds": spans.compute,
            "link_seconds": spans.down + spans.up,
            "cloud_seconds": spans.cloud,
            "waited_seconds": one.stint.start - self.state.now,
            "round_seconds": spans.total,
        }
        joules = {
            "joules": one.joules.device,
            "compute_joules": one.joules.compute,
            "waiting_joules": one.joules.waiting,
            "radio_joules": one.joules.radio,
            "cloud_joules": one.joules.cloud,
        }
        rows = [of.row(name, value / MICROSECONDS) for name, value in seconds.items()]
        rows += [of.row(name, done * value) for name, value in joules.items()]
        battery = self._battery(device)
        if battery is not None:
            whole = self.system.class_of(device).battery_wh
            left = max(0.0, battery.joules - done * one.joules.device)
            rows.append(of.row("battery", left / WATT_HOUR, whole))
        return rows

    def _fleet_rows(self, taken: Mapping[int, Taken], over: Ended, round_: int) -> list[Row]:
        """Of the round."""
        spent = {device: one.stint.worked(over.time) * one.joules.device for device, one in taken.items()}
        wasted, whole = sum(spent[device] for device in sorted(over.late | over.left)), sum(spent.values())
        return [
            fleet_row(round_, "virtual_seconds", over.time / MICROSECONDS),
            fleet_row(round_, "round_seconds", (over.time - self.state.now) / MICROSECONDS),
            fleet_row(round_, "wasted_joules", wasted if whole else 0.0, whole),
        ]

    def _go_on(self, taken: Mapping[int, Taken], over: Ended) -> None:
        """To the end of the round."""
        batteries = dict(self.state.batteries)
        for device, one in taken.items():
            battery = self._battery(device)
            if battery is not None:
                left = max(0.0, battery.joules - one.stint.worked(over.time) * one.joules.device)
                batteries[device] = Battery(left, over.time)
        self.state = replace(self.state, now=over.time, batteries=batteries)


def user_facts(system: System, devices: Sequence[int], round_: int) -> list[Row]:
    """Which class and link each device is of, as rows of users."""
    rows = []
    for device in devices:
        of = Subject(round_, device_name(device), USER, USER)
        rows.append(of.row(f"class_{system.class_of(device).name}", 1.0))
        rows.append(of.row(f"link_{system.link_of(device).name}", 1.0))
    return rows
