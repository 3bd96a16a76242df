"""The examples of devices as tensors: what a module reads of them, which class is right, their batches, and tests."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flsim.config.schema import ConfigError, EvaluationConfig
from flsim.devices import device_index
from flsim.metrics.rows import Row, Subject
from flsim.models.stacked_module import StackedModule
from flsim.problems.problem import Problem
from flsim.seeding import generator
from flsim.tasks.module_inputs import read, read_by
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import set_of_tests

Kept = tuple[Tensor, Tensor]
"""What a module reads of examples `(N, ...)`, and the right classes `(N,)`."""


class Examples:
    """The devices' examples as a module reads them."""

    def __init__(
        self, stream: TaskStream, evaluation: EvaluationConfig, classes: Sequence[str], module: nn.Module
    ) -> None:
        """Look at a stream.

        Args:
            stream: of the fleet; its tasks are data sets.
            evaluation: how devices are tested.
            classes: the answers.
            module: that reads them.
        """
        self.stream = stream
        self._evaluation = evaluation
        self._module = module
        self._classes = {answer: number for number, answer in enumerate(classes)}
        self._own = lru_cache(maxsize=512)(self._read_own)  # devices: a cohort's, and few others'
        self._tests = lru_cache(maxsize=512)(self._tensors)

    def check(self, stacked: StackedModule) -> None:
        """Let the module read one example of every task, and look at what it says.

        Raises:
            ConfigError: if it cannot read one, or has other classes.
        """
        for task in self.stream.data:
            problem = task.problem(task.source.items[0])
            theta = stacked.stack([stacked.first])  # (1, n)
            try:
                inputs, _ = self._tensors([problem])
                logits = stacked.logits(theta, read(inputs)[None])[0]  # (1, C)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise ConfigError(
                    f"client.model={type(self._module).__name__} cannot read data.{task.name}: {error}"
                ) from error
            if logits.shape != (1, len(self._classes)):
                raise ConfigError(
                    f"client.model={type(self._module).__name__} gives logits of the shape {tuple(logits.shape)} for "
                    f"one example of data.{task.name}; it must be (1, {len(self._classes)}), one for each answer"
                )

    @torch.no_grad()
    def operations(self) -> int:
        """Multiplications and additions of the module's forward pass over one example."""
        task = self.stream.data[0]
        inputs, _ = self._tensors([task.problem(task.source.items[0])])
        with FlopCounterMode(display=False) as counter:
            self._module(read(inputs))
        return int(counter.get_total_flops())

    def count(self, name: str, round_: int) -> int:
        """How many examples a device has of the tasks of a round."""
        own = self.stream.items_held(name, "train")
        return sum(own[task] for task in self.tasks(name, round_))

    def order(self, name: str, round_: int, *, epochs: int, size: int, seed: int) -> list[list[int]]:
        """The batches of a device's round: places among its examples, each once in an epoch, in random order."""
        count, found = self.count(name, round_), list[list[int]]()
        for epoch in range(epochs):
            places = generator(seed, "examples", name, round_, epoch).permutation(count).tolist()
            found += [places[start : start + size] for start in range(0, count, size)]
        return found

    def batch(
        self, places: Sequence[Sequence[int]], names: Sequence[str], round_: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One batch of each of k devices, filled up to B examples, as many as the largest has.

        Args:
            places: of each among its examples; none for a device that is done.
            names: the devices.
            round_: whose tasks.

        Returns:
            Inputs `(k, B, ...)`, classes `(k, B)`, and 1 for examples, 0 for filling, `(k, B)`.
        """
        own = [self._own(name, self.tasks(name, round_)) for name in names]
        size = max(map(len, places))
        rows = torch.zeros(len(names), size, dtype=torch.long)  # (k, B)
        weights = torch.zeros(len(names), size)  # (k, B)
        for k, mine in enumerate(places):
            rows[k, : len(mine)] = torch.tensor(mine, dtype=torch.long)
            weights[k, : len(mine)] = 1.0
        inputs = torch.stack([inputs[row] for (inputs, _), row in zip(own, rows, strict=True)])  # (k, B, ...)
        labels = torch.stack([labels[row] for (_, labels), row in zip(own, rows, strict=True)])  # (k, B)
        return read(inputs), labels, weights

    def tests(self, name: str, round_: int) -> tuple[tuple[Problem, ...], Tensor, Tensor]:
        """A device's tests in a round, as problems, inputs `(N, ...)` and classes `(N,)`."""
        problems = set_of_tests(self.stream, self._evaluation, name, round_)
        inputs, labels = self._tests(problems)
        return problems, read(inputs), labels

    def losses(self, logits: Tensor, labels: Tensor) -> NDArray[np.float64]:
        """Cross-entropies of tests, in nats, `(N,)`, from logits `(N, C)` and the right classes `(N,)`."""
        found: NDArray[np.float64] = F.cross_entropy(logits.double(), labels, reduction="none").numpy()  # (N,)
        return found

    def scores(self, problems: Sequence[Problem], logits: Tensor) -> NDArray[np.float64]:
        """Log-probabilities of the answers that score labels stand for, `(N, L)`; nan where there is none."""
        said = logits.double().log_softmax(1).numpy()  # (N, C)
        labels = max((len(problem.score_words) for problem in problems), default=0)
        found = np.full((len(problems), max(2, labels)), np.nan)
        for n, problem in enumerate(problems):
            for label, word in enumerate(problem.score_words):
                found[n, label] = said[n, self._classes[word]] if word in self._classes else np.nan
        return found

    def tasks(self, name: str, round_: int) -> tuple[str, ...]:
        """Those that a device meets in a round."""
        return tuple(task for task, share in self.stream.mixture(name, round_).items() if share > 0)

    def held(self, name: str, task: str) -> int:
        """How many train examples of a task a device has."""
        return self.stream.items_held(name, "train")[task]

    def train(self, name: str, tasks: Sequence[str]) -> list[Problem]:
        """A device's train examples of tasks, one task after the other."""
        own, index = {task.name: task for task in self.stream.data}, device_index(name)
        return [own[task].problem(item) for task in tasks for item in own[task].source.all(index, "train")]

    def by_task(self, problems: Sequence[Problem], values: Mapping[str, NDArray[np.float64]], of: Subject) -> list[Row]:
        """Values of N problems `(N,)`, summed by task, as rows."""
        tasks = np.array([problem.task for problem in problems])  # (N,)
        return [
            of.row(name, float(each[tasks == task].sum()), float((tasks == task).sum()), task=task)
            for task in self.stream.tasks
            for name, each in values.items()
        ]

    def _read_own(self, name: str, tasks: tuple[str, ...]) -> Kept:
        return self._tensors(self.train(name, tasks))

    def labels(self, problems: Sequence[Problem]) -> Tensor:
        """The right classes, `(N,)`."""
        return torch.tensor([self._classes[problem.answer] for problem in problems], dtype=torch.long)  # (N,)

    def _tensors(self, problems: Sequence[Problem]) -> Kept:
        return read_by(self._module, problems), self.labels(problems)
