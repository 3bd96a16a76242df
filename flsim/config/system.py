"""The part of the configuration that says what devices, links and the cloud take in time and energy, and who is there.

Every default is an assumption that a user may replace; docs/systems.md says where each comes from. Units stand in the
names: bit/s in Mbit (10^6 bit), seconds, joules, watts, Wh, GB of 10^9 bytes.
"""

from dataclasses import dataclass, field

from flsim.config.ranges import above, at_least, count, filled, limited, number, one_of, tupled

ALWAYS, DAILY, RENEWAL, FILE = "always", "daily", "renewal", "file"
EVERYBODY, DEADLINE, FIRST, BUFFERED = "all", "deadline", "first", "buffered"
READ_BY_AVAILABILITY = {
    ALWAYS: (),
    DAILY: ("start_h", "spread_h", "length_h"),
    RENEWAL: ("on_s", "off_s"),
    FILE: ("path",),
}
"""The settings of availability that each kind reads."""
READ_BY_END = {
    EVERYBODY: (),
    DEADLINE: ("deadline_s",),
    FIRST: ("over",),
    BUFFERED: ("in_flight", "staleness", "max_staleness"),
}
"""Those of the end of a round, likewise."""


@dataclass(frozen=True)
class ClassConfig:
    """A class of devices; what is left out is that of the class of this name that ships (`low`, `mid`, `high`)."""

    share: float | None = at_least(0, None, finite=True)
    """Of the fleet, as a part of the sum over all classes; it is held up to a few devices in a fleet of any size."""
    flops: float | None = above(0, None)
    """Effective arithmetic, in operations per second: what such a device reaches, not the peak that its maker names."""
    bandwidth: float | None = above(0, None)
    """Effective memory bandwidth, in bytes per second."""
    memory_gb: float | None = above(0, None)
    """Memory that training may take, in GB."""
    battery_wh: float | None = above(0, None)
    """Capacity of the battery, in Wh."""
    busy_w: float | None = at_least(0, None, finite=True)
    """Power while it computes, in watts."""
    waiting_w: float | None = at_least(0, None, finite=True)
    """Power while it waits for the cloud, in watts."""


@dataclass(frozen=True)
class LinkConfig:
    """A kind of network; what is left out is that of the link of this name that ships (`wifi`, `lte`, `slow`)."""

    share: float | None = at_least(0, None, finite=True)
    """Of the fleet, as a part of the sum over all links."""
    down_mbit: float | None = above(0, None)
    """Mbit/s to the device."""
    up_mbit: float | None = above(0, None)
    """Mbit/s from the device."""
    rtt_ms: float | None = at_least(0, None, finite=True)
    """Round trip, in milliseconds."""
    up_mw_per_mbit: float | None = at_least(0, None, finite=True)
    """Radio power for each Mbit/s sent, in mW."""
    down_mw_per_mbit: float | None = at_least(0, None, finite=True)
    """Radio power for each Mbit/s received, in mW."""
    base_mw: float | None = at_least(0, None, finite=True)
    """Radio power beside it while a transfer goes on, in mW."""
    tail_s: float | None = at_least(0, None, finite=True)
    """How long the radio stays up after a transfer, in seconds."""
    tail_mw: float | None = at_least(0, None, finite=True)
    """Power meanwhile, in mW."""


@dataclass(frozen=True)
class AvailabilityConfig:
    """When a device is there; a round invites devices that are, and who leaves before it is done is lost to it."""

    kind: str = one_of(ALWAYS, (ALWAYS, DAILY, RENEWAL, FILE))
    """`always`; `daily`: a window each day; `renewal`: on and off in turn, for exponential times; `file`: a trace."""
    start_h: float = at_least(0, 22.0, finite=True)
    """`daily`: the hour at which a window begins, in the mean."""
    spread_h: float = at_least(0, 2.0, finite=True)
    """`daily`: how far from it a device's own window may begin, in hours, uniformly both ways."""
    length_h: float = above(0, 7.0)
    """`daily`: length of a window, in hours, below 24."""
    on_s: float = above(0, 3600.0)
    """`renewal`: mean time that a device is there, in seconds."""
    off_s: float = above(0, 3600.0)
    """`renewal`: mean time that it is away, in seconds."""
    path: str | None = filled(None, "traces.json")
    """`file`: a trace, in FLASH's or FedScale's form as JSON, or as CSV (docs/systems.md), looked for in the current
    folder, then beside the config file that names it; devices are dealt its users in turn, and each trace begins again
    at its end."""


