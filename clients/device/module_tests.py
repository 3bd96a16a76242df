"""What devices' modules say of their own tests, as rows: alone, with a teacher in the cloud, and beside references."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from clients.device.examples import Examples
from clients.device.tutor import Tutor
from clients.task_scores import label_rows
from flsim.metrics.rows import Row, Subject
from flsim.models.adapter import Adapter
from flsim.models.stacked_module import StackedModule
from flsim.problems.problem import Problem

Heard = tuple[tuple[Problem, ...], Tensor, Tensor]
"""A device's N tests, what its module says of them, `(N, C)`, and the right classes, `(N,)`."""


@dataclass(frozen=True)
class ModuleTests:
    """How modules are measured."""

    stacked: StackedModule
    examples: Examples
    tutor: Tutor | None
    """Who answers the tests that a device is least sure of; None for nobody."""
    tau: float
    """The share of its tests that a device may send."""
    split: str
    """What is measured: `test`, or `validation`."""

    def heard(self, names: Sequence[str], adapters: Sequence[Adapter], round_: int) -> list[Heard]:
        """What each device's module says of its own tests; an adapter that devices share is laid out once."""
        found: list[Heard] = []
        shared: dict[int, Tensor] = {}
        for name, adapter in zip(names, adapters, strict=True):
            if id(adapter) not in shared:
                shared = {id(adapter): self.stacked.stack([adapter])}  # (1, n)
            problems, inputs, labels = self.examples.tests(name, round_)
            found.append((problems, self.stacked.logits(shared[id(adapter)], inputs[None])[0], labels))
        return found

    def rows(self, heard: Heard, *, name: str, round_: int, model: str) -> list[Row]:
        """Of one device.

        Args:
            heard: its tests and answers.
            name: its own.
            round_: after which it is measured.
            model: `global` or `own`.
        """
        problems, logits, labels = heard
        of = Subject(round_, name, self.split, model)
        values = {"loss": self.examples.losses(logits, labels)}  # (N,)
        if self.tutor is None:
            values["accuracy"] = (logits.argmax(1) == labels).double().numpy()  # (N,)
        rows = self.examples.by_task(problems, values, of)
        rows += label_rows(problems, self.examples.scores(problems, logits), self.examples.stream.tasks, of)
        return rows if self.tutor is None else rows + self.tutor.routed(problems, logits, labels, of, self.tau)

    def references(self, heard: Heard, measured: Sequence[Row], *, name: str, round_: int) -> list[Row]:
        """Before training, the model that the run starts from, of which there are rows, and what the cloud adds."""
        plain = ("accuracy", "alone_accuracy", "loss")
        found = [replace(row, model="frozen") for row in measured if row.name in plain]
        if self.tutor is None:
            return found
        return found + self.tutor.references(*heard, Subject(round_, name, self.split, "frozen"), self.tau)
