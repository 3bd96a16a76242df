"""What a server makes of tokens that it was given, and of its own, read from the log-probabilities of its reply.

The reply is that of the route of completions with `echo` and `logprobs`: of every token of the prompt, and of one more,
its name and the likeliest tokens at its place. A drafted token is accepted while it is the likeliest itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flsim.cloud.more_help import Verified
from flsim.cloud.protocol import Answer, Reply
from flsim.cloud.server.chat_reply import UnreadableReplyError, billed, choice_of
from flsim.cloud.server.tokens import ServedTokens

NONE_GIVEN = "told no log-probabilities of given tokens"
"""Why a reply cannot be read: its server has none of them."""


def read_given(body: str, ids: Sequence[int], drafted: Sequence[int], tokens: ServedTokens) -> tuple[Answer, Verified]:
    """The bill, and what the server makes of a draft.

    Args:
        body: of the reply.
        ids: all that was sent; the draft is its end.
        drafted: the draft.
        tokens: of the server.

    Raises:
        UnreadableReplyError: unless the reply has the likeliest tokens at the places of the draft, and a bill.
    """
    choice, usage = choice_of(body)
    told = choice.get("logprobs")
    names, tops = (told.get(name) if isinstance(told, dict) else None for name in ("tokens", "top_logprobs"))
    if not (isinstance(names, list) and isinstance(tops, list) and min(len(names), len(tops)) >= len(ids)):
        raise UnreadableReplyError(NONE_GIVEN)
    sent, received = billed(usage)
    begin, accepted = len(ids) - len(drafted), 0
    while accepted < len(drafted):
        best = _likeliest(names, tops, begin + accepted, ids[begin + accepted], tokens)
        if best != drafted[accepted]:
            return _verified([*drafted[:accepted], best], accepted, tokens, (sent, received))
        accepted += 1
        if best in tokens.ends:
            return _verified(drafted[:accepted], accepted, tokens, (sent, received))
    if len(names) > len(ids):
        return _verified([*drafted, _own(names[len(ids)], tokens)], accepted, tokens, (sent, received))
    if choice.get("finish_reason") != "stop" or not tokens.ends:
        raise UnreadableReplyError("told no token of its own after those that were given")
    return _verified([*drafted, tokens.ends[0]], accepted, tokens, (sent, received))  # one that is not told ended it


def read_told(body: str, top: int, tokens: ServedTokens) -> Reply:
    """An answer with the likeliest tokens at each of its own.

    Args:
        body: of the reply.
        top: how many of the likeliest, k.
        tokens: of the server.

    Raises:
        UnreadableReplyError: unless the reply has as many of them at every token, and a bill.
    """
    choice, usage = choice_of(body)
    told = choice.get("logprobs")
    names, tops = (told.get(name) if isinstance(told, dict) else None for name in ("tokens", "top_logprobs"))
    if not (isinstance(names, list) and isinstance(tops, list) and names and len(names) == len(tops)):
        raise UnreadableReplyError("told no log-probabilities")
    said = [_own(name, tokens) for name in names]
    rows = [sorted(one.items(), key=lambda pair: -pair[1])[:top] for one in tops if isinstance(one, Mapping)]
    if len(rows) != len(said) or any(len(row) < top for row in rows):
        raise UnreadableReplyError(f"told fewer than {top} log-probabilities of a token")
    ids = np.array([[_own(name, tokens) for name, _ in row] for row in rows], dtype=np.int32)  # (T, k)
    logprobs = np.array([[at for _, at in row] for row in rows], dtype=np.float32)  # (T, k)
    return Reply(Answer(tokens.said(said), *billed(usage)), np.array(said, dtype=np.int32), ids, logprobs)


def _verified(
    said: Sequence[int], accepted: int, tokens: ServedTokens, bill: tuple[int, int]
) -> tuple[Answer, Verified]:
    return Answer("", *bill), Verified(tuple(said), accepted, said[-1] in tokens.ends, billed=bill)


def _likeliest(names: Sequence[Any], tops: Sequence[Any], place: int, given: int, tokens: ServedTokens) -> int:
    """The likeliest token at a place; of several that are as likely, the one with the lowest number, as argmax."""
    top = tops[place]
    if not isinstance(top, Mapping) or not top:
        raise UnreadableReplyError(NONE_GIVEN)
    most = max(top.values())
    # the token that was given is known by its place, whatever its name
    return min(given if name == names[place] else _own(name, tokens) for name, at in top.items() if at == most)


def _own(name: Any, tokens: ServedTokens) -> int:
    number = tokens.number_of(name) if isinstance(name, str) else None
    if number is None:
        raise UnreadableReplyError("named tokens that cloud.tokenizer cannot tell apart")
    return number
