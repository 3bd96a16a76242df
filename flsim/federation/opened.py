"""A node's reply, opened at the server: nothing of it is believed that was not looked at.

In a simulation the workers judge replies, and they are the run's own. A node is somebody else's, so the server judges
each reply itself, against what it sent. Nothing in a reply is ever unpickled: tensors are NumPy's plain format, and the
rest numbers, texts and JSON.
"""

import math
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

import flsim.flower.messages as wire
from flsim.devices import device_at, device_name
from flsim.federation.envelope import Left, left_of
from flsim.flower.contract import Weight
from flsim.flower.work import closed
from flsim.learning.exact_sum import ExactSum
from flsim.models.adapter import Adapter

_KNOWN = {
    wire.ARRAYS: ArrayRecord,
    wire.METRICS: MetricRecord,
    wire.ROWS: ConfigRecord,
    wire.SHARED: ConfigRecord,
    wire.ENGINE: ConfigRecord,
}
_AWAY = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
_CRASHED = (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.CLIENT_APP_CRASHED, ErrorCode.LOAD_CLIENT_APP_EXCEPTION)
_LONGEST = 500  # letters of a node's text that stand in the log


@dataclass(frozen=True)
class Opened:
    """A reply as the round loop takes it, and what came with it."""

    reply: Message
    """To the message as the strategy made it."""
    left: Left
    """Nothing, if the reply is an error."""


def opened(sent: Message, reply: Message, expected: Adapter | None, weight: Weight | None, total: ExactSum) -> Opened:
    """Judge a reply.

    Args:
        sent: the message as the strategy made it, to the device.
        reply: as it came, from the node.
        expected: of a training message what is wanted back, as it was sent; None of any other.
        weight: if given, the delta of a training reply is added to `total`, and its tensors are dropped.
        total: the sum.
    """
    if reply.has_error():
        return Opened(_error(sent, reply), Left())
    try:
        left = left_of(reply)
        ours = Message(RecordDict(_known(reply.content)), reply_to=sent)
        _refuse_others(ours, sent)
        _refuse_state(left, sent, trains=expected is not None)
    except (ValueError, TypeError, KeyError) as error:
        return Opened(wire.error_reply(wire.MISSHAPEN, short(str(error)), sent), Left())
    seconds = wire.seconds_of(ours) or 0.0
    wire.stamp(ours, seconds=seconds if math.isfinite(seconds) and seconds >= 0 else 0.0)
    if expected is not None:
        ours = closed(sent, ours, expected, weight, total)
    return Opened(ours, Left() if ours.has_error() else left)


def short(text: str) -> str:
    """A node's text, as it may stand in a line of the log."""
    return " ".join(text.split())[:_LONGEST]


def _error(sent: Message, reply: Message) -> Message:
    """An error of the node, of its client or of the SuperLink, as one of ours."""
    code, reason = reply.error.code, short(reply.error.reason or "")
    word, _, detail = reason.partition(": ")
    if code in _AWAY:
        return wire.error_reply(wire.DIED, f"its SuperNode went away ({reason})", sent)
    if word in wire.WORDS:
        return wire.error_reply(word, detail, sent)
    return wire.error_reply(wire.RAISED, reason, sent) if code in _CRASHED else Message(reply.error, reply_to=sent)


def _known(content: RecordDict) -> dict[str, ArrayRecord | MetricRecord | ConfigRecord]:
    """The records that the run knows, and no other ones."""
    for name, kind in _KNOWN.items():
        if name in content and not isinstance(content[name], kind):
            raise ValueError(f"its record {name!r} is a {type(content[name]).__name__}")
    return {name: record for name, record in content.items() if name in _KNOWN}


def _refuse_others(reply: Message, sent: Message) -> None:
    """Refuse rows that say something of another device or round, and such as are no rows."""
    device, round_ = device_name(device_at(sent.metadata.dst_node_id)), wire.round_of(sent)
    for row in wire.rows_of(reply):
        texts = (row.device, row.task, row.split, row.model, row.name)
        if not all(isinstance(text, str) for text in texts) or row.device != device or row.round != round_:
            raise ValueError(f"it has rows that are not of {device} in round {round_}")
        if not all(isinstance(number, int | float) for number in (row.total, row.weight)):
            raise ValueError(f"its row {row.name!r} holds no numbers")


def _refuse_state(left: Left, sent: Message, *, trains: bool) -> None:
    if left.saved is not None and not (trains and left.saved.round == wire.round_of(sent)):
        raise ValueError(f"it names a state of round {left.saved.round}, which it was not to leave")


def expected_of(message: Message) -> Adapter | None:
    """What a message wants back: a training message the factors that the device may learn, any other nothing."""
    return wire.expected_of(message) if message.metadata.message_type.startswith(MessageType.TRAIN) else None
