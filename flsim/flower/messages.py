"""What travels between server and device, to and from Flower records; the only file that spells wire keys.

A reply carries the device's whole new adapter, as Flower's own strategies and privacy mods expect, one MetricRecord
with the same keys from every device, as they insist on, and the device's rows as JSON in a ConfigRecord. The engine
adds a record of its own: how long the device took and how many bytes of tensors it sent, which stays when the tensors
themselves are summed up on the worker.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from flsim.budget.fleet import Allotment
from flsim.devices import device_at
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.learning.exact_sum import LARGEST, in_runs
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter, mismatch, only
from flsim.problems.problem import Problem

ARRAYS, BEGUN, RESIDUAL, CONFIG, METRICS, ROWS, SHARED, ENGINE = (
    "arrays",
    "begun-with",
    "residual",
    "config",
    "metrics",
    "rows",
    "shared",
    "engine",
)


ROUND, EVALUATE_LOCAL, REFERENCES, LEARNS, FRESH, PROXIMAL, DYNAMIC = (
    "server-round",
    "evaluate-local",
    "references",
    "learns",
    "fresh-optimizer",
    "proximal-mu",  # Flower's own name
    "dynamic-alpha",
)


PURCHASES = "purchases"  # in a context's `node_config`: the folder of what the device asks of the cloud


NUM_EXAMPLES, EFFECTIVE_GROUPS, REWARD, LOSS, SECONDS, VIRTUAL_SECONDS, FADE, BYTES = (
    "num-examples",
    "effective-groups",
    "reward",
    "train_loss",  # what Flower's QFedAvg asks for
    "seconds",
    "virtual-seconds",
    "fade",
    "bytes",
)


NOW = "virtual-microseconds"  # in the instructions that a strategy is handed: what time it is in the run


_ALLOTMENT = {  # field of an allotment -> its key in a message's config
    "tau": "budget-tau",
    "test_tau": "test-tau",
    "calls": "allotment-calls",
    "tokens": "allotment-tokens",
    "money": "allotment-money",
    "price": "fleet-price",
}


RAISED, DIED, LATE, NOT_FINITE, MISSHAPEN = "raised", "died", "late", "not_finite", "misshapen"


LEFT, STALE = "left", "stale"  # in virtual time: it went away before it was done; too many versions had gone by


REFUSED = "refused"  # the client, or a mod around it, answered with an error of its own


UNSUMMABLE = "unsummable"  # its weight, a value or a weighted value is beyond what an exact sum takes


MISCOUNTED = "miscounted"  # what it says of itself is no count that anybody could be weighed by


LOST = "lost"  # in a federation: its node lacks the state that it is to go on from, or has another device


WORDS = frozenset({RAISED, DIED, LATE, NOT_FINITE, MISSHAPEN, UNSUMMABLE, MISCOUNTED, LOST})
"""What error replies of `error_reply` begin with."""


MOST_EXAMPLES = 10**9
"""Most examples that a device may claim to have learned from in a round."""


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
    effective_groups: int | None = None
    """Prompts whose responses differed in advantage, so that they taught something; None counts all."""
    shared: tuple[Problem, ...] = ()
    """Questions that it sent to the cloud in this round, if it lets the server see them."""


@dataclass(frozen=True)
class Measures:
    """What a device's training reply says besides its tensors: enough to weigh it."""

    device: int
    """Index of the device."""
    num_examples: int
    """Prompts that it learned from."""
    effective_groups: int
    """Prompts among them whose group of responses had a non-zero advantage."""
    reward: float
    """Mean reward of its responses; 0 where a stock client gives none."""
    seconds: float | None = field(default=None, kw_only=True)
    """Virtual seconds that its round took; None where there is no `system`, and on the workers, who know of none."""


