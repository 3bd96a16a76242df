"""What a chat server sent back, read: the answer and its bill, or in words of our own why there is none.

Servers that call themselves compatible send odd things. What can be read without guessing is read: a text in parts,
numbers of tokens that are whole floats, a stream that nobody asked for. A model's thoughts between `<think>` and
`</think>` are not part of its answer. The rest is named, and never in the server's words, which may hold a key.
"""

import json
import math
import re
from typing import Any

from flsim.cloud.protocol import Answer

_THOUGHT = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)|\A(?:(?!<think>).)*</think>", re.DOTALL)
"""A thought that is never closed was cut; one that is never opened was opened by the prompt's template."""


class UnreadableReplyError(Exception):
    """A reply that holds no answer, or no numbers of tokens to pay; it says in a few words why."""


def read_reply(body: str) -> tuple[Answer, bool]:
    """The answer in the body of a reply, and whether it was cut at its longest.

    An answer is void if it was billed and has no text: the limit cut it before its first word, or it was refused.

    Raises:
        UnreadableReplyError: unless there are a text, or a reason for none, and the numbers of tokens that are billed.
    """
    choice, usage = choice_of(body)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text, finish = _text(message.get("content")), choice.get("finish_reason")
    refused, cut = finish == "content_filter" or bool(message.get("refusal")), finish == "length"
    said = "" if text is None else without_thoughts(text).strip()
    void = "" if said else "refused by the model or a filter" if refused else "cut at cloud.max_tokens" if cut else ""
    if text is None and not void:
        raise UnreadableReplyError("sent a reply without answer")
    return Answer(said, *billed(usage, void), void=void), cut and not void


def read_continuation(body: str, begun: str) -> tuple[Answer, bool]:
    """What a reply says after a beginning, white space and all, and whether it was cut at its longest.

    A server that repeats the beginning is read from there on. The reply may be one of the route of completions.

    Raises:
        UnreadableReplyError: unless there are a text and the numbers of tokens that are billed.
    """
    choice, usage = choice_of(body)
    message = choice.get("message")
    text = _text(message.get("content")) if isinstance(message, dict) else _text(choice.get("text"))
    refused = choice.get("finish_reason") == "content_filter"
    if text is None and not refused:
        raise UnreadableReplyError("sent a reply without answer")
    void = "refused by the model or a filter" if refused else ""
    text = "" if text is None or refused else text.removeprefix(begun)
    text = text if begun else without_thoughts(text)
    return Answer(text, *billed(usage, void), void=void), choice.get("finish_reason") == "length"


def without_thoughts(text: str) -> str:
    """A text without the model's thoughts before it."""
    return _THOUGHT.sub("", text, count=1)


def choice_of(body: str) -> tuple[dict[str, Any], Any]:
    """The first choice in the body of a reply, and the bill.

    Raises:
        UnreadableReplyError: if there is none.
    """
    data = _parsed(body)
    choice = _first(data.get("choices"))
    if choice is None:
        error = data.get("error") is not None
        raise UnreadableReplyError("sent an error as if it were an answer" if error else "sent a reply without answer")
    return choice, data.get("usage")


def billed(usage: Any, otherwise: str = "") -> tuple[int, int]:
    """Tokens sent and received by a bill.

    Raises:
        UnreadableReplyError: if there is none; in the words of `otherwise` if there are any.
    """
    sent, received = (_tokens(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    if sent is None or received is None:
        raise UnreadableReplyError(otherwise or "sent no numbers of tokens (usage)")
    return sent, received


def _parsed(body: str) -> dict[str, Any]:
    """A reply as it was meant; a stream is put together."""
    try:
        data = _joined(body) if body.lstrip().startswith("data:") else json.loads(body)
    except ValueError as error:
        page = body.lstrip()[:1] == "<"
        raise UnreadableReplyError("sent a web page" if page else "with an unreadable reply") from error
    if not isinstance(data, dict):
        raise UnreadableReplyError("with an unreadable reply")
    return data


def _joined(stream: str) -> dict[str, Any]:
    """The events of a stream as one reply."""
    lines = (line.removeprefix("data:").strip() for line in stream.splitlines() if line.startswith("data:"))
    events = [json.loads(line) for line in lines if line and line != "[DONE]"]
    text, finish, usage = "", None, None
    for event in events:
        if not isinstance(event, dict):
            raise UnreadableReplyError("with an unreadable reply")
        if event.get("error") is not None:
            return {"error": event["error"]}
        choice = _first(event.get("choices")) or {}
        delta = choice.get("delta")
        text += (_text(delta.get("content")) or "") if isinstance(delta, dict) else ""
        finish, usage = choice.get("finish_reason") or finish, event.get("usage") or usage
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


def _first(choices: Any) -> dict[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _text(content: Any) -> str | None:
    """A text, or one in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in ("text", None)]
        return "".join(part for part in parts if isinstance(part, str)) if parts else None
    return content if isinstance(content, str) else None


def _tokens(usage: Any, name: str) -> int | None:
    number = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
        return None
    return int(number) if number == int(number) else None
