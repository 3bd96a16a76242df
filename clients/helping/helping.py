"""What a mode of help is: for questions that devices may send, one exchange with the cloud each, and what it took.

Which questions these are is decided before (`clients/asking/`, and the policy itself in training), and who pays for
them stands in the ledger: a mode names the most that an exchange can take, which is reserved, and says what it took.
The page docs/collaboration.md lists the modes and shows how to write one.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Answer, Cloud
from flsim.cloud.teacher import TEXT, access_of, includes
from flsim.config.model import ModelConfig
from flsim.config.ranges import ConfigError
from flsim.models.base import BaseModel
from flsim.problems.problem import Problem
from flsim.system.system import System
from flsim.tasks.stream import TaskStream


@dataclass(frozen=True)
class Pair:
    """The two models that work together, and what this takes."""

    base: BaseModel
    """The devices', with the adapters in use of those that are helped."""
    cloud: Cloud
    longest: int
    """Most tokens of an answer that a device says by itself, the ending one included."""
    system: System | None = None
    """What devices take in virtual time; None in a run without."""
    stream: TaskStream | None = None
    """Where questions come from that a mode sets something on; None in a test that has none."""
    calibration: str = "validation"
    """Of which split they are: one that is not measured."""


@dataclass(frozen=True)
class Asked:
    """A question that a device sends."""

    problem: Problem
    """In the words in which it is sent."""
    said: str
    """What the device said before it asked, "" for nothing."""
    seed: int
    """Of whatever is drawn for this question alone."""


@dataclass(frozen=True)
class Caller:
    """A device that is helped."""

    index: int
    asked: Sequence[Asked]
    """Its questions, which its budget has granted; maybe none."""
    knob: tuple[float, ...] = ()
    """What its mode has learned on it; as `Helping.first_knob` at first."""


class Helping(ABC):
    """A mode of help; its fields are its settings, and a dataclass of it is a plug-in (`client.helping.path`)."""

    needs: ClassVar[str] = TEXT
    """The access that it takes, one of `CLOUD_ACCESS`."""
    goes_on: ClassVar[bool] = False
    """Whether it begins where the device stopped, whose words before a request are then part of the answer."""
    takes_part: ClassVar[bool] = False
    """Whether the device's own model says part of what is answered or drafted, so that it has read the question."""

    def check(self, cloud: Cloud, allowed: str | None) -> None:
        """Refuse a cloud that cannot give what the mode takes; a subclass also one that lacks a method.

        Args:
            cloud: the run's.
            allowed: `cloud.access`.

        Raises:
            ConfigError: naming both, and the mend.
        """
        self.refuse_less(cloud, allowed, self.needs, f"client.helping={type(self).__name__}")

    def refuse_less(self, cloud: Cloud, allowed: str | None, needed: str, who: str) -> None:
        """Refuse less access than a setting takes.

        Args:
            cloud: the run's.
            allowed: `cloud.access`.
            needed: the access.
            who: the setting that takes it.

        Raises:
            ConfigError: naming all, and the mend.
        """
        access = access_of(cloud, allowed)
        if includes(access, needed):
            return
        if includes(cloud.access, needed):
            mend = f"leave cloud.access={allowed} out, or take another mode (docs/collaboration.md)"
        else:
            mend = "take a cloud with a model of its own (Builtin, Checkpoint), or another mode (docs/collaboration.md)"
        raise ConfigError(
            f"{who} needs a cloud that gives {needed}, and {type(cloud).__name__} with "
            f"cloud.access={allowed or 'all it can'} gives {access}; {mend}"
        )

    def try_out(self, cloud: Cloud) -> None:  # noqa: B027  # most modes have nothing to find out
        """Let a cloud that cannot know what its server can do find it out, before a run.

        Raises:
            ConfigError: if it cannot do what the mode takes.
        """

    def check_model(self, cloud: Cloud, model: ModelConfig) -> None:
        """Refuse devices whose model cannot work with the cloud's; nothing is loaded for it but tokenizers.

        Args:
            cloud: the run's, which `check` has let pass.
            model: what the devices hold.

        Raises:
            ConfigError: with the mend.
        """
        return None

    def quote(self, cloud: Cloud, problem: Problem) -> Answer:
        """The most that helping with a question can take; caps are held against it.

        Tokens as `Answer` has them, and all else as its `exchange`; None there is one request and its answer.
        """
        return cloud.quote(problem)

    def most(self, pair: Pair, problem: Problem) -> Answer:
        """The quote, with what the device itself reads and draws at most, where that hangs on its own longest answer.

        Caps on joules and seconds count it.
        """
        return self.quote(pair.cloud, problem)

    @property
    def chosen_by_time(self) -> str | None:
        """What it chooses by what things take in virtual time: a setting that would say it instead, or None."""
        return None

    @property
    def calibrates(self) -> bool:
        """Whether it sets something on questions that are not measured."""
        return False

    def held(self, cloud: Cloud) -> float:
        """The share of the layers of the cloud's model that devices hold, so that their memory is looked at."""
        return 0.0

    @abstractmethod
    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """What comes of all questions, `[device][question]`; None where the cloud failed, which costs nothing.

        The text is the answer to the question, whoever wrote it. No answer may depend on who shares the pack.
        """
        ...

    @property
    def first_knob(self) -> tuple[float, ...]:
        """What is learned on a device, before anything is."""
        return ()

    def learned(self, pair: Pair, caller: Caller, answers: Sequence[Answer | None]) -> tuple[float, ...]:
        """The knob after a step of training in which these answers came."""
        return caller.knob


@dataclass(frozen=True)
class Ask(Helping):
    """The cloud answers the whole question; the mode of every run that names no other."""

    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """All questions in one call."""
        answers = iter(pair.cloud.answer([one.problem for caller in callers for one in caller.asked]))
        return [[next(answers) for _ in caller.asked] for caller in callers]


ASK = Ask()


def exchange_of(answer: Answer) -> Exchange:
    """What a question took beside its tokens."""
    assert answer.exchange is not None, "what a mode of help took is said by its answers"
    return answer.exchange


@dataclass(frozen=True)
class Exchanges:
    """The exchanges of a pack: its wishes are all questions of the callers, device by device.

    It is what `flsim.cloud.buying` takes for a `Service`.
    """

    helping: Helping
    pair: Pair
    callers: Sequence[Caller]

    def quote(self, place: int) -> Answer:
        """By the mode."""
        every = [one for caller in self.callers for one in caller.asked]
        return self.helping.most(self.pair, every[place].problem)

    @torch.no_grad()
    def serve(self, places: Sequence[int]) -> list[Answer | None]:
        """By the mode, all in one go."""
        wanted, numbers = set(places), iter(range(sum(len(caller.asked) for caller in self.callers)))
        some = [
            replace(caller, asked=[one for one in caller.asked if next(numbers) in wanted]) for caller in self.callers
        ]
        found = [answer for row in self.helping.help(self.pair, some) for answer in row]
        by_place = dict(zip(sorted(wanted), found, strict=True))
        return [by_place[place] for place in places]
