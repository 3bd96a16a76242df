"""Is what was said to a problem right? Every problem names its verifier; many are judged at once, as some are slow."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from flsim.tasks.problem import VERBATIM, Problem
from flsim.verifying.verifier import Verifier, verifier_of


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
        found = _verifier(name).verdicts([(said[place][0].answer, said[place][1]) for place in places])
        for place, verdict in zip(places, found, strict=True):
            verdicts[place] = verdict
    return verdicts


@lru_cache
def _verifier(name: str) -> Verifier:
    """One of each kind in a process: some keep a helper warm."""
    return verifier_of(name)
