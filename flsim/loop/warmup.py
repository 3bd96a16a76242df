"""The warm-up: before round 1 the server teaches the small model the form of an answer, and of a request.

It takes questions of the train split, gets answers to them (of the data, of the cloud, or right ones of the model
itself), and takes a few supervised steps (`flsim/models/teaching.py`). What comes of it is the adapter that the run
starts from. It is computed in the server's process on one thread, so that it is the same for any number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from flsim.budget.ledger import Account, Ledger
from flsim.cloud.cache import Shelf
from flsim.cloud.journal import PURCHASES, TRAINING, journal_of
from flsim.cloud.make import cache_of
from flsim.cloud.protocol import NOTHING, Basket, Cloud
from flsim.cloud.purchases import Purchases, Request
from flsim.cloud.teacher import TEXT
from flsim.config.schema import Config, ConfigError
from flsim.config.warmup import ASKED_FOR, CLOUD, OWN
from flsim.loop.bar import bar_of
from flsim.metrics.rows import EVERY_TASK, FLEET, WARMUP, Row
from flsim.models.adapter import Adapter, lora_of
from flsim.models.base import BaseModel, load_model, one_thread
from flsim.models.decoding import encode, generate, read
from flsim.models.stacked_lora import StackedLora
from flsim.models.teaching import Course, Lesson, lesson_of, teach
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import python_random, seed_for
from flsim.tasks.stream import TaskStream, proxy_problems

_AT_ONCE = 8  # questions that are asked, or tried, together


@dataclass(frozen=True)
class Warmed:
    """What a warm-up came to."""

    adapter: Adapter
    """What the run starts from."""
    facts: Mapping[str, float]
    """What it took, by the names of rows."""

    def rows(self) -> list[Row]:
        """The same as rows of round 0, of no device."""
        return [Row(0, FLEET, EVERY_TASK, WARMUP, WARMUP, name, value, 1.0) for name, value in self.facts.items()]

    @property
    def account(self) -> Account:
        """What it spent at the cloud."""
        return Account(
            int(self.facts["cloud_calls"]), int(self.facts["cloud_tokens"]), float(self.facts["cloud_money"])
        )


@dataclass(frozen=True)
class Warmup:
    """A warm-up that is to be."""

    config: Config
    stream: TaskStream
    cloud: Cloud
    start: Adapter
    """What it begins with; what devices learn beside LoRA stays as it is."""
    speaks: bool | None
    """Whether the devices ask by words; None if the client does not say."""

    @property
    def request_share(self) -> float:
        """Of the lessons, how many teach the request."""
        given = self.config.warmup.request_share
        return (ASKED_FOR if self.speaks else 0.0) if given is None else given

    @property
    def may_ask(self) -> bool:
        """Whether responses may hold the request; where nobody says, they may if it is taught."""
        return self.request_share > 0 if self.speaks is None else self.speaks

    @property
    def tasks(self) -> tuple[str, ...]:
        """Whose questions are taught: what was named, or what round 1 may bring."""
        named, stream = self.config.warmup.tasks, self.stream
        if named is not None:
            return named
        return stream.tasks if stream.config.schedule == "joint" else stream.phases[0].tasks

    def learn(self, folder: Path, *, progress: bool) -> Warmed:
        """Teach it.

        Args:
            folder: of the run; what the cloud is asked is written down below it before it is sent.
            progress: whether to show bars.

        Raises:
            ConfigError: if there is no right answer to any question.
        """
        with one_thread():
            return _Work(self, folder, progress).done()

    def questions(self) -> list[Problem]:
        """Different ones of the train split, the tasks in turn."""
        own, seed = self.config.warmup, self.config.seed
        rng = python_random(seed, "warmup", "questions")
        return proxy_problems(self.tasks, "train", count=own.questions, rng=rng, data=self.stream.data)


def refuse_silent(config: Config, speaks: bool | None) -> None:
    """Refuse to teach a request that nobody would ever say.

    Args:
        config: of the run.
        speaks: whether its devices ask by words; None if the client does not say.

    Raises:
        ConfigError: with the mend.
    """
    own = config.warmup
    if own.steps and own.request_share and speaks is False:
        raise ConfigError(
            f"warmup.request_share={own.request_share:g} would teach a request that devices of "
            f"client.path={config.client['path']} with these settings never say: they ask by a head or a rule, or not "
            f"at all; leave it out (None teaches it only where devices ask by words, as with client.policy=token)"
        )


@dataclass
class _Work:
    """A warm-up in progress."""

    plan: Warmup
    folder: Path
    progress: bool
    sampled: int = 0
    """Tokens that were read and drawn for tries of its own."""
    basket: Basket = field(default_factory=Basket)
    """What was bought."""

    def done(self) -> Warmed:
        plan, own = self.plan, self.plan.config.warmup
        base = load_model(plan.config.model)
        lora = StackedLora(base.model, lora_of(plan.start), plan.config.shape.scale)
        theta = lora.stack([lora_of(plan.start)])  # (1, n)
        questions = plan.questions()
        lessons = self._lessons(base, lora, theta, questions)
        course = Course(
            own.steps,
            own.batch,
            own.lr,
            own.rise,
            own.clip_norm,
            plan.request_share,
            plan.may_ask,
            seed_for(plan.config.seed, "warmup"),
        )
        with self._bar(own.steps, "step") as bar:
            taught = teach(base, lora, theta, lessons, course, bar.update)
        (learned,) = lora.unstack(theta)
        paid = self.basket.charged
        facts = {
            "steps": own.steps,
            "lessons": taught.lessons,
            "requests": taught.requests,
            "questions": len(questions),
            "answered": len(lessons),
            "learned_tokens": taught.tokens,
            "sampled_tokens": self.sampled,
            "cloud_calls": paid.calls,
            "cloud_refused": paid.refused,
            "cloud_tokens": paid.tokens,
            "cloud_money": paid.money,
        }
        return Warmed(plan.start | learned, {name: float(value) for name, value in facts.items()})

    def _lessons(
        self, base: BaseModel, lora: StackedLora, theta: torch.Tensor, questions: Sequence[Problem]
    ) -> list[Lesson]:
        """The questions to which a right answer was found that a response has room for."""
        model, source = self.plan.config.model, self.plan.config.warmup.source
        if source == OWN:
            lora.attach(theta)
            found = self._tried(base, questions)
        else:
            said = self._bought(questions) if source == CLOUD else [problem.right_text for problem in questions]
            pairs = [(problem, text) for problem, text in zip(questions, said, strict=True) if text is not None]
            found = [pair for pair, right in zip(pairs, are_right(pairs), strict=True) if right]
        most, after, asks = model.training_tokens, model.drafts, self.plan.request_share > 0
        lessons = [
            lesson_of(base, base.prompt(problem), text, most=most, after=after, asks=asks) for problem, text in found
        ]
        fitting = [one for one in lessons if one is not None]
        if not fitting:
            raise ConfigError(_nothing(source, len(questions), len(found), model.training_tokens))
        return fitting

    def _bought(self, questions: Sequence[Problem]) -> list[str | None]:
        """The cloud's answers; None where it failed, or the fleet's caps leave no room."""
        config, cloud = self.plan.config, self.plan.cloud.for_server()
        books = self.folder / PURCHASES / WARMUP
        journal = journal_of(books, 0, TRAINING, config.cloud, cloud.costs, total=Account())
        kept = None if cloud.costs == NOTHING else cache_of(config.cloud.cache)
        shelf = Shelf(books) if kept is None else kept
        shop = Purchases(cloud, config.cloud, shelf, Ledger(config.budget.of_server, held=journal.held), {}, journal)
        replies = [
            reply
            for some in self._parts(questions, "answer")
            for reply in shop.buy([Request(TEXT, problem) for problem in some])
        ]
        self.basket = shop.basket
        return [None if reply is None else reply.answer.text for reply in replies]

    def _tried(self, base: BaseModel, questions: Sequence[Problem]) -> list[tuple[Problem, str]]:
        """Each question with the model's first right try, if it has one; the adapters are on."""
        own, most, found = self.plan.config.warmup, self.plan.config.model.training_tokens, []
        for number, some in enumerate(self._parts(questions, "try")):
            source = torch.Generator().manual_seed(seed_for(self.plan.config.seed, "warmup", "tries", number))
            with torch.no_grad():
                reading = read(base, encode(base, base.prompts([some])))
                said = generate(
                    base,
                    reading,
                    group_size=own.samples,
                    max_new_tokens=most,
                    temperature=own.temperature,
                    generators=[source],
                    may_ask=False,
                )
            self.sampled += int(reading.prompts.mask.sum()) + int(said.mask.sum())
            tries = [(problem, text) for problem, texts in zip(some, said.texts[0], strict=True) for text in texts]
            right = [pair for pair, is_right in zip(tries, are_right(tries), strict=True) if is_right]
            found += list({problem.question: (problem, text) for problem, text in reversed(right)}.values())[::-1]
        return found

    def _parts(self, questions: Sequence[Problem], unit: str) -> Iterator[Sequence[Problem]]:
        """The questions, a few at a time, with a bar."""
        with self._bar(len(questions), unit) as bar:
            for start in range(0, len(questions), _AT_ONCE):
                some = questions[start : start + _AT_ONCE]
                yield some
                bar.update(len(some))

    def _bar(self, total: int, unit: str) -> "tqdm[Any]":
        return bar_of(total, desc="warm-up", unit=unit, shown=self.progress)


def _nothing(source: str, questions: int, right: int, most: int) -> str:
    """Why there is nothing to teach, and what can be done."""
    if right:
        return (
            f"warmup: none of the {right} right answers (warmup.source={source}) fits into a response of {most} tokens "
            f"beside the end or the request; raise model.max_new_tokens, or shorten model.help"
        )
    why, mend = {
        OWN: (
            "the model itself was right in no try",
            "take warmup.source=gold or cloud, raise warmup.samples, or show it the form of an answer in its prompt",
        ),
        CLOUD: ("the cloud gave no right answer", "take warmup.source=gold, or look at the cloud and its caps"),
    }.get(
        source,
        ("no reference of the data is an answer as it stands", "take warmup.source=cloud or own, or give solutions"),
    )
    return f"warmup.source={source}: of {questions} questions {why}, so there is nothing to teach; {mend}"
