"""A cloud that has already answered: outcomes that somebody recorded, in a table or with the questions themselves."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flsim.cloud.protocol import Answer
from flsim.config.schema import ConfigError, ReplayConfig
from flsim.problems.problem import Problem
from flsim.problems.recorded import RECORDED, Record

_TRUTH = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class _Outcome:
    right: bool
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> tuple[int, int]:
        """Sent and received."""
        return self.prompt_tokens, self.completion_tokens


class ReplayCloud:
    """The right answer where the cloud was right, a wrong one where it was not, and the tokens it took."""

    def __init__(self, config: ReplayConfig) -> None:
        """Read the table; without one, outcomes are those that data of recorded outcomes bring with each question.

        Raises:
            ConfigError: naming the file, and the line and column that cannot be used.
        """
        self.config = config
        self.identity = "recorded with the questions"
        self._outcomes: dict[str, _Outcome] | None = None
        if config.file is not None:
            self._read(config.file)

    def _read(self, file: str) -> None:
        path = Path(file)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cloud.replay.file={file!r} cannot be read: {error.strerror}") from error
        self.identity = hashlib.sha256(data).hexdigest()
        self._outcomes = _outcomes(self.config, data.decode("utf-8-sig").splitlines())

    def quote(self, problem: Problem) -> Answer:
        """Exact."""
        outcome = self._outcome(problem)
        return Answer("", *outcome.tokens)

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order.

        Raises:
            ConfigError: naming a question that the table lacks.
        """
        found = [(problem, self._outcome(problem)) for problem in problems]
        return [
            Answer(problem.right_text if outcome.right else problem.wrong_text, *outcome.tokens)
            for problem, outcome in found
        ]

    def _outcome(self, problem: Problem) -> _Outcome:
        if self._outcomes is None:
            return _recorded(problem)
        if problem.question not in self._outcomes:
            raise ConfigError(
                f"cloud.replay.file={self.config.file!r} has no line for the question {problem.question!r} "
                f"({problem.group}, {problem.family}, level {problem.level}), among its {len(self._outcomes)}; record "
                f"it, or take another cloud"
            )
        return self._outcomes[problem.question]


def _recorded(problem: Problem) -> _Outcome:
    """What the problem itself says of the cloud."""
    if problem.verifier != RECORDED:
        raise ConfigError(
            f"cloud.kind=replay without cloud.replay.file knows outcomes of recorded data only, {problem.group!r} "
            f"has none; give a table, or make it data of a kind with recorded outcomes"
        )
    record = Record.read(problem.answer)
    return _Outcome(record.cloud, record.prompt_tokens, record.completion_tokens)


def _outcomes(config: ReplayConfig, lines: Sequence[str]) -> dict[str, _Outcome]:
    table = csv.DictReader(lines)
    columns = (config.question, config.right, config.prompt_tokens, config.completion_tokens)
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        raise ConfigError(
            f"cloud.replay.file={config.file!r} has no column {', '.join(missing)}; it has: "
            f"{', '.join(table.fieldnames or ()) or 'none'}; name them, such as cloud.replay.right=correct"
        )
    outcomes: dict[str, _Outcome] = {}
    for line in table:
        question, right, sent, received = (line[name] or "" for name in columns)
        where = f"cloud.replay.file={config.file!r}, line {table.line_num}"
        if right.strip().lower() not in _TRUTH:
            raise ConfigError(f"{where}: {config.right}={right!r} must be 1 or 0, true or false")
        for name, number in ((config.prompt_tokens, sent), (config.completion_tokens, received)):
            if not number.strip().isdecimal():
                raise ConfigError(f"{where}: {name}={number!r} must be a number of tokens")
        outcome = _Outcome(_TRUTH[right.strip().lower()], int(sent), int(received))
        if outcomes.setdefault(question, outcome) != outcome:
            raise ConfigError(f"{where}: the question {question!r} is there twice, with unlike outcomes; keep one")
    return outcomes
