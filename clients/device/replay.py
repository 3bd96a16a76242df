"""A small replay buffer: which questions of the past a device keeps, and meets again among its new ones.

The buffer is a uniform sample of all that the device has met (reservoir sampling, Vitter 1985, algorithm R; for
continual learning Rolnick et al. 2019, arXiv 1811.11682). What it holds is where a question stood in the stream, which
gives the question again, so that it is a few numbers of the device's state.
"""

from dataclasses import dataclass, field

from flsim.problems.problem import Problem
from flsim.seeding import generator
from flsim.tasks.stream import TaskStream

Place = tuple[int, int, int]
"""Round, local step, and place within the step's questions."""


@dataclass
class Replay:
    """The buffer of one device."""

    places: list[Place] = field(default_factory=list)
    seen: int = 0
    """How many questions went by."""

    def remember(self, places: list[Place], capacity: int, seed: int, device: str) -> None:
        """Let questions go by; each of all that ever did is kept with the same chance."""
        for place in places:
            self.seen += 1
            if len(self.places) < capacity:
                self.places.append(place)
                continue
            slot = int(generator(seed, "reservoir", device, self.seen).integers(self.seen))
            if slot < capacity:
                self.places[slot] = place

    def draw(self, count: int, seed: int, device: str, round_: int, step: int) -> list[Place]:
        """Different places of the buffer, at most `count`."""
        chosen = generator(seed, "replay", device, round_, step).permutation(len(self.places))[:count]
        return [self.places[slot] for slot in chosen.tolist()]


def met_again(stream: TaskStream, device: str, places: list[Place], *, count: int, seed: int) -> list[Problem]:
    """The questions at places of a device's stream, which has `count` of them in a step."""
    return [stream.training_problems(device, r, step, count=count, seed=seed)[place] for r, step, place in places]
