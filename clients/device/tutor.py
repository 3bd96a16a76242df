"""A classifier in the cloud that teaches devices' modules, under their budgets, and answers for them at tests.

A device sends the cloud so many of its own examples a round as `budget.tau` and the caps let through, each once in a
run, and is told the teacher's logits and hidden state: soft targets, which it then meets in every epoch. At tests the
prompts that it is least sure of, up to tau of them, are answered by the cloud: a router by a threshold on the softmax.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.asking.curves import accuracy_curve, asking_auc, wish_rows
from clients.asking.rule import Choice
from clients.asking.threshold import neediest_first
from clients.device.examples import Examples
from flsim.budget.ledger import Account, Ledger
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Answer, Basket, bytes_sent
from flsim.cloud.tariff import Tariff, trip_facts
from flsim.config.schema import CloudConfig, ConfigError
from flsim.metrics.rows import EVERY_TASK, Row, Subject
from flsim.models.stacked_module import Taught, Weights
from flsim.problems.problem import Problem
from flsim.seeding import generator
from flsim.tasks.module_inputs import read, read_by

_KEPT = "taught"
_FLOAT = 4  # bytes of a number that the teacher tells


@dataclass
class Pupil:
    """What one device has had taught so far."""

    ledger: Ledger
    known: dict[str, list[int]] = field(default_factory=dict)
    """By task, places among its own train examples."""
    basket: Basket = field(default_factory=Basket)
    """What went to the cloud in this round, and came back."""
    tariff: Tariff = field(default_factory=Tariff)
    """What a lesson costs it in this round, in every unit of its budget."""

    @classmethod
    def of(cls, state: RecordDict, ledger: Ledger, tariff: Tariff) -> "Pupil":
        """As a device's state tells; the ledger gets the totals of earlier rounds."""
        record = state.config_records.get(_KEPT)
        if record is None:
            return cls(ledger, tariff=tariff)
        kept = json.loads(str(record["json"]))
        ledger.total = Account(**kept["account"])
        return cls(ledger, kept["known"], tariff=tariff)

    def keep(self, state: RecordDict) -> None:
        """Write it into the device's state."""
        total = self.ledger.total
        account = {"calls": total.calls, "tokens": total.tokens, "money": total.money, "refused": total.refused}
        state[_KEPT] = ConfigRecord({"json": json.dumps({"account": account, "known": self.known})})

    def rows(self, of: Subject, examples: int) -> list[Row]:
        """What it was taught in this round."""
        spent = self.ledger.round
        facts = (("calls", spent.calls), ("tokens", spent.tokens), ("money", spent.money), ("refused", spent.refused))
        named = {f"cloud_{name}": float(value) for name, value in facts} | trip_facts(self.tariff, spent)
        found = [of.row(name, value, 1.0, task=EVERY_TASK) for name, value in named.items()]
        return [*found, of.row("cloud_purchases", float(spent.calls), float(max(1, examples)), task=EVERY_TASK)]


