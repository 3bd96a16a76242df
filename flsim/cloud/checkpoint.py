"""The cloud as a checkpoint on this machine: answered in batches, with the bits of one question at a time.

In a batch a logit differs from that of the question alone by the rounding of other sums, far below a thousandth. So
where each token of an answer has more than half of the probability, and a little more, no rounding can have chosen
another one, and the answer is the one that would have been given alone; where not, the question is asked again, alone.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from flsim.cloud.builtin import Builtin
from flsim.cloud.protocol import TIME, Answer, Cloud, instruction, system_of
from flsim.config.schema import ConfigError
from flsim.models.base import one_thread
from flsim.models.folder import is_built_in, tokenizer_of
from flsim.models.wording import Chat, has_chat
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

_SURE = math.log(0.51)  # the runner-up then has at most 0.49, 0.04 nats below


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
        self._chat = Chat(self.tokenizer) if self.chats else None

    def prompt(self, problem: Problem) -> str:
        """What the checkpoint reads."""
        text = problem.prompt
        return text if self._chat is None else self._chat.turn(text, system_of(self._said, problem))

    def quote(self, problem: Problem) -> Answer:
        """The prompt's tokens and the longest completion."""
        return Answer("", len(self.tokenizer(self.prompt(problem))["input_ids"]), self.max_tokens)


class Checkpoint(Builtin):
    """A local checkpoint, greedy; in float32 on the CPU, and one for the whole fleet."""

    costs = TIME
    shared = True

    def __init__(self, model: str = "", system: str | None = None, max_tokens: int = 64, batch_size: int = 64) -> None:
        """Name it; it is loaded with the first question.

        Args:
            model: folder of a Hugging Face decoder-only checkpoint, or `builtin:cloud`.
            system: system prompt, where it has a chat template; None explains the built-in world's notation by
                examples, and sends none with a question of a data set, which brings its own instruction.
            max_tokens: longest answer.
            batch_size: questions that it reads at once; no answer depends on it.

        Raises:
            ConfigError: if there is no checkpoint.
        """
        if not model:
            raise ConfigError("flsim.cloud.checkpoint:Checkpoint needs cloud.model: the folder of a checkpoint")
        if not _is_checkpoint(model):
            raise ConfigError(
                f"cloud.model={model!r} is no folder of a checkpoint (with a config.json); give one, or a model of a "
                f"server with cloud.path=flsim.cloud.endpoint:Endpoint"
            )
        if not max_tokens >= 1:
            raise ConfigError(f"cloud.max_tokens={max_tokens} must be at least 1")
        super().__init__(model, batch_size, max_tokens)
        self.system = system

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

    def identity(self) -> Sequence[object]:
        """Weights, what computes them, and what it is told."""
        settings = {"system": self.system, "max_tokens": self.max_new_tokens}
        return ["model", settings, f"{self.computed} {self.wording.system}"]

    def _ask(self, prompts: list[str]) -> list[Answer]:
        """One batch; then, one by one, the prompts whose answers a rounding might have changed."""
        answers, replies = self._generate(prompts)
        sure = (replies.logprobs > _SURE) | ~replies.mask  # (1, P, 1, T)
        with one_thread():  # whose sums are the same everywhere
            for place in (~sure.all(-1)[0, :, 0]).nonzero()[:, 0].tolist():
                answers[place] = self._generate([prompts[place]])[0][0]
        return [Answer(a.text.strip(), a.prompt_tokens, a.completion_tokens) for a in answers]


def _is_checkpoint(path: str) -> bool:
    return path.startswith("builtin:") or (Path(path) / "config.json").is_file()
