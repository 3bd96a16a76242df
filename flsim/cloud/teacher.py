"""What a cloud can give beyond answers, for those who learn from it rather than ask it.

Access comes in five levels; each includes those before it:

    text           the answer                                          any API
    top_logprobs   the k likeliest tokens at each token of its answer  most APIs (`top_logprobs`)
    scores         log-probabilities of tokens that it is given        some APIs and servers (`prompt_logprobs`)
    logits         the whole distribution at each token of its answer  a model of one's own
    features       its hidden states at each token of its answer       likewise

Past the first, token ids go back and forth, so teacher and student must share one vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from flsim.cloud.more_help import Depth
from flsim.cloud.protocol import Cloud, Reply
from flsim.config.schema import CLOUD_ACCESS, ConfigError
from flsim.problems.problem import Problem

TEXT, TOP_LOGPROBS, SCORES, LOGITS, FEATURES = CLOUD_ACCESS


class Teacher(Cloud, Protocol):
    """A cloud that says what it can give.

    What it says of one problem may not depend on the others of a call, and the help request is never among its tokens.
    """

    vocabulary: Mapping[str, int]
    """Its tokens and their ids."""

    def tell(self, problems: Sequence[Problem], top: int, layers: Sequence[int] = ()) -> list[Reply]:
        """Its answers with the `top` likeliest tokens at each token, or all tokens it has if they are fewer.

        Args:
            problems: in order.
            top: at least 1.
            layers: whose hidden states to tell as well, from 1; none but at the level `features`.
        """
        ...

    def score(self, problems: Sequence[Problem], completions: Sequence[Sequence[int]]) -> list[Reply]:
        """The log-probabilities of these completions' tokens, billed as tokens sent."""
        ...


class Deep(Teacher, Protocol):
    """A teacher that gives `features`: it says how many layers there are to choose of."""

    @property
    def depth(self) -> Depth:
        """Of its model."""
        ...


def access_of(cloud: Cloud, allowed: str | None) -> str:
    """The highest level that the cloud has and `cloud.access` allows; None allows all.

    Raises:
        ConfigError: if `cloud.access` is more than the cloud has.
    """
    if allowed is None:
        return cloud.access
    if not includes(cloud.access, allowed):
        can = ", ".join(CLOUD_ACCESS[: CLOUD_ACCESS.index(cloud.access) + 1])
        raise ConfigError(
            f"cloud.access={allowed!r} is more than the cloud {type(cloud).__name__} can give; choose one of: {can}, "
            f"or leave it out"
        )
    return allowed


def includes(access: str, level: str) -> bool:
    """Whether an access gives what `level` gives."""
    return CLOUD_ACCESS.index(access) >= CLOUD_ACCESS.index(level)


def teacher_of(cloud: Cloud, vocabulary: Mapping[str, int]) -> Teacher:
    """The cloud as a teacher of a student with this vocabulary, for the levels above `text`.

    Raises:
        ConfigError: if the two write in different tokens.
    """
    own = cast(Teacher, cloud).vocabulary
    if dict(own) != dict(vocabulary):
        differing = next(piece for piece in [*own, *vocabulary] if own.get(piece) != vocabulary.get(piece))
        raise ConfigError(
            f"the cloud's tokenizer ({len(own)} tokens) is not the SLM's ({len(vocabulary)} tokens): they differ in "
            f"{differing!r}; log-probabilities can be shared only between equal tokenizers, so set cloud.access=text "
            f"(and stage.loss=sequence or auto)"
        )
    return cast(Teacher, cloud)
