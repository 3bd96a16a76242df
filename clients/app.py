"""The Flower ClientApp around a local algorithm: unwrap the messages of a pack, learn, measure, wrap the replies."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from flwr.app import ArrayRecord, Context, Message, MessageType
from flwr.client.mod.utils import make_ffn
from flwr.clientapp.typing import Mod

import flsim.flower.messages as wire
from clients.asking.rule import AskingRule
from clients.asking.simple import Never
from clients.device.carried import adapters_of, fingerprint, keep_own, opts_in, part_to_send
from clients.device.device import Device, dual_of, keep, knob_of, remember
from clients.device.head import Head
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, item_rows, own_tests, reference_rows, user_rows
from clients.helping.helping import Helping
from clients.refusals import refuse_mode, refuse_rule
from flsim.budget.fleet import narrowed
from flsim.budget.ledger import Account
from flsim.cloud.journal import TESTS, TRAINING, Journal, journal_of
from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import Cloud, RefusedError
from flsim.cloud.tariff import Tariff
from flsim.config.schema import BudgetConfig, Config
from flsim.devices import device_at, device_name
from flsim.files import UnwritableError
from flsim.flower.arrays import to_adapter
from flsim.flower.contract import CarriesMore
from flsim.flower.messages import DeviceUpdate
from flsim.flower.work import PackedClientApp
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter
from flsim.models.base import BaseModel
from flsim.seeding import seed_globals
from flsim.tasks.testing import SOURCE, is_small, is_tested
from flsim.timing import spend


class LocalAlgorithm(Protocol):
    """What one pack of devices does in a round."""

    @property
    def first_dual(self) -> float:
        """What lambda starts from on a device that has not learned yet."""
        ...

    def help_bias(self, dual: float) -> float:
        """What a device with this lambda adds to the logit of its help request."""
        ...

    @property
    def head(self) -> Head | None:
        """How devices look at their own drafts; None if they do not."""
        ...

    @property
    def surprise(self) -> float:
        """kappa, by which the surprise of a device's draft raises its help request; 0 does not."""
        ...

    @property
    def asks(self) -> AskingRule:
        """Who decides at test time when to ask, unless somebody else is named."""
        ...

    @property
    def helping(self) -> Helping:
        """How a device that asks is helped."""
        ...

    @property
    def speaks(self) -> bool:
        """Whether its responses may hold the help request."""
        ...

    @property
    def sends(self) -> bool:
        """Whether devices that learn send questions to the cloud."""
        ...

    def prompts_per_round(self, world: World, name: str) -> int:
        """How many prompts the stream of a device brings in a round."""
        ...

    def local_update(self, world: World, devices: Sequence[Device]) -> list[DeviceUpdate]:
        """Learn for one round; one update per device, and the devices changed in place."""
        ...


