"""Supervised learning of any torch module on devices' own examples, as FedAvg was tested first (McMahan et al. 2017).

    client.path=clients.supervised:Supervised client.model=flsim.models.cnn:LeafCnn client.lr=0.06

What the devices learn, all of the module or its part that wants a gradient, travels in the adapter's place: strategies,
stores, rows and comparisons are those of language models. Nobody asks the cloud.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from flwr.app import Context, Message, MessageType
from safetensors.numpy import save
from torch import Tensor, nn

import flsim.flower.messages as wire
from clients.device.carried import adapters_of, keep_own, part_to_send
from clients.device.descent import Descent, Noted, Pulls
from clients.device.examples import Examples
from clients.device.module_tests import ModuleTests
from clients.device.tutor import Pupil, Tutor
from clients.evaluate import item_rows, user_rows
from flsim.budget.fleet import narrowed
from flsim.budget.ledger import Ledger
from flsim.cloud.protocol import Basket, Cloud
from flsim.cloud.tariff import Tariff
from flsim.config.budget import refuse_unit
from flsim.config.plugins import fitted, refuse_unknown
from flsim.config.schema import Config, ConfigError
from flsim.devices import device_at, device_name
from flsim.files import write_atomically
from flsim.flower.contract import attributes
from flsim.flower.messages import DeviceUpdate
from flsim.flower.work import PackedClientApp
from flsim.metrics.rows import EVERY_TASK, Row, Subject
from flsim.models.adapter import Adapter
from flsim.models.stacked_module import StackedModule, Weights
from flsim.system.asking import Asking
from flsim.system.shapes import Shape
from flsim.tasks.module_inputs import classes_of, module_of
from flsim.tasks.stream import TaskStream, stream_of
from flsim.tasks.testing import is_small, panel
from flsim.timing import spend

OPTIMIZERS = ("sgd", "adam")
MODEL = "module.safetensors"
"""The file in a run's `adapter` folder that holds what was learned."""