class Tutor:
    """The teacher as a worker holds it."""

    def __init__(
        self, module: nn.Module, examples: Examples, weights: Weights, *, classes: int, width: int, seed: int
    ) -> None:
        """Take a teacher.

        Args:
            module: maps what `inputs` gives to logits, and with `states=True` to hidden states as well.
            examples: the devices'.
            weights: of its parts in the loss.
            classes: C.
            width: D of the pupil's hidden states.
            seed: of the stream, which orders equal scores and random asking.

        Raises:
            ConfigError: if it has other classes, or hidden states that the pupil's cannot be aligned with.
        """
        self.module = module.eval().requires_grad_(False)
        self.weights = weights
        self._examples = examples
        own = int(getattr(module, "width", 0))
        if weights.aligned and own != width:
            raise ConfigError(
                f"client.aligned={weights.aligned:g} aligns hidden states of {width} numbers with the teacher's of "
                f"{own}; set client.aligned=0, or take a teacher and a pupil of one width"
            )
        self._lessons = lru_cache(maxsize=256)(self._read)
        self._right = lru_cache(maxsize=512)(self._judge)  # of the devices' tests, which stay the same
        self._classes = classes
        self._width = own
        self._seed = seed

    def buy(self, pupil: Pupil, name: str, round_: int, tau: float, prices: CloudConfig, seed: int) -> None:
        """Have new examples taught, at most tau of the device's, as far as its ledger lets them through."""
        if not (self.weights.soft or self.weights.aligned):
            return  # it answers at tests, and teaches nothing
        for task in self._examples.tasks(name, round_):
            known = set(pupil.known.get(task, []))
            count = self._examples.held(name, task)
            order = generator(seed, "lessons", name, round_, task).permutation(count).tolist()
            new = [place for place in order if place not in known][: math.floor(tau * count + 1e-9)]
            problems = self._examples.train(name, (task,))
            sizes = self._sizes([problems[place] for place in new])
            for place, size in zip(new, sizes, strict=True):
                money = size * prices.price_per_prompt_token + prices.price_per_completion_token
                up, down = self._bytes(problems[place])
                trip = pupil.tariff.trip(Answer("", size, 1), up, down)
                if pupil.ledger.reserve(size + 1, money, trip):
                    known.add(place)
                    _enter(pupil.basket, size, up, down)
            pupil.known[task] = sorted(known)

    def taught(self, pupil: Pupil, name: str, round_: int, places: Sequence[int]) -> Taught:
        """What it says of one batch of a device, given by places among the round's examples; `(1, B, ...)`."""
        logits, states = self._lessons(name, self._examples.tasks(name, round_))  # (n, C) and (n, D)
        start, known = 0, set[int]()
        for task in self._examples.tasks(name, round_):
            known |= {start + place for place in pupil.known.get(task, [])}
            start += self._examples.held(name, task)
        rows = torch.tensor(list(places), dtype=torch.long)  # (B,)
        mask = torch.tensor([float(place in known) for place in places])[None]  # (1, B)
        return Taught(logits[rows][None], states[rows][None], mask, self.weights)

    def routed(
        self, problems: tuple[Problem, ...], logits: Tensor, labels: Tensor, of: Subject, tau: float
    ) -> list[Row]:
        """The rows of a device's tests when the least sure, at most tau of them, are sent to the cloud.

        Args:
            problems: N tests.
            logits: of the device's module, `(N, C)`.
            labels: `(N,)`.
            of: what is measured.
            tau: share that may be sent.
        """
        chances = logits.double().softmax(1)  # (N, C)
        alone = (logits.argmax(1) == labels).numpy()  # (N,)
        helped = self._right(problems)  # (N,)
        unsure = (1.0 - chances.amax(1)).clamp(0.0, 1.0).numpy()  # (N,)
        choice = Choice(alone, np.ones_like(alone), unsure, claims=unsure)
        ties = generator(self._seed, "asking ties", of.device, of.split).random(len(alone))  # (N,)
        sent = np.zeros_like(alone)  # (N,)
        sent[neediest_first(unsure, ties)[: math.floor(tau * len(alone) + 1e-9)]] = True
        values = {
            "accuracy": np.where(sent, helped, alone).astype(np.float64),
            "alone_accuracy": alone.astype(np.float64),
            "cloud_grants": sent.astype(np.float64),
            "cloud_requests": sent.astype(np.float64),
        }
        whole: list[Row] = []
        if of.model == "global":
            values |= accuracy_curve(choice, helped, ties)
            whole = [of.row("asking_auc", *asking_auc(choice, helped))]
            whole += [of.row(name, *pair) for name, pair in wish_rows(choice).items()]
        return self._examples.by_task(problems, values, of) + whole

    def references(
        self, problems: tuple[Problem, ...], alone: Tensor, labels: Tensor, of: Subject, tau: float
    ) -> list[Row]:
        """The rows of the cloud alone, and of a device that begins and asks at random, by its logits `(N, C)`."""
        helped = self._right(problems).astype(np.float64)  # (N,)
        right = (alone.argmax(1) == labels).double().numpy()  # (N,)
        order = generator(self._seed, "random asking", of.device).permutation(len(right))
        sent = order[: math.floor(tau * len(right) + 1e-9)]
        right[sent] = helped[sent]
        by = self._examples.by_task
        at_random = Subject(of.round, of.device, of.split, "random")
        cloud = Subject(of.round, of.device, of.split, "cloud")
        return by(problems, {"accuracy": right}, at_random) + by(problems, {"accuracy": helped}, cloud)

    @torch.no_grad()
    def says(self, problems: Sequence[Problem]) -> Tensor:
        """Logits `(N, C)` of problems."""
        logits: Tensor = self.module(read(read_by(self.module, problems)))  # (N, C)
        if logits.shape[1] != self._classes:
            raise ConfigError(f"client.teacher has {logits.shape[1]} classes, and the data {self._classes} answers")
        return logits

    def _judge(self, problems: tuple[Problem, ...]) -> NDArray[np.bool_]:
        """Whether it is right, `(N,)`."""
        found: NDArray[np.bool_] = (self.says(problems).argmax(1) == self._examples.labels(problems)).numpy()  # (N,)
        return found

    @torch.no_grad()
    def _read(self, name: str, tasks: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Logits `(n, C)` and states `(n, D)` of all train examples of a device; D is 0 where they do not count."""
        problems = self._examples.train(name, tasks)
        inputs = read(read_by(self.module, problems))  # (n, ...)
        if self.weights.aligned:
            logits, states = self.module(inputs, states=True)
            return logits, states
        logits = self.module(inputs)  # (n, C)
        return logits, torch.zeros(len(logits), 0)

    def _sizes(self, problems: Sequence[Problem]) -> list[int]:
        """Tokens of examples; 1 for what has none, such as a picture."""
        inputs = read_by(self.module, problems)
        count = getattr(self.module, "tokens", None)
        return [1] * len(problems) if count is None else [int(size) for size in count(inputs).tolist()]

    def _bytes(self, problem: Problem) -> tuple[int, int]:
        """One example up, as text or as the numbers of a picture, and its logits and states down."""
        up = bytes_sent(problem) if problem.features is None else problem.features.nbytes
        return up, _FLOAT * (self._classes + (self._width if self.weights.aligned else 0))


def _enter(basket: Basket, size: int, up: int, down: int) -> None:
    basket.exchange = basket.exchange.plus(Exchange(trips=1, up_bytes=up, down_bytes=down))
    basket.prompt_tokens += size
    basket.completion_tokens += 1