class DeviceApp(PackedClientApp):
    """Runs a `LocalAlgorithm` for the devices of a pack. The world is loaded once, with the first message."""

    def __init__(
        self,
        config: Config,
        algorithm: LocalAlgorithm,
        mods: Sequence[Mod] = (),
        asking: AskingRule | None = None,
        cloud: Cloud | None = None,
    ) -> None:
        """Wrap an algorithm.

        Args:
            config: of the run.
            algorithm: what a pack of devices does in a round.
            mods: Flower's mods around every training message, the first outermost, such as those of its privacy
                strategies; devices are then answered one at a time, since a mod sees a single message.
            asking: the rule by which devices ask when they are measured; None is the algorithm's own.
            cloud: what devices ask; None makes the one that `config.cloud` names.

        Raises:
            ValueError: if `asking` is no rule, or needs more of the cloud than `evaluation.cloud` lets it have.
        """
        super().__init__()
        self.cloud = make_cloud(config.cloud) if cloud is None else cloud
        asking = algorithm.asks if asking is None else asking
        refuse_rule(asking, algorithm.helping, self.cloud, config)
        asked = algorithm.sends or not isinstance(asking, Never)
        refuse_mode(algorithm.helping, self.cloud, config, asked=asked)
        self.asking = asking
        self.mods = list(mods)
        self.config = config
        self.algorithm = algorithm
        self.beside: dict[str, AskingRule] = {}
        """Rules that the devices are measured under, too, by what is then added to the model of the rows."""
        self._merged: ArrayRecord | None = None  # the residual that is in the base's weights
        self._heard: dict[tuple[int, tuple[int, ...], bytes], dict[Hashable, Any]] = {}
        """What devices were heard to say, by round, devices and adapters: of one round, with one residual."""

    def try_out(self) -> None:
        """Let the cloud find out whether its server can do what the mode of help takes.

        Raises:
            ConfigError: if it cannot (`flsim.flower.contract.TriesOut`).
        """
        self.algorithm.helping.try_out(self.cloud)

    @property
    def learns_to_ask(self) -> bool:
        """Whether asking is part of what the devices learn."""
        return bool(getattr(self.algorithm, "may_ask", False))

    @cached_property
    def world(self) -> World:
        """The worker's resident models and stream."""
        own = self.algorithm
        return load_world(self.config, self.cloud, self.extras, own.head, own.surprise, own.helping)

    @property
    def speaks(self) -> bool:
        """Whether the devices ask by words (`flsim.flower.contract.WarmsUp`)."""
        return self.algorithm.speaks

    @property
    def calibrates_on(self) -> tuple[str, str] | None:
        """The split that a rule or a mode sets a threshold on (`flsim.flower.contract.Calibrates`)."""
        rules = [rule for rule in (self.asking, *self.beside.values()) if getattr(rule, "calibration", 0)]
        who = [f"the asking rule {type(rule).__name__}" for rule in rules]
        helping = self.algorithm.helping
        who += [f"client.helping={type(helping).__name__}"] if helping.calibrates else []
        return (SOURCE[self.config.evaluation.split], who[0]) if who else None

    @property
    def held(self) -> float:
        """What devices hold of the cloud's model (`flsim.flower.contract.HoldsLayers`)."""
        return self.algorithm.helping.held(self.cloud)

    @property
    def chooses_by_time(self) -> bool:
        """Whether a mode of help does (`flsim.flower.contract.ChoosesByTime`)."""
        return self.algorithm.helping.chosen_by_time is not None

    def start_from(self, folder: str | None) -> None:
        """Take the saved adapter in a folder for the one that the run starts from."""
        if folder != self.config.model.adapter:
            self.config = replace(self.config, model=replace(self.config.model, adapter=folder))
            vars(self).pop("world", None)

    def extras(self, base: BaseModel) -> Adapter:
        """What the devices learn beside LoRA, as it is at first (`flsim.flower.contract.CarriesMore`)."""
        return self.algorithm.extras(base) if isinstance(self.algorithm, CarriesMore) else {}

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Train or evaluate a pack."""
        if messages[0].metadata.message_type == MessageType.TRAIN:
            if self.mods:
                return [self._modded(message, context) for message, context in zip(messages, contexts, strict=True)]
            return self._train(messages, contexts, self.config.budget)
        return self._evaluate(messages, contexts)

    def rehearse(self, messages: Sequence[Message], contexts: Sequence[Context]) -> None:
        """Train a pack that may not send anything to the cloud: its devices answer all their questions alone."""
        self._train(messages, contexts, replace(self.config.budget, calls_per_round=0))

    def _modded(self, message: Message, context: Context) -> Message:
        """Train one device within the mods; what they draw, such as noise, is the device's own in this round."""
        device = device_name(device_at(context.node_id))
        seed_globals(self.config.seed, "mods", device, wire.round_of(message))
        alone = make_ffn(lambda m, c: self._train([m], [c], self.config.budget)[0], self.mods)
        return alone(message, context)

    def _train(self, messages: Sequence[Message], contexts: Sequence[Context], budget: BudgetConfig) -> list[Message]:
        round_ = wire.round_of(messages[0])
        adapters = self._receive(messages, contexts)
        devices = [self._device(*parts, round_, budget) for parts in zip(messages, contexts, adapters, strict=True)]
        updates = self.algorithm.local_update(self.world, devices)
        local: list[list[Row]] = [[] for _ in devices]
        if wire.flag(messages[0], wire.EVALUATE_LOCAL):
            learned = [update.adapter for update in updates]
            taus, biases = self._test_taus(messages), [self.algorithm.help_bias(device.dual) for device in devices]
            with spend("evaluate"):
                local = self._own_rows(contexts, learned, round_=round_, taus=taus, biases=biases)
        replies = []
        for message, context, device, update, rows in zip(messages, contexts, devices, updates, local, strict=True):
            keep(context.state, device)
            keep_own(context.state, update.adapter, message)
            replies.append(wire.train_reply(self._to_send(update, device, rows, message), message))
        return replies

    def _own_rows(
        self,
        contexts: Sequence[Context],
        learned: Sequence[Adapter],
        *,
        round_: int,
        taus: Sequence[float],
        biases: Sequence[float],
    ) -> list[list[Row]]:
        """What those of a pack who are tested have learned by themselves, as rows."""
        whole = (self.config.evaluation, self.config.fleet, self.world.stream)
        places = [k for k, context in enumerate(contexts) if is_tested(*whole, device_at(context.node_id))]
        rows: list[list[Row]] = [[] for _ in contexts]
        if places:
            found = self._measured(
                [contexts[k] for k in places],
                [learned[k] for k in places],
                model="own",
                round_=round_,
                taus=[taus[k] for k in places],
                biases=[biases[k] for k in places],
            )
            for k, own in zip(places, found, strict=True):
                rows[k] = own
        return rows

    def _receive(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Adapter]:
        """The adapters of a pack, and the base with what is merged into it in this round."""
        residual = wire.residual_of(messages[0])
        if not _same(residual, self._merged):
            self.world.lora.merge(None if residual is None else to_adapter(residual))
            self._merged = residual
            self._heard = {}
        shapes = [self.config.shape_of(device_at(context.node_id)) for context in contexts]
        return adapters_of(messages, contexts, first=self.world.first, shape=self.config.shape, shapes=shapes)

    def _device(
        self, message: Message, context: Context, adapter: Adapter, round_: int, budget: BudgetConfig
    ) -> Device:
        own = wire.allotment_of(message)
        device = remember(
            context.state,
            device_at(context.node_id),
            round_,
            adapter,
            budget=narrowed(budget, own),
            dual=self.algorithm.first_dual,
            price=own.price,
        )
        device.tariff = self.world.tariff(device.index, round_)
        device.keep_books(self._journal(context, round_, TRAINING, device.ledger.total, device.tariff))
        device.learns, device.proximal = wire.learns_of(message), wire.proximal_of(message)
        if wire.flag(message, wire.FRESH):
            device.optimizer = None
        return device

    def _journal(
        self, context: Context, round_: int, kind: str, total: Account, tariff: Tariff | None = None
    ) -> Journal:
        """Of what a device asks of the cloud in a round; on disk where the engine has named a folder for it."""
        folder = context.node_config.get(wire.PURCHASES)
        place = None if folder is None else str(folder)
        parts = place, round_, kind, self.config.cloud, self.world.cloud.costs
        return journal_of(*parts, total=total, tariff=tariff)

    def _to_send(self, update: DeviceUpdate, device: Device, rows: Sequence[Row], message: Message) -> DeviceUpdate:
        """Of what a device learned, measured and asked, what goes to the server."""
        part = part_to_send(update.adapter, message)
        asked = (
            tuple(device.sent) if opts_in(self.config.fleet.opt_in, device.index, seed=self.config.stream.seed) else ()
        )
        return replace(update, device=device.index, adapter=part, rows=(*update.rows, *rows), shared=asked)

    def _evaluate(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        round_ = wire.round_of(messages[0])
        indices = [device_at(context.node_id) for context in contexts]
        adapters, taus = self._receive(messages, contexts), self._test_taus(messages)
        biases = [self._test_bias(*pair) for pair in zip(messages, contexts, strict=True)]
        references = wire.flag(messages[0], wire.REFERENCES)
        parts: dict[str, Any] = {"round_": round_, "taus": taus, "biases": biases, "references": references}
        with spend("evaluate"):
            rows = self._measured(contexts, adapters, model="global", **parts)
            if references:
                traffic = [self.algorithm.prompts_per_round(self.world, device_name(device)) for device in indices]
                facts = user_rows(self.world.stream, self.config.evaluation, indices, traffic, round_=round_)
                rows = [own + new for own, new in zip(rows, facts, strict=True)]
            elif is_small(self.world.stream, self.config.evaluation, round_):
                facts = item_rows(self.world.stream, self.config.evaluation, indices, round_=round_)
                rows = [own + new for own, new in zip(rows, facts, strict=True)]
        tested = [len(own_tests(self.world, device, round_)) for device in indices]
        return [wire.evaluate_reply(tuple(own), n, m) for own, n, m in zip(rows, tested, messages, strict=True)]

    def _measured(
        self,
        contexts: Sequence[Context],
        adapters: Sequence[Adapter],
        *,
        model: str,
        round_: int,
        taus: Sequence[float],
        biases: Sequence[float],
        references: bool = False,
    ) -> list[list[Row]]:
        """The rows of a pack under the run's rule and those beside it, with the references' or without.

        Where there are rules beside it, one that fails has no rows; whoever put them there sees to that.
        """
        found: list[list[Row]] = [[] for _ in contexts]
        devices = [device_at(context.node_id) for context in contexts]
        journals = [self._journal(context, round_, TESTS, Account()) for context in contexts]
        heard = self._heard_of(devices, adapters, round_)  # references are measured before training: frozen is global
        bare = self.config.model.adapter is not None
        knobs = [knob_of(context.state) for context in contexts]
        for tag, rule in {"": self.asking, **self.beside}.items():
            parts: dict[str, Any] = {"round_": round_, "taus": taus, "asking": rule, "journals": journals, "tag": tag}
            try:
                of: dict[str, Any] = {"model": model, "biases": biases, "knobs": knobs, "heard": heard}
                measured = [evaluate_pack(self.world, devices, adapters, **of, **parts)]
                if references:
                    measured.append(reference_rows(self.world, devices, adapters, bare=bare, heard=heard, **parts))
            except Exception as error:
                if not self.beside or isinstance(error, UnwritableError | RefusedError):
                    raise
                continue
            for rows in measured:
                for own, new in zip(found, rows, strict=True):
                    own += [replace(row, model=row.model + tag) for row in new] if tag else new
        return found

    def _heard_of(self, devices: Sequence[int], adapters: Sequence[Adapter], round_: int) -> dict[Hashable, Any]:
        """What these devices were heard to say with the same adapters in this round; to be added to.

        Where everybody keeps what it has learned by itself, the global model is the own one, which was heard before.
        """
        if any(key[0] != round_ for key in self._heard):
            self._heard = {}
        return self._heard.setdefault((round_, tuple(devices), fingerprint(adapters)), {})

    def _test_bias(self, message: Message, context: Context) -> float:
        """On the logit of a device's help request, by the lambda that it keeps or is given."""
        return self.algorithm.help_bias(
            dual_of(context.state, first=self.algorithm.first_dual, price=wire.allotment_of(message).price)
        )

    def _test_taus(self, messages: Sequence[Message]) -> list[float]:
        """The share of its test prompts that each device may send to the cloud."""
        shares = [wire.allotment_of(message).test_tau for message in messages]
        return [self.config.budget.tau if share is None else share for share in shares]


def _same(one: ArrayRecord | None, other: ArrayRecord | None) -> bool:
    """Whether two records hold the very same tensors: every pack gets the round's in a record of its own."""
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)
