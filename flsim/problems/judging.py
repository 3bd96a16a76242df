"""Is what was said to a problem right? Every problem names its verifier; many are judged at once, as some are slow."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from flsim.config.schema import ConfigError
from flsim.problems.code import CodeVerifier
from flsim.problems.gym import GymVerifier
from flsim.problems.maths import MathsVerifier
from flsim.problems.problem import VERBATIM, Problem
from flsim.problems.recorded import RECORDED, RecordedVerifier
from flsim.problems.text import ChoiceVerifier, ExactVerifier, NumericVerifier

# FOLDED flsim/problems/judging.py
# What a verifier is, and which there are.


class Verifier(Protocol):
    """Says of each completion whether it is right, many at once."""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Verdicts of `(reference, completion)` pairs, in their order; the reference of code is its tests.

        Raises:
            VerifierError: this verifier cannot work on this host. A completion never raises anything.
        """

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those references with which no completion could be right; a loader drops or reports them."""


_VERIFIERS: Mapping[str, Callable[..., Verifier]] = {
    "exact": ExactVerifier,
    "numeric": NumericVerifier,
    "maths": MathsVerifier,
    "choice": ChoiceVerifier,
    "code": CodeVerifier,
    RECORDED: RecordedVerifier,
}


NAMES = tuple(_VERIFIERS)


def verifier_of(name: str, **settings: Any) -> Verifier:
    """The verifier of that name: `exact`, `numeric`, `maths`, `choice`, `code` or `recorded`, with settings of its own.

    One is made in each process that needs it; `maths` and `code` keep a process warm, which leaves with it.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in _VERIFIERS:
        raise ConfigError(f"verifier={name!r} is unknown; there are: {', '.join(_VERIFIERS)}")
    return _VERIFIERS[name](**settings)


GYM = "gym"
"""The judges of reasoning-gym's tasks, which only they can serve."""


VERIFIERS = (*NAMES, GYM)


def are_right(said: Sequence[tuple[Problem, str]]) -> list[bool]:
    """Whether each text is a right answer to its problem, in order.

    Raises:
        VerifierError: if a verifier cannot work on this host.
    """
    verdicts = [problem.answer == text for problem, text in said]  # what `exact` says, without asking it
    others = defaultdict(list)
    for place, (problem, _) in enumerate(said):
        if problem.verifier != VERBATIM:
            others[problem.verifier].append(place)
    for name, places in others.items():
        found = verifier(name).verdicts([(said[place][0].answer, said[place][1]) for place in places])
        for place, verdict in zip(places, found, strict=True):
            verdicts[place] = verdict
    return verdicts


def called(name: str, settings: Mapping[str, Any]) -> str:
    """A verifier with its settings in one word for `Problem.verifier`, such as `code {"wall_s": 10}`."""
    return f"{name} {json.dumps(dict(settings), sort_keys=True)}" if settings else name


@lru_cache
def verifier(name: str) -> Verifier:
    """The verifier that `Problem.verifier` names; one of each in a process, as some keep a helper warm.

    Raises:
        ConfigError: if there is none of that name.
        VerifierError: if it cannot work on this host.
        TypeError: if it does not know one of its settings.
    """
    kind, _, settings = name.partition(" ")
    given: dict[str, Any] = json.loads(settings or "{}")
    return GymVerifier(**given) if kind == GYM else verifier_of(kind, **given)
