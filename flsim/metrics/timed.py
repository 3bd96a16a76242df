"""Rows of virtual time: what a device's round took, as a run writes it, or as an old run's counts are priced later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from flsim.devices import device_index, device_name
from flsim.metrics.rows import EVERY_TASK, LEARNERS, USER, Row, Subject, fleet_row, rows_frame
from flsim.system.battery import Battery
from flsim.system.ends import Stint
from flsim.system.joules import Joules
from flsim.system.seconds import MICROSECONDS, Spans
from flsim.system.system import System
from flsim.system.work import Work

WATT_HOUR = 3600.0
KILOWATT_HOUR = 1000 * WATT_HOUR
OF_DEVICES = frozenset(
    {
        *(f"{part}_seconds" for part in ("compute", "link", "up", "cloud", "waited", "round")),
        *("joules", *(f"{part}_joules" for part in ("compute", "waiting", "radio", "cloud"))),
        *("link_bytes", "grams", "battery"),
    }
)
"""Training rows of a device that only a run in virtual time has."""
OF_ROUNDS = frozenset({"virtual_seconds", "round_seconds", "wasted_joules"})
"""Rows of the whole fleet, likewise."""


@dataclass(frozen=True)
class Taken:
    """What a device's round took."""

    work: Work
    spans: Spans
    joules: Joules
    stint: Stint
    battery: Battery | None = None
    """As it was when the device began; None where batteries are not followed."""

    def spent(self, until: int) -> float:
        """Joules of the device up to then."""
        return self.stint.worked(until) * self.joules.device


def device_rows(system: System, device: int, one: Taken, round_: int, *, now: int, until: int) -> list[Row]:
    """Of a device in a round: seconds as they would have been in full, bytes and joules as far as it worked.

    Args:
        system: of the run.
        device: its index.
        one: what its round took.
        round_: the round.
        now: when the round began, in microseconds.
        until: it worked until then at the most.
    """
    of, spans = Subject(round_, device_name(device), "train", "own"), one.spans
    done = one.stint.worked(until)
    seconds = {
        "compute_seconds": spans.compute,
        "link_seconds": spans.down + spans.up,
        "up_seconds": spans.up,
        "cloud_seconds": spans.cloud,
        "waited_seconds": one.stint.start - now,
        "round_seconds": spans.total,
    }
    joules = {
        "joules": one.joules.device,
        "compute_joules": one.joules.compute,
        "waiting_joules": one.joules.waiting,
        "radio_joules": one.joules.radio,
        "cloud_joules": one.joules.cloud,
    }
    intensity = system.config.cloud.grams_per_kwh
    if intensity is not None:
        joules["grams"] = (one.joules.device + one.joules.cloud) / KILOWATT_HOUR * intensity
    rows = [of.row("link_bytes", float(system.moved(one.work, came=done >= 1)))]
    rows += [of.row(name, value / MICROSECONDS) for name, value in seconds.items()]
    return rows + [of.row(name, done * value) for name, value in joules.items()]


def battery_row(device: int, battery: Battery, capacity_wh: float, round_: int) -> Row:
    """What a device's battery holds after a round, in Wh, of its capacity."""
    of = Subject(round_, device_name(device), "train", "own")
    return of.row("battery", battery.joules / WATT_HOUR, capacity_wh)


def round_rows(round_: int, *, now: int, lasted: int, wasted: float, joules: float) -> list[Row]:
    """Of a round.

    Args:
        round_: the round.
        now: when it was over, in microseconds.
        lasted: how long it took.
        wasted: joules whose updates do not count.
        joules: all of them.
    """
    return [
        fleet_row(round_, "virtual_seconds", now / MICROSECONDS),
        fleet_row(round_, "round_seconds", lasted / MICROSECONDS),
        fleet_row(round_, "wasted_joules", wasted if joules else 0.0, joules),
    ]


def user_facts(system: System, devices: Sequence[int], round_: int) -> list[Row]:
    """Which class and link each device is of, as rows of users."""
    rows = []
    for device in devices:
        of = Subject(round_, device_name(device), USER, USER)
        rows.append(of.row(f"class_{system.class_of(device).name}", 1.0))
        rows.append(of.row(f"link_{system.link_of(device).name}", 1.0))
    return rows


def priced(rows: pd.DataFrame, system: System) -> pd.DataFrame:
    """The rows of a run with those that it would have had with this system, where everybody is there and awaited.

    Law: of a run without a system they are those of the same run with it, bit for bit.

    Args:
        rows: of a run, with its counts.
        system: whose prices are asked for.

    Raises:
        ConfigError: if the run's client did not count.
    """
    found = list[Row]()
    tested = rows[(rows["round"] == 0) & rows["model"].isin(LEARNERS)]["device"].unique()
    found += user_facts(system, sorted(map(device_index, tested)), 0)
    trained = rows[(rows["split"] == "train") & (rows["task"] == EVERY_TASK) & (rows["round"] > 0)]
    now = 0
    for round_, own in trained.groupby("round", sort=True):
        taken = {
            device_index(str(name)): one
            for name, of in own.groupby("device", sort=True)
            if (one := _taken(device_index(str(name)), of, int(str(round_)), system, now)) is not None
        }
        end = max((one.stint.finish for one in taken.values()), default=now)
        for device, one in taken.items():
            found += device_rows(system, device, one, int(str(round_)), now=now, until=end)
        joules = sum(one.spent(end) for one in taken.values())
        found += round_rows(int(str(round_)), now=end, lasted=end - now, wasted=0.0, joules=joules)
        now = end
    return pd.concat([rows, rows_frame(found)], ignore_index=True)


def _taken(device: int, of: pd.DataFrame, round_: int, system: System, now: int) -> Taken | None:
    """What a device's round took by its rows; None of one that sent no update."""
    totals: Mapping[str, float] = dict(zip(of["name"], of["total"], strict=True))
    if "uplink_bytes" not in totals:
        return None
    counted = of[["name", "total", "weight"]].itertuples(index=False, name=None)
    down, up = round(totals["downlink_bytes"]), round(totals["uplink_bytes"])
    work = Work.counted(counted, down=down, up=up, device=device_name(device))
    spans = system.spans(device, round_, work)
    stint = Stint(device, now, now + spans.total)
    return Taken(work, spans, system.joules(device, work, spans), stint)