class UnusableReplyError(ValueError):
    """Why a training reply cannot be used: `word` is one word, `detail` is for people."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(f"{word}: {detail}")
        self.word = word
        self.detail = detail


def round_of(message: Message) -> int:
    """The round that a message belongs to."""
    return int(_number(message.content[CONFIG][ROUND]))


def flag(message: Message, key: str) -> bool:
    """A yes-or-no instruction; absent means no."""
    return bool(message.content[CONFIG].get(key, False))


def adapter_of(message: Message) -> Adapter:
    """The adapter that a message carries."""
    return to_adapter(arrays_of(message))


def adapters_of(messages: Sequence[Message]) -> list[Adapter]:
    """The adapters of a pack; messages that share their tensors get one and the same object, read once."""
    read: dict[tuple[int, ...], Adapter] = {}
    adapters = []
    for message in messages:
        key = tuple(id(array) for array in arrays_of(message).values())
        adapters.append(read[key] if key in read else read.setdefault(key, adapter_of(message)))
    return adapters


def arrays_of(message: Message) -> ArrayRecord:
    """The tensors that a message carries, as Flower has them."""
    arrays = message.content[ARRAYS]
    if not isinstance(arrays, ArrayRecord):
        raise TypeError(f"expected tensors under {ARRAYS!r} in a message, found {type(arrays).__name__}")
    return arrays


def size_of(message: Message) -> int:
    """Bytes of all tensors that a message carries."""
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())


def expected_of(message: Message) -> Adapter:
    """What a training message wants back, as it was sent and to be read only: the factors that the device may learn."""
    return only(to_adapter(arrays_of(message), copy=False), learns_of(message))


def learns_of(message: Message) -> str:
    """The factors that a device is to learn: `A`, `B` or `AB`, which is also the default."""
    return str(message.content[CONFIG].get(LEARNS, "AB"))


def proximal_of(message: Message) -> float:
    """Mu of FedProx's term `mu / 2 ||x - x_sent||^2`; 0 if the strategy does not ask for it."""
    return _number(message.content[CONFIG].get(PROXIMAL, 0.0))


def dynamic_of(message: Message) -> float:
    """Alpha of FedDyn's terms `alpha / 2 ||x - x_sent||^2 - <h, x>`; 0 if the strategy does not ask for them."""
    return _number(message.content[CONFIG].get(DYNAMIC, 0.0))


def residual_of(message: Message) -> ArrayRecord | None:
    """What is to be merged into the base for this round, under the adapter's own names and with scale 1, or None."""
    record = message.content.get(RESIDUAL)
    return record if isinstance(record, ArrayRecord) else None


def with_content(message: Message, content: RecordDict) -> Message:
    """The same message with another content; the message itself stays as it is."""
    other = copy.copy(message)
    other.content = content
    return other


def own_copy(message: Message) -> Message:
    """A message whose records may be changed without changing those of messages that share its content."""
    records = {name: record.copy() for name, record in message.content.items()}
    return with_content(message, RecordDict(records))


def with_allotment(message: Message, own: Allotment) -> Message:
    """The same message with a device's part of the fleet's budget in its config; the tensors stay shared."""
    given = {key: getattr(own, name) for name, key in _ALLOTMENT.items() if getattr(own, name) is not None}
    config = ConfigRecord({**message.content.config_records[CONFIG], **given})
    return with_content(message, RecordDict({**message.content, CONFIG: config}))


def allotment_of(message: Message) -> Allotment:
    """The device's part of the fleet's budget; empty if the message says nothing of it."""
    config = message.content[CONFIG]
    given = {name: config[key] for name, key in _ALLOTMENT.items() if key in config}
    return Allotment(**given)  # type: ignore[arg-type]  # numbers, as `with_allotment` wrote them


def stamp(message: Message, *, seconds: float, size: int | None = None) -> None:
    """Note on a reply how long the device took, and how many bytes of tensors it sent; None counts what is there."""
    if not message.has_error():
        own = size_of(message) if size is None else size
        message.content[ENGINE] = ConfigRecord({SECONDS: seconds, BYTES: own})


def with_begun(reply: Message, begun: ArrayRecord) -> Message:
    """The same reply with what its device began with beside what it learned, for one that comes versions later."""
    return with_content(reply, RecordDict({**reply.content, BEGUN: begun}))


