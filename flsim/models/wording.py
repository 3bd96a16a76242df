"""How a problem is worded for the model of a device: instruction, offer of help, question, within the chat's frame."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard

from flsim.config.model import OFFER, TODAY, ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.folder import AnyTokenizer, is_built_in
from flsim.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "What is asked?"
_CLOCK = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")
"""How templates ask for today's date; transformers answers with the clock, and takes no function in its place."""


class Chat:
    """The chat template of a tokenizer: messages as the checkpoint has learned to read them, and how its turn ends.

    Texts are given as they are, or, to a template that reads no other, as a list of parts with one text in it.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", options: Mapping[str, Any] | None = None, *, today: str = TODAY
    ) -> None:
        """Take a tokenizer that has a template.

        Args:
            tokenizer: with its template.
            options: what the template is told beside the messages.
            today: the date that a template writes which asks for the clock, YYYY-MM-DD.
        """
        self._tokenizer = tokenizer
        self._options = dict(options or {})
        day, template = datetime.fromisoformat(today), str(tokenizer.get_chat_template())
        self._template = _CLOCK.sub(lambda asked: repr(day.strftime(asked["format"])), template)
        begin = tokenizer.bos_token_id
        self._begins = begin is not None and list(tokenizer("")["input_ids"][:1]) == [begin]
        self._parts = False
        self._parts = not self.keeps(_PROBE) and self._keeps_parts()

    def turn(self, text: str, system: str | None = None, before: Sequence[tuple[str, str]] = ()) -> str:
        """What is read before an answer; a beginning that the tokenizer adds by itself is left to it.

        Args:
            text: of the user.
            system: system prompt; None is none.
            before: what user and assistant have said before.
        """
        talk = [] if system is None else [("system", system)]
        for said, answer in before:
            talk += [("user", said), ("assistant", answer)]
        whole = self._render([*talk, ("user", text)], add_generation_prompt=True)
        return whole.removeprefix(str(self._tokenizer.bos_token)) if self._begins else whole

    def keeps(self, text: str, system: str | None = None) -> bool:
        """Whether the template writes what it is given; it does not if it fails."""
        try:
            whole = self.turn(text, system)
        except Exception:  # whatever a template's author wrote
            return False
        return text in whole and (system is None or system.strip() in whole)

    def _keeps_parts(self) -> bool:
        self._parts = True
        return self.keeps(_PROBE)

    def end(self) -> int | None:
        """The special token that the template writes after an answer; None if it writes none."""
        said = "an answer"
        whole = self._render([("user", "a question"), ("assistant", said)])
        _, found, after = whole.rpartition(said)
        special = {number for number, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        ids = self._tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
        return next((number for number in ids if number in special), None)

    def _render(self, talk: Sequence[tuple[str, str]], **more: bool) -> str:
        options: dict[str, Any] = {"chat_template": self._template, **more, **self._options}
        messages: list[dict[str, Any]] = [{"role": role, "content": self._content(text)} for role, text in talk]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self._parts else text


def has_chat(tokenizer: AnyTokenizer) -> "TypeGuard[PreTrainedTokenizerBase]":
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


EVERY = "all"
"""In place of a task's name: every task that is not named."""
FIELDS = ("instruction", "offer", "question", "help")


_LOG = logging.getLogger("flsim.run.model")  # in the run's log


