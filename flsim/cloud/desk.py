"""One cloud for the whole fleet: a Ray actor that holds it, and what a worker has in its place."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flsim.cloud.more_help import (
    Beginning,
    Continuation,
    Depth,
    Draft,
    Shared,
    Verified,
    going_on,
    sharing,
    verifying,
)
from flsim.cloud.protocol import MONEY, Answer, Cloud
from flsim.problems.problem import Problem

if TYPE_CHECKING:  # it needs torch, for which a mistake in a config should not have to wait
    from flsim.models.cut import Cut

_NAME = "flsim-cloud"  # within the driver's own namespace
_COLLECT_S = 0.005  # how long the first question of a batch waits for others


@dataclass
class _Batch:
    """Things of one kind that wait to be served together."""

    items: list[Any] = field(default_factory=list)
    served: asyncio.Task[Sequence[Any]] | None = None


class Desk:
    """The actor: what workers ask within a few milliseconds is answered together."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._waiting: dict[tuple[Any, ...], _Batch] = {}
        self._batches = 0

    async def identity(self) -> Sequence[object]:
        """Of the cloud."""
        return self._cloud.identity()

    async def vocabulary(self) -> dict[str, int]:
        """Of the cloud."""
        return dict(verifying(self._cloud).vocabulary)

    async def said(self, tokens: Sequence[int]) -> str:
        """The cloud's text of an answer's tokens."""
        return verifying(self._cloud).said(tokens)

    async def serve(self, method: str, items: list[Any], *rest: object) -> list[Any]:
        """What a method of the cloud gives for each item, in order; further arguments are those of the whole batch."""
        batch = self._waiting.setdefault((method, *rest), _Batch())
        first = len(batch.items)
        batch.items += items
        if batch.served is None:
            batch.served = asyncio.create_task(self._serve(method, rest))
        return list(await batch.served)[first : first + len(items)]

    async def batches(self) -> int:
        """How often the cloud was asked so far."""
        return self._batches

    async def _serve(self, method: str, rest: tuple[Any, ...]) -> Sequence[Any]:
        await asyncio.sleep(_COLLECT_S)
        batch = self._waiting.pop((method, *rest))
        self._batches += 1
        served: Sequence[Any] = getattr(self._cloud, method)(batch.items, *rest)
        return served  # computing it held the actor up: who came meanwhile is in the next batch


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
        return self._served("answer", problems)

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
        """What comes after each beginning, in order; failures as of `answer`.

        Raises:
            ConfigError: if the cloud cannot go on.
        """
        going_on(self._cloud)
        return self._served("go_on", beginnings, tokens)

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified | None]:
        """What the cloud makes of each draft, in order; failures as of `answer`.

        Raises:
            ConfigError: if the cloud cannot verify.
        """
        verifying(self._cloud)
        return self._served("verify", drafts, rule, temperature)

    @property
    def depth(self) -> Depth:
        """As the cloud has it."""
        return sharing(self._cloud).depth

    def share(self, problems: Sequence[Problem], cut: "Cut") -> list[Shared | None]:
        """What comes of each question of a model that is cut, in order; failures as of `answer`.

        Raises:
            ConfigError: if the cloud's model cannot be cut.
        """
        sharing(self._cloud)
        return self._served("share", problems, cut)

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """As the desk says it, so that no worker has to load the model."""
        verifying(self._cloud)
        import ray

        found: dict[str, int] = ray.get(self._desk.vocabulary.remote())
        return found

    def said(self, tokens: Sequence[int]) -> str:
        """As the desk says it."""
        verifying(self._cloud)
        import ray

        return str(ray.get(self._desk.said.remote(list(tokens))))

    def _served(self, method: str, items: Sequence[Any], *rest: object) -> list[Any]:
        if not items:
            return []
        import ray

        try:
            return list(ray.get(self._desk.serve.remote(method, list(items), *rest)))
        except ray.exceptions.RayActorError:
            if self.costs == MONEY:
                raise
            return [None] * len(items)


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
