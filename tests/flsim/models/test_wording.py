"""What a device's model reads of a problem: instruction, offer, question, in the chat's frame or plain, how long."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.real.checkpoint import FAMILIES, build_tokenizer, write_checkpoint
from flsim.cloud.checkpoint import Checkpoint
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.loop.checks import check
from flsim.models.base import load_base, load_model
from flsim.models.help_request import TEXT
from flsim.models.wording import Chat, Wording, wording_of
from flsim.problems.problem import Problem

BARE = Problem("arithmetic", "add", 1, "1+1=", "2")
TOLD = replace(BARE, task="sums", instruction="Add.")
OFFER = f"If you cannot solve it, reply with {TEXT} and nothing else."


def words(family: str = "phi", **settings: Any) -> Wording:
    """Of a family's tokenizer; Phi's has no chat template."""
    return wording_of(ModelConfig(path=family, **settings), build_tokenizer(FAMILIES[family]), TEXT)


@given(question=st.text(min_size=1))
def test_a_bare_question_stays_as_it_is(question: str) -> None:
    assert words().prompt(replace(BARE, question=question)) == question
    assert Wording(help="?").prompt(replace(BARE, question=question)) == question


def test_the_built_in_world_reads_its_questions(one_thread: None) -> None:
    assert load_base("builtin:slm").prompt(BARE) == "1+1="


def test_instruction_offer_and_question_stand_one_below_the_other() -> None:
    assert words().prompt(TOLD) == f"Add.\n\n{OFFER}\n\n1+1="
    assert words(offer="Or say {help}!").prompt(TOLD) == f"Add.\n\nOr say {TEXT}!\n\n1+1="
    assert words(offer="").prompt(TOLD) == "Add.\n\n1+1="
    assert words(offer="Or say {help}!").prompt(BARE) == f"Or say {TEXT}!\n\n1+1="  # an offer of one's own always


def test_a_group_has_a_template_of_its_own() -> None:
    own = words(templates={"sums": "{question} {{x}} {instruction}{offer}{help}"}, offer="")
    assert own.prompt(replace(TOLD, question="{a}")) == "{a} {x} Add." + TEXT  # braces of a question are not fields
    assert own.prompt(replace(TOLD, task="other")) == "Add.\n\n1+1="


CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def test_the_chat_template_is_around_it() -> None:
    assert words("qwen2").prompt(TOLD) == CHATML.format(f"Add.\n\n{OFFER}\n\n1+1=")
    assert words("qwen2").prompt(BARE) == CHATML.format(f"{OFFER}\n\n1+1=")
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert words("qwen2", system="Be brief.").prompt(TOLD).startswith(system)
    assert words("qwen2", chat=False).prompt(BARE) == "1+1="


@pytest.mark.parametrize("family", FAMILIES)
def test_the_beginning_token_stands_once_and_the_end_of_a_turn_is_known(family: str) -> None:
    """Where both the template and the tokenizer write it, as with Llama 3 and Gemma, one of them is taken away."""
    tokenizer = build_tokenizer(FAMILIES[family])
    ids = tokenizer(words(family).prompt(TOLD))["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)
    assert ids[0] == tokenizer.bos_token_id or tokenizer.bos_token_id is None
    if FAMILIES[family].template is not None:
        expected = {"llama": "<|eot_id|>", "phi3": "<|end|>", "mistral": "</s>"}.get(family)
        expected = expected or ("<end_of_turn>" if "gemma" in family else "<|im_end|>")
        assert tokenizer.convert_ids_to_tokens(Chat(tokenizer).end() or 0) == expected


def test_options_reach_the_template() -> None:
    tokenizer = build_tokenizer(FAMILIES["qwen3"])
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if not enable_thinking %}<no thoughts>{% endif %}"
    config = ModelConfig(path="x", offer="", chat_options={"enable_thinking": False})
    assert wording_of(config, tokenizer, TEXT).prompt(BARE) == "1+1=<no thoughts>"


PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def under(template: str, **settings: Any) -> Wording:
    """Qwen's tokenizer with another template."""
    tokenizer = build_tokenizer(FAMILIES["qwen2"])
    tokenizer.chat_template = template
    return wording_of(ModelConfig(path="x", offer="", **settings), tokenizer, TEXT)