@dataclass(frozen=True)
class Wording:
    """The words around a question; `Wording()` adds none but its instruction."""

    help: str = ""
    """What to say to ask the cloud."""
    chat: Chat | None = None
    system: str | None = None
    offer: str | None = None
    """A sentence with `{help}`; None is our own, but for a bare question."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """By task, in place of instruction, offer and question one below the other."""
    examples: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """By task, or under `all` for every other one, questions with answers that stand before the question."""
    limit: int | None = None
    """Most tokens of a prompt."""
    tokenizer: AnyTokenizer | None = None

    def prompt(self, problem: Problem) -> str:
        """What the model reads; the head of a question is cut off where the prompt would be longer than `limit`.

        Raises:
            ConfigError: if the prompt would be too long without any question.
        """
        whole = self.frame(problem, problem.question)
        if self.limit is None or self.tokenizer is None:
            return whole
        question = problem.question
        while (excess := len(self.tokenizer(whole)["input_ids"]) - self.limit) > 0:
            starts = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            if excess >= len(starts):
                raise self.no_room(problem.task)
            _say_once(self.limit, problem.task)
            question = question[max(1, starts[excess][0]) :]
            whole = self.frame(problem, question)
        return whole

    def frame(self, problem: Problem, question: str) -> str:
        """What the model reads of a problem if this is its question."""
        text = self._text(problem, question)
        before = [(self._text(problem, asked), self.answer(said)) for asked, said in self.examples_of(problem.task)]
        if self.chat is not None:
            return self.chat.turn(text, self.system, before)
        return "".join(f"{asked}\n{said}\n\n" for asked, said in before) + (f"{text}\n" if before else text)

    def no_room(self, task: str) -> ConfigError:
        """That the frame alone is too long."""
        shown = len(self.examples_of(task))
        what, mend = "instruction, offer", "model.offer"
        if shown:
            what, mend = f"{what}, {shown} examples", f"{mend} or give fewer model.examples"
        return ConfigError(
            f"model.max_prompt_tokens={self.limit} leaves no room for a question of {task!r}: "
            f"{what} and chat template alone are longer; raise it, or shorten {mend}"
        )

    def examples_of(self, task: str) -> Sequence[Sequence[str]]:
        """Questions with answers, as they were given."""
        return self.examples.get(task, self.examples.get(EVERY, ()))

    def answer(self, said: str) -> str:
        """An example's answer with the request's own text."""
        return said.replace("{help}", self.help)

    def _text(self, problem: Problem, question: str) -> str:
        bare = self.chat is None and not problem.instruction
        offer = ("" if bare or not self.help else OFFER) if self.offer is None else self.offer
        offer = offer.replace("{help}", self.help)
        template = self.templates.get(problem.task)
        if template is None:
            return "\n\n".join(part for part in (problem.instruction, offer, question) if part)
        return template.format(instruction=problem.instruction, offer=offer, question=question, help=self.help)


BARE = Wording()
"""The question under its instruction and no more."""


def wording_of(config: ModelConfig, tokenizer: AnyTokenizer, help_: str) -> Wording:
    """The wording that a config asks for.

    Raises:
        ConfigError: for an offer or a template that lacks a field or has one that there is not, a system prompt that no
            template takes, a chat template that fails, or prompts with no room for a question.
    """
    chat = None
    if config.chat and has_chat(tokenizer):
        chat = Chat(tokenizer, config.chat_options, today=config.date)
    if chat is None and config.system is not None:
        why = "model.chat=false" if has_chat(tokenizer) else f"the checkpoint {config.path!r} has no chat template"
        raise ConfigError(f"model.system has no effect: {why}; put its words into model.templates, or leave it out")
    if config.offer and "{help}" not in config.offer:
        raise ConfigError(f"model.offer={config.offer!r} has no {{help}}, so it would not say what to reply")
    for group, template in config.templates.items():
        _check_template(group, template)
    wording = Wording(
        help_, chat, config.system, config.offer, config.templates, config.examples, config.max_prompt_tokens, tokenizer
    )
    if chat is not None:
        _check_chat(config, chat)
    for task in config.examples:
        _check_examples(config, wording, task)
    frame = wording.frame(Problem("", "", 0, "", ""), "")
    if config.max_prompt_tokens is not None and len(tokenizer(frame)["input_ids"]) >= config.max_prompt_tokens:
        raise wording.no_room("any task")
    return wording


def _check_chat(config: ModelConfig, chat: Chat) -> None:
    try:
        chat.turn("a question", config.system)
    except Exception as error:  # whatever a template's author wrote
        raise ConfigError(
            f"the chat template of {config.path!r} fails: {error}; leave out model.system (some take none), mend "
            f"model.chat_options={config.chat_options}, or set model.chat=false"
        ) from error
    if not chat.keeps(_PROBE):
        raise ConfigError(
            f"the chat template of {config.path!r} leaves the question out, as a text and as a list of parts, so "
            f"the model would not see it; mend the template, or set model.chat=false"
        )
    if not chat.keeps(_PROBE, config.system):
        raise ConfigError(
            f"model.system has no effect: the chat template of {config.path!r} leaves it out; put its words into "
            f"model.templates, or leave it out"
        )


def _check_examples(config: ModelConfig, wording: Wording, task: str) -> None:
    """That the model sees every example of a task, in order and before the question, and that the question has room."""
    tokenizer, told = wording.tokenizer, Problem(task, "", 0, _PROBE, "")
    assert tokenizer is not None, "a wording of a config has its tokenizer"
    if is_built_in(tokenizer.get_vocab()):
        raise ConfigError(
            f"model.examples has no effect on {config.path!r}: the built-in models know single questions only; leave "
            f"it out"
        )
    try:
        whole = wording.frame(told, _PROBE)
    except Exception as error:  # whatever a template's author wrote
        raise ConfigError(
            f"the chat template of {config.path!r} takes no examples before a question: {error}; leave out "
            f"model.examples, or set model.chat=false"
        ) from error
    place = 0
    for asked, said in [*wording.examples_of(task), (_PROBE, "")]:
        for text in (asked.strip(), wording.answer(said).strip()):
            found = whole.find(text, place)
            if found < 0:
                raise ConfigError(
                    f"the chat template of {config.path!r} does not write {text!r} of model.examples.{task} where it "
                    f"should stand, before the question; leave out model.examples, or set model.chat=false"
                )
            place = found + len(text)
    if wording.limit is not None and len(tokenizer(wording.frame(told, ""))["input_ids"]) >= wording.limit:
        raise wording.no_room(task)


def _check_template(group: str, template: str) -> None:
    try:
        template.format(**dict.fromkeys(FIELDS, ""))
    except (KeyError, IndexError, ValueError) as error:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ConfigError(
            f"model.templates.{group}={template!r} cannot be filled in ({error!r}); its fields are {known}, and a "
            f"brace itself is written twice"
        ) from error
    if "{question}" not in template:
        raise ConfigError(f"model.templates.{group}={template!r} has no {{question}}, so the model would not see it")


@cache
def _say_once(limit: int, group: str) -> None:
    _LOG.warning("questions of %s lose their beginning: prompts would exceed model.max_prompt_tokens=%d", group, limit)
