"""A stand-in for a cloud LLM: a local server with the one route of OpenAI's API that flsim calls, and known answers."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROUTE = "/v1/chat/completions"
UNKNOWN = "I do not know."


class KnownAnswers(ThreadingHTTPServer):
    """Answers the questions it knows, and says so of all others."""

    daemon_threads = True
    request_queue_size = 128  # a fleet connects at once

    def __init__(
        self, answers: Mapping[str, str], latency_s: float = 0.0, port: int = 0, otherwise: str = UNKNOWN
    ) -> None:
        """Take a port of this machine.

        Args:
            answers: by the words of the last message.
            latency_s: seconds before each reply.
            port: to listen at; 0 takes a free one.
            otherwise: what it says to a question that it does not know.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers, self.otherwise = answers, otherwise
        self.latency_s = latency_s
        self.asked = 0
        """Requests so far."""
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """What `cloud.url` takes."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def count(self) -> None:
        """One request more; every request has a thread of its own."""
        with self._lock:
            self.asked += 1


class JsonHandler(BaseHTTPRequestHandler):
    """Replies in JSON, and says nothing of it."""

    def send_json(self, status: int, body: Mapping[str, Any]) -> None:
        """Reply."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed."""


class _Handler(JsonHandler):
    server: KnownAnswers

    def do_POST(self) -> None:
        if self.path != ROUTE:
            return self.send_json(404, {"error": {"message": f"there is only {ROUTE}"}})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.count()
        time.sleep(self.server.latency_s)
        text = self.server.answers.get(body["messages"][-1]["content"], self.server.otherwise)
        sent = sum(len(message["content"].split()) for message in body["messages"])
        received = len(text.split())
        usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        reply = {"id": "0", "object": "chat.completion", "created": 0, "model": body["model"]}
        return self.send_json(200, {**reply, "choices": [choice], "usage": usage})


@contextmanager
def serving(answers: Mapping[str, str], latency_s: float = 0.0) -> Iterator[KnownAnswers]:
    """A server that runs beside this process's work and ends with the block."""
    with KnownAnswers(answers, latency_s) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
