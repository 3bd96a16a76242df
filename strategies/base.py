"""The comfortable way to write a strategy: Flower's hooks are written once, and one method is left to write.

    class Mean(DeltaStrategy):
        def aggregate(self, adapter, updates):
            mean = {name: sum(u.delta[name] for u in updates) / len(updates) for name in adapter}
            return {name: adapter[name] + mean[name] for name in adapter}

Updates come sorted by device and without the ones that failed or hold NaN, so a sum is the same in every run.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

import flsim.flower.messages as wire
from flsim.aggregation.pairs import Pairs, pairs_of
from flsim.config.model import LoraShape
from flsim.config.schema import Config, ConfigError
from flsim.config.system import BUFFERED, FIRST
from flsim.devices import device_at, node_of
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.contract import Weight, attributes
from flsim.flower.messages import Measures
from flsim.flower.returned import next_adapter
from flsim.models.adapter import Adapter, cropped, factor_of, only, widened
from strategies.parts.samplers import Everyone, HearsTheTime, MeetsTheRun, Observes, Sampler
from strategies.parts.weighters import ByExamples


@dataclass(frozen=True)
class Update(Measures):
    """What one device's round did."""

    sent: Adapter
    """What it started from: the tensors that it was to learn and send back, as it was sent them."""
    adapter: Adapter
    """The same tensors after its round."""
    shape: LoraShape | None = None
    """Its rank and alpha; None outside a run."""
    fade: float | None = None
    """How much its move counts, of an update that began with an earlier version than the present one; else None. Only
    strategies that go by products see such updates as they are (`DeltaStrategy.by_products`)."""

    @cached_property
    def delta(self) -> Adapter:
        """`adapter - sent`, by tensor name, as far as it counts."""
        return {name: self._move(name) for name in self.adapter}

    @property
    def extras(self) -> Adapter:
        """The part of `delta` that is no LoRA: how what is learned beside it moved; mostly empty."""
        return {name: self._move(name) for name in self.adapter if not factor_of(name)}

    def products(self, server: Pairs) -> Iterator[tuple[float, Pairs]]:
        """Its product as a sum of terms: `B A`, or, of an earlier version, `P + s (B A - B_v A_v)`.

        Args:
            server: P, the server's present product.
        """
        if self.fade is None:
            yield 1.0, pairs_of(self.adapter, self.scale)
            return
        yield 1.0, server
        yield self.fade, pairs_of(self.adapter, self.scale)
        yield -self.fade, pairs_of(self.sent, self.scale)

    def _move(self, name: str) -> NDArray[np.float32]:
        whole = self.adapter[name] - self.sent[name]
        return whole if self.fade is None else np.float32(self.fade) * whole

    @property
    def scale(self) -> float:
        """Alpha / r, by which its product of factors counts; 1 outside a run."""
        return 1.0 if self.shape is None else self.shape.scale


@dataclass(frozen=True)
class InRound:
    """One round, from what was sent to what the aggregation said of it; the next one begins with a new one."""

    number: int = 0
    adapter: Adapter = field(default_factory=dict)
    """The server's."""
    sent: Mapping[LoraShape | None, Adapter] = field(default_factory=dict)
    """What is expected back from devices of each shape, as it was sent."""
    shares: Mapping[int, float] = field(default_factory=dict)
    cut_energy: float | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)


