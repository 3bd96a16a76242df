"""Virtual time in the round loop: who is invited, when everyone is done, whose update counts, what it took.

No client and no strategy knows of it: they count, and here counts become seconds and joules (`flsim/system`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import Message

import flsim.flower.messages as wire
from flsim.config.schema import Config, ConfigError
from flsim.config.system import ALWAYS, BUFFERED, EVERYBODY
from flsim.devices import device_at, device_name
from flsim.flower.store import Saved
from flsim.loop.flights import Flight, Hangar
from flsim.metrics.rows import Row, Subject, fleet_row
from flsim.metrics.timed import WATT_HOUR, Taken, battery_row, device_rows, round_rows
from flsim.seeding import generator
from flsim.system.availability import Availability
from flsim.system.battery import Battery
from flsim.system.clock import Clock
from flsim.system.ends import Stint, ended
from flsim.system.joules import Joules
from flsim.system.seconds import MICROSECONDS, Spans
from flsim.system.system import System
from flsim.system.work import Work

_TRIES = 20  # so many times as many devices as are wanted are looked at, to find those who are there
_LEAST = 2  # devices of a round, however few are there
_LARGE = 100_000  # devices, above which no permutation of the fleet is drawn


@dataclass(frozen=True)
class TimeState:
    """What is kept between rounds; saved with the checkpoint."""

    clock: Clock = field(default_factory=Clock)
    """What time it is, and, where rounds are buffered, who is at work over their end."""
    batteries: Mapping[int, Battery] = field(default_factory=dict)
    """Of devices that have taken part; any other's is full."""
    flights: Mapping[int, Flight] = field(default_factory=dict)
    """The updates of those who are at work over the end of a round, by device."""

    gone: Mapping[int, int] = field(default_factory=dict)
    """Where rounds are buffered: when devices will have gone away whose update is lost; they work until then."""

    @property
    def now(self) -> int:
        """Microseconds since the start of the run."""
        return self.clock.now


