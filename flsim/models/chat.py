"""The chat template of a tokenizer: a message as the checkpoint has learned to read it, and how its own turn ends."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase


class Chat:
    """Messages in the words of a checkpoint's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any] | None = None) -> None:
        """Take a tokenizer that has a template; `options` are what the template is told beside the messages."""
        self._tokenizer = tokenizer
        self._options = dict(options or {})
        begin = tokenizer.bos_token_id
        self._begins = begin is not None and list(tokenizer("")["input_ids"][:1]) == [begin]

    def turn(self, text: str, system: str | None = None) -> str:
        """What is read before an answer; a beginning that the tokenizer adds by itself is left to it."""
        talk = [] if system is None else [{"role": "system", "content": system}]
        whole = self._render([*talk, {"role": "user", "content": text}], add_generation_prompt=True)
        return whole.removeprefix(str(self._tokenizer.bos_token)) if self._begins else whole

    def end(self) -> int | None:
        """The special token that the template writes after an answer; None if it writes none."""
        said = "an answer"
        whole = self._render([{"role": "user", "content": "a question"}, {"role": "assistant", "content": said}])
        _, found, after = whole.rpartition(said)
        special = {number for number, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        ids = self._tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
        return next((number for number in ids if number in special), None)

    def _render(self, talk: list[dict[str, str]], **more: bool) -> str:
        options: dict[str, Any] = {**more, **self._options}
        return str(self._tokenizer.apply_chat_template(talk, tokenize=False, **options))


def has_chat(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))
