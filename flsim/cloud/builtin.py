"""The clouds that come with the package: the built-in cloud model, which can also teach, and the oracle."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsim.cloud.cutting import Cutting, depth_of
from flsim.cloud.going_on import go_on, text_of
from flsim.cloud.guessing import by_guesses
from flsim.cloud.more_help import Beginning, Continuation, Depth, Draft, Shared, Verified
from flsim.cloud.protocol import Answer, Cloud, Reply
from flsim.cloud.verifying import Verifier, rounding_of
from flsim.config.schema import ConfigError
from flsim.models.base import BaseModel, load_base
from flsim.models.cut import Cut
from flsim.models.decoding import Completions, Reading, encode, generate, given, read
from flsim.models.folder import sha256_of, tokenizer_of
from flsim.models.layer_states import layer_states
from flsim.models.scoring import per_token, top_logprobs, unaided
from flsim.problems.families import TASKS
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream


class Builtin(Cloud):
    """The shipped cloud model, greedy; deterministic, so answers are kept: once per worker and question."""

    access = "features"
    """It can give all that there is, as its layers lie here."""

    def __init__(self, model: str = "builtin:cloud", batch_size: int = 256, max_new_tokens: int = 16) -> None:
        """Name the model; it is loaded with the first question.

        Args:
            model: as `model.path` names one.
            batch_size: questions that it reads at once.
            max_new_tokens: longest answer, the ending token included.
        """
        self.model = model
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._known: dict[str, Answer] = {}

    @cached_property
    def base(self) -> BaseModel:
        """The loaded model."""
        return load_base(self.model, key="cloud.model", asks=False)

    @property
    def sure(self) -> float:
        """Probability that no rounding of a batch can have given to a token by mistake."""
        return 0.51

    def __getstate__(self) -> dict[str, Any]:
        """The settings alone: a model is loaded where it answers."""
        loaded = ("base", "wording", "_longest", "_words", "_verifier", "_cutting")
        return {**{name: value for name, value in vars(self).items() if name not in loaded}, "_known": {}}

    def prompt(self, problem: Problem) -> str:
        """What the model reads."""
        return problem.prompt

    def quote(self, problem: Problem) -> Answer:
        """The prompt's tokens and the longest completion, each token of which may be the longest that there is."""
        sent = len(self.base.tokenizer(self.prompt(problem))["input_ids"])
        return Answer("", sent, self.max_new_tokens, most_bytes=self.max_new_tokens * self._longest)

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order."""
        guesses = {self.prompt(problem): problem.right_text for problem in problems}
        new = [prompt for prompt in guesses if prompt not in self._known]
        for start in range(0, len(new), self.batch_size):
            some = new[start : start + self.batch_size]
            answers = self._ask(some, [guesses[prompt] for prompt in some])
            self._known |= dict(zip(some, answers, strict=True))
        return [self._known[self.prompt(problem)] for problem in problems]

    def _ask(self, prompts: Sequence[str], guesses: Sequence[str]) -> list[Answer]:
        """One batch; the guesses, what is right, only make it faster, as it seldom errs."""
        reading = self._read(prompts)
        spelt = self.base.tokenizer(list(guesses), add_special_tokens=False)["input_ids"]
        said = by_guesses(self.base, reading, spelt, self.max_new_tokens)
        left = [prompt for prompt, tokens in zip(prompts, said, strict=True) if tokens is None]
        decoded = iter(self._generate(left)[0] if left else ())
        sent = reading.prompts.mask[0].sum(-1).tolist()
        return [
            next(decoded) if tokens is None else Answer(self.said(tokens), count, len(tokens))
            for tokens, count in zip(said, sent, strict=True)
        ]

    @torch.no_grad()
    def _generate(self, prompts: Sequence[str]) -> tuple[list[Answer], Completions]:
        """The greedy answers to one batch, and the tokens behind them, `(1, P, 1, T)`."""
        reading = self._read(prompts)
        replies = generate(
            self.base, reading, group_size=1, max_new_tokens=self.max_new_tokens, temperature=0.0, may_ask=False
        )
        sent = reading.prompts.mask[0].sum(-1).tolist()
        received = replies.mask[0, :, 0].sum(-1).tolist()
        told = zip(replies.texts[0], sent, received, strict=True)
        return [Answer(texts[0], prompt_tokens, tokens) for texts, prompt_tokens, tokens in told], replies

    def _read(self, prompts: Sequence[str]) -> Reading:
        return read(self.base, encode(self.base, [prompts]))

    def identity(self) -> Sequence[object]:
        """Its weights, and what computes their bits."""
        return ["builtin", {}, self.computed]

    def for_server(self) -> Cloud:
        """One that reads a question at a time, so that no bit of an answer depends on the others."""
        return Builtin(self.model, 1, self.max_new_tokens)

    @cached_property
    def computed(self) -> str:
        """Whatever its words and their bits depend on: its weights, and what computes them."""
        weights = sha256_of(self.model, "cloud.model")
        return f"{weights} {self.max_new_tokens} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"

    @cached_property
    def _longest(self) -> int:
        """Bytes of its longest token: 9 of the built-in tokenizer, where nearly all have 1."""
        return max(len(token.encode()) for token in self.vocabulary)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Its tokens and their ids, without its weights."""
        return self._words

    @cached_property
    def _words(self) -> dict[str, int]:
        return dict(tokenizer_of(self.model, "cloud.model").get_vocab())

    def tell(self, problems: Sequence[Problem], top: int, layers: Sequence[int] = ()) -> list[Reply]:
        """Its answers with the `top` likeliest tokens at each token; one by one, so that no bit depends on the rest."""
        return [self._tell(self.prompt(problem), top, layers) for problem in problems]

    def score(self, problems: Sequence[Problem], completions: Sequence[Sequence[int]]) -> list[Reply]:
        """The log-probabilities of these completions' tokens, billed as tokens sent; one by one, too."""
        return [self._score(self.prompt(p), tokens) for p, tokens in zip(problems, completions, strict=True)]

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation]:
        """See `flsim.cloud.more_help.GoesOn`; at most as many tokens as its longest answer has."""
        tokens = min(tokens, self.max_new_tokens)
        begun = [(self.prompt(one.problem), one.said) for one in beginnings]
        return go_on(self.base, begun, tokens, batch_size=self.batch_size, sure=self.sure)

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified]:
        """See `flsim.cloud.more_help.Verifies`."""
        return self._verifier.verify([self.prompt(draft.problem) for draft in drafts], drafts, rule, temperature)

    def said(self, tokens: Sequence[int]) -> str:
        """See `flsim.cloud.more_help.Verifies`."""
        return text_of(self.base, tokens)

    @cached_property
    def depth(self) -> Depth:
        """See `flsim.cloud.more_help.SharesLayers`."""
        return depth_of(self.model, "cloud.model")

    def share(self, problems: Sequence[Problem], cut: Cut) -> list[Shared]:
        """See `flsim.cloud.more_help.SharesLayers`."""
        return self._cutting.share([self.prompt(problem) for problem in problems], cut)

    @cached_property
    def _cutting(self) -> Cutting:
        """With what it has answered."""
        return Cutting(self.base, self.max_new_tokens, self.batch_size, self.sure, self.said)

    @cached_property
    def _verifier(self) -> Verifier:
        """With the prompts that it has read."""
        return Verifier(self.base, self.max_new_tokens, self.batch_size, rounding_of(self.sure))

    @torch.no_grad()
    def _tell(self, prompt: str, top: int, layers: Sequence[int]) -> Reply:
        reading = self._read([prompt])
        said = generate(
            self.base, reading, group_size=1, max_new_tokens=self.max_new_tokens, temperature=0.0, may_ask=False
        )
        ids, logprobs = (part[0, 0, 0] for part in top_logprobs(self.base, reading, said, top))  # (T, k) each
        answer = Answer(said.texts[0][0][0], int(reading.prompts.mask.sum()), int(said.mask.sum()))
        reply = _reply(answer, said.tokens[0, 0, 0], ids, logprobs)
        return replace(reply, states=self._states(reading, said, layers)) if layers else reply

    def _states(self, reading: Reading, said: Completions, layers: Sequence[int]) -> NDArray[np.float16]:
        """Of the tokens of one answer, `(S, T, D)`; what 16 bits cannot hold is the most that they can."""
        asked = reading.prompts.ids[reading.prompts.mask].tolist()
        told = said.tokens[said.mask].tolist()
        states = layer_states(self.base, [asked], [told], layers).float()  # (S, T, D)
        largest = torch.finfo(torch.float16).max
        kept: NDArray[np.float16] = states.clamp(-largest, largest).half().cpu().numpy()
        return kept

    @torch.no_grad()
    def _score(self, prompt: str, tokens: Sequence[int]) -> Reply:
        reading = self._read([prompt])
        completions = given(self.base, [[tokens]])
        alone = unaided(self.base, completions)
        ids = completions.tokens.flatten()[:, None]  # (T, 1)

        def readout(logits: Tensor, places: Tensor) -> Tensor:
            return alone(logits, places).gather(-1, ids[places])[:, 0]

        logprobs = per_token(self.base, reading, completions, readout)[0, 0, 0]  # (T,)
        sent = int(reading.prompts.mask.sum()) + len(tokens)
        return _reply(Answer("", sent, 0), ids[:, 0], ids, logprobs[:, None])


