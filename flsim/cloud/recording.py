"""Ask a cloud every question of some data sets once, under caps, and keep what it said: `flsim record`.

A recording buys as a server does (`flsim/cloud/purchases.py`): what is about to be sent is written down, what came is
kept at once, so that an attempt that was killed pays nothing twice, and caps hold over all attempts together.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flsim.budget.ledger import Account, Ledger
from flsim.cloud.answer_table import Line
from flsim.cloud.cache import Cache, key_of
from flsim.cloud.journal import Journal
from flsim.cloud.protocol import Answer, Basket, Cloud
from flsim.cloud.purchases import Purchases, Request
from flsim.cloud.teacher import TEXT
from flsim.config.schema import BudgetConfig, CloudConfig, ConfigError
from flsim.files import writing
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

_AT_ONCE = 16  # questions of one call, where the cloud does not say how many it takes at a time
_JOURNAL, _SECONDS = "asked", "seconds.jsonl"


@dataclass(frozen=True)
class Asked:
    """One question on its way to the table."""

    problem: Problem
    split: str


def questions_of(stream: TaskStream) -> list[Asked]:
    """All questions of the data sets of a stream, each once, in their order.

    Raises:
        ConfigError: if a task is of the built-in world, whose questions have no end, or two data sets ask one question
            under different instructions.
    """
    named = {data.name for data in stream.data}
    endless = [task for task in stream.tasks if task not in named]
    if endless:
        raise ConfigError(
            f"stream.phases names {endless[0]!r}, whose questions are drawn without end; only data sets can be "
            f"recorded: let stream.phases name sets of data alone"
        )
    found = dict[str, Asked]()
    for data in stream.data:
        for item, split in data.source.of_splits():
            asked = Asked(data.problem(item), split)
            first = found.setdefault(item.question, asked)
            if first.problem.prompt != asked.problem.prompt:
                raise ConfigError(
                    f"data.{first.problem.task} and data.{data.name} ask {item.question!r} under different "
                    f"instructions; a table has one answer to a question: give both the same instruction"
                )
    return list(found.values())


class Recording:
    """One recording, as far as it has come; it may be gone on with in another process."""

    def __init__(self, cloud: Cloud, prices: CloudConfig, cache: Cache | None, caps: BudgetConfig, folder: Path):
        """Open it.

        Args:
            cloud: what is asked, bare.
            prices: the section of the config that has them.
            cache: what was bought before, by whichever run; None keeps answers in the folder.
            caps: on what the recording spends.
            folder: what belongs to the recording until its table is written.

        Raises:
            UnwritableError: if nothing can be written there.
        """
        with writing("what is recorded so far", folder):
            folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / _JOURNAL, prices)
        journal.begin(Account(), cloud.costs)
        self._clocked = _Clocked(cloud, folder / _SECONDS)
        self._shop = Purchases(
            self._clocked,
            prices,
            Cache(folder) if cache is None else cache,
            Ledger(caps, held=journal.held),
            {},
            journal,
        )

    @property
    def basket(self) -> Basket:
        """What this attempt has been charged, has bought and has found."""
        return self._shop.basket

    @property
    def lost(self) -> Account:
        """What earlier attempts sent and had no answer to, or that this one has no use for; it counts as spent."""
        return self._shop.journal.held

    def answers(self, questions: Sequence[Asked]) -> Iterator[list[Line | None]]:
        """Ask; the lines of a few questions at a time, in order, None where there is no answer.

        There is none where a cap refused it, the cloud failed, or what it billed held no text.
        """
        left = iter(questions)
        size = getattr(self._clocked.cloud, "concurrency", _AT_ONCE)
        while some := list(islice(left, size)):
            replies = self._shop.buy([Request(TEXT, asked.problem) for asked in some])
            said = [None if reply is None else reply.answer for reply in replies]
            told = [(asked.problem, answer.text) for asked, answer in zip(some, said, strict=True) if answer]
            verdicts = iter(are_right(told))
            yield [
                None if answer is None else self._line(asked, answer, next(verdicts))
                for asked, answer in zip(some, said, strict=True)
            ]

    def _line(self, asked: Asked, answer: Answer, right: bool) -> Line:
        problem = asked.problem
        return Line(
            problem.question,
            answer.text,
            answer.prompt_tokens,
            answer.completion_tokens,
            self._clocked.seconds_of(problem),
            problem.task,
            problem.family,
            problem.level,
            asked.split,
            right,
        )


class _Clocked(Cloud):
    """A cloud that remembers how long its answers took, also for a later attempt."""

    def __init__(self, cloud: Cloud, file: Path) -> None:
        self.cloud, self.costs, self.access = cloud, cloud.costs, cloud.access
        self._file = file
        self._identity = cloud.identity()
        self._seconds = dict[str, float]()
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        for line in lines:
            try:
                self._seconds |= json.loads(line)
            except (ValueError, TypeError):
                continue  # the part of a line that a kill left

    def identity(self) -> Sequence[object]:
        """As the cloud has it."""
        return self._identity

    def quote(self, problem: Problem) -> Answer:
        """As the cloud has it."""
        return self.cloud.quote(problem)

    def answer(self, problems: Sequence[Problem]) -> Sequence[Answer | None]:
        """As the cloud has it; where that does not measure its requests, they share the time of the call."""
        begun = time.monotonic()
        answers = self.cloud.answer(problems)
        share = (time.monotonic() - begun) / max(1, len(problems))
        took = {
            self._name(problem): round(share if answer.seconds is None else answer.seconds, 3)
            for problem, answer in zip(problems, answers, strict=True)
            if answer is not None
        }
        self._seconds |= took
        with writing("what is recorded so far", self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(took)}\n")
        return answers

    def seconds_of(self, problem: Problem) -> float | None:
        """How long its answer took; None where it was there before the recording."""
        return self._seconds.get(self._name(problem))

    def _name(self, problem: Problem) -> str:
        return key_of(self._identity, TEXT, problem).hex()


def forget(folder: Path) -> None:
    """Remove what belonged to a recording whose table is written; what else lies in the folder stays."""
    for name in (_JOURNAL, _SECONDS, Cache(folder).path.name, ".lock"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()
