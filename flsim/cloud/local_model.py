"""The cloud as a checkpoint on this machine: answered in batches, with the bits of one question at a time.

In a batch a logit differs from that of the question alone by the rounding of other sums, far below a thousandth. So
where each token of an answer has more than half of the probability, and a little more, no rounding can have chosen
another one, and the answer is the one that would have been given alone; where not, the question is asked again, alone.
"""

import math
from functools import cached_property

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from flsim.cloud.cloud import Answer, BuiltinCloud
from flsim.cloud.instruction import instruction
from flsim.config import CloudConfig, ConfigError
from flsim.models.chat import Chat, has_chat
from flsim.models.folder import folder_of
from flsim.models.threads import one_thread
from flsim.tasks.problem import Problem

_SURE = math.log(0.51)  # the runner-up then has at most 0.49, 0.04 nats below


class Wording:
    """How a checkpoint is asked: by its chat template and a system prompt, or with the bare question if it has none."""

    def __init__(self, config: CloudConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take the words of a config.

        Raises:
            ConfigError: if there is a system prompt and no template to put it into.
        """
        self.tokenizer = tokenizer
        self.max_tokens = config.max_tokens
        self.chats = has_chat(tokenizer)
        if config.system is not None and not self.chats:
            raise ConfigError(f"cloud.system has no effect: the checkpoint {config.model!r} has no chat template")
        self.system = (instruction() if config.system is None else config.system) if self.chats else ""
        self._chat = Chat(tokenizer) if self.chats else None

    def prompt(self, question: str) -> str:
        """What the checkpoint reads."""
        return question if self._chat is None else self._chat.turn(question, self.system)

    def quote(self, problem: Problem) -> Answer:
        """The prompt's tokens and the longest completion."""
        return Answer("", len(self.tokenizer(self.prompt(problem.question))["input_ids"]), self.max_tokens)


def wording_of(config: CloudConfig) -> Wording:
    """The wording of a checkpoint, without its weights.

    Raises:
        ConfigError: if there is no checkpoint, or no template for a system prompt.
    """
    return Wording(config, AutoTokenizer.from_pretrained(folder_of(config.model or "", "cloud.model")))


class ModelCloud(BuiltinCloud):
    """A local checkpoint, greedy; in float32 on the CPU."""

    def __init__(self, config: CloudConfig, batch_size: int = 64) -> None:
        """Load it.

        Args:
            config: the run's.
            batch_size: questions that it reads at once; no answer depends on it.
        """
        super().__init__(config.model or "", batch_size, config.max_tokens)
        self.wording = Wording(config, self.base.tokenizer)

    def prompt(self, question: str) -> str:
        """By the wording."""
        return self.wording.prompt(question)

    @cached_property
    def identity(self) -> str:
        """Weights, what computes them, and the system prompt."""
        return f"{super().identity} {self.wording.system}"

    def _ask(self, questions: list[str]) -> list[Answer]:
        """One batch; then, one by one, the questions whose answers a rounding might have changed."""
        answers, replies = self._generate(questions)
        sure = (replies.logprobs > _SURE) | ~replies.mask  # (1, P, 1, T)
        with one_thread():  # whose sums are the same everywhere
            for place in (~sure.all(-1)[0, :, 0]).nonzero()[:, 0].tolist():
                answers[place] = self._generate([questions[place]])[0][0]
        return [Answer(a.text.strip(), a.prompt_tokens, a.completion_tokens) for a in answers]