class DeltaStrategy(Strategy):
    """A Flower strategy whose one question is how the devices' updates become the next adapter.

    What a subclass keeps on itself between rounds is saved with every checkpoint and restored on resume (`state_dict`).
    """

    carries = "AB"
    """The factors that travel: `A`, `B`, `AB`, or none; devices keep the others for themselves."""
    learns = "AB"
    """The factors that devices learn."""
    fresh_optimizer = False
    """Whether devices forget their optimizer's moments before every round."""
    by_products = False
    """Whether it goes by products of factors, so that an update of an earlier version is no sum of factors with the
    present one, but a difference of products: it then gets such updates with their `fade`."""
    unequal_ranks = False
    """Whether it takes updates of unequal ranks; if not, a fleet that has them is refused."""

    sampler: Sampler = Everyone()
    """Which of the round's cohort learn."""
    weighter: Weight = ByExamples()
    """How much say a device has, for strategies that weigh."""
    _config: Config | None = None
    _round = InRound()

    def __init__(self, *, weighter: Weight | None = None, sampler: Sampler | None = None) -> None:
        """Choose the parts.

        Args:
            weighter: how much say a device has, such as `strategies.parts.weighters:Uniform`; None goes by examples.
            sampler: which of the round's cohort learn; None means all of it.
        """
        if weighter is not None:
            self.weighter = weighter
        if sampler is not None:
            self.sampler = sampler

    def begin(self, config: Config) -> None:
        """Called by a run before its first round, and after a resume.

        Raises:
            ConfigError: if the devices' ranks differ and the strategy cannot take that, or a part cannot serve the run.
        """
        self._config = config
        buffered = config.system is not None and config.system.end.kind == BUFFERED
        if buffered and not isinstance(self.sampler, Everyone):
            raise ConfigError(
                f"strategy.sampler {type(self.sampler).__name__} would leave places empty where rounds are buffered, "
                f"as each asks just as many devices as have come (system.end.kind={BUFFERED}); leave it out, or let "
                f"rounds end otherwise, such as system.end.kind={FIRST}"
            )
        for part in (self.sampler, self.weighter):
            if isinstance(part, MeetsTheRun):
                part.begin(config)
        if not self.unequal_ranks and config.has_unequal_shapes:
            raise ConfigError(
                f"{type(self).__name__} takes adapters of one rank and alpha, but fleet.ranks="
                f"{list(config.fleet.ranks)}, model.rank={config.model.rank}; leave fleet.ranks out, choose a strategy "
                f"such as strategies.flex_lora:FlexLora, or set unequal_ranks = True in your own"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the attributes of the strategy, its parts among them, with what they keep.

        Neither the run's settings, which `begin` brings again, nor what belongs to the round, nor a `cached_property`:
        that is for what can be worked out again, such as a loaded model.
        """
        return {name: value for name, value in attributes(self).items() if name not in ("_config", "_round")}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Take back what a checkpoint kept; `begin` comes after it."""
        vars(self).update(kept)

    @property
    def shares(self) -> Mapping[int, float]:
        """The weight that each device had in the round's aggregation; adds up to 1, empty if nobody had any."""
        return self._round.shares

    @shares.setter
    def shares(self, shares: Mapping[int, float]) -> None:
        self._round = replace(self._round, shares=shares)

    @property
    def left_out(self) -> Mapping[int, str]:
        """The devices whose update was of no use in the round's aggregation, with the reason; they are set aside."""
        return self._round.left_out

    @left_out.setter
    def left_out(self, reasons: Mapping[int, str]) -> None:
        self._round = replace(self._round, left_out=reasons)

    @property
    def cut_energy(self) -> float | None:
        """Share of the squared norm of the round's exact aggregate that its rank left out; None if nothing is cut.

        Of layers with both sides above 256 it may be an estimate (`flsim.aggregation.low_rank.LowRank.error`).
        """
        return self._round.cut_energy

    @cut_energy.setter
    def cut_energy(self, share: float) -> None:
        self._round = replace(self._round, cut_energy=share)

    @abstractmethod
    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        """The next adapter.

        Args:
            adapter: the server's, by tensor name; devices were sent it, or what `deal` made of it.
            updates: at least one, sorted by device.

        Returns:
            Tensors of the same names and shapes.
        """

    def deal(self, adapter: Adapter, shape: LoraShape) -> Adapter:
        """What a device of this shape gets of the adapter: by default its first directions."""
        return adapter if self._config is None else cropped(adapter, shape, self._config.shape)

    def carried(self, adapter: Adapter) -> Adapter:
        """What of a device's part travels, both ways: by default the factors that `carries` names."""
        return only(adapter, self.carries)

    def in_full(self, tensors: Adapter, shape: LoraShape | None) -> Adapter:
        """Tensors of a device of this shape, filled up with zeros to the server's rank, in the server's scale."""
        return tensors if self._config is None or shape is None else widened(tensors, shape, self._config.shape)

    @property
    def shape(self) -> LoraShape | None:
        """Rank and alpha of the server's adapter; None outside a run."""
        return None if self._config is None else self._config.shape

    @property
    def scale(self) -> float:
        """Alpha / r of the server's adapter; 1 outside a run."""
        return 1.0 if self.shape is None else self.shape.scale

    @property
    def residual(self) -> Adapter | None:
        """What devices merge into their frozen base, under the adapter's names and with scale 1; None is nothing."""
        return None

    def messages(self, arrays: ArrayRecord, config: ConfigRecord, nodes: Sequence[int], kind: str) -> list[Message]:
        """The adapter to these nodes, to each in its own shape; equal shapes share one content."""
        return self._messages(self._dealt(to_adapter(arrays), nodes), config, nodes, kind)

    def _messages(
        self, dealt: Mapping[LoraShape | None, Adapter], config: ConfigRecord, nodes: Sequence[int], kind: str
    ) -> list[Message]:
        config = ConfigRecord({**config, wire.LEARNS: self.learns, wire.FRESH: self.fresh_optimizer})
        residual = self.residual
        extra = {} if residual is None else {wire.RESIDUAL: to_arrays(residual)}
        contents = {
            shape: RecordDict({wire.ARRAYS: to_arrays(self.carried(part)), **extra, wire.CONFIG: config})
            for shape, part in dealt.items()
        }
        return [Message(contents[self._shape_of(node)], node, kind) for node in nodes]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the adapter to those of the round's cohort (the devices that the grid shows) whom the sampler takes."""
        adapter = to_adapter(arrays)
        seed = 0 if self._config is None else self._config.seed
        told = {key: value for key, value in config.items() if key != wire.NOW}  # which is none of the devices' concern
        if isinstance(self.sampler, HearsTheTime):
            self.sampler.tell(cast(int | None, config.get(wire.NOW)))
        cohort = sorted(device_at(node) for node in grid.get_node_ids())
        nodes = [node_of(device) for device in self.sampler.choose(cohort, server_round, seed)]
        dealt = self._dealt(adapter, nodes)
        sent = {shape: only(self.carried(part), self.learns) for shape, part in dealt.items()}
        self._round = InRound(server_round, adapter, sent)
        return self._messages(dealt, ConfigRecord({**told, wire.ROUND: server_round}), nodes, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Turn the usable replies into updates and aggregate them; (None, None) if there are none."""
        received = sorted((m for m in replies if not m.has_error()), key=wire.device_of)
        if not received:
            return None, None
        updates = [self._update(message) for message in received]
        adapter = self._round.adapter
        new = next_adapter(self, self.aggregate(adapter, updates), like=adapter)
        return self._finish(new, [wire.measures_of(message) for message in received])

    def observe(self, measures: Sequence[Measures]) -> None:
        """Let the parts note what the round's devices reported, after their updates were aggregated; by device."""
        for part in (self.sampler, self.weighter):
            if isinstance(part, Observes):
                part.observe(measures)

    def _finish(self, new: Adapter, measures: Sequence[Measures]) -> tuple[ArrayRecord, MetricRecord]:
        self.observe(measures)
        return to_arrays(new), _reward_of(measures)

    def _update(self, message: Message) -> Update:
        parts: dict[str, Any] = vars(wire.measures_of(message))
        shape, learned = self._shape_of(message.metadata.src_node_id), wire.adapter_of(message)
        stale = wire.stale_of(message)
        if stale is not None and self.by_products:
            begun, fade = stale
            return Update(**parts, sent=begun, adapter=learned, shape=shape, fade=fade)
        sent = self._sent_to(shape)
        adapter = learned if stale is None else wire.moved(sent, stale[0], learned, stale[1])
        return Update(**parts, sent=sent, adapter=adapter, shape=shape)

    def _sent_to(self, shape: LoraShape | None) -> Adapter:
        """What is expected back from devices of a shape; an earlier version may come from one that nobody has now."""
        if shape is None or shape in self._round.sent:
            return self._round.sent[shape]
        return only(self.carried(self.deal(self._round.adapter, shape)), self.learns)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Evaluate every device that the grid shows (under `flwr run`; flsim itself evaluates the whole fleet)."""
        config = ConfigRecord({**config, wire.ROUND: server_round})
        return self.messages(arrays, config, sorted(grid.get_node_ids()), MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to learn from evaluation by default."""
        return None

    def summary(self) -> None:
        """Say which strategy runs."""
        print(type(self).__name__)

    def _dealt(self, adapter: Adapter, nodes: Sequence[int]) -> dict[LoraShape | None, Adapter]:
        """What each shape among these nodes gets of the adapter."""
        shapes = dict.fromkeys(self._shape_of(node) for node in nodes)
        return {shape: adapter if shape is None else self.deal(adapter, shape) for shape in shapes}

    def _shape_of(self, node: int) -> LoraShape | None:
        return None if self._config is None else self._config.shape_of(device_at(node))


def _reward_of(measures: Sequence[Measures]) -> MetricRecord:
    """The mean reward over examples."""
    examples = sum(one.num_examples for one in measures)
    return MetricRecord({wire.REWARD: sum(one.num_examples * one.reward for one in measures) / max(1, examples)})
