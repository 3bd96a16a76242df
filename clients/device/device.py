"""One device in one round: what it was sent, what it remembers, and how that is kept in Flower's `Context.state`."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from clients.device.counts import Counts
from clients.device.replay import Place, Replay
from flsim.budget.ledger import Account, Ledger
from flsim.cloud.journal import Journal
from flsim.cloud.protocol import Basket
from flsim.cloud.tariff import Tariff
from flsim.config.schema import BudgetConfig, CloudConfig
from flsim.devices import device_name
from flsim.learning.adam import AdamState
from flsim.models.adapter import Adapter
from flsim.problems.problem import Problem

_OPTIMIZER, _MEMORY = "optimizer", "memory"
_PLACES, _SEEN, _ANSWERS = "replay_places", "replay_seen", "replay_answers"


@dataclass
class Device:
    """A device at the start of its round; the client changes what follows `adapter` but its settings."""

    index: int
    round: int
    adapter: Adapter
    """As broadcast, completed by what is its own (see `clients/device/carried.py`)."""
    dual: float
    """lambda, kept across rounds."""
    ledger: Ledger
    """It holds the device's budget in this round, and with it tau, the share of its prompts that may ask."""
    optimizer: AdamState | None
    """Moments of one row `(1, n)`; None before the first round or when they are not kept."""
    price: float | None = None
    """The fleet's dual variable, if there is one for all: it is `dual` then, and stays what it is."""
    learns: str = "AB"
    """The factors of the adapter that it may change: `A`, `B` or `AB`."""
    proximal: float = 0.0
    """mu of FedProx's term, which pulls it back to `adapter`; 0 is none."""
    sent: list[Problem] = field(default_factory=list)
    """What it sent to the cloud in this round."""
    basket: Basket = field(default_factory=Basket)
    """What became of its questions to the cloud in this round, and what was really bought for them."""
    counts: Counts = field(default_factory=Counts)
    """What its model did in this round."""
    replay: Replay = field(default_factory=Replay)
    """Questions of the past, kept across rounds; empty where the client keeps none."""
    answers: dict[Place, str] = field(default_factory=dict)
    """What the cloud said to them, where the client keeps that, too."""
    knob: tuple[float, ...] = ()
    """What its mode of help has learned on it, kept across rounds; empty before it has."""
    share: float = 1.0
    """What help took so far of what asking whole questions would have, in `budget.unit`; kept across rounds."""
    journal: Journal = field(default_factory=lambda: Journal(None, CloudConfig()))
    """What it asked of the cloud in this round, on disk."""
    tariff: Tariff = field(default_factory=Tariff)
    """What a question costs it in this round, in every unit of its budget."""

    @property
    def name(self) -> str:
        """Its stable id."""
        return device_name(self.index)

    def keep_books(self, journal: Journal) -> None:
        """Go by the journal of this round: what was spent before it, and in earlier attempts at it, counts."""
        self.journal = journal
        self.ledger = replace(self.ledger, total=replace(journal.before), held=journal.held)


def remember(
    state: RecordDict,
    index: int,
    round_: int,
    adapter: Adapter,
    *,
    budget: BudgetConfig,
    dual: float,
    price: float | None = None,
) -> Device:
    """The device that a `Context.state` describes.

    Args:
        state: what it kept.
        index: of the device.
        round_: the round that begins.
        adapter: as broadcast.
        budget: the device's in this round.
        dual: what lambda starts from on a device that has not learned yet.
        price: the fleet's dual variable; None lets the device keep its own.
    """
    memory = state.metric_records.get(_MEMORY, MetricRecord())
    total = Account(
        calls=int(_number(memory, "calls", 0)),
        tokens=int(_number(memory, "tokens", 0)),
        money=float(_number(memory, "money", 0.0)),
        refused=int(_number(memory, "refused", 0)),
    )
    optimizer = None
    if _OPTIMIZER in state.array_records:
        arrays = state.array_records[_OPTIMIZER]
        first, second = (torch.from_numpy(arrays[key].numpy().copy()) for key in ("first", "second"))
        optimizer = AdamState(first, second, torch.tensor([float(_number(memory, "steps", 0.0))]))
    device = Device(
        index, round_, adapter, dual_of(state, first=dual, price=price), Ledger(budget, total), optimizer, price
    )
    device.knob, device.share = knob_of(state), float(_number(memory, "share", 1.0))
    if _PLACES in memory:
        device.replay = _replay_of(memory)
    if _ANSWERS in state.config_records:
        texts = json.loads(str(state.config_records[_ANSWERS]["json"]))
        device.answers = {at: text for at, text in zip(device.replay.places, texts, strict=True) if text is not None}
    return device


def dual_of(state: RecordDict, *, first: float, price: float | None) -> float:
    """The lambda that a `Context.state` holds; `first` if it holds none yet, and the fleet's price if there is one."""
    memory = state.metric_records.get(_MEMORY, MetricRecord())
    return float(_number(memory, "dual", first)) if price is None else price


def knob_of(state: RecordDict) -> tuple[float, ...]:
    """What a mode of help has learned on the device that a `Context.state` describes; empty before it has."""
    kept = state.metric_records.get(_MEMORY, MetricRecord()).get("knob", [])
    assert isinstance(kept, list)
    return tuple(float(number) for number in kept)


def keep(state: RecordDict, device: Device) -> None:
    """Write the device into its `Context.state`."""
    total = device.ledger.total.plus(device.ledger.held)
    memory: dict[str, int | float | list[int] | list[float]] = {
        "dual": device.dual,
        "calls": total.calls,
        "tokens": total.tokens,
        "money": total.money,
        "refused": total.refused,
    }
    memory |= {"knob": list(device.knob)} if device.knob else {}
    memory |= {"share": device.share} if device.share != 1 else {}
    if device.optimizer is not None:
        memory["steps"] = float(device.optimizer.steps[0])
        moments = {"first": device.optimizer.first, "second": device.optimizer.second}
        state[_OPTIMIZER] = ArrayRecord({key: Array(np.ascontiguousarray(m.numpy())) for key, m in moments.items()})
    if device.replay.seen:
        memory[_SEEN] = device.replay.seen
        memory[_PLACES] = [number for place in device.replay.places for number in place]
    if device.answers:
        texts = [device.answers.get(place) for place in device.replay.places]
        state[_ANSWERS] = ConfigRecord({"json": json.dumps(texts)})
    state[_MEMORY] = MetricRecord(memory)


def _number(memory: MetricRecord, key: str, default: float) -> float:
    value = memory.get(key, default)
    assert isinstance(value, int | float)
    return value


def _replay_of(memory: MetricRecord) -> Replay:
    numbers = memory[_PLACES]
    assert isinstance(numbers, list)
    flat = [int(number) for number in numbers]
    return Replay(list(zip(flat[::3], flat[1::3], flat[2::3], strict=True)), int(_number(memory, _SEEN, 0)))