def test_a_template_that_reads_parts_gets_parts() -> None:
    """It loops over the content, and of a plain text it would write nothing but the frame."""
    assert under(PARTS).prompt(BARE) == CHATML.format("1+1=")
    assert under(PARTS, system="Be brief.").prompt(BARE).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    tokenizer = build_tokenizer(FAMILIES["qwen2"])
    tokenizer.chat_template = PARTS
    assert tokenizer.convert_ids_to_tokens(Chat(tokenizer).end() or 0) == "<|im_end|>"


def test_a_template_that_leaves_out_what_it_is_given_is_refused() -> None:
    with pytest.raises(ConfigError, match="'x' leaves the question out, as a text and as a list of parts"):
        under("<|im_start|>user\n{{ messages[0].text }}<|im_end|>\n")
    plain = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    assert under(plain).prompt(BARE) == "1+1="
    with pytest.raises(ConfigError, match=r"model\.system has no effect: the chat template of 'x' leaves it out"):
        under(plain, system="Be brief.")


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("Today: {{ strftime_now('%d %b %Y') }}.{{ messages[-1].content }}", "Today: {}.1+1="),
        (
            "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
            "Today: {{ date_string }}\n{{ messages[-1].content }}",
            "Today: {}\n1+1=",
        ),
    ],
    ids=["SmolLM 3", "Llama 3.2"],
)
def test_a_template_with_a_date_reads_the_same_on_every_day(template: str, written: str) -> None:
    """The date is a setting and no clock; what chat_options say goes before it."""
    assert under(template).prompt(BARE) == written.format("01 Jan 2026")
    assert under(template, date="2025-07-31").prompt(BARE) == written.format("31 Jul 2025")
    if "date_string" in template:
        assert under(template, chat_options={"date_string": "never"}).prompt(BARE) == written.format("never")


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01", "31.12.2025"])
def test_a_date_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.date=.* must be a date written as YYYY-MM-DD"):
        check(load_config(None, [f"model.date={given}"]))


# ------------------------------------------------------------------------------------------------------- long prompts


@given(length=st.integers(1, 400), limit=st.integers(130, 400), family=st.sampled_from(["phi", "qwen2", "gemma2"]))
def test_a_long_prompt_loses_the_head_of_its_question_only(length: int, limit: int, family: str) -> None:
    question = "".join(chr(97 + i % 26) + ("é" if i % 7 == 0 else "") for i in range(length))
    asked = replace(TOLD, question=question)
    whole, cut = words(family).prompt(asked), words(family, max_prompt_tokens=limit).prompt(asked)
    tokens = build_tokenizer(FAMILIES[family])
    assert len(tokens(cut)["input_ids"]) <= limit
    if len(tokens(whole)["input_ids"]) <= limit:
        assert cut == whole
        return
    frame, _, rest = whole.partition(question)
    assert (cut[: len(frame)], cut[len(cut) - len(rest) :]) == (frame, rest)
    kept = cut.removeprefix(frame).removesuffix(rest)
    assert question.endswith(kept)
    assert len(tokens(cut)["input_ids"]) >= limit - 1  # no more than it has to


def test_a_cut_is_said_once_and_a_frame_without_room_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    short = words(max_prompt_tokens=101, offer="")
    with caplog.at_level(logging.WARNING, "flsim.run.model"):
        for _ in range(2):
            short.prompt(replace(TOLD, task="once", question="x" * 200))
    assert [record.message for record in caplog.records] == [
        "questions of once lose their beginning: prompts would exceed model.max_prompt_tokens=101"
    ]
    with pytest.raises(ConfigError, match=r"model\.max_prompt_tokens=4 leaves no room .* raise it"):
        words(max_prompt_tokens=4).prompt(TOLD)


# ------------------------------------------------------------------------------------------------------------ examples

EXAMPLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "sums": (("2+2=", "4"), ("{a}9*9=", "{help}")),
    "all": (("hot", "cold"),),
}


def test_examples_are_turns_that_are_worded_as_the_question_is() -> None:
    own = words("qwen2", examples=EXAMPLES, system="Be brief.", offer="Or {help}.")
    turns = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    told = f"Add.\n\nOr {TEXT}.\n\n"
    shown = turns.format(f"{told}2+2=", "4") + turns.format(f"{told}{{a}}9*9=", TEXT)
    assert own.prompt(TOLD) == system + shown + CHATML.format(f"{told}1+1=")
    other = replace(TOLD, task="other")
    assert own.prompt(other) == system + turns.format(f"{told}hot", "cold") + CHATML.format(f"{told}1+1=")
    assert own.prompt(replace(TOLD, question="")).startswith(system + shown)  # what is read once for all


