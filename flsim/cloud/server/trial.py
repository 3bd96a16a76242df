"""Small questions before a run that tell whether a server goes on with a beginning, and whether it verifies drafts.

A server that ignores what it does not know would start its answer anew, or bill a draft and tell nothing of it. So it
is given a part of an answer of its own: greedy as it is, it has to go on with the rest, and find each token likeliest.
"""

import logging
from typing import Protocol

from flsim.cloud.more_help import Draft
from flsim.cloud.protocol import system_of
from flsim.cloud.server.address import PATH
from flsim.cloud.server.dialect import FINAL, PREFILL, PREFIX, Came, GoingOn, Question, Request, Verifying
from flsim.cloud.server.tokens import ServedTokens
from flsim.config.schema import ConfigError
from flsim.problems.problem import Problem

_ASKED = Problem("trial", "", 0, "Count from one to twelve in words, separated by single spaces.", "")
_TOKENS = 24  # of the whole answer
_ALIKE = 8  # characters from which on two texts are taken to be the same
_DRAFTED = 4

_log = logging.getLogger("flsim.run.cloud")


class _Server(Protocol):
    def tried(self, request: Request) -> tuple[Came | None, str]:
        """What came of one request, once, and why nothing did."""
        ...


def goes_on(whole: str, begun: str, came: str) -> bool:
    """Whether a text goes on with a beginning, rather than being another answer.

    By hand: of "one two three four", begun with "one two", " three f" goes on and "one two" does not.

    Args:
        whole: the answer that was given before.
        begun: its beginning.
        came: what was said after that.
    """
    rest, next_ = whole[len(begun) :].strip()[:_ALIKE], came.strip()[:_ALIKE]
    return bool(next_) and (next_.startswith(rest) or rest.startswith(next_))


def halved(whole: str) -> str:
    """The beginning of an answer that a server is given: half of it, up to white space if there is any."""
    half = whole[: (len(whole) + 1) // 2]
    at = max(half.rfind(" "), half.rfind("\n"))
    return half[:at] if at > 0 else half


def refuse_beginnings(server: _Server, system: str | None) -> str:
    """How the server is told to go on, a way of `flsim.cloud.server.dialect`; a silent one is not judged.

    Raises:
        ConfigError: if it starts anew, however it is told.
    """
    system = system_of(system, _ASKED)
    first, why = server.tried(GoingOn(_ASKED, system, "", _TOKENS))
    if first is None or first.answer.void:
        _log.warning("whether the server goes on with a beginning is not known, as the trial %s", why or "was refused")
        return FINAL
    whole = first.answer.text
    begun = halved(whole)
    if len(whole[len(begun) :].strip()) < 2:
        raise ConfigError(
            f"{PATH} cannot tell whether the server of cloud.url goes on with a beginning, as its answer to a trial "
            f"has only {len(whole)} characters; say how it is told by cloud.continues={FINAL}, {PREFILL} or {PREFIX}"
        )
    for way in (FINAL, PREFILL, PREFIX):
        came, _ = server.tried(GoingOn(_ASKED, system, begun, _TOKENS, way))
        if came is not None and goes_on(whole, begun, came.answer.text):
            return way
    raise ConfigError(
        "the server of cloud.url does not go on with a beginning: given the first half of its own answer, it started "
        "anew or refused; name the tokenizer of its model by cloud.tokenizer, which takes the route of completions, "
        "serve the model with vLLM or llama.cpp, or take a mode of help that asks whole questions"
    )


def refuse_drafts(server: _Server, tokens: ServedTokens, system: str | None) -> None:
    """Make sure that the server tells what it makes of given tokens; one that does not answer is not judged.

    Raises:
        ConfigError: if it does not, or reads a question in other tokens than `cloud.tokenizer` has.
    """
    first, why = server.tried(Question(_ASKED, system_of(system, _ASKED), _TOKENS))
    if first is None or first.answer.void:
        _log.warning("whether the server verifies drafts is not known, as the trial %s", why or first)
        return
    read = len(tokens.prompt_ids(_ASKED))
    if read != first.answer.prompt_tokens:
        raise ConfigError(
            f"the server of cloud.url reads {first.answer.prompt_tokens} tokens where cloud.tokenizer={tokens.path!r} "
            f"has {read}; name the tokenizer of cloud.model, with the chat template that the server uses"
        )
    drafted = tuple(tokens.tokenizer(first.answer.text, add_special_tokens=False)["input_ids"][:_DRAFTED])
    came, why = server.tried(Verifying(Draft(_ASKED, (), drafted), tokens))
    if came is None:
        raise ConfigError(
            f"the server of cloud.url cannot verify drafts, as a trial {why}: it takes the route of completions with "
            f"ids of tokens, echo and logprobs; serve the model with vLLM, take Checkpoint, or another mode of help"
        )