@dataclass(frozen=True)
class RoundEndConfig:
    """When the server stops waiting, and whose update counts."""

    kind: str = one_of(EVERYBODY, (EVERYBODY, DEADLINE, FIRST, BUFFERED))
    """`all`: everybody who was invited; `deadline`: who is done by then; `first`: more are invited than count, and the
    first count; `buffered`: devices work on while the server aggregates each time that some have come (FedBuff,
    arXiv 2106.06639)."""
    deadline_s: float = above(0, 270.0)
    """`deadline`: seconds after which a round is over."""
    over: float = at_least(1, 1.3, finite=True)
    """`first`: so many times `fleet.cohort` are invited, rounded up, and `fleet.cohort` of them count."""
    in_flight: int | None = count(None)
    """`buffered`: C, how many devices work at a time; each `fleet.cohort` that have come are aggregated. None: twice as
    many as that, and no more than the fleet."""
    staleness: float = at_least(0, 0.5, finite=True)
    """`buffered`: a delta that is tau versions old counts (1 + tau) to minus this."""
    max_staleness: int | None = at_least(0, None)
    """`buffered`: older deltas are dropped; None keeps all."""


@dataclass(frozen=True)
class StandsForConfig:
    """The sizes that the small models of a run stand for; None: their own."""

    device: str | None = filled(None, "Qwen2.5-0.5B")
    """The device's model: `Qwen2.5-0.5B`, `Qwen2.5-1.5B`, `Qwen2.5-3B`, `SmolLM2-135M`, or a folder with a
    `config.json`. Its arithmetic, memory and adapters of `model.rank` are what seconds, joules and bytes come from;
    counts of tokens stay those of the run."""
    weight_bytes: float = above(0, 0.5)
    """Bytes of each of its weights, and of what devices hold of the cloud's model; phones hold 4 bits. Of the run's own
    model (`device: null`) it is 4."""
    cloud: float | None = above(0, None)
    """Parameters of the cloud's model, in billions, for what `cloud.joules_per_token` is scaled by, and for what its
    layers take on a device, where a mode of help cuts it; None: joules as they are, and no such mode."""


@dataclass(frozen=True)
class CloudTimesConfig:
    """What the cloud takes for a question, beside the link."""

    queue_s: float = at_least(0, 0.3, finite=True)
    """Seconds until it begins."""
    prefill_per_s: float = above(0, 5000.0)
    """Prompt tokens read per second."""
    decode_per_s: float = above(0, 60.0)
    """Completion tokens said per second."""
    joules_per_token: float = at_least(0, 0.4, finite=True)
    """For each completion token, of a model of 70 billion parameters."""
    joules_per_prompt_token: float = at_least(0, 0.02, finite=True)
    """For each prompt token, likewise."""
    pue: float = at_least(1, 1.2, finite=True)
    """What the data centre takes for each joule of its machines."""
    grams_per_kwh: float | None = at_least(0, None, finite=True)
    """Carbon dioxide for each kWh, of devices and cloud; None counts none."""
    request_bytes: int = at_least(0, 500)
    """Bytes of a request and of its reply beside their texts."""


@dataclass(frozen=True)
class SystemConfig:
    """Devices, links, availability and the end of a round in virtual time."""

    classes: dict[str, ClassConfig] = field(default_factory=dict)
    """Classes of devices by name; none given are `low`, `mid` and `high` of 0.3, 0.5 and 0.2. If any is named, those
    that are not are none."""
    links: dict[str, LinkConfig] = field(default_factory=dict)
    """Links by name; none given are `wifi` and `lte` of 0.7 and 0.3. If any is named, those that are not are none."""
    jitter: float = limited(0.0, number(0, 3))
    """Sigma of a log-normal factor of mean 1 on a device's transfers in a round; 0 is none, 1 is wide."""
    samples: str = one_of("one", ("one", "group"))
    """How a device samples the responses of a group: `one` by one, as phones do, or the `group` at once."""
    overlap: bool = False
    """Whether a device computes on while it waits for the cloud."""
    stands_for: StandsForConfig = field(default_factory=StandsForConfig)
    availability: AvailabilityConfig = field(default_factory=AvailabilityConfig)
    charge_w: float = at_least(0, 0.0, finite=True)
    """Power that charges a battery while its device is there, in watts; 0: batteries are not followed, and nobody's is
    ever empty. Charging stands still while a device works."""
    end: RoundEndConfig = field(default_factory=RoundEndConfig)
    cloud: CloudTimesConfig = field(default_factory=CloudTimesConfig)
    deadlines_s: tuple[float, ...] = above(0, (1.0, 2.0, 5.0))
    """Deadlines that test questions are held against, in seconds."""

    def __post_init__(self) -> None:
        """Lists do as well as tuples."""
        object.__setattr__(self, "deadlines_s", tupled(self.deadlines_s))
