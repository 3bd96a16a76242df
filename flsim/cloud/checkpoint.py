"""The cloud as a checkpoint on this machine: answered in batches, with the bits of one question at a time.

In a batch a logit differs from that of the question alone by the rounding of other sums, in float32 far below a
thousandth. So where each token of an answer has more than half of the probability, and a little more, no rounding can
have chosen another one, and the answer is the one that would have been given alone; where not, the question is asked
again, alone. Sums in bfloat16 differ by tenths, so that a token must have more.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from flsim.cloud.builtin import Builtin
from flsim.cloud.protocol import TIME, Answer, Cloud, instruction, system_of
from flsim.config.model import AUTO
from flsim.config.schema import ConfigError
from flsim.models.base import BaseModel, load_base, one_thread
from flsim.models.folder import is_built_in, saved_in, tokenizer_of
from flsim.models.gguf import gguf_file
from flsim.models.int8 import BFLOAT16, FLOAT32, INT8, multiplies_in_bfloat16, shrink
from flsim.models.wording import Chat, has_chat
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

_SURE = {FLOAT32: 0.51, BFLOAT16: 0.75, INT8: 0.75}
"""Probability that no rounding of a batch can have given to a token by mistake, by what the weights are kept in. With
0.51 the runner-up has at most 0.49, 0.04 nats below; with 0.75 it is 1.1 nats below, eight times what a batch was seen
to move a token of SmolLM2 in bfloat16 (0.14)."""


class Wording:
    """How a checkpoint is asked: by its chat template and a system prompt, or with the bare prompt if it has none."""

    def __init__(self, model: str, system: str | None, max_tokens: int) -> None:
        """Read the checkpoint's tokenizer, without its weights.

        Args:
            model: folder of the checkpoint, or `builtin:cloud`.
            system: system prompt; None explains the built-in world where a question is of it.
            max_tokens: longest answer.

        Raises:
            ConfigError: if there is no checkpoint, or a system prompt and no template to put it into.
        """
        self.tokenizer = tokenizer_of(model, "cloud.model")
        self.max_tokens = max_tokens
        self.chats = has_chat(self.tokenizer)
        if system is not None and not self.chats:
            raise ConfigError(f"cloud.system has no effect: the checkpoint {model!r} has no chat template")
        self.system = (instruction() if system is None else system) if self.chats else ""
        self._said = system
        self._chat = Chat(self.tokenizer) if has_chat(self.tokenizer) else None

    def prompt(self, problem: Problem) -> str:
        """What the checkpoint reads."""
        text = problem.prompt
        return text if self._chat is None else self._chat.turn(text, system_of(self._said, problem))

    def quote(self, problem: Problem) -> Answer:
        """The prompt's tokens and the longest completion."""
        return Answer("", len(self.tokenizer(self.prompt(problem))["input_ids"]), self.max_tokens)


