"""The tokens that a server writes in, by its model's tokenizer: what it reads of a question, and what tokens say."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property

from flsim.cloud.protocol import system_of
from flsim.cloud.server.chat_reply import without_thoughts
from flsim.problems.problem import Problem

_KEY = "cloud.tokenizer"
_ID = "token_id:"  # how vLLM names a token by its number


class ServedTokens:
    """A tokenizer with its chat template, as the server has them."""

    def __init__(self, path: str, system: str | None) -> None:
        """Read it, without any weights.

        Args:
            path: as `model.path` names a checkpoint.
            system: system prompt; None leaves it to the problem.

        Raises:
            ConfigError: if there is no tokenizer.
        """
        from flsim.models.folder import tokenizer_of  # not above: no server without a tokenizer need wait for them
        from flsim.models.wording import Chat, has_chat

        self.path, self._system = path, system
        self.tokenizer = tokenizer_of(path, _KEY)
        self._chat = Chat(self.tokenizer) if has_chat(self.tokenizer) else None

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Its tokens and their ids."""
        return dict(self.tokenizer.get_vocab())

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end an answer, first the one that ends a turn; none if nothing names any."""
        from flsim.models.folder import folder_of

        turn = None if self._chat is None else self._chat.end()
        file = folder_of(self.path, _KEY) / "generation_config.json"
        named = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
        known = [turn, self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
        return tuple(dict.fromkeys(token for token in known if token is not None))

    def prompt(self, problem: Problem) -> str:
        """What the model reads of a question, but for what the tokenizer begins every text with."""
        if self._chat is None:
            return problem.prompt
        return self._chat.turn(problem.prompt, system_of(self._system, problem))

    def prompt_ids(self, problem: Problem) -> list[int]:
        """All that it reads of it."""
        return list(self.tokenizer(self.prompt(problem))["input_ids"])

    def said(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens up to the first that ends it, read as a reply's text is."""
        end = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        text = str(self.tokenizer.decode(list(tokens)[:end], skip_special_tokens=True))
        return without_thoughts(text).strip()

    def number_of(self, name: str) -> int | None:
        """The id of a token that a server names: by its number, its text or its piece; None if that may be several."""
        if name.startswith(_ID) and name[len(_ID) :].isdecimal():
            return int(name[len(_ID) :])
        return self._by_text.get(name, self.vocabulary.get(name))

    @cached_property
    def _by_text(self) -> Mapping[str, int]:
        """Tokens whose text no other one has."""
        ids = sorted(self.vocabulary.values())
        texts = self.tokenizer.batch_decode([[number] for number in ids])
        found: dict[str, int] = {}
        twice = set()
        for text, number in zip(texts, ids, strict=True):
            twice |= {text} if found.setdefault(text, number) != number else set()
        return {text: number for text, number in found.items() if text not in twice}
