"""Whole rounds and evaluations of `flsim benchmark gpu`, and whether a card finds the rows that a processor finds.

A round is one step of DA-GRPO on the built-in tasks, with texts, verdicts, requests and notes; an evaluation is the
test after it. The model has random weights of a shape that is measured and the built-in tokenizer, so nothing ends
before its last token, but for a request by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clients.da_grpo import DaGrpo
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack
from experiments.benchmark.card.case import LORA, Case
from experiments.benchmark.card.our_side import NEVER
from experiments.benchmark.devices import DEMO, TOKEN, fresh_pack
from flsim.cloud.make import make_cloud
from flsim.config.load import load_config
from flsim.metrics.rows import TIMING_NAMES, Row
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel
from flsim.models.folder import HELP, build_tokenizer
from flsim.models.help_request import HelpRequest
from flsim.models.stacked_lora import StackedLora
from flsim.tasks.stream import stream_of

_PLAIN = (*TOKEN, "cloud.kind=oracle", "stream.quantity_sigma=0")
_TESTS = 2  # prompts of each task
Key = tuple[str, str, str, str, str]  # device, task, split, model, name


class Rounds:
    """K devices of one pack, with a model of a case's shape."""

    def __init__(self, case: Case, devices: int, *, graphs: bool) -> None:
        self._case, self._devices = case, devices
        given = [f"fleet.devices={devices}", f"model.max_new_tokens={case.new_tokens}"]
        config = load_config(DEMO, [*_PLAIN, *given, f"evaluation.prompts_per_task={_TESTS}"])
        model, tokenizer = case.model(), build_tokenizer()
        help_ = HelpRequest(HELP, (tokenizer.get_vocab()[HELP],))
        base = BaseModel(model, tokenizer, tokenizer.pad_token_id, NEVER, help_, cuda_graphs=graphs)
        first = initial_adapter(model, LORA, 0)
        lora = StackedLora(model, first, LORA.shape.scale)
        self._world = World(config, base, lora, make_cloud(config.cloud), stream_of(config), first)
        self._learner = DaGrpo(**_settings_of(config.client), **self._step())

    def _step(self) -> dict[str, Any]:
        case = self._case
        sizes = {"prompts": case.prompts, "group_size": case.group_size, "max_new_tokens": case.new_tokens}
        return {**sizes, "steps": 1, "micro_batch": case.micro_batch}

    def once(self) -> tuple[float, float]:
        """Seconds of a round, and of an evaluation with adapters of the devices' own."""
        world, indices = self._world, range(self._devices)
        devices = fresh_pack(world, world.first, indices)
        _, in_round = self._case.timed(lambda: self._learner.local_update(world, devices))
        own = [dict(world.first) for _ in indices]
        _, in_test = self._case.timed(lambda: evaluate_pack(world, indices, own, model="global", round_=1))
        return in_round, in_test


def _settings_of(client: dict[str, Any]) -> dict[str, Any]:
    """A config's client without what the benchmark sets itself."""
    own = ("path", "steps", "prompts", "group_size", "max_new_tokens", "micro_batch")
    return {name: value for name, value in client.items() if name not in own}


@dataclass(frozen=True)
class RowsAgree:
    """How the rows of a card differ from those of a processor."""

    rows: int
    """That both have."""
    equal: int
    """In every bit."""
    largest: float
    """Difference of a total or weight, in parts of the larger of the two."""
    where: str
    """The measure of that row."""
    alike: bool
    """Whether both have rows of the same devices, tasks and measures."""


def rows_agree(place: str, devices: int) -> RowsAgree:
    """A small round of the demo in float32, two steps of three prompts and a test, on a processor and at `place`."""
    here, there = _rows("cpu", devices), _rows(place, devices)
    both = sorted(here.keys() & there.keys())
    apart = {key: max(map(_apart, here[key], there[key])) for key in both}
    worst = max(both, key=lambda key: apart[key])
    equal = sum(here[key] == there[key] for key in both)
    return RowsAgree(len(both), equal, apart[worst], worst[-1], here.keys() == there.keys())


def _rows(place: str, devices: int) -> dict[Key, tuple[float, float]]:
    small = (f"fleet.devices={devices}", "model.max_new_tokens=9", f"engine.gpus={int(place == 'cuda')}")
    config = load_config(DEMO, [*_PLAIN, *small, f"evaluation.prompts_per_task={_TESTS}"])
    learner = DaGrpo(**_settings_of(config.client), steps=2, prompts=3, group_size=4, max_new_tokens=9)
    world: World = load_world(config, extras=learner.extras)
    updates = learner.local_update(world, fresh_pack(world, world.first, range(devices)))
    adapters = [update.adapter for update in updates]
    tested = evaluate_pack(world, range(devices), adapters, model="own", round_=1)
    return _by_key([row for update in updates for row in update.rows] + [row for rows in tested for row in rows])


def _by_key(rows: Sequence[Row]) -> dict[Key, tuple[float, float]]:
    kept = [row for row in rows if row.name not in TIMING_NAMES]
    return {(row.device, row.task, row.split, row.model, row.name): (row.total, row.weight) for row in kept}


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0