class Checkpoint(Builtin):
    """A local checkpoint, greedy, on the CPU, and one for the whole fleet."""

    costs = TIME
    shared = True

    def __init__(
        self,
        model: str = "",
        system: str | None = None,
        max_tokens: int = 64,
        batch_size: int = 64,
        dtype: str = AUTO,
    ) -> None:
        """Name it; it is loaded with the first question.

        Args:
            model: folder of a Hugging Face decoder-only checkpoint, a GGUF file, `package:NAME` for that of an
                installed package, or `builtin:cloud`.
            system: system prompt, where it has a chat template; None explains the built-in world's notation by
                examples, and sends none with a question of a data set, which brings its own instruction.
            max_tokens: longest answer.
            batch_size: questions that it reads at once; no answer depends on it.
            dtype: of its weights: `float32`, `bfloat16` (half the memory), `int8` (about a third: linear layers in 8
                bits, embeddings in 16), or `auto`: bfloat16 for a checkpoint that was saved in it where the processor
                multiplies in it, else float32.

        Raises:
            ConfigError: if there is no checkpoint, or a setting is out of range.
        """
        if not model:
            raise ConfigError("flsim.cloud.checkpoint:Checkpoint needs cloud.model: the folder of a checkpoint")
        if gguf_file(model, "cloud.model") is None and not _is_checkpoint(model):
            raise ConfigError(
                f"cloud.model={model!r} is no folder of a checkpoint (with a config.json); give one, or a model of a "
                f"server with cloud.path=flsim.cloud.endpoint:Endpoint"
            )
        if not max_tokens >= 1:
            raise ConfigError(f"cloud.max_tokens={max_tokens} must be at least 1")
        if dtype not in (AUTO, *_SURE):
            raise ConfigError(f"cloud.dtype={dtype!r} must be one of: {', '.join((AUTO, *_SURE))}")
        super().__init__(model, batch_size, max_tokens)
        self.system = system
        self.dtype = dtype

    @cached_property
    def base(self) -> BaseModel:
        """The loaded model."""
        if self.kept_in != INT8:
            return load_base(self.model, dtype=self.kept_in, key="cloud.model", asks=False)
        saved = BFLOAT16 if saved_in(self.model, "cloud.model") == BFLOAT16 else FLOAT32
        base = load_base(self.model, dtype=saved, key="cloud.model", asks=False)
        shrink(base.model, torch.bfloat16 if multiplies_in_bfloat16() else torch.float32)
        return base

    @cached_property
    def kept_in(self) -> str:
        """What its weights are kept in: `dtype` but for `auto`."""
        if self.dtype != AUTO:
            return self.dtype
        fits = multiplies_in_bfloat16() and saved_in(self.model, "cloud.model") == BFLOAT16
        return BFLOAT16 if fits else FLOAT32

    @property
    def sure(self) -> float:
        """By what its weights are kept in."""
        return _SURE[self.kept_in]

    @cached_property
    def wording(self) -> Wording:
        """How it is asked."""
        return Wording(self.model, self.system, self.max_new_tokens)

    @property
    def reads_drafts(self) -> bool:
        """Whether it reads more than the notation of the built-in world."""
        return not is_built_in(self.wording.tokenizer.get_vocab())

    def check(self, stream: TaskStream, workers: int) -> None:
        """Read its tokenizer."""
        assert self.wording

    def for_server(self) -> Cloud:
        """Itself: no answer of it depends on a batch."""
        return self

    def prompt(self, problem: Problem) -> str:
        """By the wording."""
        return self.wording.prompt(problem)

    def quote(self, problem: Problem) -> Answer:
        """By the wording, without the weights."""
        return self.wording.quote(problem)

    def said(self, tokens: Sequence[int]) -> str:
        """As `answer` gives it, without white space around it."""
        return super().said(tokens).strip()

    def identity(self) -> Sequence[object]:
        """Weights, what computes them, and what it is told."""
        settings: dict[str, object] = {"system": self.system, "max_tokens": self.max_new_tokens}
        if self.kept_in != FLOAT32:
            settings["dtype"] = self.kept_in
        return ["model", settings, f"{self.computed} {self.wording.system}"]

    def _ask(self, prompts: Sequence[str], guesses: Sequence[str]) -> list[Answer]:
        """One batch, without the guesses; then, one by one, the prompts whose answers a rounding might have changed."""
        answers, replies = self._generate(prompts)
        sure = (replies.logprobs > math.log(self.sure)) | ~replies.mask  # (1, P, 1, T)
        with one_thread():  # whose sums are the same everywhere
            for place in (~sure.all(-1)[0, :, 0]).nonzero()[:, 0].tolist():
                answers[place] = self._generate([prompts[place]])[0][0]
        return [Answer(a.text.strip(), a.prompt_tokens, a.completion_tokens) for a in answers]


def _is_checkpoint(path: str) -> bool:
    return path.startswith("builtin:") or (Path(path) / "config.json").is_file()