def mark_stale(reply: Message, *, fade: float) -> None:
    """Say on a reply that versions have gone by since its device began, and how much its move still counts."""
    stamped = reply.content.config_records.get(ENGINE, ConfigRecord())
    reply.content[ENGINE] = ConfigRecord({**stamped, FADE: fade})


def stale_of(message: Message) -> tuple[Adapter, float] | None:
    """What the device of a reply began with, and how much its move counts; None if that is the present version."""
    fade = _stamped(message, FADE)
    return None if fade is None else (to_adapter(message.content.array_records[BEGUN]), fade)


def moved(sent: Adapter, begun: Adapter, learned: Adapter, fade: float) -> Adapter:
    """`x_now + s (y - x_v)`: what a device that began with x_v and learned y would have made of x_now.

    Args:
        sent: x_now, what such a device would be sent at present.
        begun: x_v.
        learned: y.
        fade: s.
    """
    return {name: (sent[name] + fade * (tensor - begun[name])).astype(tensor.dtype) for name, tensor in learned.items()}


def stamp_virtual(message: Message, seconds: float) -> None:
    """Note on a reply how long its device took in virtual time, for strategies whose parts go by that."""
    stamped = message.content.config_records.get(ENGINE, ConfigRecord())
    message.content[ENGINE] = ConfigRecord({**stamped, VIRTUAL_SECONDS: seconds})


def seconds_of(message: Message) -> float | None:
    """The seconds that `stamp` noted, or None."""
    return _stamped(message, SECONDS)


def uplink_of(message: Message) -> int:
    """The bytes of tensors that the device sent, even if they were summed up on the way."""
    size = _stamped(message, BYTES)
    return size_of(message) if size is None else int(size)


def measures_of(message: Message) -> Measures:
    """What the metrics of a training reply say; a stock client's may be silent on all but the number of examples."""
    metrics = message.content[METRICS]
    examples = int(_number(metrics[NUM_EXAMPLES]))
    effective = int(_number(metrics.get(EFFECTIVE_GROUPS, examples)))
    reward = _number(metrics.get(REWARD, 0.0))
    return Measures(device_of(message), examples, effective, reward, seconds=_stamped(message, VIRTUAL_SECONDS))


def instruction(arrays: ArrayRecord, *, round_: int, references: bool = False) -> RecordDict:
    """The content of an evaluation message."""
    return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({ROUND: round_, REFERENCES: references})})


def train_reply(update: DeviceUpdate, reply_to: Message) -> Message:
    """The reply to a training message."""
    effective = update.num_examples if update.effective_groups is None else update.effective_groups
    metrics = MetricRecord(
        {
            NUM_EXAMPLES: update.num_examples,
            EFFECTIVE_GROUPS: effective,
            REWARD: update.reward,
            LOSS: max(0.0, 1.0 - update.reward),
        }
    )
    content = RecordDict({ARRAYS: to_arrays(update.adapter), METRICS: metrics, ROWS: _rows_record(update.rows)})
    if update.shared:
        content[SHARED] = ConfigRecord({"json": json.dumps([astuple(problem) for problem in update.shared])})
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
    """The (word, detail) of an error reply; an error that is not of `error_reply` is `refused`, with all it says."""
    reason = message.error.reason or ""
    word, _, detail = reason.partition(": ")
    return (word, detail) if word in WORDS else (REFUSED, reason)


def device_of(message: Message) -> int:
    """The device that a reply comes from."""
    return device_at(message.metadata.src_node_id)


def rows_of(message: Message) -> tuple[Row, ...]:
    """The rows of a reply; none if the client sent none."""
    if ROWS not in message.content:
        return ()
    return tuple(Row(*values) for values in json.loads(str(message.content[ROWS]["json"])))


def add_rows(reply: Message, rows: tuple[Row, ...]) -> None:
    """Put rows beside those that a reply has."""
    reply.content[ROWS] = _rows_record((*rows_of(reply), *rows))


