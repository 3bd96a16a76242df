"""What server and nodes say beside what every message holds: of which run, whose device, and with which state.

It is a Flower ConfigRecord of its own, `federation`, so that clients and strategies see nothing of it. A state itself
never travels: its round and SHA-256 do.
"""

import math
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from flwr.app import ConfigRecord, Message, RecordDict

from flsim.files import DIGEST
from flsim.flower.store import Saved
from flsim.timing import PARTS

FEDERATION = "federation"
"""The record's name."""
_RUN, _MODEL, _DEVICE, _DEVICES = "run", "model", "device", "devices"
_ROUND, _DIGEST = "state-round", "state-digest"
_BUSY, _NAMES, _SECONDS = "busy-s", "timing-names", "timing-seconds"
_PARTITION, _PARTITIONS, _VERSION = "partition-id", "num-partitions", "flsim"
UNKNOWN = -1
"""What stands for a partition that a node does not know."""


@dataclass(frozen=True)
class Terms:
    """What the server says to a node with a message."""

    run: str
    """The run's name among all runs, as hexadecimal digits; a resume keeps it."""
    model: str
    """A fingerprint of the base model, which the node must have, too."""
    device: int
    """The index of the device that is to answer."""
    devices: int
    """Size of the fleet."""
    begins: Saved | None
    """The state that it begins with; None if it has left none."""


@dataclass(frozen=True)
class Left:
    """What a node says to the server with a reply."""

    saved: Saved | None = None
    """The state that its device left; None if it left none."""
    busy_s: float = 0.0
    """Seconds that it worked on the message."""
    parts: dict[str, float] = field(default_factory=dict)
    """How many of them each part of `flsim.timing` claims."""


@dataclass(frozen=True)
class Hello:
    """How a node introduces itself."""

    partition: int
    """Its `partition-id`, which is the index of its device, or `UNKNOWN`."""
    partitions: int
    """Its `num-partitions`, which a simulated federation knows, or `UNKNOWN`."""
    version: str
    """Of its flsim."""


def with_terms(content: RecordDict, terms: Terms) -> RecordDict:
    """The content of a message with what the server says beside it; the records stay shared."""
    said = ConfigRecord({_RUN: terms.run, _MODEL: terms.model, _DEVICE: terms.device, _DEVICES: terms.devices})
    said.update(_state(terms.begins))
    return RecordDict({**content, FEDERATION: said})


def terms_of(message: Message) -> Terms:
    """What the server said with a message.

    Raises:
        ValueError: if the message is none of this app's server.
    """
    said = _record(message)
    return Terms(
        str(said.get(_RUN)), str(said.get(_MODEL)), _count(said, _DEVICE), _count(said, _DEVICES), _saved(said)
    )


def without_terms(content: RecordDict) -> RecordDict:
    """The content as clients and strategies know it."""
    return RecordDict({name: record for name, record in content.items() if name != FEDERATION})


def with_left(content: RecordDict, left: Left) -> RecordDict:
    """The content of a reply with what the node says beside it."""
    said = ConfigRecord({_BUSY: left.busy_s, **_state(left.saved)})
    if left.parts:
        said[_NAMES], said[_SECONDS] = list(left.parts), list(left.parts.values())
    return RecordDict({**content, FEDERATION: said})


def left_of(reply: Message) -> Left:
    """What a node said with a reply; times that cannot be are none.

    Raises:
        ValueError: if it is no reply of this app's nodes.
    """
    said = _record(reply)
    busy = said.get(_BUSY, 0.0)
    names, seconds = said.get(_NAMES, []), said.get(_SECONDS, [])
    parts = {}
    if isinstance(names, list) and isinstance(seconds, list) and len(names) == len(seconds):
        parts = {str(n): _time(s) for n, s in zip(names, seconds, strict=True) if n in PARTS}
    return Left(_saved(said), _time(busy), parts)


def hello(message: Message, mine: Hello) -> Message:
    """A node's answer to the server that asks who it is."""
    said = ConfigRecord({_PARTITION: mine.partition, _PARTITIONS: mine.partitions, _VERSION: mine.version})
    return Message(RecordDict({FEDERATION: said}), reply_to=message)


def hello_of(reply: Message) -> Hello:
    """How a node introduced itself.

    Raises:
        ValueError: if it did not.
    """
    said = _record(reply)
    partition, partitions = said.get(_PARTITION), said.get(_PARTITIONS)
    if not isinstance(partition, int) or not isinstance(partitions, int):
        raise ValueError("it does not say which partition it is")
    return Hello(partition, partitions, str(said.get(_VERSION)))


def own_version() -> str:
    """Of the installed flsim; one word where a checkout is used without being installed."""
    try:
        return version("flsim-continual")
    except PackageNotFoundError:
        return "uninstalled"


def _state(saved: Saved | None) -> dict[str, int | bytes]:
    return {} if saved is None else {_ROUND: saved.round, _DIGEST: saved.digest}


def _saved(said: ConfigRecord) -> Saved | None:
    if _ROUND not in said and _DIGEST not in said:
        return None
    digest = said.get(_DIGEST)
    if not isinstance(digest, bytes) or len(digest) != DIGEST:
        raise ValueError("a state is named by no SHA-256")
    return Saved(_count(said, _ROUND), digest)


def _record(message: Message) -> ConfigRecord:
    record = message.content.get(FEDERATION)
    if not isinstance(record, ConfigRecord):
        raise ValueError(f"there is no record {FEDERATION!r} in it")
    return record


def _count(said: ConfigRecord, key: str) -> int:
    value = said.get(key)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{key!r} is {value!r}, and no count")
    return value


def _time(value: object) -> float:
    """Seconds, or 0 for what can be none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else 0.0
