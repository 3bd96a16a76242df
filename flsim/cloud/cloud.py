"""The cloud LLM as the devices see it: questions in, answers with their token counts out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from flsim.config import CloudConfig
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import encode, generate, read
from flsim.tasks.problem import Problem


@dataclass(frozen=True)
class Answer:
    """One reply of the cloud."""

    text: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """All tokens of the exchange."""
        return self.prompt_tokens + self.completion_tokens

    def money(self, config: CloudConfig) -> float:
        """Its price, in the unit of `config.price_*`."""
        return (
            self.prompt_tokens * config.price_per_prompt_token
            + self.completion_tokens * config.price_per_completion_token
        )


class Cloud(Protocol):
    """Anything that answers problems."""

    def quote(self, problem: Problem) -> Answer:
        """The largest exchange that answering the problem can come to (no text); caps are held against it."""
        ...

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order."""
        ...


class BuiltinCloud:
    """The shipped cloud model, greedy; deterministic, so answers are kept: once per worker and question."""

    def __init__(self, path: str = "builtin:cloud", batch_size: int = 256, max_new_tokens: int = 16) -> None:
        self.base: BaseModel = load_base(path)
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._known: dict[str, Answer] = {}

    def quote(self, problem: Problem) -> Answer:
        """The question's tokens and the longest completion."""
        return Answer("", len(self.base.tokenizer(problem.question)["input_ids"]), self.max_new_tokens)

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order."""
        new = list(dict.fromkeys(p.question for p in problems if p.question not in self._known))
        for start in range(0, len(new), self.batch_size):
            self._ask(new[start : start + self.batch_size])
        return [self._known[problem.question] for problem in problems]

    @torch.no_grad()
    def _ask(self, questions: list[str]) -> None:
        reading = read(self.base, encode(self.base, [questions]))
        replies = generate(
            self.base, reading, group_size=1, max_new_tokens=self.max_new_tokens, temperature=0.0, may_ask=False
        )
        sent = reading.prompts.mask[0].sum(-1).tolist()
        received = replies.mask[0, :, 0].sum(-1).tolist()
        for question, texts, prompt_tokens, tokens in zip(questions, replies.texts[0], sent, received, strict=True):
            self._known[question] = Answer(texts[0], prompt_tokens, tokens)


class OracleCloud:
    """The right answer, except on a fixed share of the questions, chosen by a hash of the question."""

    def __init__(self, error: float) -> None:
        self.error = error

    def quote(self, problem: Problem) -> Answer:
        """Exact, since the oracle knows the answer. A character counts as a token."""
        return Answer("", len(problem.question), len(problem.answer) + 1)

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order; an empty text where the oracle errs."""
        return [
            Answer("" if self._errs(p.question) else p.answer, len(p.question), len(p.answer) + 1) for p in problems
        ]

    def _errs(self, question: str) -> bool:
        digest = hashlib.sha256(b"oracle" + question.encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self.error


def make_cloud(config: CloudConfig) -> Cloud:
    """The cloud that `config.kind` names."""
    return BuiltinCloud() if config.kind == "builtin" else OracleCloud(config.oracle_error)