def _reply(answer: Answer, tokens: Tensor, ids: Tensor, logprobs: Tensor) -> Reply:
    return Reply(
        answer,
        tokens.cpu().numpy().astype(np.int32),
        ids.cpu().numpy().astype(np.int32),
        logprobs.float().cpu().numpy(),
    )


class Oracle(Cloud):
    """The right answer, except on a fixed share of the questions, chosen by a hash of the question."""

    def __init__(self, error: float = 0.03, errors: Mapping[str, float] | None = None) -> None:
        """Set the shares.

        Args:
            error: the share.
            errors: the same for single tasks, such as `{arithmetic: 0.1}`; the others have `error`.

        Raises:
            ConfigError: for a share that is none.
        """
        self.error, self.errors = float(error), dict(errors or {})
        for name, share in (("error", self.error), *((f"errors.{task}", share) for task, share in self.errors.items())):
            if not 0 <= share <= 1:
                raise ConfigError(f"cloud.{name}={share} must be in [0, 1]: it is a share of questions")

    def check(self, stream: TaskStream, workers: int) -> None:
        """Refuse errors of a task that there is not, and code of which nobody knows a right one."""
        tasks = tuple(dict.fromkeys((*TASKS, *stream.tasks)))
        for task in self.errors:
            if task not in tasks:
                known = ", ".join(tasks)
                raise ConfigError(f"cloud.errors names {task!r}, which is no task; choose of: {known}")
        for data in stream.data:
            # tests are no code that passes them: an oracle that knows nothing else would always be wrong
            if data.is_code and not data.has_solutions:
                raise ConfigError(
                    f"data.{data.name}: an oracle knows no right code, as no item has a solution; map a column to "
                    f"solution, or take another cloud"
                )

    def identity(self) -> Sequence[object]:
        """Its shares."""
        return ["oracle", {"oracle_error": self.error, "oracle_errors": self.errors}, ""]

    def quote(self, problem: Problem) -> Answer:
        """Exact, since the oracle knows the answer. A character counts as a token."""
        longest = max(len(text.encode()) for text in (problem.right_text, problem.wrong_text))
        return Answer("", len(problem.prompt), len(problem.right_text) + 1, most_bytes=longest)

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        """One answer per problem, in order; an empty text where the oracle errs."""
        return [
            Answer(p.wrong_text if self._errs(p) else p.right_text, len(p.prompt), len(p.right_text) + 1)
            for p in problems
        ]

    def _errs(self, problem: Problem) -> bool:
        digest = hashlib.sha256(b"oracle" + problem.question.encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self.errors.get(problem.task, self.error)
