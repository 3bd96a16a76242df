"""The cloud as a checkpoint on this machine: answered in batches, with the bits of one question at a time.

In a batch a logit differs from that of the question alone by the rounding of other sums, far below a thousandth. So
where each token of an answer has more than half of the probability, and a little more, no rounding can have chosen
another one, and the answer is the one that would have been given alone; where not, the question is asked again, alone.
"""

import asyncio
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import ray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from flsim.cloud.builtin import BuiltinCloud
from flsim.cloud.protocol import Answer, instruction, system_of
from flsim.config.schema import CloudConfig, ConfigError
from flsim.models.base import one_thread
from flsim.models.folder import folder_of
from flsim.models.wording import Chat, has_chat
from flsim.problems.problem import Problem

_SURE = math.log(0.51)  # the runner-up then has at most 0.49, 0.04 nats below


class Wording:
    """How a checkpoint is asked: by its chat template and a system prompt, or with the bare prompt if it has none."""

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
        self._config = config
        self._chat = Chat(tokenizer) if self.chats else None

    def prompt(self, problem: Problem) -> str:
        """What the checkpoint reads."""
        text = problem.prompt
        return text if self._chat is None else self._chat.turn(text, system_of(self._config, problem))

    def quote(self, problem: Problem) -> Answer:
        """The prompt's tokens and the longest completion."""
        return Answer("", len(self.tokenizer(self.prompt(problem))["input_ids"]), self.max_tokens)


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

    def prompt(self, problem: Problem) -> str:
        """By the wording."""
        return self.wording.prompt(problem)

    @cached_property
    def identity(self) -> str:
        """Weights, what computes them, and the system prompt."""
        return f"{super().identity} {self.wording.system}"

    def _ask(self, prompts: list[str]) -> list[Answer]:
        """One batch; then, one by one, the prompts whose answers a rounding might have changed."""
        answers, replies = self._generate(prompts)
        sure = (replies.logprobs > _SURE) | ~replies.mask  # (1, P, 1, T)
        with one_thread():  # whose sums are the same everywhere
            for place in (~sure.all(-1)[0, :, 0]).nonzero()[:, 0].tolist():
                answers[place] = self._generate([prompts[place]])[0][0]
        return [Answer(a.text.strip(), a.prompt_tokens, a.completion_tokens) for a in answers]


# FOLDED flsim/cloud/checkpoint.py
# One checkpoint for the whole fleet: a Ray actor that holds it, and what a worker has in its place.

_NAME = "flsim-cloud"  # within the driver's own namespace


_COLLECT_S = 0.005  # how long the first question of a batch waits for others


class Desk:
    """The actor: what workers ask within a few milliseconds is answered together."""

    def __init__(self, config: CloudConfig) -> None:
        self._cloud = ModelCloud(config)
        self._waiting: list[str] = []
        self._batch: asyncio.Task[None] | None = None
        self._batches = 0

    async def identity(self) -> str:
        """Of the checkpoint."""
        return self._cloud.identity

    async def answer(self, prompts: list[str]) -> list[Answer]:
        """One answer per prompt, in order."""
        self._waiting += prompts
        if self._batch is None:
            self._batch = asyncio.create_task(self._serve())
        await self._batch
        return self._cloud.reply(prompts)

    async def batches(self) -> int:
        """How often the checkpoint was asked so far."""
        return self._batches

    async def _serve(self) -> None:
        await asyncio.sleep(_COLLECT_S)
        prompts, self._waiting, self._batch = self._waiting, [], None
        self._batches += 1
        self._cloud.reply(prompts)  # holds the actor up: who comes meanwhile is in the next batch


class DeskCloud:
    """The cloud of a worker that asks at the desk."""

    def __init__(self, desk: Any, config: CloudConfig) -> None:
        """Find out who is there.

        Args:
            desk: the actor.
            config: the run's.
        """
        self._desk = desk
        self._wording = wording_of(config)
        self.identity: str = ray.get(desk.identity.remote())

    def quote(self, problem: Problem) -> Answer:
        """As the checkpoint has it."""
        return self._wording.quote(problem)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; None for all if the actor dies over it, which Ray then starts again."""
        if not problems:
            return []
        try:
            prompts = [self._wording.prompt(problem) for problem in problems]
            return list(ray.get(self._desk.answer.remote(prompts)))
        except ray.exceptions.RayActorError:
            return [None] * len(problems)


def open_desk(config: CloudConfig) -> Any:
    """Start the actor and wait until the checkpoint is loaded; it takes no worker's CPU from Ray's account."""
    remote: Any = ray.remote(Desk)
    desk = remote.options(name=_NAME, num_cpus=0, max_restarts=-1, max_task_retries=0).remote(config)
    ray.get(desk.identity.remote())
    return desk


def find_desk() -> Any | None:
    """The actor that this driver has opened; None if there is none."""
    try:
        return ray.get_actor(_NAME) if ray.is_initialized() else None
    except ValueError:
        return None