@dataclass(frozen=True)
class Supervised:
    """The settings of one device's round; a fresh optimizer every round, as in FedAvg."""

    model: str = ""
    """Class of a torch module, as `module:Name` or `my_file.py:Name`, called as `Name(classes=C, **model_settings)`; it
    maps inputs to logits `(N, C)`. Shipped are `flsim.models.cnn:LeafCnn` and `flsim.models.encoder:Encoder`."""
    model_settings: dict[str, Any] = field(default_factory=dict)
    """The class's own keyword arguments."""
    epochs: int = 1
    """Passes of a round over a device's own examples of the round's tasks."""
    batch: int = 10
    """Examples of one step; the last of an epoch may have fewer."""
    lr: float = 0.06
    """Learning rate."""
    optimizer: str = "sgd"
    """`sgd`, or `adam`, which encoders want."""
    momentum: float = 0.0
    """Of `sgd`."""
    clip_norm: float | None = None
    """Largest gradient norm of a device; None does not clip."""
    teacher: str = ""
    """Class of a module in the cloud, named and called like `model`, which teaches devices under their budgets and
    answers for them at tests (`clients/device/tutor.py`); empty for none. Where its weights come from is said by its
    settings, such as `weights` of `flsim.models.encoder:Encoder`."""
    teacher_settings: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""
    hard: float = 2.0
    """Weight of the right class in the loss of an example that was taught; 0 learns from the teacher alone. The weights
    are DistilBERT's."""
    soft: float = 5.0
    """Weight of the teacher's soft targets."""
    aligned: float = 1.0
    """Weight of the cosine between hidden states, of modules that say them; 0 looks at logits alone."""
    temperature: float = 2.0
    """T of the soft targets."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.model:
            raise ValueError("model is missing: name a torch module, such as client.model=flsim.models.cnn:LeafCnn")
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr={self.lr} must be above 0 and finite")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} must be one of: {', '.join(OPTIMIZERS)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} must be in [0, 1)")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum={self.momentum} is a setting of sgd; leave it out with {self.optimizer}")
        for name in ("hard", "soft", "aligned"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be finite and at least 0: it is a weight")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be above 0 and finite")
        if not self.teacher and self.teacher_settings:
            raise ValueError("teacher_settings are of no teacher; name one, such as client.teacher=my_file.py:Name")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm} must be above 0; null does not clip")

    @classmethod
    def client_app(cls, config: Config, cloud: Cloud | None = None, **settings: Any) -> "SupervisedApp":
        """The Flower app of this learner (`flsim.flower.contract.MakesClient`).

        Args:
            config: of the run.
            cloud: is not asked.
            settings: the learner's own fields.

        Raises:
            ValueError: for a setting that there is not, or that cannot work.
            ConfigError: if the run has settings that mean language models only.
        """
        refuse_unknown(cls, [own.name for own in fields(cls)], settings)
        _refuse_language(config)
        plain = {name: value for name, value in settings.items() if not name.endswith("_settings")}
        return SupervisedApp(config, cls(**settings | fitted("client", get_type_hints(cls), plain)))


def _refuse_language(config: Config) -> None:
    """Refuse what a run says of language models, and this one would pass over."""
    if config.warmup.steps:
        raise ConfigError(f"warmup.steps={config.warmup.steps} teaches a language model; leave it out of this run")
    if config.fleet.ranks:
        raise ConfigError(
            f"fleet.ranks={list(config.fleet.ranks)} are ranks of LoRA on a language model; leave them out of this run"
        )
    refuse_unit(config.budget, False, "Supervised")
    if config.model.adapter is not None:
        raise ConfigError(f"model.adapter={config.model.adapter!r} is of a language model; leave it out of this run")


class SupervisedApp(PackedClientApp):
    """Trains and measures the module of a pack of devices; it is built with the first message."""

    learns_to_ask = False

    def __init__(self, config: Config, learner: Supervised) -> None:
        """Take the run's config and what its devices do in a round."""
        super().__init__()
        self.config = config
        self.learner = learner

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker: the settings, and not the examples."""
        return attributes(self)

    @cached_property
    def stream(self) -> TaskStream:
        """Whose examples are whose."""
        return stream_of(self.config)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The answers that there are, sorted."""
        return classes_of(self.stream)

    @cached_property
    def module(self) -> nn.Module:
        """As it is at first, the same for equal seeds."""
        own = self.learner
        return module_of(
            "client.model", own.model, own.model_settings, classes=len(self.classes), seed=self.config.seed
        )

    @cached_property
    def tutor(self) -> Tutor | None:
        """Who teaches from the cloud; None for nobody."""
        own = self.learner
        if not own.teacher:
            return None
        parts = "client.teacher", own.teacher, own.teacher_settings
        made = module_of(*parts, classes=len(self.classes), seed=self.config.seed)
        weights = Weights(own.hard, own.soft, own.aligned, own.temperature)
        width = int(getattr(self.module, "width", 0))
        seed = self.config.stream.seed
        return Tutor(made, self.examples, weights, classes=len(self.classes), width=width, seed=seed)

    @cached_property
    def stacked(self) -> StackedModule:
        """What of it devices learn."""
        try:
            return StackedModule(self.module)
        except ValueError as error:
            raise ConfigError(f"client.model={self.learner.model!r}: {error}") from error

    @cached_property
    def examples(self) -> Examples:
        """The devices' own, as the module reads them."""
        return Examples(self.stream, self.config.evaluation, self.classes, self.module)

    @cached_property
    def tests(self) -> ModuleTests:
        """How the devices are measured."""
        split, tau = self.config.evaluation.split, self.config.budget.tau
        return ModuleTests(self.stacked, self.examples, self.tutor, tau, split)

    @property
    def asks(self) -> bool:
        """Whether there is a teacher to ask."""
        return bool(self.learner.teacher)

    def first_adapter(self) -> Adapter:
        """What round 1 starts from, and everything that would stop it (`flsim.flower.contract.BringsModel`)."""
        self.examples.check(self.stacked)
        if self.tutor is not None:
            task = self.stream.data[0]
            self.tutor.says([task.problem(task.source.items[0])])
        return dict(self.stacked.first)

    def shape(self) -> Shape:
        """What an example takes, counted on the first of the fleet's (`flsim.flower.contract.BringsModel`)."""
        parameters = sum(tensor.size for tensor in self.stacked.first.values())
        name = self.learner.model.partition(":")[2]
        return Shape.of_module(name, parameters=parameters, operations=float(self.examples.operations()))

    def save_model(self, folder: Path, adapter: Adapter) -> None:
        """Write what was learned as safetensors, for `module.load_state_dict(..., strict=False)`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MODEL, save(adapter), what="the model")

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Iterator[Message]:
        """Train or measure a pack; it learns in chunks, and each chunk replies when it is done."""
        shape = self.config.shape  # of nothing: there is no LoRA of the run's own
        parts = {"first": self.stacked.first, "shape": shape, "shapes": [shape] * len(contexts)}
        adapters = adapters_of(messages, contexts, **parts)  # type: ignore[arg-type]
        if messages[0].metadata.message_type != MessageType.TRAIN:
            yield from self._evaluate(messages, contexts, adapters)
            return
        chunk = self.stacked.together if self.tutor is None else 1
        for start in range(0, len(messages), chunk):
            part = slice(start, start + chunk)
            yield from self._train(messages[part], contexts[part], adapters[part])

    def _train(
        self, messages: Sequence[Message], contexts: Sequence[Context], adapters: Sequence[Adapter]
    ) -> list[Message]:
        """As many devices as are one batch."""
        round_ = wire.round_of(messages[0])
        names = [device_name(device_at(context.node_id)) for context in contexts]
        pupils = self._pupils(messages, contexts, names, round_)
        with spend("train"):
            pulls = Pulls.of(self.stacked, messages, contexts)
            theta = self.stacked.stack(adapters)  # (k, n)
            start = theta.clone() if pulls.active else theta  # (k, n)
            sums = self._descend(theta, start, pulls, names, round_, pupils)
        learned = self.stacked.unstack(theta)
        own: list[list[Row]] = [[] for _ in names]
        if wire.flag(messages[0], wire.EVALUATE_LOCAL):
            own = self._own_rows(contexts, names, learned, round_)
        pulls.keep(self.stacked, contexts, theta, start)
        replies = []
        for message, context, adapter, name, noted, rows in zip(
            messages, contexts, learned, names, sums, own, strict=True
        ):
            keep_own(context.state, adapter, message)
            of = Subject(round_, name, "train", "own")
            facts = [
                of.row("reward", noted.right, noted.seen, task=EVERY_TASK),
                of.row("loss", noted.loss, noted.seen, task=EVERY_TASK),
                *noted.counted(of, pupils[name].basket if name in pupils else Basket()),
            ]
            if name in pupils:
                pupils[name].keep(context.state)
                facts += pupils[name].rows(of, noted.examples)
            update = DeviceUpdate(
                device_at(context.node_id),
                part_to_send(adapter, message),
                noted.examples,
                noted.right / max(1.0, noted.seen),
                (*facts, *rows),
            )
            replies.append(wire.train_reply(update, message))
        return replies

    def _descend(
        self,
        theta: Tensor,
        start: Tensor,
        pulls: Pulls,
        names: Sequence[str],
        round_: int,
        pupils: Mapping[str, Pupil],
    ) -> list[Noted]:
        """The steps of a round; theta `(k, n)` moves."""
        own = self.learner
        seed = self.config.seed
        order = [self.examples.order(name, round_, epochs=own.epochs, size=own.batch, seed=seed) for name in names]
        noted = [Noted(examples=self.examples.count(name, round_)) for name in names]
        rule = {"lr": own.lr, "optimizer": own.optimizer, "momentum": own.momentum, "clip_norm": own.clip_norm}
        descent = Descent.fresh(theta, **rule)  # type: ignore[arg-type]
        for step in range(max(map(len, order), default=0)):
            inputs, labels, weights = self.examples.batch(
                [rows[step] if step < len(rows) else [] for rows in order], names, round_
            )  # (k, B, ...), (k, B), (k, B)
            taught = None
            if self.tutor is not None:  # one device at a time then
                taught = self.tutor.taught(pupils[names[0]], names[0], round_, order[0][step])
            found = self.stacked.learn(theta, inputs, labels, weights, taught)
            active = weights.sum(1) > 0  # (k,)
            blocks = [pulls.added(found.gradient, theta, start)] if pulls.active else found.blocks
            descent.step(theta, blocks, active)
            counts, losses = weights.sum(1).tolist(), found.losses.tolist()
            for one, count, loss, right in zip(noted, counts, losses, found.right.tolist(), strict=True):
                one.add(count, loss, right)
        return noted

    def _pupils(
        self, messages: Sequence[Message], contexts: Sequence[Context], names: Sequence[str], round_: int
    ) -> dict[str, Pupil]:
        """The devices with what they have had taught, in this round as well; none without a teacher."""
        pupils: dict[str, Pupil] = {}
        if self.tutor is None:
            return pupils
        system = self.config.system
        asking = None if system is None else Asking(system, self.config.stream.seed)
        for message, context, name in zip(messages, contexts, names, strict=True):
            allotted = wire.allotment_of(message)
            budget = narrowed(self.config.budget, allotted)
            tariff = Tariff(self.config.cloud, budget.follows_trips, asking, device_at(context.node_id), round_)
            pupil = Pupil.of(context.state, Ledger(budget), tariff)
            with spend("cloud"):
                self.tutor.buy(pupil, name, round_, budget.tau, self.config.cloud, self.config.seed)
            pupils[name] = pupil
        return pupils

    def _evaluate(
        self, messages: Sequence[Message], contexts: Sequence[Context], adapters: Sequence[Adapter]
    ) -> list[Message]:
        round_ = wire.round_of(messages[0])
        devices = [device_at(context.node_id) for context in contexts]
        names, evaluation = [device_name(device) for device in devices], self.config.evaluation
        with spend("evaluate"):
            heard, tests = self.tests.heard(names, adapters, round_), self.tests
            pairs = list(zip(names, heard, strict=True))
            rows = [tests.rows(one, name=name, round_=round_, model="global") for name, one in pairs]
            if wire.flag(messages[0], wire.REFERENCES):
                traffic = [self.learner.epochs * self.examples.count(name, 1) for name in names]
                facts = user_rows(self.stream, evaluation, devices, traffic, round_=round_)
                for (name, one), own, new in zip(pairs, rows, facts, strict=True):
                    own += tests.references(one, own, name=name, round_=round_) + new
            elif is_small(self.stream, evaluation, round_):
                facts = item_rows(self.stream, evaluation, devices, round_=round_)
                rows = [own + new for own, new in zip(rows, facts, strict=True)]
        tested = [len(self.examples.tests(name, round_)[0]) for name in names]
        return [wire.evaluate_reply(tuple(own), n, m) for own, n, m in zip(rows, tested, messages, strict=True)]

    def _own_rows(
        self, contexts: Sequence[Context], names: Sequence[str], learned: Sequence[Adapter], round_: int
    ) -> list[list[Row]]:
        """What those who are tested have learned by themselves, as rows."""
        tested = panel(self.config.evaluation.devices, self.config.fleet.devices, self.config.stream.seed)
        rows: list[list[Row]] = []
        for context, name, adapter in zip(contexts, names, learned, strict=True):
            heard = self.tests.heard([name], [adapter], round_) if device_at(context.node_id) in tested else []
            rows.append([row for one in heard for row in self.tests.rows(one, name=name, round_=round_, model="own")])
        return rows
