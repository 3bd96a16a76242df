"""What travels between server and device, to and from Flower records; the only file that spells wire keys.

A reply carries the device's whole new adapter, as Flower's own strategies and privacy mods expect, one MetricRecord
with the same keys from every device, as they insist on, and the device's rows as JSON in a ConfigRecord.
"""

import json
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter, mismatch

ARRAYS, CONFIG, METRICS, ROWS, ENGINE = "arrays", "config", "metrics", "rows", "engine"
ROUND, EVALUATE_LOCAL, REFERENCES, NUM_EXAMPLES, REWARD, SECONDS = (
    "server-round",
    "evaluate-local",
    "references",
    "num-examples",
    "reward",
    "seconds",
)
RAISED, DIED, LATE, NOT_FINITE, MISSHAPEN = "raised", "died", "late", "not_finite", "misshapen"
_UNKNOWN, _CLIENT_RAISED = 0, 2  # Flower's error codes


@dataclass(frozen=True)
class DeviceUpdate:
    """What one device sends back after a round."""

    device: int
    """Index of the device."""
    adapter: Adapter
    """Its adapter after its local steps."""
    num_examples: int
    """Prompts it learned from."""
    reward: float
    """Mean reward of its responses."""
    rows: tuple[Row, ...] = ()
    """What it measured."""


def to_arrays(adapter: Adapter) -> ArrayRecord:
    """An adapter as Flower carries it."""
    return ArrayRecord({name: Array(np.ascontiguousarray(tensor)) for name, tensor in adapter.items()})


def to_adapter(arrays: ArrayRecord) -> Adapter:
    """An adapter from a Flower record, in float32 whatever it was (FedAdam and QFedAvg return float64)."""
    return {name: np.asarray(array.numpy(), dtype=np.float32) for name, array in arrays.items()}


def round_of(message: Message) -> int:
    """The round that a message belongs to."""
    return int(_number(message.content.config_records[CONFIG][ROUND]))


def flag(message: Message, key: str) -> bool:
    """A yes-or-no instruction; absent means no."""
    return bool(message.content.config_records[CONFIG].get(key, False))


def adapter_of(message: Message) -> Adapter:
    """The adapter that a message carries."""
    return to_adapter(arrays_of(message))


def arrays_of(message: Message) -> ArrayRecord:
    """The tensors that a message carries, as Flower has them."""
    return message.content.array_records[ARRAYS]


def size_of(message: Message) -> int:
    """Bytes of those tensors on the wire."""
    return sum(len(array.data) for array in arrays_of(message).values())


def stamp(message: Message, seconds: float) -> None:
    """Note on a reply how long the device took."""
    message.content[ENGINE] = ConfigRecord({SECONDS: seconds})


def seconds_of(message: Message) -> float | None:
    """What `stamp` noted, or None."""
    record = message.content.config_records.get(ENGINE)
    return None if record is None else _number(record[SECONDS])


def instruction(arrays: ArrayRecord, *, round_: int, references: bool = False) -> RecordDict:
    """The content of an evaluation message."""
    return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({ROUND: round_, REFERENCES: references})})


def train_reply(update: DeviceUpdate, reply_to: Message) -> Message:
    """The reply to a training message."""
    metrics = MetricRecord({NUM_EXAMPLES: update.num_examples, REWARD: update.reward})
    content = RecordDict({ARRAYS: to_arrays(update.adapter), METRICS: metrics, ROWS: _rows_record(update.rows)})
    return Message(content, reply_to=reply_to)


def evaluate_reply(rows: tuple[Row, ...], num_examples: int, reply_to: Message) -> Message:
    """The reply to an evaluation message."""
    metrics = MetricRecord({NUM_EXAMPLES: num_examples})
    return Message(RecordDict({METRICS: metrics, ROWS: _rows_record(rows)}), reply_to=reply_to)


def error_reply(reason: str, detail: str, reply_to: Message) -> Message:
    """A reply that says why there is no result: `reason` is one word, `detail` is for people."""
    code = _CLIENT_RAISED if reason == RAISED else _UNKNOWN
    return Message(Error(code, f"{reason}: {detail}"), reply_to=reply_to)


def reason_of(message: Message) -> tuple[str, str]:
    """The (word, detail) of an error reply."""
    word, _, detail = (message.error.reason or "").partition(": ")
    return word, detail


def update_of(message: Message) -> DeviceUpdate:
    """Read a training reply; the device is the node that sent it."""
    metrics = message.content.metric_records[METRICS]
    return DeviceUpdate(
        device_of(message),
        adapter_of(message),
        int(_number(metrics[NUM_EXAMPLES])),
        _number(metrics.get(REWARD, 0.0)),
        rows_of(message),
    )


def device_of(message: Message) -> int:
    """The device that a reply comes from: node ids are device indices plus one (0 is no node id in Flower)."""
    return int(message.metadata.src_node_id) - 1


def rows_of(message: Message) -> tuple[Row, ...]:
    """The rows of a reply; none if the client sent none."""
    if ROWS not in message.content:
        return ()
    return tuple(Row(*values) for values in json.loads(str(message.content.config_records[ROWS]["json"])))


def complaint(message: Message, like: Adapter) -> tuple[str, str] | None:
    """Why a training reply cannot be used, as (word, detail), or None if it can."""
    if message.has_error():
        return reason_of(message)
    if ARRAYS not in message.content or METRICS not in message.content:
        return MISSHAPEN, f"the reply must hold {ARRAYS!r} and {METRICS!r}, it holds {sorted(message.content)}"
    try:
        adapter = adapter_of(message)
        rows_of(message)
    except (TypeError, ValueError) as error:
        return MISSHAPEN, f"its arrays or rows cannot be read: {error}"
    wrong = mismatch(adapter, like)
    if wrong is not None:
        return MISSHAPEN, wrong
    broken = [name for name, tensor in adapter.items() if not np.isfinite(tensor).all()]
    if broken:
        return NOT_FINITE, f"{len(broken)} of {len(adapter)} tensors hold NaN or infinity, first {broken[0]}"
    return None


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number in a message, found {value!r}")
    return float(value)


def _rows_record(rows: tuple[Row, ...]) -> ConfigRecord:
    values = [[r.round, r.device, r.task, r.split, r.model, r.name, r.total, r.weight] for r in rows]
    return ConfigRecord({"json": json.dumps(values)})
