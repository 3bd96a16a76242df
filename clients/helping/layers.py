"""What modes of help share in which the device holds the lower layers of the cloud's model: what may be cut, and costs.

The cloud bills the part of its layers that it computes itself, rounded up to tokens; the device computes the rest.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from clients.helping.helping import Caller, Helping, Pair, exchange_of
from flsim.cloud.exchange import Exchange
from flsim.cloud.more_help import Depth, Shared, SharesLayers, sharing
from flsim.cloud.protocol import Answer, Cloud
from flsim.cloud.teacher import FEATURES
from flsim.collaboration.payload import FLOAT32, Payload
from flsim.collaboration.worth import ID_BYTES
from flsim.config.ranges import ConfigError
from flsim.models.cut import Cut
from flsim.problems.problem import Problem
from flsim.system.work import MILLI


@dataclass(frozen=True)
class SharedLayers(Helping):
    """What of hidden states is sent."""

    sent: str = FLOAT32
    """`float32`: as they are; `float16`; `int8`, with a scale for each token; or `top`: the largest channels alone."""
    channels: int | None = None
    """Of `top`, how many."""

    needs: ClassVar[str] = FEATURES

    def __post_init__(self) -> None:
        """Refuse what is no payload."""
        Payload(self.sent, self.channels)

    @property
    def payload(self) -> Payload:
        """How the hidden state of a token is sent."""
        return Payload(self.sent, self.channels)

    def check(self, cloud: Cloud, allowed: str | None) -> None:
        """It takes a cloud whose model can be cut where the mode cuts it."""
        super().check(cloud, allowed)
        name = type(self).__name__
        if not isinstance(cloud, SharesLayers):
            raise ConfigError(
                f"client.helping={name} has devices hold layers of the cloud's model, and {type(cloud).__name__} "
                f"shares none; take Builtin or Checkpoint, or another mode (docs/collaboration.md)"
            )
        layers = cloud.depth.layers
        wrong = [layer for layer in self.cuts(cloud.depth) if not 1 <= layer < layers]
        if wrong or layers < 2:
            raise ConfigError(
                f"client.helping.layer={wrong[0] if wrong else 1} must be between two layers of the cloud's model, "
                f"which has {layers}; choose one from 1 to {layers - 1}"
            )

        if self.channels is not None and self.channels >= cloud.depth.width:
            raise ConfigError(
                f"client.helping.channels={self.channels} must be below {cloud.depth.width}, which a hidden state of "
                f"the cloud's model has in all; lower it, or set client.helping.sent=float16 without channels"
            )

    @abstractmethod
    def cuts(self, depth: Depth) -> Sequence[int]:
        """All layers that the mode may cut a model after, the lowest first."""
        ...

    def held(self, cloud: Cloud) -> float:
        """Of the lowest cut; a higher one is only chosen where there is room for it."""
        depth = depth_of(cloud)
        return self.cuts(depth)[0] / depth.layers

    def quote(self, cloud: Cloud, problem: Problem) -> Answer:
        """The longest answer, of which the cloud says every token; cut where each party has most to do."""
        whole, depth = cloud.quote(problem), depth_of(cloud)
        most, cuts = longest_of(whole), self.cuts(depth)
        lowest, highest = (taken(most, depth, Cut(layer, self.payload)) for layer in (cuts[0], cuts[-1]))
        lower = exchange_of(highest)
        parts = {"lower_read": lower.lower_read, "lower_drawn": lower.lower_drawn}
        return replace(lowest, most_bytes=whole.most_bytes, exchange=replace(exchange_of(lowest), **parts))

    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """All questions of one cut in one call."""
        asked = [one.problem for caller in callers for one in caller.asked]
        cuts = [cut for caller in callers if caller.asked for cut in self.cuts_of(pair, caller)]
        found: list[Answer | None] = [None] * len(asked)
        depth, cloud = depth_of(pair.cloud), sharing(pair.cloud)
        for cut in dict.fromkeys(cuts):
            places = [place for place, own in enumerate(cuts) if own == cut]
            said = cloud.share([asked[place] for place in places], cut)
            for place, one in zip(places, said, strict=True):
                found[place] = None if one is None else taken(one, depth, cut)
        answers = iter(found)
        return [[next(answers) for _ in caller.asked] for caller in callers]

    @abstractmethod
    def cuts_of(self, pair: Pair, caller: Caller) -> Sequence[Cut]:
        """Where the model is cut for each question of a device."""
        ...


def depth_of(cloud: Cloud) -> Depth:
    """Of a cloud that shares layers."""
    return sharing(cloud).depth


def taken(said: Shared, depth: Depth, cut: Cut) -> Answer:
    """What a question took.

    Of the states that go up, one in each request after the first is that of a token which the cloud said and billed;
    the others it reads. Both parties together compute what a whole model does, L + T tokens, where none exits.

    Args:
        said: what came of it.
        depth: of the cloud's model.
        cut: where it was cut.
    """
    states, trips = sum(said.uploads), len(said.uploads)
    later, above = max(trips - 1, 0), depth.layers - cut.layer
    exchange = Exchange(
        trips=trips,
        up_bytes=states * cut.payload.bytes(depth.width),
        down_bytes=trips * ID_BYTES,
        lower_read=part_of(MILLI * said.prompt, cut.layer, depth),
        lower_drawn=part_of(MILLI * said.said, cut.layer, depth),
        in_session=later,
    )
    read, drawn = part_of(states - later, above, depth), part_of(trips, above, depth)
    return Answer(said.text, read, drawn, cached=said.cached, exchange=exchange)


def longest_of(whole: Answer) -> Shared:
    """What comes of a question with the longest answer, all of it said by the cloud, by the quote of the whole."""
    uploads = (whole.prompt_tokens, *[1] * (whole.completion_tokens - 1))
    return Shared("", whole.prompt_tokens, whole.completion_tokens, uploads)


def part_of(count: int, layers: int, depth: Depth) -> int:
    """That of some of all layers, rounded up."""
    return -(-count * layers // depth.layers)


def middle(depth: Depth) -> int:
    """Half of the layers, at least one."""
    return max(1, depth.layers // 2)
