"""A real HTTP server that speaks `/v1/chat/completions`, counts what it sees, and misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK, SLOW, DRIP, BUSY, BROKEN, REFUSED, TRUNCATED, EMPTY, HTML, HANG_UP, NO_USAGE, NO_CHOICE, A_LIST = (
    *("ok", "slow", "drip", "429", "500", "401", "truncated", "empty", "html", "hang-up", "no usage", "no choice"),
    "a list",
)
PASSING = (SLOW, DRIP, BUSY, BROKEN, TRUNCATED, EMPTY, HTML, HANG_UP, NO_USAGE, NO_CHOICE, A_LIST)
"""What is worth another try."""
SLOW_S = 1.0  # how long a slow reply takes


class ChatServer(ThreadingHTTPServer):
    """Answers by a table; how it behaves is asked anew for every request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers: dict[str, str], behave: Callable[[int, str], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.behave = behave
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.now = self.most = 0
        """Requests with the server at this moment, and the most there ever were."""
        self.asked: list[str] = []
        """The question of every request, in the order they came."""
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        """Every `Authorization` that was sent."""
        self.pause_s = 0.0
        self.retry_after: str | None = None

    @property
    def url(self) -> str:
        """What `cloud.url` takes."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is none."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append(question)
            self.server.bodies.append(body)
            self.server.keys.add(self.headers.get("Authorization", ""))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        self.server.stopped.wait(self.server.pause_s)
        how = self.server.behave(number, question)
        with self.server.lock:
            self.server.now -= 1  # before the reply, since whoever has it may send the next request at once
        self._reply(question, how)

    def _reply(self, question: str, how: str) -> None:
        key = self.headers.get("Authorization", "")
        whole = self._completion(question)
        if how == BUSY:
            more = {} if self.server.retry_after is None else {"Retry-After": self.server.retry_after}
            return self._send(429, b'{"error": {"message": "slow down"}}', more=more)
        if how == BROKEN:
            return self._send(500, f"my secrets: {key}".encode())
        if how == REFUSED:
            return self._send(401, json.dumps({"error": {"message": f"wrong key {key}"}}).encode())
        if how == SLOW:
            self.server.stopped.wait(SLOW_S)
        if how == HANG_UP:
            return self._send(200, whole[: len(whole) // 2], length=len(whole))
        if how == DRIP:
            return self._drip(whole)
        if how == HTML:
            return self._send(200, b"<html>welcome to the hotel's network</html>", kind="text/html")
        broken = {
            TRUNCATED: whole[: len(whole) // 2],
            EMPTY: b"",
            NO_USAGE: self._completion(question, usage=None),
            NO_CHOICE: self._completion(question, choices=[]),
            A_LIST: b"[1, 2]",
        }
        return self._send(200, broken.get(how, whole))

    def _completion(self, question: str, **other: Any) -> bytes:
        text = self.server.answers[question]
        usage = {"prompt_tokens": len(question), "completion_tokens": len(text) + 1, "total_tokens": 0}
        message = {"role": "assistant", "content": f" {text}\n"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        return json.dumps({**body, **other}).encode()

    def _send(
        self,
        status: int,
        data: bytes,
        kind: str = "application/json",
        length: int | None = None,
        more: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _drip(self, data: bytes) -> None:
        """Every byte comes in time, all of them never."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for byte in data:
            if self.server.stopped.wait(SLOW_S / 20):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def chat_server(answers: dict[str, str], behave: Callable[[int, str], str] | str = OK) -> Iterator[ChatServer]:
    """Serve on a free port; `behave(number of the request, question)` names what happens."""
    chosen = behave if callable(behave) else (lambda *_: behave)
    server = ChatServer(answers, chosen)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
