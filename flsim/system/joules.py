"""Joules of a device's round, and of the cloud for it: pure functions of counts and seconds.

A device's are those of its battery: computing, waiting, and the radio with a tail after each burst. The cloud's stand
apart and are never added to them. Radio: Huang et al., MobiSys 2012.
"""

from dataclasses import dataclass

from flsim.config.system import CloudTimesConfig
from flsim.system.classes import DeviceClass, Link
from flsim.system.seconds import MICROSECONDS, Spans, asked_bytes, served_seconds
from flsim.system.work import Work

CLOUD_BILLIONS = 70.0
"""Parameters of the model, in billions, that `system.cloud.joules_per_token` is of."""


@dataclass(frozen=True)
class Joules:
    """Where the joules of a round go."""

    compute: float
    waiting: float
    """For the cloud."""
    radio: float
    cloud: float
    """Of the cloud itself, data centre included; not from the battery."""

    @property
    def device(self) -> float:
        """From the battery."""
        return self.compute + self.waiting + self.radio


def radio_watts(link: Link, *, up: bool) -> float:
    """Power during a transfer at the link's rate, in W."""
    rate, each = (link.up_mbit, link.up_mw_per_mbit) if up else (link.down_mbit, link.down_mw_per_mbit)
    return (rate * each + link.base_mw) / 1000


def tail_joules(link: Link, gap_s: float) -> float:
    """Of the radio after a transfer, where the next one comes after so many seconds."""
    return link.tail_mw / 1000 * min(link.tail_s, gap_s)


def radio_joules(cloud: CloudTimesConfig, link: Link, work: Work, spans: Spans) -> float:
    """Transfers of the adapter and of questions, and the tails after them.

    Questions come evenly spread over the computing, one by one, and a question's further requests over what is computed
    for them; where the next transfer comes within a tail, only the gap counts.
    """
    down, up = radio_watts(link, up=False), radio_watts(link, up=True)
    moved = (down * spans.down + up * spans.up) / MICROSECONDS
    further = work.cloud_further_trips
    between = spans.helping / MICROSECONDS / max(1, work.cloud_trips)
    questions = work.cloud_trips - further
    gap = (spans.compute / MICROSECONDS - further * between) / (questions + 1)
    tails = (1 if spans.down else 0) * tail_joules(link, gap) + (1 if spans.up else 0) * tail_joules(link, link.tail_s)
    if work.cloud_trips:
        sent, came = asked_bytes(cloud, work)
        moved += up * 8 * sent / (link.up_mbit * 1e6) + down * 8 * came / (link.down_mbit * 1e6)
        wait = served_seconds(cloud, work) / work.cloud_trips + link.rtt_ms / 1000
        last = gap if spans.up else link.tail_s  # where nothing follows, the tail is whole
        tails += work.cloud_trips * tail_joules(link, wait) + (questions - 1) * tail_joules(link, gap)
        tails += further * tail_joules(link, between) + tail_joules(link, last)
    return moved + tails


def joules_of(
    cloud: CloudTimesConfig, of: DeviceClass, link: Link, work: Work, spans: Spans, *, billions: float | None
) -> Joules:
    """Those of a round.

    Args:
        cloud: what it takes.
        of: the class.
        link: of the device.
        work: what it did.
        spans: how long that took.
        billions: parameters of the cloud's model; None takes `joules_per_token` as it is.
    """
    size = 1.0 if billions is None else billions / CLOUD_BILLIONS
    tokens = work.cloud_completion_tokens * cloud.joules_per_token
    tokens += work.cloud_prompt_tokens * cloud.joules_per_prompt_token
    return Joules(
        compute=of.busy_w * spans.compute / MICROSECONDS,
        waiting=of.waiting_w * spans.waiting / MICROSECONDS,
        radio=radio_joules(cloud, link, work, spans),
        cloud=tokens * size * cloud.pue,
    )
