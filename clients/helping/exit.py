"""Early exits: the device computes the lower layers of the cloud's model, and where these are sure, it asks no further.

    client.helping.path=clients.helping.exit:Exit client.helping.layer=4 client.helping.risk=0.1

The model's own last norm and head, on the states of the device's last layer, say the next token where its probability
is above a threshold (CALM, Schuster et al. 2022, arXiv 2207.07061; edge and cloud: EE-LLM, Pan et al. 2024, arXiv
2312.04916). Anywhere else the states of all tokens since the last upload go up, since the cloud's keys and values are
of them all, and one token comes down. The threshold is calibrated on questions of the device's own that are not
measured, without their answers: of all answers no more than the share `risk` differ from those without exits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clients.helping.helping import Caller, Pair
from clients.helping.layers import SharedLayers, depth_of, middle, part_of
from flsim.cloud.more_help import Depth, sharing
from flsim.cloud.protocol import Answer, Cloud
from flsim.collaboration.exits import NEVER, calibrated
from flsim.devices import device_name
from flsim.models.cut import Cut
from flsim.problems.problem import Problem
from flsim.tasks.testing import set_apart


@dataclass(frozen=True)
class Exit(SharedLayers):
    """Where the model may stop, and when."""

    layer: int | None = None
    """How many layers a device holds; None: half of them."""
    threshold: float | None = None
    """The probability above which the lower layers' token is taken; at 1 none is, and all answers are the cloud's own.
    None: it is calibrated."""
    risk: float = 0.1
    """The share of answers that may differ from those without exits."""
    delta: float = 0.05
    """The chance, over the calibration questions, that more do."""
    calibration: int = 32
    """Questions of each task that the threshold is set on."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be in [0, 1]: it is a probability")
        for name in ("risk", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be between 0 and 1, such as 0.1: it is a share")
        if not self.calibration >= 1:
            raise ValueError(f"calibration={self.calibration} must be at least 1: it is a number of questions")

    @property
    def calibrates(self) -> bool:
        """Unless the threshold is given."""
        return self.threshold is None

    def cuts(self, depth: Depth) -> Sequence[int]:
        """The one."""
        return [middle(depth) if self.layer is None else self.layer]

    def quote(self, cloud: Cloud, problem: Problem) -> Answer:
        """As if the cloud said all tokens, and as if it said the last one alone and read all before it."""
        most, whole, depth = super().quote(cloud, problem), cloud.quote(problem), depth_of(cloud)
        above = depth.layers - self.cuts(depth)[0]
        return replace(most, prompt_tokens=part_of(whole.tokens - 1, above, depth))

    def cuts_of(self, pair: Pair, caller: Caller) -> Sequence[Cut]:
        """At the layer, with the device's threshold."""
        cut = Cut(self.cuts(depth_of(pair.cloud))[0], self.payload, self.threshold)
        if self.threshold is None:
            cut = replace(cut, threshold=self.calibrated(pair, caller.index, cut))
        return [cut] * len(caller.asked)

    def calibrated(self, pair: Pair, device: int, cut: Cut) -> float:
        """The lowest threshold that keeps the risk on a device's calibration questions (Learn then Test)."""
        assert pair.stream is not None, "a mode that calibrates is told where questions come from"
        sets = set_apart(pair.stream, device_name(device), pair.calibration, self.calibration)
        questions = [problem for own in sets for problem in own]
        came = sharing(pair.cloud).share(questions, replace(cut, threshold=NEVER))
        doubts = np.array([one.doubt for one in came if one is not None])  # (n,)
        return calibrated(doubts, self.risk, self.delta)
