"""What a worker loads once and every client on it shares: base model, adapter slots, cloud, stream."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from clients.device.head import Head
from clients.helping.helping import ASK, Ask, Helping, Pair
from clients.helping.hint import Hint
from flsim.cloud.make import cache_of, fleet_cloud, make_cloud
from flsim.cloud.protocol import Cloud, asks_all_tests
from flsim.cloud.tariff import Tariff
from flsim.config.schema import CloudConfig, Config
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.base import BaseModel, Extras, load_model
from flsim.models.decoding import Prompts, encode
from flsim.models.sizes import system_of
from flsim.models.stacked_lora import StackedLora
from flsim.problems.problem import Problem
from flsim.system.asking import Asking
from flsim.system.system import System
from flsim.tasks.stream import TaskStream, stream_of
from flsim.tasks.testing import SOURCE

_TOKENS = 2**21
"""Of prompts that are kept, with their filling: about 20 MB."""


@dataclass(frozen=True)
class World:
    """The shared part of all devices; a device itself is only state."""

    config: Config
    base: BaseModel
    lora: StackedLora
    cloud: Cloud
    stream: TaskStream
    first: Adapter
    """The adapter that round 1 starts from, of the widest rank, with what devices learn beside LoRA."""
    head: Head | None = None
    """How devices look at their own drafts; None if they do not."""
    surprise: float = 0.0
    """kappa, by which the surprise of a device's draft raises its help request; 0 does not."""
    helping: Helping = ASK
    """How a device that asks is helped."""
    system: System | None = None
    """What devices take in virtual time; None in a run without."""

    @property
    def seed(self) -> int:
        """Root of the random choices of training."""
        return self.config.seed

    @property
    def stream_seed(self) -> int:
        """Root of those that are the same for all seeds of training: whose the data are, and how tests are drawn."""
        return self.config.stream.seed

    @property
    def split(self) -> str:
        """What devices are measured on: `test`, or `validation`."""
        return self.config.evaluation.split

    @property
    def answer_tokens(self) -> int:
        """Longest answer of a device that is measured, the ending token included."""
        return self.config.model.answer_tokens

    @property
    def tau(self) -> float:
        """The share of its prompts that a device may send, where nobody gave it one of its own."""
        return self.config.budget.tau

    @property
    def prices(self) -> CloudConfig:
        """What a token of the cloud costs."""
        return self.config.cloud

    @property
    def hint(self) -> Hint | None:
        """How much of the cloud's answer devices are given to go on with; None where it answers for them."""
        return self.helping if isinstance(self.helping, Hint) else None

    @property
    def works_together(self) -> bool:
        """Whether help is more than a question that the cloud answers, or hints at."""
        return not isinstance(self.helping, Ask)

    @property
    def goes_on(self) -> bool:
        """Whether help begins where a device stopped that asks by words after a draft."""
        return self.helping.goes_on and self.config.model.drafts and self.head is None

    @cached_property
    def pair(self) -> Pair:
        """The two models that work together."""
        parts = self.base, self.cloud, self.answer_tokens, self.system, self.stream
        return Pair(*parts, calibration=SOURCE[self.split])

    @property
    def words_questions(self) -> bool:
        """Whether the cloud is sent other words than the question's own, which may hold a device's draft."""
        return self.prices.draft is not None or self.prices.hint is not None

    @property
    def asks_all_tests(self) -> bool:
        """Whether all test prompts are sent to the cloud, granted or not; only those that it answers by itself are."""
        return self.cloud_answers_all and not self.works_together

    @property
    def cloud_answers_all(self) -> bool:
        """Whether the cloud may be asked every test prompt."""
        return asks_all_tests(self.cloud, self.config.evaluation.cloud)

    def encoded(self, problems: Sequence[Sequence[Problem]]) -> Prompts:
        """The prompts of each device's problems as tokens; those that are met again, as at every test, are kept."""
        key = tuple(tuple(row) for row in problems)
        found = self._encoded.pop(key, None)  # what was met last comes last
        self._encoded[key] = encode(self.base, self.base.prompts(problems)) if found is None else found
        while len(self._encoded) > 1 and sum(kept.ids.numel() for kept in self._encoded.values()) > _TOKENS:
            del self._encoded[next(iter(self._encoded))]
        return self._encoded[key]

    @cached_property
    def _encoded(self) -> dict[tuple[tuple[Problem, ...], ...], Prompts]:
        """By the problems, which say all: base and wording are always the same."""
        return {}

    @cached_property
    def _asking(self) -> Asking | None:
        system, shape = self.config.system, None if self.system is None else self.system.shape
        return None if system is None else Asking(system, self.config.stream.seed, shape)

    def tariff(self, device: int, round_: int) -> Tariff:
        """What a question costs a device in a round."""
        follows = self.config.budget.follows_trips
        return Tariff(self.prices, follows, self._asking if follows else None, device, round_)

    def scales(self, devices: Sequence[int], ranks: Sequence[int]) -> list[float]:
        """The scale of each device, by its own alpha and the rank of the adapter that it holds."""
        shapes = ((self.config.shape_of(device), rank) for device, rank in zip(devices, ranks, strict=True))
        return [replace(shape, rank=rank).scale for shape, rank in shapes]


def load_world(
    config: Config,
    cloud: Cloud | None = None,
    extras: Extras | None = None,
    head: Head | None = None,
    surprise: float = 0.0,
    helping: Helping = ASK,
) -> World:
    """Load everything; seconds for the built-in models.

    Args:
        config: of the run.
        cloud: what the devices ask; None makes the one that `config.cloud` names.
        extras: what they learn beside LoRA; None is nothing.
        head: how they look at their own drafts; None if they do not.
        surprise: by which the surprise of a draft raises the help request; 0 does not.
        helping: how one is helped that asks; of what `cloud.hint` asks for, a device is given all.
    """
    if isinstance(helping, Hint) and config.cloud.hint is not None:
        helping = replace(helping, share=1.0)
    asked = make_cloud(config.cloud) if cloud is None else cloud
    place = "cuda" if config.engine.gpus > 0 else "cpu"
    base = load_model(config.model, place=place)
    like = initial_adapter(base.model, config.model, config.seed, {} if extras is None else extras(base))
    lora = StackedLora(base.model, like, config.shape.scale)
    behind = fleet_cloud(asked, cache_of(config.cloud.cache), config.engine.processes)
    timed = None if config.system is None else system_of(config.system, config.model, config.stream.seed)
    return World(config, base, lora, behind, stream_of(config), like, head, surprise, helping, timed)
