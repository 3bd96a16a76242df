"""What went wrong with a request, in words of our own; whether another try can help, and when."""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, TypeGuard

from flsim.cloud.server.chat_reply import UnreadableReplyError

if TYPE_CHECKING:
    from openai import APIStatusError

_PASSING = (408, 409, 429)  # what may be different the next time, like every 5xx
REFUSALS = {
    400: "it takes no such request; check cloud.model, cloud.max_tokens and cloud.dialect",
    401: "it does not accept the key; put a valid one into the environment variable {key_env}",
    402: "the account has no money left; top it up",
    403: "the key may not use this model; check cloud.model and what the key is allowed to do",
    404: "it knows no such address or model; check cloud.url, which ends with /v1 as a rule, and cloud.model",
    422: "it takes no such request; check cloud.dialect and, for hand-overs, cloud.continues",
}
"""Statuses that no later try will change, and the mend."""


def named_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: in milliseconds, in seconds, or until a date; None if it names none."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait_s):
            return max(0.0, wait_s)
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time())
    except (KeyError, ValueError, OverflowError):
        return None


def is_status(error: Exception) -> "TypeGuard[APIStatusError]":
    """Whether a server answered, and with a status that is none of success."""
    from openai import APIStatusError  # not above: it takes half a second, and a config is checked without it

    return isinstance(error, APIStatusError)


def may_pass(error: Exception) -> bool:
    """Whether trying again can help."""
    return not is_status(error) or error.status_code in _PASSING or error.status_code >= 500


def name_of(error: Exception) -> str:
    """What happened, in words of our own."""
    from openai import APIConnectionError, APITimeoutError

    if isinstance(error, TimeoutError | APITimeoutError):
        return "timed out"
    if is_status(error):
        return f"answered with status {error.status_code}"
    if isinstance(error, UnreadableReplyError):
        return str(error)
    return "cut off or never connected" if isinstance(error, APIConnectionError) else "with an unreadable reply"
