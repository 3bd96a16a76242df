"""Servers that call themselves compatible: what is read of their replies, what is named, and when a run stops."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import pytest

import flsim
from flsim.cloud.cached import CachedCloud
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.protocol import Answer, Basket, RefusedError
from flsim.cloud.server.chat_reply import UnreadableReplyError, read_reply
from flsim.config.schema import CloudConfig, ConfigError
from flsim.problems.families import TASKS
from flsim.tasks.stream import proxy_problems
from tests.tiny import TinyRun

PROBLEMS = proxy_problems(TASKS, "train", count=3, rng=Random(0))
KEY = "sk-planted-0123456789abcdef"
Reply = tuple[int, Any]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    says: Callable[[dict[str, Any]], Reply]
    bodies: list[dict[str, Any]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        status, said = self.server.says(body)
        data = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def odd_server(says: Callable[[dict[str, Any]], Reply]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve what a function says to the body of a request; gives the URL, and the bodies as they come."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.says, server.bodies = says, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", server.bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(content: Any = "3", finish: str = "stop", usage: Any = (10, 5), **message: Any) -> dict[str, Any]:
    counts = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) if usage else usage
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": counts}


def stream(*events: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def piece(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


BILL = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (json.dumps(reply(" 3\n")), "3"),
        (json.dumps(reply([{"type": "text", "text": "3"}, {"type": "text", "text": "1"}])), "31"),
        (json.dumps(reply("<think>perhaps 7</think>\n3")), "3"),
        (json.dumps(reply("a <think> in a text")), "a <think> in a text"),
        (json.dumps(reply(usage=(10.0, 5.0))), "3"),
        (json.dumps(reply("")), ""),
        (stream(piece("3"), piece("1", "stop"), {"choices": [], **BILL}), "31"),
    ],
)
def test_what_can_be_read_without_guessing_is_read(body: str, text: str) -> None:
    assert read_reply(body) == (Answer(text, 10, 5), False)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (json.dumps(reply("", "length")), "cut at cloud.max_tokens"),
        (json.dumps(reply(None, "length", reasoning_content="long")), "cut at cloud.max_tokens"),
        (json.dumps(reply("<think>so far", "length")), "cut at cloud.max_tokens"),
        (json.dumps(reply(None, "content_filter")), "refused by the model or a filter"),
        (json.dumps(reply(None, "stop", refusal="no")), "refused by the model or a filter"),
    ],
)
def test_what_was_billed_without_an_answer_is_void_and_says_why(body: str, words: str) -> None:
    answer, cut = read_reply(body)
    assert (answer.text, answer.tokens, answer.void, cut) == ("", 15, words, False)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>login</html>", "sent a web page"),
        ("{", "with an unreadable reply"),
        ("[1]", "with an unreadable reply"),
        (json.dumps({"error": {"message": KEY, "code": 529}}), "sent an error as if it were an answer"),
        (stream({"error": {"message": KEY}}), "sent an error as if it were an answer"),
        (json.dumps({"choices": []}), "sent a reply without answer"),
        (json.dumps(reply(None)), "sent a reply without answer"),
        (json.dumps(reply(usage=None)), "sent no numbers of tokens (usage)"),
        (json.dumps(reply(usage=(10, -1))), "sent no numbers of tokens (usage)"),
        (json.dumps(reply(usage=(10, 1.5))), "sent no numbers of tokens (usage)"),
        (stream(piece("3")), "sent no numbers of tokens (usage)"),
        (json.dumps(reply(None, "content_filter", None)), "refused by the model or a filter"),
    ],
)
def test_what_cannot_be_read_is_named_without_a_word_of_the_servers(body: str, words: str) -> None:
    with pytest.raises(UnreadableReplyError) as caught:
        read_reply(body)
    assert str(caught.value) == words


def modern(body: dict[str, Any]) -> Reply:
    """A model that takes no `max_tokens`, no temperature, and streams only."""
    for refused, words in (
        ("max_tokens", "Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead."),
        ("temperature", "temperature does not support 0.0 with this model"),
    ):
        if refused in body:
            return 400, {"error": {"message": words}}
    return (200, stream(piece("3", "stop"), BILL)) if body.get("stream") else (400, {"error": "only stream=true"})


def test_what_a_model_wants_sent_is_learned_once_and_is_no_failure() -> None:
    with odd_server(modern) as (url, bodies):
        cloud = Endpoint(url, "m", concurrency=1, retries=0, max_tokens=7)
        answers = cloud.answer(PROBLEMS)
        assert [answer and (answer.text, answer.retries) for answer in answers] == [("3", 0)] * 3
        assert len(bodies) == 3 + 3  # three lessons, with the first question
        assert all(body["max_completion_tokens"] == 7 and "temperature" not in body for body in bodies[2:])
        cloud.answer(PROBLEMS)
        assert len(bodies) == 3 + 6


def test_a_dialect_may_be_set_and_is_then_kept_to() -> None:
    with odd_server(lambda _: (200, reply())) as (url, bodies):
        Endpoint(url, "m", dialect="reasoning", max_tokens=7).answer(PROBLEMS[:1])
        assert set(bodies[0]) == {"model", "messages", "max_completion_tokens"}
    with odd_server(modern) as (url, bodies), pytest.raises(RefusedError, match="status 400: it takes no such request"):
        Endpoint(url, "m", dialect="classic", concurrency=1).answer(PROBLEMS)
    with pytest.raises(ConfigError, match=r"cloud\.dialect='plain' must be one of: auto, classic, reasoning"):
        Endpoint("http://localhost/v1", "m", dialect="plain")


def test_an_answer_that_was_cut_before_it_began_is_paid_and_asked_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("flsim.run"), "propagate", True)
    said = [reply("", "length"), reply("So it is 3", "length"), reply("3")]
    with odd_server(lambda _: (200, said.pop(0))) as (url, _):
        cloud = CachedCloud(Endpoint(url, "m"), None)
        basket = Basket()
        for _ in range(3):
            basket.add(cloud.answer(PROBLEMS[:1])[0], CloudConfig())
    assert (basket.failures, basket.charged.calls, basket.bought.calls, basket.cached.calls) == (1, 3, 2, 1)
    assert basket.charged.tokens == 45
    assert "failed at 1 of 1 questions: 1 cut at cloud.max_tokens" in caplog.text
    assert "1 of 1 answers were cut at cloud.max_tokens=64" in caplog.text
    assert not said[1:]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_a_server_that_refuses_all_of_the_first_questions_ends_it_and_later_ones_do_not(status: int) -> None:
    with odd_server(lambda _: (status, {"error": {"message": f"bad key {KEY}"}})) as (url, bodies):
        with pytest.raises(RefusedError, match=f"refused all 3 of the first questions with status {status}") as caught:
            Endpoint(url, "m", concurrency=3).answer(PROBLEMS)
        assert KEY not in str(caught.value)
        assert len(bodies) == 3
        assert Endpoint(url, "m", stop_when_refused=False).answer(PROBLEMS) == [None] * 3
    said: list[Reply] = [(200, reply()), *[(status, "no")] * 3]
    with odd_server(lambda _: said.pop(0)) as (url, _):
        cloud = Endpoint(url, "m", concurrency=1)
        assert cloud.answer(PROBLEMS[:1]) != [None]
        assert cloud.answer(PROBLEMS) == [None] * 3  # it has answered once: what comes later is a failure


@pytest.mark.usefixtures("no_report")
def test_the_run_stops_with_a_sentence_after_the_first_batch(tiny_run: TinyRun, tmp_path: Any) -> None:
    with odd_server(lambda _: (401, {"error": {"message": f"bad key {KEY}"}})) as (url, bodies):
        more = ("cloud.path=flsim.cloud.endpoint:Endpoint", "cloud.model=m", f"cloud.url={url}")
        cached = f"cloud.cache={tmp_path / 'cache'}"
        with pytest.raises(ConfigError, match="environment variable OPENAI_API_KEY; or go on"):
            flsim.run(tiny_run("refused", *more, cached, "budget.tau=1"), progress=False)
        assert 0 < len(bodies) <= 3
        assert KEY not in (tmp_path / "refused" / "run.log").read_text()
