"""One checkpoint for the whole fleet: a Ray actor that holds it, and what a worker has in its place."""

import asyncio
from collections.abc import Sequence
from typing import Any

import ray

from flsim.cloud.cloud import Answer
from flsim.cloud.local_model import ModelCloud, wording_of
from flsim.config import CloudConfig
from flsim.tasks.problem import Problem

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
