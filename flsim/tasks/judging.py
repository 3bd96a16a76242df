"""Is what was said to a problem right? Every problem names its verifier; many are judged at once, as some are slow."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from flsim.tasks.data.readers.gym import GymVerifier
from flsim.tasks.problem import VERBATIM, Problem
from flsim.verifying.verifier import NAMES, Verifier, verifier_of

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
