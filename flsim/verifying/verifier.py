"""What a verifier is, and which there are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from flsim.config import ConfigError
from flsim.verifying.choice import ChoiceVerifier
from flsim.verifying.code import CodeVerifier
from flsim.verifying.exact import ExactVerifier
from flsim.verifying.maths import MathsVerifier
from flsim.verifying.numeric import NumericVerifier
from flsim.verifying.recorded import RECORDED, RecordedVerifier


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
