"""Is what was said to a problem right? Every problem names its verifier; many are judged at once, as some are slow.

A verifier is a class with the methods of `Verifier`. The shipped ones have short names; any other is named by its path,
`module:Name` or `my_file.py:Name`. The path of a reward function in TRL's form does as well.
"""

import inspect
import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.config.session import Meant, meant_in
from flsim.problems.problem import Problem
from flsim.problems.recorded import RECORDED

GYM = "gym"
"""The judges of reasoning-gym's tasks, which only they can serve."""
HARNESS = "lm_eval"
"""The filters and metrics of lm_eval's tasks, likewise."""
SHIPPED = MappingProxyType(
    {
        "exact": "flsim.problems.text:ExactVerifier",
        "numeric": "flsim.problems.numbers:NumericVerifier",
        "maths": "flsim.problems.maths:MathsVerifier",
        "choice": "flsim.problems.choice:ChoiceVerifier",
        "code": "flsim.problems.code:CodeVerifier",
        "words": "flsim.problems.words:WordsVerifier",
        RECORDED: "flsim.problems.recorded:RecordedVerifier",
        GYM: "flsim.problems.gym:GymVerifier",
        HARNESS: "flsim.problems.harness:HarnessVerifier",
    }
)
"""Short names of verifiers, and where they are; each is imported when it is asked for."""

_REWARD = "flsim.problems.rewards:RewardVerifier"
"""What makes a verifier of a reward function."""


@dataclass(frozen=True)
class Judgement:
    """A verdict with the reading that it comes from."""

    right: bool
    """The verdict."""
    said: str | None = None
    """What was read as the answer, such as `20`; None where nothing was."""
    taken_from: str | None = None
    """The stretch of the completion that it was read from, such as `20 cm^2`; None where there is none."""
    wanted: str | None = None
    """What was read from the reference; None where nothing was."""


class Verifier(Protocol):
    """Says of each completion whether it is right, many at once; built once in each process, with its settings."""

    instruction: str = ""
    """What an answer must look like for it to read it, as words before a question: a model that has never been told
    would often be right and judged wrong, with the number in the middle of a sentence, or the letter within a word. ""
    where nothing can be said in general, so that the question itself must name the form."""

    @abstractmethod
    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Verdicts of `(reference, completion)` pairs, in their order; the reference of code is its tests.

        Raises:
            VerifierError: this verifier cannot work on this host. A completion never raises anything.
        """
        ...

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those references with which no completion could be right; a loader drops or reports them."""
        return []


def verifier_of(name: str, **settings: Any) -> Verifier:
    """The verifier of that name or path, with settings of its own.

    One is made in each process that needs it; `maths` and `code` keep a process warm, which leaves with it.

    Raises:
        ConfigError: there is none of that name, or it has no `verdicts`.
    """
    if name not in SHIPPED and ":" not in name:
        raise ConfigError(
            f"verifier={name!r} is unknown; there are: {', '.join(SHIPPED)}, or a class or reward function of your own "
            f"as module:Name or my_file.py:Name"
        )
    named = resolve("verifier", SHIPPED.get(name, name))
    made: Any = resolve("verifier", _REWARD)(name, named, **settings) if _is_reward(named) else named(**settings)
    lacking = [method for method in ("instruction", "verdicts", "unreadable") if not hasattr(made, method)]
    if lacking:
        raise ConfigError(
            f"verifier={name!r} is no verifier, as it lacks {', '.join(lacking)}; derive it from "
            f"flsim.problems.judging.Verifier and write verdicts, or name a reward function of prompts and completions"
        )
    found: Verifier = made
    return found


def _is_reward(named: object) -> bool:
    """Whether it is a reward function in TRL's form, or an object that can be called as one."""
    if not callable(named) or inspect.isclass(named):
        return False
    try:
        return not inspect.signature(named).parameters.keys().isdisjoint(("completions", "completion_ids"))
    except ValueError:  # of one without a signature
        return False


def are_right(said: Sequence[tuple[Problem, str]]) -> list[bool]:
    """Whether each text is a right answer to its problem, in order.

    Raises:
        VerifierError: if a verifier cannot work on this host.
    """
    verdicts, places = [False] * len(said), defaultdict[str, list[int]](list)
    for place, (problem, _) in enumerate(said):
        places[problem.verifier].append(place)
    for name, of in places.items():
        found = verifier(name).verdicts([(said[place][0].answer, said[place][1]) for place in of])
        for place, verdict in zip(of, found, strict=True):
            verdicts[place] = verdict
    return verdicts


def explain(name: str, reference: str, completion: str) -> Judgement:
    """The verdict of one pair, with its reading where the verifier has a method `explain`, as the shipped ones do.

    Raises:
        ConfigError, VerifierError, TypeError: as for `verifier`.
    """
    found = verifier(name)
    reading = getattr(found, "explain", None)
    judged: Judgement = (
        reading(reference, completion) if reading else Judgement(found.verdicts([(reference, completion)])[0])
    )
    return judged


def called(name: str, settings: Mapping[str, Any]) -> str:
    """A verifier with its settings in one word for `Problem.verifier`, such as `code {"wall_s": 10}`."""
    return f"{name} {json.dumps(dict(settings), sort_keys=True)}" if settings else name


def verifier(name: str) -> Verifier:
    """The verifier that `Problem.verifier` names; one of each in a process, as some keep a helper warm.

    Raises:
        ConfigError: if there is none of that name.
        VerifierError: if it cannot work on this host.
        TypeError: if it does not know one of its settings.
    """
    return _kept(name, meant_in(name.partition(" {")[0]))


@lru_cache
def _kept(name: str, _meant: tuple[Meant, ...]) -> Verifier:
    kind, _, settings = name.partition(" {")
    return verifier_of(kind, **json.loads("{" + settings if settings else "{}"))
