"""Distil a classifier in the cloud into the aggregated module, at the server (as FedDF does, Lin et al. 2020).

After every so many rounds the server draws proxy questions of the train split from the tasks that the stream has
brought so far, buys the teacher's logits on those that it has not bought yet, and takes steps of Adam on the soft
targets. Devices send nothing for it. For clients that train modules (`clients.supervised:Supervised`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from flwr.app import Message
from torch import Tensor, nn

from flsim.budget.ledger import Account, Ledger
from flsim.cloud.protocol import Cloud
from flsim.config.schema import BudgetConfig, Config, ConfigError
from flsim.learning.adam import Adam, fresh_state
from flsim.metrics.rows import FLEET, STAGE, Row
from flsim.models.adapter import Adapter
from flsim.models.stacked_module import StackedModule, Taught, Weights, soft_loss
from flsim.problems.problem import Problem
from flsim.seeding import generator, python_random
from flsim.tasks.module_inputs import classes_of, module_of, read, read_by
from flsim.tasks.stream import TaskStream, proxy_problems, stream_of
from flsim.timing import spend


@dataclass
class ModuleDistillation:
    """The stage, with its settings and what it keeps between rounds."""

    teacher: str = ""
    """Class of the teacher, named and called like `client.model`."""
    teacher_settings: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments, such as `weights` of `flsim.models.encoder:Encoder`."""
    every_rounds: int = 1
    """Distil after every so many rounds."""
    prompts: int = 256
    """Proxy questions of one distillation."""
    epochs: int = 1
    """Passes over them."""
    batch: int = 16
    """Questions of one step."""
    lr: float = 1e-3
    """Of Adam."""
    temperature: float = 2.0
    """T of the soft targets."""
    calls_total: int | None = None
    """Most questions that the server buys in the run; None is no cap."""
    bought: list[str] = field(default_factory=list, init=False)
    """Questions that were bought so far."""
    account: Account = field(default_factory=Account, init=False)
    """What they took."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.teacher:
            raise ValueError("teacher is missing: name a module, such as stage.teacher=flsim.models.encoder:Encoder")
        for name in ("every_rounds", "prompts", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")

    def begin(self, config: Config, cloud: Cloud) -> None:
        """Learn the run's settings.

        Raises:
            ConfigError: for a client that trains no module, or a teacher of other classes.
        """
        self._config = config
        if not isinstance(config.client.get("model"), str):
            raise ConfigError(
                f"stage={type(self).__name__} distils into the module of clients.supervised:Supervised, and "
                f"client.path={config.client['path']} has none; take strategies.stages.distillation:Distillation"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"bought": list(self.bought), "account": self.account}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Take it back."""
        self.bought, self.account = list(kept["bought"]), kept["account"]

    def after_round(
        self, round_: int, adapter: Adapter, replies: Sequence[Message], residual: Adapter | None
    ) -> tuple[Adapter, list[Row]]:
        """Teach the aggregated module, and say what that took and how near it came."""
        if round_ % self.every_rounds:
            return adapter, []
        with spend("stage"):
            problems, spent = self._buy(round_)
            if not problems:
                return adapter, self._rows(round_, spent, {})
            theta = self._stacked.stack([adapter])  # (1, n)
            inputs = read(read_by(self._stacked.module, problems))  # (P, ...)
            with torch.no_grad():
                targets: Tensor = self._teacher(read(read_by(self._teacher, problems)))  # (P, C)
            before = self._distance(theta, inputs, targets)
            self._descend(theta, inputs, targets, round_)
            after = self._distance(theta, inputs, targets)
        (new,) = self._stacked.unstack(theta)
        return new, self._rows(round_, spent, {"divergence_before": before, "divergence_after": after})

    def _buy(self, round_: int) -> tuple[list[Problem], Account]:
        """The proxy questions whose answers are there, and what the new ones took."""
        config, known = self._config, set(self.bought)
        tasks = [task for phase in self._stream.phases if phase.first_round <= round_ for task in phase.tasks]
        draw = python_random(config.seed, "proxy", round_)
        found = proxy_problems(
            list(dict.fromkeys(tasks)), "train", count=self.prompts, rng=draw, data=self._stream.data
        )
        ledger = Ledger(BudgetConfig(calls_total=self.calls_total), Account(**vars(self.account)))
        kept = []
        for problem in found:
            size = 1 + self._size(problem)
            money = (size - 1) * config.cloud.price_per_prompt_token + config.cloud.price_per_completion_token
            if problem.question in known or ledger.reserve(size, money):
                kept.append(problem)
                if problem.question not in known:
                    known.add(problem.question)
                    self.bought.append(problem.question)
        self.account = ledger.total
        return kept, ledger.round

    def _size(self, problem: Problem) -> int:
        count = getattr(self._teacher, "tokens", None)
        return 1 if count is None else int(count(read_by(self._teacher, [problem]))[0])

    def _descend(self, theta: Tensor, inputs: Tensor, targets: Tensor, round_: int) -> None:
        """Steps of Adam on soft targets alone; theta `(1, n)` moves."""
        weights = Weights(hard=0.0, soft=1.0, aligned=0.0, temperature=self.temperature)
        adam, state = Adam(lr=self.lr, beta2=0.999, clip_norm=1.0), fresh_state(*theta.shape)
        for epoch in range(self.epochs):
            order = generator(self._config.seed, "proxy order", round_, epoch).permutation(len(inputs))
            for start in range(0, len(order), self.batch):
                rows = torch.from_numpy(order[start : start + self.batch])  # (B,)
                ones = torch.ones(1, len(rows))  # (1, B)
                said = Taught(targets[rows][None], torch.zeros(0), ones, weights)
                labels = torch.zeros(1, len(rows), dtype=torch.long)  # (1, B)
                found = self._stacked.learn(theta, inputs[rows][None], labels, ones, said)
                adam.step(theta, found.gradient, state)

    def _distance(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> float:
        logits = self._stacked.logits(theta, inputs[None])[0]  # (P, C)
        return float(soft_loss(logits, targets, 1.0).mean())

    def _rows(self, round_: int, spent: Account, more: dict[str, float]) -> list[Row]:
        found = {"calls": float(spent.calls), "tokens": float(spent.tokens), "money": spent.money}
        values = {f"cloud_{name}": value for name, value in found.items()} | more
        return [Row(round_, FLEET, "all", STAGE, STAGE, name, value, 1.0) for name, value in values.items()]

    @cached_property
    def _stream(self) -> TaskStream:
        return stream_of(self._config)

    @cached_property
    def _stacked(self) -> StackedModule:
        own = self._config.client
        settings = own.get("model_settings", {})
        classes = len(classes_of(self._stream))
        return StackedModule(
            module_of("client.model", str(own["model"]), settings, classes=classes, seed=self._config.seed)
        )

    @cached_property
    def _teacher(self) -> nn.Module:
        classes = len(classes_of(self._stream))
        parts = "stage.teacher", self.teacher, self.teacher_settings
        return module_of(*parts, classes=classes, seed=self._config.seed).eval().requires_grad_(False)