@dataclass(frozen=True)
class Closed:
    """A round in virtual time."""

    set_aside: Mapping[int, str]
    """Devices whose update does not count, with the word for it."""
    rows: list[Row]
    landed: list[Message] | None = None
    """Replies that are aggregated now, where these are not those of the round's own devices: rounds are buffered."""


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
        self.hangar = Hangar(config.folder)
        self.there = Availability.of(system.config.availability, config.stream.seed)
        self.state = TimeState()
        self.buffered = system.config.end.kind == BUFFERED
        """Whether devices work over the end of a round."""
        self.starts: dict[int, int] = {}
        """When each device of the round begins."""

    @property
    def selects(self) -> bool:
        """Whether it is known only after a round who of it counts, so that workers cannot sum for the server."""
        own = self.system.config
        return own.end.kind != EVERYBODY or own.availability.kind != ALWAYS or bool(own.charge_w)

    def invite(self, drawn: Sequence[int], round_: int) -> list[int]:
        """The devices of a round, sorted: those drawn who are there, and others in place of who is not.

        Where too few of those that are looked at are there, the others that come soonest are awaited; without
        `fleet.cohort` whoever is there is enough.

        Args:
            drawn: the round's cohort as it would be if everybody were there.
            round_: from 1.

        Raises:
            ConfigError: if nobody will ever be there again.
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
        # where all are drawn, those who are there are enough; Flower's own strategies ask for two
        wanted = len(drawn) if self.config.fleet.cohort is not None else min(len(drawn), _LEAST)
        self.starts = ready | {device: time for time, device in away[: max(0, wanted - len(ready))]}
        if not self.starts:
            raise ConfigError(
                f"round {round_}: nobody of the fleet ever comes again (system.availability, system.charge_w); give "
                f"devices longer windows, or a charger"
            )
        return sorted(self.starts)

    def close(
        self, sent: Sequence[Message], replies: Sequence[Message], round_: int, taken_in: Mapping[int, Saved] | None
    ) -> Closed:
        """How the round went: who is set aside, who is aggregated, and the rows of everybody.

        Args:
            sent: the round's training messages.
            replies: of their devices; one without counts, since it failed, takes no time.
            round_: the round.
            taken_in: where rounds are buffered, the replies that have been written down; else None.

        Raises:
            ConfigError: if the client does not say what it did.
        """
        taken = dict(self._taken(sent, replies, round_))
        for reply in replies:
            if wire.device_of(reply) in taken:
                wire.stamp_virtual(reply, taken[wire.device_of(reply)].spans.total / MICROSECONDS)
        if taken_in is not None:
            return self._land(taken, taken_in, round_)
        stints, end = [one.stint for one in taken.values()], self.system.config.end
        opened = max(self.starts.values(), default=self.state.now)  # with the last of those who were awaited
        over = ended(stints, end, now=self.state.now, opened=opened, count=self.config.counted)
        rows = [row for device, one in taken.items() for row in self._rows(device, one, over.time, round_)]
        spent = {device: one.spent(over.time) for device, one in taken.items()}
        wasted = sum(spent[device] for device in sorted(over.late | over.left))
        lasted = over.time - self.state.now
        rows += round_rows(round_, now=over.time, lasted=lasted, wasted=wasted, joules=sum(spent.values()))
        self._go_on(taken, over.time)
        return Closed(dict.fromkeys(over.late, wire.LATE) | dict.fromkeys(over.left, wire.LEFT), rows)

    def _land(self, taken: Mapping[int, Taken], taken_in: Mapping[int, Saved], round_: int) -> Closed:
        """Let the round's devices fly, and the first of all that are in flight land (FedBuff, arXiv 2106.06639).

        Who goes away before it is done is lost at once, and its place is free.
        """
        now, end = self.state.now, self.system.config.end
        left = {device: wire.LEFT for device, one in taken.items() if one.stint.leaves is not None}
        flying = {device: one for device, one in taken.items() if device not in left}
        rows = [row for device, one in taken.items() for row in self._rows(device, one, one.stint.over, round_)]
        self._go_on(taken, now)
        flights = {
            **self.state.flights,
            **{device: Flight(round_, taken_in[device], one.joules.device) for device, one in flying.items()},
        }
        clock = self.state.clock.sent({device: one.stint.finish for device, one in flying.items()})
        clock, landings = clock.landed(min(self.config.counted, len(clock.flights)))
        landed, dropped = list[Message](), 0
        wasted = sum(taken[device].spent(taken[device].stint.over) for device in left)
        for device in sorted(device for _, device in landings):
            flight = flights.pop(device)
            staleness, of = round_ - flight.round, Subject(round_, device_name(device), "train", "own")
            rows.append(of.row("staleness", float(staleness)))
            if end.max_staleness is not None and staleness > end.max_staleness:
                rows.append(of.row("set_aside", 1.0, task=wire.STALE))
                wasted, dropped = wasted + flight.joules, dropped + 1
                continue
            reply = self.hangar.bring_out(device, flight)
            if staleness:
                wire.mark_stale(reply, fade=(1 + staleness) ** -end.staleness)
            landed.append(reply)
        spent = sum(one.spent(one.stint.over) for one in taken.values())
        lasted = clock.now - now
        rows += round_rows(round_, now=clock.now, lasted=lasted, wasted=wasted, joules=spent or wasted)
        rows.append(fleet_row(round_, "dropped", float(dropped), float(max(1, len(landings)))))
        gone = {device: time for device, time in self.state.gone.items() if time > clock.now}
        gone |= {device: taken[device].stint.over for device in left}
        self.state = replace(self.state, clock=clock, flights=flights, gone=gone)
        return Closed(left, rows, landed)

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
        time = max(self.state.now, self.state.gone.get(device, 0))
        battery = self._battery(device, time)
        if device in self.state.flights:
            return None
        if battery is not None:
            ready = battery.ready(device, there=self.there, **self._charging(device))
            if ready is None:
                return None
            time = max(time, ready)
        return self.there.earliest(device, time)

    def _battery(self, device: int, at: int) -> Battery | None:
        """As it is then, if the device does not work before; None where batteries are not followed."""
        if not self.system.config.charge_w:
            return None
        charging = self._charging(device)
        known = self.state.batteries.get(device)
        if known is None:
            return Battery(charging["capacity"], at)
        return known.charged(device, at, there=self.there, **charging)

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
            battery = self._battery(device, start)
            leaves = self._leaves(device, start, spans, joules, battery)
            yield device, Taken(work, spans, joules, Stint(device, start, start + spans.total, leaves), battery)

    def _leaves(self, device: int, start: int, spans: Spans, joules: Joules, battery: Battery | None) -> int | None:
        """When a device goes away, or its battery is empty, before it is done; None if neither."""
        until = self.there.until(device, start)
        gone = [until] if until is not None and until < start + spans.total else []
        if battery is not None and joules.device > battery.joules:
            gone.append(start + int(spans.total * battery.joules / joules.device))
        return min(gone, default=None)

    def _rows(self, device: int, one: Taken, until: int, round_: int) -> list[Row]:
        """Of a device, which worked until then at the most."""
        rows = device_rows(self.system, device, one, round_, now=self.state.now, until=until)
        if one.battery is not None:
            left = Battery(max(0.0, one.battery.joules - one.spent(until)), until)
            rows.append(battery_row(device, left, self.system.class_of(device).battery_wh, round_))
        return rows

    def _go_on(self, taken: Mapping[int, Taken], now: int) -> None:
        """To the end of the round, and of the batteries' part in it."""
        batteries = dict(self.state.batteries)
        for device, one in taken.items():
            if one.battery is not None:
                until = max(now, one.stint.over) if self.buffered else now
                batteries[device] = Battery(max(0.0, one.battery.joules - one.spent(until)), until)
        self.state = replace(self.state, clock=replace(self.state.clock, now=now), batteries=batteries)
