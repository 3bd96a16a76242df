"""A server of one checkpoint, small and slow, with the two routes of OpenAI's API that flsim calls: chat, completions.

    python -m experiments.real.model_server runs/tiny-llama --port 8000

It goes on with the assistant's last message (`continue_final_message`), takes texts and ids of tokens, and tells the
log-probabilities of given tokens (`echo`, `logprobs`), as vLLM does. It may be told to lack one of these, as others do.
"""

import argparse
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor

from experiments.real.server import JsonHandler
from flsim.models.base import BaseModel, load_base
from flsim.models.decoding import generate, prompts_of, read
from flsim.models.help_request import NO_HELP
from flsim.models.wording import Chat, has_chat

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Able:
    """What a server can do beside answering."""

    goes_on: bool = True
    """Whether `continue_final_message` opens the last message; else it is ignored, and every answer starts anew."""
    prefills: bool = False
    """Whether a last message of the assistant's is open without that word, as with older llama.cpp."""
    refuses: tuple[str, ...] = ()
    """Settings that it answers with an error 400."""
    scores: bool = True
    """Whether it tells the log-probabilities of given tokens; else `echo` and `logprobs` are ignored."""
    names_ids: bool = True
    """Whether it names tokens by their ids where it is asked to; else by their text."""


class ModelServer(ThreadingHTTPServer):
    """Answers greedily, one request at a time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, base: BaseModel, able: Able = Able(), port: int = 0) -> None:  # it is frozen
        """Take a port of this machine.

        Args:
            base: the model.
            able: what it can do.
            port: to listen at; 0 takes a free one.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self.base, self.able = base, able
        self.chat = Chat(base.tokenizer) if has_chat(base.tokenizer) else None
        self.asked: list[dict[str, Any]] = []
        """All requests."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What `cloud.url` takes."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def reply(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of a reply."""
        self.asked.append(body)
        refused = next((name for name in self.able.refuses if name in body), None)
        if refused is not None:
            return 400, {"error": {"message": f"unknown parameter: {refused}"}}
        ids = self._chat_ids(body) if route == CHAT else self._ids(body["prompt"])
        new = self._say(ids, body["max_tokens"])
        ended = bool(self.base.ends(torch.tensor(new[-1:])).any())
        text = str(self.base.tokenizer.decode(new[:-1] if ended else new, skip_special_tokens=True))
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if ended else "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if route == CHAT else {"text": text}
        if route == COMPLETIONS and self.able.scores and body.get("logprobs"):
            told = self._scores([*ids, *new], body)
            begin = 0 if body.get("echo") else len(ids)
            choice["logprobs"] = {name: values[begin:] for name, values in told.items()}
        bill = {"prompt_tokens": len(ids), "completion_tokens": len(new), "total_tokens": len(ids) + len(new)}
        return 200, {"id": "0", "created": 0, "model": body["model"], "choices": [choice], "usage": bill}

    def _chat_ids(self, body: dict[str, Any]) -> list[int]:
        talk = [(message["role"], message["content"]) for message in body["messages"]]
        system = talk.pop(0)[1] if talk[0][0] == "system" else None
        (_, asked), *begun = talk
        prompt = asked if self.chat is None else self.chat.turn(asked, system)
        if not begun:
            return self._ids(prompt)
        if self.able.prefills or (self.able.goes_on and body.get("continue_final_message")):
            return self._ids(prompt + begun[0][1])
        over = str(self.base.tokenizer.decode([self.base.eos_id]))
        return self._ids(prompt + begun[0][1] + over + (prompt if self.chat is None else self.chat.turn("")))

    def _ids(self, prompt: str | list[int]) -> list[int]:
        return prompt if isinstance(prompt, list) else list(self.base.tokenizer(prompt)["input_ids"])

    @torch.no_grad()
    def _say(self, ids: Sequence[int], tokens: int) -> list[int]:
        reading = read(self.base, prompts_of(self.base, [[ids]]))
        said = generate(self.base, reading, group_size=1, max_new_tokens=tokens, temperature=0.0, may_ask=False)
        new: list[int] = said.tokens[0, 0, 0][said.mask[0, 0, 0]].tolist()
        return new

    @torch.no_grad()
    def _scores(self, ids: Sequence[int], body: dict[str, Any]) -> dict[str, Any]:
        """Of every token its name and log-probability, and the likeliest at its place, among them itself."""
        logits: Tensor = self.base.model(torch.tensor([ids])).logits[0].float()  # (T, V)
        if self.base.help.token != NO_HELP:
            logits[:, self.base.help.token] = -torch.inf  # nobody is there to be asked
        logprobs = logits.log_softmax(-1)  # (T, V)
        as_ids = self.able.names_ids and bool(body.get("return_tokens_as_token_ids"))
        names = [self._name(token, as_ids=as_ids) for token in ids]
        own: list[float | None] = [None]
        tops: list[dict[str, float] | None] = [None]
        for place, token in enumerate(ids[1:]):
            best = logprobs[place].topk(body["logprobs"])
            told = zip(
                [token, *best.indices.tolist()], [float(logprobs[place, token]), *best.values.tolist()], strict=True
            )
            own.append(float(logprobs[place, token]))
            tops.append({self._name(number, as_ids=as_ids): value for number, value in told})
        return {"tokens": names, "token_logprobs": own, "top_logprobs": tops, "text_offset": []}

    def _name(self, token: int, *, as_ids: bool) -> str:
        return f"token_id:{token}" if as_ids else str(self.base.tokenizer.decode([token]))


class _Handler(JsonHandler):
    server: ModelServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, said = 404, {"error": {"message": f"there are only {CHAT} and {COMPLETIONS}"}}
        if self.path in (CHAT, COMPLETIONS):
            with self.server.lock:
                status, said = self.server.reply(self.path, body)
        self.send_json(status, said)


@contextmanager
def serving_model(base: BaseModel, able: Able = Able()) -> Iterator[ModelServer]:  # it is frozen
    """A server that runs beside this process's work and ends with the block."""
    with ModelServer(base, able) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve one until it is interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="as cloud.model of a checkpoint")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    with ModelServer(load_base(given.model, key="model", asks=False), port=given.port) as server:
        print(server.url, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
