"""A learner: what one pack of devices does in a round. Every method is a subclass in a file of its own.

    client.path=clients.grpo:Grpo client.lr=0.001 client.asking.path=clients.asking.scores:Confidence

Its fields are its settings; beside them every learner takes `asking` and `mods` (`Learner.client_app`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_type_hints

from clients.app import DeviceApp
from clients.asking.policy import Own
from clients.asking.rule import AskingRule
from clients.asking.simple import Never
from clients.device.answering import Problems
from clients.device.device import Device
from clients.device.head import Head
from clients.device.pack import Pack
from clients.device.replay import Place, met_again
from clients.device.world import World
from clients.helping.helping import ASK, Helping
from clients.helping.hint import Hint
from flsim.cloud.protocol import Cloud
from flsim.config.budget import refuse_unit
from flsim.config.plugins import fitted, refuse_unknown, resolve
from flsim.config.schema import Config, ConfigError
from flsim.devices import device_name
from flsim.flower.messages import DeviceUpdate
from flsim.learning.adam import Adam
from flsim.models.adapter import Adapter
from flsim.models.base import BaseModel, refuse_unspeakable
from flsim.models.memory import refuse_too_large
from flsim.models.scoring import TOKENS
from flsim.problems.problem import Problem


@dataclass(frozen=True)
class Learner(ABC):
    """The work of a round, the same settings for all methods, so that they are compared at equal work."""

    steps: int = 6
    """Local steps per round, each on fresh prompts with fresh rollouts."""
    prompts: int = 8
    """Prompts per step, on average over devices."""
    group_size: int = 8
    """G, responses per prompt; a method that samples none passes it over, so that one config fits all methods."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    clip_norm: float = 1.0
    """Largest gradient norm of a device."""
    keep_optimizer: bool = True
    """Whether a device keeps its Adam moments between rounds."""
    max_new_tokens: int = 9
    """Longest response in tokens; of a config, unless it says otherwise, that of `model.max_new_tokens`."""
    micro_batch: int = TOKENS
    """Most tokens of responses in one forward pass of training; lower it where memory is short."""
    replay: int = 0
    """Questions of the past that a device keeps; 0 keeps none."""
    replay_share: float = 0.25
    """Of a step's prompts, how many come from the buffer as soon as it holds them; the number of prompts stays."""
    pooled: bool = False
    """Train on the prompts of all devices of the fleet: the bound of one central learner, for
    `strategy.sampler.path=strategies.parts.samplers:First`. It keeps no questions, whatever a method does else."""

    helping: Helping = ASK
    """How a device that asks is helped: `path` of a class in `clients/helping/` and its settings; by default the cloud
    answers the whole question."""

    may_ask: ClassVar[bool] = True
    """Whether asking the cloud is part of what is learned; else responses are sampled with the request ruled out."""
    weighs: ClassVar[bool] = False
    """Whether requests count by `budget.unit` in what is learned, where that is not `calls`."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        for name in ("steps", "prompts", "lr", "clip_norm", "max_new_tokens", "micro_batch"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if not isinstance(self.helping, Helping):
            given = self.helping if isinstance(self.helping, dict | str) else f"a {type(self.helping).__name__}"
            raise ValueError(
                f"helping is {given}, and no mode of help; name one by its path, such as "
                f"client.helping.path=clients.helping.verify:Verify (flsim list modes), or pass an object of a class "
                f"of clients.helping.helping.Helping"
            )
        if math.isinf(self.lr):
            raise ValueError(f"lr={self.lr} must be finite: it is a step's length")
        if self.replay < 0:
            raise ValueError(f"replay={self.replay} must be at least 0: it is a number of questions")
        if not 0 <= self.replay_share <= 1:
            raise ValueError(f"replay_share={self.replay_share} must be in [0, 1]: it is a share of a step's prompts")
        if self.pooled and self.replay not in (0, type(self).replay):
            raise ValueError(f"replay={self.replay} is a device's own buffer; a pooled learner has none: set replay=0")

    @classmethod
    def client_app(
        cls,
        config: Config,
        cloud: Cloud | None = None,
        *,
        asking: AskingRule | None = None,
        mods: Sequence[Any] = (),
        **settings: Any,
    ) -> DeviceApp:
        """The Flower app of this learner, which is what `client.path` asks of a class (`flsim/flower/contract.py`).

        Args:
            config: of the run.
            cloud: what devices ask; None makes the one that `config.cloud` names.
            asking: who decides at test time when to ask; None is the policy itself, and nobody where it does not learn
                to.
            mods: Flower's mods around training, as objects or as `module:name`, such as
                `flwr.clientapp.mod:fixedclipping_mod`.
            settings: the learner's own fields.

        Raises:
            ValueError: for a setting that there is not, or that cannot work.
            ConfigError: if the run contradicts a setting, or a step cannot fit into memory.
        """
        cls.check(config, settings)
        settings |= fitted("client", get_type_hints(cls), settings)
        learner = cls(**{"max_new_tokens": config.model.training_tokens, **settings})
        learner._refuse_too_much(config)
        around = [resolve("client.mods", mod) if isinstance(mod, str) else mod for mod in mods]
        return learner.app(config, around, learner.asks if asking is None else asking, cloud)

    @classmethod
    def check(cls, config: Config, settings: Mapping[str, Any]) -> None:
        """Refuse settings, as given, that there are not; a subclass also what contradicts the run.

        Raises:
            ValueError: naming what was given and the mend.
        """
        refuse_unknown(cls, [field.name for field in fields(cls) if field.init], settings)
        refuse_unit(config.budget, cls.weighs, cls.__name__)

    def app(self, config: Config, mods: Sequence[Any], asking: AskingRule, cloud: Cloud | None) -> DeviceApp:
        """What runs it on the devices; only a fleet that does not do as it is told needs another one."""
        return DeviceApp(config, self, mods, asking, cloud)

    def _refuse_too_much(self, config: Config) -> None:
        """Refuse a step that does not fit into memory, a help request that does not into a response, a draft unmade."""
        prompts = 2 * self.prompts * (config.fleet.devices if self.pooled else 1)  # skew at most doubles a device's
        if self.speaks:
            refuse_unspeakable(config.model, self.max_new_tokens)
        if self.surprise and not config.model.drafts:
            raise ConfigError(
                f"client.surprise={self.surprise} looks at what was said before the request, and with "
                f"model.request={config.model.request} {config.model.path} asks before it answers; set "
                f"model.request=after, or leave client.surprise out"
            )
        if config.cloud.hint is not None and self.given_hint is None:
            raise ConfigError(
                "cloud.hint words what is asked of the cloud for devices that are given hints; set "
                "client.helping.path=clients.helping.hint:Hint, or leave it out"
            )
        refuse_too_large(
            config.model,
            config.engine,
            cohort=config.cohort_size,
            prompts=prompts,
            responses=prompts * self.responses,
            new_tokens=self.longest_row,
            micro_batch=self.micro_batch,
        )

    @property
    def longest_row(self) -> int:
        """Most tokens that are read after a prompt."""
        return self.max_new_tokens

    @property
    def first_dual(self) -> float:
        """Lambda of a device that has not learned yet; 0 where there is no dual variable."""
        return 0.0

    def help_bias(self, dual: float) -> float:
        """What a device with this lambda adds to the logit of its help request, in training and at test time."""
        return 0.0

    @property
    def head(self) -> Head | None:
        """How devices look at their own drafts; None where they have no benefit head."""
        return None

    @property
    def sends(self) -> bool:
        """Whether devices that learn send questions to the cloud."""
        return self.may_ask

    @property
    def speaks(self) -> bool:
        """Whether its responses may hold the help request: it asks by words, and not by a head."""
        return self.may_ask and self.head is None

    @property
    def surprise(self) -> float:
        """kappa, by which the surprise of a draft raises the help request, in training and at tests; 0 does not."""
        return 0.0

    @property
    def given_hint(self) -> Hint | None:
        """How much of the cloud's answer devices are given to go on with; None where it answers for them."""
        return self.helping if isinstance(self.helping, Hint) else None

    @property
    def asks(self) -> AskingRule:
        """Who decides at test time when to ask, unless the config names a rule."""
        return Own() if self.may_ask else Never()

    def extras(self, base: BaseModel) -> Adapter:
        """What devices learn beside LoRA, as it is at first: tensors by name, such as a head; a function of the base.

        They are part of the adapter: averaged, sent, saved and measured with it (`pack.world.lora.extras`).
        """
        return {} if self.head is None else self.head.first(base)

    @property
    def responses(self) -> int:
        """Sampled for each prompt."""
        return 1

    @property
    def kept_questions(self) -> int:
        """How many of the past a device keeps; none of a pooled learner, whose questions are the fleet's."""
        return 0 if self.pooled else self.replay

    @property
    def keeps_start(self) -> bool:
        """Whether a step looks back at the adapters that the round began with."""
        return False

    def prompts_per_round(self, world: World, name: str) -> int:
        """How many prompts the stream of a device brings in a round, its own also where learning is pooled."""
        return self.steps * world.stream.prompts_per_step(name, self.prompts)

    def local_update(self, world: World, devices: Sequence[Device]) -> list[DeviceUpdate]:
        """One round of a pack of devices."""
        if not self.keep_optimizer:
            for device in devices:
                device.optimizer = None
        pack = Pack.of(world, devices, keep_start=self.keeps_start)
        for step in range(self.steps):
            self.learn(pack, self.problems(world, devices, step), step)
        return pack.finish(keep_optimizer=self.keep_optimizer)

    @abstractmethod
    def learn(self, pack: Pack, problems: Problems, step: int) -> None:
        """One local step: move `pack.theta` with `pack.move`, and enter into `pack.notes` what happened."""

    @property
    def adam(self) -> Adam:
        """The optimizer's rule."""
        return Adam(lr=self.lr, clip_norm=self.clip_norm)

    def problems(self, world: World, devices: Sequence[Device], step: int) -> Problems:
        """What each device meets in one local step."""
        if self.pooled:
            names = [device_name(index) for index in range(world.config.fleet.devices)]
            return [[p for name in names for p in self._fresh(world, name, d.round, step)] for d in devices]
        return [self._met(world, device, step) for device in devices]

    def _fresh(self, world: World, name: str, round_: int, step: int) -> list[Problem]:
        count = world.stream.prompts_per_step(name, self.prompts)
        return world.stream.training_problems(name, round_, step, count=count, seed=world.seed)

    def _kept(self, world: World, device: Device, count: int, step: int) -> list[tuple[Problem, str]]:
        """Questions of the past with the cloud's answers that the device kept, which cost nothing again.

        Args:
            world: the worker's.
            device: whose.
            count: of the prompts of a step.
            step: of the round.
        """
        places = device.replay.draw(int(self.replay_share * count), world.seed, device.name, device.round, step)
        past = met_again(world.stream, device.name, places, count=count, seed=world.seed)
        return [(problem, device.answers[at]) for problem, at in zip(past, places, strict=True) if at in device.answers]

    def _keep(self, world: World, device: Device, step: int, answers: Mapping[int, str]) -> None:
        """Keep answers of the cloud, by the place of their question in the step, as far as the buffer keeps them."""
        said: dict[Place, str] = {(device.round, step, place): text for place, text in answers.items()}
        device.replay.remember(list(said), self.kept_questions, world.seed, device.name)
        device.answers = {at: text for at, text in (device.answers | said).items() if at in device.replay.places}

    def _met(self, world: World, device: Device, step: int) -> list[Problem]:
        """New questions, and some of the past in place of the last of them."""
        fresh, seed = self._fresh(world, device.name, device.round, step), world.seed
        if not self.replay:
            return fresh
        count = len(fresh)
        again = device.replay.draw(int(self.replay_share * count), seed, device.name, device.round, step)
        fresh = fresh[: count - len(again)]
        new: list[Place] = [(device.round, step, place) for place in range(len(fresh))]
        device.replay.remember(new, self.replay, seed, device.name)
        return fresh + met_again(world.stream, device.name, again, count=count, seed=seed)
