"""One cloud for the whole fleet: a Ray actor that holds it, and what a worker has in its place."""

import asyncio
from collections.abc import Sequence
from typing import Any

from flsim.cloud.protocol import MONEY, Answer, Cloud
from flsim.problems.problem import Problem

_NAME = "flsim-cloud"  # within the driver's own namespace
_COLLECT_S = 0.005  # how long the first question of a batch waits for others


class Desk:
    """The actor: what workers ask within a few milliseconds is answered together."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._waiting: list[Problem] = []
        self._batch: asyncio.Task[Sequence[Answer | None]] | None = None
        self._batches = 0

    async def identity(self) -> Sequence[object]:
        """Of the cloud."""
        return self._cloud.identity()

    async def answer(self, problems: list[Problem]) -> list[Answer | None]:
        """One answer per problem, in order."""
        first = len(self._waiting)
        self._waiting += problems
        if self._batch is None:
            self._batch = asyncio.create_task(self._serve())
        return list(await self._batch)[first : first + len(problems)]

    async def batches(self) -> int:
        """How often the cloud was asked so far."""
        return self._batches

    async def _serve(self) -> Sequence[Answer | None]:
        await asyncio.sleep(_COLLECT_S)
        problems, self._waiting, self._batch = self._waiting, [], None
        self._batches += 1
        return self._cloud.answer(problems)  # holds the actor up: who comes meanwhile is in the next batch


class DeskCloud(Cloud):
    """The cloud of a worker that asks at the desk."""

    def __init__(self, desk: Any, cloud: Cloud) -> None:
        """Find out who is there.

        Args:
            desk: the actor.
            cloud: what it holds; here it only quotes, for which it need not load what it answers with.
        """
        self.costs, self.access = cloud.costs, cloud.access
        self._desk = desk
        self._cloud = cloud
        import ray

        self._identity: Sequence[object] = ray.get(desk.identity.remote())

    def identity(self) -> Sequence[object]:
        """As the desk says it."""
        return self._identity

    def quote(self, problem: Problem) -> Answer:
        """As the cloud has it."""
        return self._cloud.quote(problem)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; None for all if the actor dies over it, which Ray then starts again.

        Raises:
            RayActorError: if it dies over what may have been paid: such questions are lost, not failed.
        """
        if not problems:
            return []
        import ray

        try:
            return list(ray.get(self._desk.answer.remote(list(problems))))
        except ray.exceptions.RayActorError:
            if self.costs == MONEY:
                raise
            return [None] * len(problems)


def open_desk(cloud: Cloud) -> Any:
    """Start the actor and wait until its cloud is known; it takes no worker's CPU from Ray's account."""
    import ray  # not above: a config is checked before anything heavy is imported

    remote: Any = ray.remote(Desk)
    desk = remote.options(name=_NAME, num_cpus=0, max_restarts=-1, max_task_retries=0).remote(cloud)
    ray.get(desk.identity.remote())
    return desk


def find_desk() -> Any | None:
    """The actor that this driver has opened; None if there is none."""
    import ray

    try:
        return ray.get_actor(_NAME) if ray.is_initialized() else None
    except ValueError:
        return None
