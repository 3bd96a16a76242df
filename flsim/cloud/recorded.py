"""A cloud that has already answered: answers or outcomes that somebody recorded, in a table or with the questions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flsim.cloud.answer_table import is_answer_table, path_of, read_table
from flsim.cloud.protocol import Answer, Cloud
from flsim.config.schema import ConfigError
from flsim.problems.problem import Problem
from flsim.problems.recorded import RECORDED, Record
from flsim.tasks.data_file import DataFile
from flsim.tasks.stream import TaskStream
from flsim.tasks.tables import csv_rows

_TRUTH = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class _Outcome:
    right: bool
    prompt_tokens: int
    completion_tokens: int
    text: str | None = None
    """What was said; None where only the verdict was kept."""

    @property
    def tokens(self) -> tuple[int, int]:
        """Sent and received."""
        return self.prompt_tokens, self.completion_tokens

    def said(self, problem: Problem) -> str:
        """The answer."""
        if self.text is not None:
            return self.text
        return problem.right_text if self.right else problem.wrong_text


class Recorded(Cloud):
    """What the cloud said, and the tokens it took; of a table with verdicts alone, the right answer or a wrong one."""

    def __init__(
        self,
        file: str | None = None,
        question: str = "question",
        right: str = "right",
        prompt_tokens: str = "prompt_tokens",
        completion_tokens: str = "completion_tokens",
    ) -> None:
        """Name the table and its columns.

        Args:
            file: table of answers that `flsim record` wrote, or `builtin:english`, which ships; or CSV table of
                verdicts with a header and one line per question; None where the data themselves record the outcomes.
            question: name of the CSV's column that holds the question.
            right: of the one that says whether the cloud was right: 1 or 0, true or false.
            prompt_tokens: of the one with the tokens sent.
            completion_tokens: of the one with the tokens received.

        Raises:
            ConfigError: if there is no such file.
        """
        self.file = file
        self._path = None if file is None else path_of(file)
        self.columns = (question, right, prompt_tokens, completion_tokens)

    def __getstate__(self) -> dict[str, Any]:
        """Without the table, which every process reads from its file.

        Ray keeps what is large in its object store, and may not find it there when a worker is started again.
        """
        return {name: value for name, value in vars(self).items() if name != "_table"}

    def check(self, stream: TaskStream, workers: int) -> None:
        """Read the table and look for all questions of the data; without one, all data must bring their outcomes."""
        if self.file is not None:
            self._refuse_unknown(stream)
            return
        recorded = [data.name for data in stream.data if data.source.verifier == RECORDED]
        for task in stream.tasks:
            if task not in recorded:
                raise ConfigError(
                    f"flsim.cloud.recorded:Recorded needs cloud.file, as questions of {task!r} bring no "
                    f"recorded outcomes; give the path of a CSV table, or let stream.phases name data of recorded "
                    f"outcomes only"
                )

    def identity(self) -> Sequence[object]:
        """The table's bytes, or the lines of a table of answers."""
        return ["replay", {}, "recorded with the questions" if self.file is None else self._table[0]]

    def _refuse_unknown(self, stream: TaskStream) -> None:
        """Questions of data sets are known before a run; those of the built-in world are met as they are drawn.

        Raises:
            ConfigError: naming a question that the table lacks, and how many there are.
        """
        outcomes = self._table[1]
        for data in stream.data:
            asked = [item.question for item, _ in data.source.of_splits()]
            lacking = [question for question in asked if question not in outcomes]
            if lacking:
                raise ConfigError(
                    f"cloud.file={self.file!r} has no answer to {len(lacking)} of the {len(asked)} questions of "
                    f"{data.name!r}, such as {lacking[0]!r}; record them with flsim record, leave them out of the "
                    f"data, or take another cloud"
                )

    @cached_property
    def _table(self) -> tuple[str, dict[str, _Outcome]]:
        """The hash of the table, and the outcomes in it.

        Raises:
            ConfigError: naming the file, and the row and column that cannot be used.
        """
        assert self.file is not None
        assert self._path is not None
        if is_answer_table(self.file):
            table = read_table(self._path)
            said = {
                line.question: _Outcome(bool(line.right), line.prompt_tokens, line.completion_tokens, line.answer)
                for line in table.lines
            }
            return table.digest, said
        file = DataFile(self._path)
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cloud.file={self.file!r} cannot be read: {error.strerror}") from error
        return hashlib.sha256(data).hexdigest(), _outcomes(file, self.columns)

    def quote(self, problem: Problem) -> Answer:
        """Exact."""
        outcome = self._outcome(problem)
        return Answer("", *outcome.tokens, most_bytes=len(outcome.said(problem).encode()))

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order.

        Raises:
            ConfigError: naming a question that the table lacks.
        """
        found = [(problem, self._outcome(problem)) for problem in problems]
        return [Answer(outcome.said(problem), *outcome.tokens) for problem, outcome in found]

    def _outcome(self, problem: Problem) -> _Outcome:
        if self.file is None:
            return _recorded(problem)
        outcomes = self._table[1]
        if problem.question not in outcomes:
            raise ConfigError(
                f"cloud.file={self.file!r} has no line for the question {problem.question!r} ({problem.task}, "
                f"{problem.family}, level {problem.level}), among its {len(outcomes)}; record it, or take another cloud"
            )
        return outcomes[problem.question]


def _recorded(problem: Problem) -> _Outcome:
    """What the problem itself says of the cloud."""
    if problem.verifier != RECORDED:
        raise ConfigError(
            f"a recorded cloud without cloud.file knows outcomes of recorded data only, {problem.task!r} has none; "
            f"give a table, or make it data of a kind with recorded outcomes"
        )
    record = Record.read(problem.answer)
    return _Outcome(record.cloud, record.prompt_tokens, record.completion_tokens)


def _outcomes(file: DataFile, columns: tuple[str, str, str, str]) -> dict[str, _Outcome]:
    outcomes: dict[str, _Outcome] = {}
    for row in csv_rows(file):
        missing = [name for name in columns if name not in row.values]
        if missing:
            raise ConfigError(
                f"cloud.file={str(file)!r} has no column {', '.join(missing)}; it has: {', '.join(row.values)}; name "
                f"them, such as cloud.right=correct"
            )
        question, right, sent, received = (row.values[name] for name in columns)
        if right.strip().lower() not in _TRUTH:
            raise row.error(f"{columns[1]}={right!r} must be 1 or 0, true or false")
        for name, number in ((columns[2], sent), (columns[3], received)):
            if not number.strip().isdecimal():
                raise row.error(f"{name}={number!r} must be a number of tokens")
        outcome = _Outcome(_TRUTH[right.strip().lower()], int(sent), int(received))
        if outcomes.setdefault(question, outcome) != outcome:
            raise row.error(f"the question {question!r} is there twice, with unlike outcomes; keep one")
    return outcomes
