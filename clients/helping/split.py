"""A split: the device computes the lower layers of the cloud's model, the cloud all above, and each token is a request.

    client.helping.path=clients.helping.split:Split client.helping.layer=2 client.helping.sent=float16

Up go the hidden states of the prompt, then one for each token; down comes a token's id (EdgeShard, Zhang et al. 2024,
arXiv 2405.14371; Petals, Borzunov et al. 2022, arXiv 2209.01188). As they are, the answer is the cloud's own to the
last bit. The device's own model has no part in it. It is no protection of privacy: what a prompt says can be read from
the states of early layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clients.helping.helping import Caller, Pair, exchange_of
from clients.helping.layers import SharedLayers, depth_of, longest_of, middle, taken
from flsim.cloud.exchange import work_of
from flsim.cloud.more_help import Depth, Shared
from flsim.cloud.protocol import Answer
from flsim.config.model import AUTO
from flsim.models.cut import Cut
from flsim.system.system import System


@dataclass(frozen=True)
class Split(SharedLayers):
    """Where the model is cut, and what crosses."""

    layer: int | str | None = None
    """How many layers a device holds; None: half of them; `auto`: those with which its longest answer takes the fewest
    seconds, among those that its memory holds. As all layers are as wide, more of them save or cost the same each, so
    that it is the fewest or the most."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if isinstance(self.layer, str) and self.layer != AUTO:
            raise ValueError(f"layer={self.layer!r} must be a number of layers, or auto")

    @property
    def chosen_by_time(self) -> str | None:
        """The layer, where it is not given."""
        return "client.helping.layer=1" if self.layer == AUTO else None

    def cuts(self, depth: Depth) -> Sequence[int]:
        """All, where one is chosen."""
        if isinstance(self.layer, str):
            return range(1, depth.layers)
        return [middle(depth) if self.layer is None else self.layer]

    def cuts_of(self, pair: Pair, caller: Caller) -> Sequence[Cut]:
        """At the layer, or at the cheapest for this device and question."""
        depth = depth_of(pair.cloud)
        cuts = [Cut(layer, self.payload) for layer in self.cuts(depth)]
        if self.layer != AUTO:
            return cuts * len(caller.asked)
        assert pair.system is not None, "a run without a system is refused before it begins"
        return [
            _cheapest(pair.system, caller.index, pair.cloud.quote(one.problem), depth, cuts) for one in caller.asked
        ]


def _cheapest(system: System, device: int, whole: Answer, depth: Depth, cuts: Sequence[Cut]) -> Cut:
    """The first of those with which a device has its longest answer soonest, and whose layers it can hold."""
    longest = longest_of(whole)
    fitting = [cut for cut in cuts if system.holds(device, whole.tokens, cut.layer / depth.layers)] or cuts[:1]
    return min(fitting, key=lambda cut: seconds_of(system, device, longest, depth, cut))


def seconds_of(system: System, device: int, said: Shared, depth: Depth, cut: Cut) -> float:
    """Until a device has an answer.

    Args:
        system: of the run.
        device: its index.
        said: the answer.
        depth: of the cloud's model.
        cut: where it is cut.
    """
    answer = taken(said, depth, cut)
    work = work_of(exchange_of(answer), answer.prompt_tokens, answer.completion_tokens)
    return system.question(device, work)[0]
