"""Distil the cloud LLM into the global adapter, after the strategy has aggregated: a stage of the server.

The server asks the cloud about proxy questions of its own, from the train split and from the tasks that the
stream has brought so far, and, if it is let, about questions that devices had sent there. It teaches the aggregated
adapter what it hears. Which loss depends on what the cloud gives
(`flsim/cloud/teacher.py`, `flsim/learning/distillation.py`):

    sequence     text           cross-entropy on the answers that pass the verifier
    forward_kl   top_logprobs   KL(teacher || student) on the same answers; with `logits`, over the whole vocabulary
    reverse_kl   scores         KL(student || teacher) on the student's own samples, by the policy gradient

Beside the tokens it may learn the cloud's hidden states at its own answers (`strategies/stages/features.py`).

An anchor keeps the student near the aggregated adapter, in which the devices' knowledge lies. A gate compares both on
held-out questions of the validation split and gives the very bits of the aggregated adapter back if the score fell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any, cast

from flwr.app import Message

import flsim.flower.messages as wire
from flsim.budget.ledger import Account, Ledger
from flsim.cloud.cache import Shelf
from flsim.cloud.journal import PURCHASES, TRAINING, journal_of, lost_facts
from flsim.cloud.make import cache_of
from flsim.cloud.protocol import NOTHING, Cloud
from flsim.cloud.purchases import Purchases
from flsim.cloud.teacher import FEATURES, LOGITS, SCORES, TEXT, TOP_LOGPROBS, Deep, access_of, includes, teacher_of
from flsim.config.budget import PAID_CAPS
from flsim.config.schema import BudgetConfig, Config, ConfigError
from flsim.devices import device_name
from flsim.learning.adam import Adam
from flsim.learning.features import COSINE
from flsim.metrics.rows import STAGE, Row
from flsim.models.adapter import Adapter
from flsim.models.base import one_thread
from flsim.models.layer_states import depth_of
from flsim.problems.problem import Problem
from flsim.seeding import generator, python_random, seed_for
from flsim.tasks.stream import TaskStream, proxy_problems, stream_of
from flsim.timing import spend
from strategies.stages.features import LAST, Features, pairs_of, refuse_other_features
from strategies.stages.lessons import FORWARD_KL, NEEDS, REVERSE_KL, SEQUENCE, Plan, teach
from strategies.stages.reporting import costs, effect, learned, row
from strategies.stages.student import Student

AUTO = "auto"
BEST = {TEXT: SEQUENCE, TOP_LOGPROBS: FORWARD_KL, SCORES: REVERSE_KL, LOGITS: FORWARD_KL, FEATURES: FORWARD_KL}
"""The loss that `auto` takes at each access."""


@dataclass
class Distillation:
    """The stage, with its settings and what it keeps between rounds."""

    every_rounds: int = 4
    """Distil after every so many rounds."""
    loss: str = AUTO
    """`sequence`, `forward_kl`, `reverse_kl`, or `auto`: the best that the cloud's access allows."""
    prompts: int = 256
    """Questions of one distillation; few of them are memorised within its steps."""
    from_devices: int = 0
    """Most of them that are questions which devices sent to the cloud since the last distillation, and let the server
    see (`fleet.opt_in`); the others are proxy questions."""
    steps: int = 16
    """Steps of Adam, with fresh moments each time."""
    batch: int = 32
    """Questions of one step; for `reverse_kl`, each is answered anew in every step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    top: int = 20
    """k of `forward_kl` without full logits: the likeliest tokens that the cloud tells at each place."""
    clip: float = 5.0
    """Largest advantage of a token in `reverse_kl`, in nats."""
    features: float = 0.0
    """Weight of the hidden states' loss beside that of the tokens, for a cloud that gives `features`; 0 leaves them
    out."""
    feature_loss: str = COSINE
    """How far two hidden states are apart: `cosine`, or `square`, the squared distance in parts of the cloud's."""
    feature_layers: Any = LAST
    """Whose states are to be alike: the `last` layer's of both, `every` layer's of the SLM with the one as deep in the
    cloud, or pairs of the SLM's and the cloud's, counted from 1, such as `[[1, 2], [3, 6]]`."""
    anchor: float = 0.1
    """Weight of `KL(p_aggregated || p_student)` at the same places; 0 lets go."""
    held_out: int = 200
    """Validation questions of the gate."""
    margin: float = 0.0
    """How far the share of right answers to them may fall before the gate rolls back."""
    users: int = 8
    """Devices whose own accuracy is measured before and after; 0 measures none. The gate does not see it."""
    user_prompts: int = 5
    """Their validation questions, per task."""
    max_new_tokens: int | None = None
    """Longest answer of the student, the ending token included; None takes that of tests (`model.max_new_tokens`)."""
    cache: str | None = None
    """Folder of what was bought; runs share it. None takes the devices' (`cloud.cache`)."""
    calls_per_round: int | None = None
    """Cloud queries of one distillation; None means no cap, here and below."""
    calls_total: int | None = None
    """Cloud queries of the whole run."""
    tokens_per_round: int | None = None
    """Cloud tokens of one distillation."""
    tokens_total: int | None = 1_000_000
    """Cloud tokens of the whole run."""
    money_per_round: float | None = None
    """Money of one distillation, in the unit of `cloud.price_*`."""
    money_total: float | None = None
    """Money of the whole run."""
    _config: Config = field(init=False, repr=False, default_factory=Config)
    _method: str = field(init=False, repr=False, default=SEQUENCE)
    _level: str = field(init=False, repr=False, default=TEXT)
    _pairs: tuple[tuple[int, int], ...] = field(init=False, repr=False, default=())
    _spent: Account = field(init=False, repr=False, default_factory=Account)
    _shared: dict[str, Problem] = field(init=False, repr=False, default_factory=dict)
    _known: dict[bytes, None] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.loss not in (AUTO, *NEEDS):
            raise ValueError(f"loss={self.loss!r} is not known; choose one of: {', '.join((AUTO, *NEEDS))}")
        for name in ("every_rounds", "prompts", "steps", "batch", "lr", "clip_norm", "top", "clip", "held_out"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("user_prompts", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("anchor", "margin", "users", "from_devices", *self._caps):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name}={value} must be at least 0")
        if self.from_devices > self.prompts:
            raise ValueError(f"from_devices={self.from_devices} must be at most prompts={self.prompts}: it is a part")
        refuse_other_features(self.features, self.feature_loss, self.feature_layers)
        if self.features and self.loss == REVERSE_KL:
            raise ValueError(
                f"features={self.features} has no effect with loss={REVERSE_KL}: the cloud shows hidden states of its "
                f"own answers, and there it gives none; take {SEQUENCE} or {FORWARD_KL}"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: what was spent, what devices shared since the last time, and what was bought."""
        return {"spent": self._spent, "shared": self._shared, "known": self._known}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Take it back."""
        self._spent, self._shared, self._known = kept["spent"], kept["shared"], kept["known"]

    def begin(self, config: Config, cloud: Cloud) -> None:
        """Settle on a loss.

        Raises:
            ConfigError: if the cloud cannot give what `loss` needs, or its tokens are not the student's, or if what is
                bought could not be kept.
        """
        self._config = config
        self._cloud = cloud.for_server()
        if self.from_devices and not config.fleet.opt_in:
            raise ConfigError(
                f"stage.from_devices={self.from_devices} needs devices that let the server see their questions: set "
                f"fleet.opt_in, such as 0.5 for half of them, or stage.from_devices=0"
            )
        for task in self._stream.data:
            if not task.proxy_set("validation", 1, Random(0)):
                raise ConfigError(
                    f"data.{task.name} has no validation item, and the stage holds a distilled adapter against "
                    f"questions of that split; bring some, or leave the stage out"
                )
        if self.cache is None and config.cloud.cache is None:
            raise ConfigError(
                "cloud.cache=null leaves the server no folder for what it buys, and without one it would pay for the "
                "same scores in every step; set stage.cache, such as stage.cache=runs/bought"
            )
        vars(self).pop("_cache", None)  # another run's
        self._cache.check()
        access = access_of(self._cloud, config.cloud.access)
        self._method = BEST[access] if self.loss == AUTO else self.loss
        if not includes(access, NEEDS[self._method]):
            can = ", ".join(loss for loss, level in NEEDS.items() if includes(access, level))
            raise ConfigError(
                f"stage.loss={self.loss!r} needs a cloud that gives {NEEDS[self._method]}, and {type(cloud).__name__} "
                f"with cloud.access={config.cloud.access or 'all it can'} gives {access}; it can do: {can} (or take "
                f"stage.loss=auto)"
            )
        if self.features:
            self._match(access)
        elif self._method != SEQUENCE:
            teacher_of(self._cloud, self._student.base.tokenizer.get_vocab())
        self._level = LOGITS if self._method == FORWARD_KL and includes(access, LOGITS) else NEEDS[self._method]
        self._level = FEATURES if self.features else self._level

    def _match(self, access: str) -> None:
        """Settle on the layers whose hidden states are to be alike."""
        if not includes(access, FEATURES):
            raise ConfigError(
                f"stage.features={self.features} needs a cloud that gives {FEATURES}, its hidden states, and "
                f"{type(self._cloud).__name__} with cloud.access={self._config.cloud.access or 'all it can'} gives "
                f"{access}; set stage.features=0"
            )
        base = self._student.base
        deep = cast(Deep, teacher_of(self._cloud, base.tokenizer.get_vocab()))
        self._pairs = pairs_of(self.feature_layers, depth_of(base), deep.depth.layers)

    def after_round(
        self, round_: int, adapter: Adapter, replies: Sequence[Message], residual: Adapter | None = None
    ) -> tuple[Adapter, list[Row]]:
        """The distilled adapter, or the given one where it is not time, there was nothing to learn, or it got worse."""
        if self.from_devices:
            seen = {problem.question: problem for reply in replies for problem in wire.shared_of(reply)}
            self._shared = {**self._shared, **seen}
        if round_ % self.every_rounds:
            return adapter, []
        with one_thread(), spend("aggregate"):
            self._student.lora.merge(residual)
            return self._distil(round_, adapter)

    def _distil(self, round_: int, adapter: Adapter) -> tuple[Adapter, list[Row]]:
        in_run = self._config.run_dir is not None  # the round loop always says where the run lies
        folder, prices = self._config.folder / PURCHASES / STAGE if in_run else None, self._config.cloud
        journal = journal_of(folder, round_, TRAINING, prices, self._cloud.costs, total=self._spent)
        ledger = replace(self._ledger(), held=journal.held)
        shop = Purchases(self._cloud, prices, self._cache, ledger, self._known, journal)
        shared = self._take_shared(round_)
        problems = [*shared, *self._problems(round_, "train", self.prompts - len(shared))]
        outcome = teach(self._student, adapter, problems, shop, self._plan(round_))
        self._spent = self._spent.plus(journal.held)
        rows = [*learned(round_, self._method, outcome), *costs(round_, shop.basket, features=self.features > 0)]
        rows += [row(round_, name, value) for name, value in lost_facts(journal.held).items()]
        if self._cloud.costs != NOTHING:
            rows.append(row(round_, "cloud_failures", shop.basket.failures))
            rows.append(row(round_, "cloud_retries", shop.basket.retries))
        rows.append(row(round_, "from_devices", len(shared), len(problems)))
        distilled = outcome.adapter
        if distilled is None:
            return adapter, rows
        held_out = self._problems(round_, "validation", self.held_out)
        before, after = (sum(self._student.right(a, held_out)) for a in (adapter, distilled))
        kept = after >= before - self.margin * len(held_out)
        rows += [
            row(round_, "proxy_accuracy_before", before, len(held_out)),
            row(round_, "proxy_accuracy_after", after, len(held_out)),
            row(round_, "kept", float(kept)),
        ]
        rows += self._effect(round_, adapter, "aggregated") + self._effect(round_, distilled, "distilled")
        return (distilled if kept else adapter), rows

    def _effect(self, round_: int, adapter: Adapter, model: str) -> list[Row]:
        """Local accuracy of a fixed sample of devices on validation questions of their own."""
        fleet, seed = self._config.fleet.devices, self._config.stream.seed
        users = generator(seed, "distillation users").choice(fleet, min(self.users, fleet), replace=False)
        names = [device_name(int(user)) for user in sorted(users)]
        asked = [
            (name, task, problem)
            for name in names
            for task, problems in self._stream.evaluation_problems(
                name, "validation", per_task=self.user_prompts
            ).items()
            for problem in problems
        ]
        if not asked:
            return []
        verdicts = zip(asked, self._student.right(adapter, [p for *_, p in asked]), strict=True)
        return effect(round_, model, [(name, task, right) for (name, task, _), right in verdicts])

    def _plan(self, round_: int) -> Plan:
        full = includes(self._level, LOGITS)
        return Plan(
            loss=self._method,
            level=self._level,
            steps=self.steps,
            batch=self.batch,
            adam=Adam(lr=self.lr, clip_norm=self.clip_norm),
            top=len(self._student.base.tokenizer.get_vocab()) if full else self.top,
            clip=self.clip,
            anchor=self.anchor,
            seed=seed_for(self._config.seed, "distillation", round_),
            features=Features(self.features, self.feature_loss, self._pairs) if self.features else None,
        )

    def _take_shared(self, round_: int) -> list[Problem]:
        """Some of the questions that devices shared since the last time; the others are forgotten."""
        shared, self._shared = list(self._shared.values()), {}
        order = generator(self._config.seed, "shared questions", round_).permutation(len(shared))
        return [shared[place] for place in order[: self.from_devices]]

    def _problems(self, round_: int, split: str, count: int) -> list[Problem]:
        """Fresh proxy questions of this round, from the tasks of the phases that have begun."""
        phases = [phase for phase in self._stream.phases if phase.first_round <= round_]
        groups = list(dict.fromkeys(group for phase in phases for group in phase.tasks))
        rng = python_random(self._config.seed, "proxy", split, round_)
        return proxy_problems(groups, split, count=count, rng=rng, data=self._stream.data)

    def _ledger(self) -> Ledger:
        """What was spent so far, in a new round."""
        return Ledger(BudgetConfig(**{name: getattr(self, name) for name in self._caps}), self._spent)

    @property
    def _caps(self) -> list[str]:
        return list(PAID_CAPS)

    @property
    def _stream(self) -> TaskStream:
        return stream_of(self._config)

    @cached_property
    def _cache(self) -> Shelf:
        cache = cache_of(self._config.cloud.cache) if self.cache is None else Shelf(self.cache)
        assert cache is not None  # `begin` has seen to it
        return cache

    @cached_property
    def _cloud(self) -> Cloud:
        """The run's, as a server asks it: set by `begin`, and like a model in no checkpoint."""
        raise AttributeError("begin comes first")

    @cached_property
    def _student(self) -> Student:
        model = self._config.model
        return Student(model, self._config.seed, self.max_new_tokens or model.answer_tokens)