def test_examples_without_a_chat_stand_one_below_the_other() -> None:
    own = words(examples=EXAMPLES, offer="")
    assert own.prompt(TOLD) == f"Add.\n\n2+2=\n4\n\nAdd.\n\n{{a}}9*9=\n{TEXT}\n\nAdd.\n\n1+1=\n"
    assert words("qwen2", chat=False, examples=EXAMPLES).prompt(BARE).endswith("\n\n1+1=\n")
    assert words(examples={"sums": EXAMPLES["sums"]}).prompt(BARE) == "1+1="


def test_the_cloud_does_not_read_the_devices_examples(tmp_path: Path) -> None:
    folder = str(write_checkpoint(tmp_path, "smollm2"))
    assert "cold" in load_model(ModelConfig(path=folder, examples=EXAMPLES)).prompt(BARE)
    assert "cold" not in Checkpoint(folder).prompt(BARE)


LAST_ONLY = "<|im_start|>user\n{{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n"
ONE_TURN = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + LAST_ONLY


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LAST_ONLY, r"does not write 'hot' of model\.examples\.all where it should stand"),
        (ONE_TURN, r"takes no examples before a question: one turn only; leave out model\.examples"),
    ],
)
def test_a_template_that_takes_no_turns_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        under(template, examples={"all": EXAMPLES["all"]})


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ("{arithmetics: [[a, b]]}", r"model\.examples names 'arithmetics', .* \(did you mean arithmetic\?\)"),
        ("{all: [[a, b], [c]]}", r"model\.examples\.all\[1\]=\['c'\] must be a question and its answer"),
        ("{all: [[a, b], [c, ' ']]}", r"model\.examples\.all\[1\]=.* must be a question and its answer"),
    ],
)
def test_examples_that_are_none_are_refused(examples: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(load_config(None, [f"model.examples={examples}"]))


def test_examples_without_room_or_for_a_built_in_model_are_refused(one_thread: None) -> None:
    with pytest.raises(
        ConfigError, match=r"max_prompt_tokens=90 leaves no room .* 2 examples and .* fewer model\.exam"
    ):
        words("qwen2", examples=EXAMPLES, max_prompt_tokens=90)
    with pytest.raises(ConfigError, match=r"model\.examples has no effect on 'builtin:slm'"):
        load_model(ModelConfig(path="builtin:slm", examples=EXAMPLES))


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("phi", {"system": "x"}, r"model\.system has no effect: the checkpoint 'phi' has no chat template"),
        ("qwen2", {"system": "x", "chat": False}, r"model\.system has no effect: model\.chat=false"),
        ("gemma2", {"system": "x"}, r"chat template of 'gemma2' fails: no system role; leave out model\.system"),
        ("phi", {"offer": "Just ask."}, r"model\.offer='Just ask\.' has no \{help\}"),
        ("phi", {"templates": {"a": "{qestion}"}}, r"model\.templates\.a=.* its fields are \{instruction\}, \{offer\}"),
        ("phi", {"templates": {"a": "{question} {"}}, r"model\.templates\.a=.* a brace itself is written twice"),
        ("phi", {"templates": {"a": "Add!"}}, r"model\.templates\.a='Add!' has no \{question\}"),
    ],
)
def test_words_that_cannot_work_are_refused(family: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        words(family, **settings)


@pytest.mark.parametrize(
    "setting", ["chat=auto", "max_new_tokens=0", "max_prompt_tokens=0", "help=''", "dtype=float16"]
)
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{setting.split('=')[0]}"):
        check(load_config(None, [f"model.{setting}"]))


def test_a_checkpoints_own_words_are_loaded(tmp_path: Path, one_thread: None) -> None:
    base = load_model(ModelConfig(path=str(write_checkpoint(tmp_path, "smollm2")), templates={"sums": "Q {question}"}))
    assert base.prompts([[TOLD], []]) == [[CHATML.format("Q 1+1=")], []]