def shared_of(message: Message) -> tuple[Problem, ...]:
    """The questions that a device lets the server see; none if it sent none."""
    if SHARED not in message.content:
        return ()
    listed = (Problem(*values) for values in json.loads(str(message.content[SHARED]["json"])))
    return tuple(
        replace(problem, score_words=tuple(problem.score_words)) for problem in listed
    )  # JSON knows lists only


def usable_adapter(message: Message, like: Adapter) -> Adapter:
    """The adapter of a training reply, to be read only, if the reply can be used.

    Raises:
        UnusableReplyError: with the reason if it cannot.
    """
    if message.has_error():
        raise UnusableReplyError(*reason_of(message))
    if ARRAYS not in message.content or METRICS not in message.content:
        held = sorted(message.content)
        raise UnusableReplyError(MISSHAPEN, f"the reply must hold {ARRAYS!r} and {METRICS!r}, it holds {held}")
    try:
        adapter = to_adapter(arrays_of(message), copy=False)
        rows_of(message)
        shared_of(message)
    except (TypeError, ValueError) as error:
        raise UnusableReplyError(MISSHAPEN, f"its arrays, rows or shared questions cannot be read: {error}") from error
    wrong = mismatch(adapter, like)
    if wrong is not None:
        raise UnusableReplyError(MISSHAPEN, wrong)
    if not all(_largest(numbers) <= LARGEST for numbers in in_runs(adapter.values())):  # nor where there is a NaN
        raise _unsummable(adapter)
    for key in (NUM_EXAMPLES, EFFECTIVE_GROUPS):
        count_of(message, key)
    reward = message.content[METRICS].get(REWARD, 0.0)
    if isinstance(reward, float) and not math.isfinite(reward):
        raise UnusableReplyError(MISCOUNTED, f"{REWARD!r} is {reward}; it must be finite")
    return adapter


def count_of(message: Message, key: str = NUM_EXAMPLES) -> float | None:
    """A count that a reply gives in its metrics, such as the weight that a stock strategy takes; None if it gives none.

    Raises:
        UnusableReplyError: if it is no number, not finite, negative, or beyond `MOST_EXAMPLES`.
    """
    metrics = message.content.get(METRICS)
    count = None if metrics is None else metrics.get(key)
    if count is None:
        return None
    if not isinstance(count, int | float) or not 0 <= count <= MOST_EXAMPLES:
        raise UnusableReplyError(MISCOUNTED, f"{key!r} is {count!r}; it must be a number in [0, {MOST_EXAMPLES:,}]")
    return float(count)


def _unsummable(adapter: Adapter) -> UnusableReplyError:
    """What is wrong with an adapter of which not all numbers can be summed."""
    most = {name: _largest(tensor) for name, tensor in adapter.items()}
    broken = [name for name, value in most.items() if not math.isfinite(value)]
    if broken:
        few = f"{len(broken)} of {len(adapter)} tensors hold NaN or infinity, first {broken[0]}"
        return UnusableReplyError(NOT_FINITE, few)
    name, value = next((name, value) for name, value in most.items() if value > LARGEST)
    return UnusableReplyError(UNSUMMABLE, f"{name} holds {value:.2g}; up to {LARGEST:.2g} can be summed")


def _largest(tensor: NDArray[np.float32]) -> float:
    """The largest magnitude, or NaN where there is one; without a copy of the magnitudes."""
    return float(np.maximum(-tensor.min(initial=0.0), tensor.max(initial=0.0)))


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number in a message, found {value!r}")
    return float(value)


def _stamped(message: Message, key: str) -> float | None:
    record = message.content.get(ENGINE)
    return None if record is None or key not in record else _number(record[key])


def _rows_record(rows: tuple[Row, ...]) -> ConfigRecord:
    values = [[r.round, r.device, r.task, r.split, r.model, r.name, r.total, r.weight] for r in rows]
    return ConfigRecord({"json": json.dumps(values)})
