"""Stop texts: where a response ends, which tokens are its own, what its text is, beside requests, hints and masks."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from clients.helping.hint import Hint
from experiments.real.checkpoint import FAMILIES, build_tokenizer
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.loop.checks import check
from flsim.models.base import BaseModel, load_base, load_model
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.help_request import HelpRequest
from flsim.models.hint import go_on
from flsim.models.scoring import request_after, score
from flsim.models.stop import Stops

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [["59+6=", "'ihbd'[::-1]="], ["max([17,9,32])="]]
T, HEAT = 8, 1.2


@cache
def tokenizer_of(family: str) -> PreTrainedTokenizerBase:
    return build_tokenizer(FAMILIES[family])


@settings(max_examples=60)
@given(
    family=st.sampled_from(["qwen2", "gemma2", "phi"]),
    stops=st.lists(st.sampled_from(["\n", "é", " a", "ab", "b.", "\n\n", "the"]), min_size=1, max_size=2, unique=True),
    text=st.text(alphabet="ab .\néth", max_size=12),
    data=st.data(),
)
def test_a_stop_is_met_at_the_token_that_completes_it(family: str, stops: list[str], text: str, data: Any) -> None:
    """By the table as by decoding everything at every token; texts, and tokens that no text gives."""
    tokenizer = tokenizer_of(family)
    found = Stops(tuple(stops), tokenizer)
    more = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=6))
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], *more]
    said = [tokenizer.decode(tokens[: t + 1], skip_special_tokens=True) for t in range(len(tokens))]
    held = [any(stop in text for stop in stops) for text in said]
    first = held.index(True) if True in held else len(tokens)
    for t in range(min(first + 1, len(tokens))):
        assert found.met(torch.tensor([tokens[: t + 1]])).tolist() == [held[t]]


def test_a_text_is_cut_before_the_first_of_them() -> None:
    stops = Stops(("\n", "Q:"), tokenizer_of("phi"))
    assert [stops.cut(text) for text in ("4\nQ: 5", "4 Q:\n", "Q", "")] == ["4", "4 ", "Q", ""]


def sample(base: BaseModel, **more: Any) -> Completions:
    seeds = [torch.Generator().manual_seed(k + 1) for k in range(len(QUESTIONS))]
    given = {"group_size": 60, "max_new_tokens": T, "temperature": HEAT, "generators": seeds, **more}
    with torch.no_grad():
        return generate(base, read(base, encode(base, QUESTIONS)), **given)


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path) -> BaseModel:
    """It asks by two tokens which it often says one after the other."""
    base = load_base(str(tiny_checkpoint))
    said = sample(replace(base, help=HelpRequest()))
    pairs = said.tokens[said.mask][:2].tolist()
    return replace(base, help=HelpRequest("no text spells this", tuple(pairs)))


def stopping(base: BaseModel) -> BaseModel:
    """At two digits, and at one pair of letters."""
    return replace(base, stops=Stops(("3", "7", "ab"), base.tokenizer))


@pytest.mark.parametrize("stands", ["anywhere", "before", "after"])
@pytest.mark.parametrize("may_ask", [True, False])
def test_a_response_is_the_beginning_of_the_one_without_stops(plain: BaseModel, stands: str, may_ask: bool) -> None:
    plain = replace(plain, help=replace(plain.help, stands=stands))
    base = stopping(plain)
    before, said = sample(plain, may_ask=may_ask), sample(base, may_ask=may_ask)
    assert said.stopped is not None
    assert before.stopped is None
    ended = 0
    for k, row in enumerate(QUESTIONS):
        for p in range(len(row)):
            for g in range(60):
                own = said.tokens[k, p, g][said.mask[k, p, g]].tolist()
                whole = before.tokens[k, p, g][before.mask[k, p, g]].tolist()
                assert own == whole[: len(own)]
                held = [base.stops.cut(text) != text for text in decoded(base, whole)]
                stops = held[len(own) - 1] and not base.ends(torch.tensor(own[-1:])).item() and not said.asked[k, p, g]
                assert not any(held[: len(own) - 1])
                assert len(own) == len(whole) or stops
                assert said.stopped[k, p, g].nonzero()[:, 0].tolist() == [len(own) - 1] * bool(stops)
                text = said.texts[k][p][g]
                assert base.stops.cut(text) == text
                if stops:
                    assert text == base.stops.cut(decoded(base, own)[-1])
                    assert text != decoded(base, own)[-1]
                ended += bool(stops)
    assert 20 < ended < 160
    assert torch.allclose(said.logprobs, before.logprobs[..., : said.logprobs.shape[-1]] * said.mask, atol=1e-5)


def decoded(base: BaseModel, tokens: list[int]) -> list[str]:
    """Of every beginning."""
    begun = [tokens[: t + 1] for t in range(len(tokens))]
    return list(base.tokenizer.batch_decode(begun, skip_special_tokens=True))


def test_the_token_that_completes_a_stop_is_scored_as_the_devices_own(plain: BaseModel) -> None:
    base = stopping(plain)
    said = sample(base)
    with torch.no_grad():
        scores = score(base, read(base, encode(base, QUESTIONS)), said, temperature=HEAT)
    assert torch.allclose(scores, said.logprobs, atol=1e-5)
    assert said.stopped is not None
    assert (said.logprobs[said.stopped] < 0).all()


def test_the_wish_is_read_in_place_of_a_stop_as_of_an_end(plain: BaseModel) -> None:
    reading = read(plain, encode(plain, QUESTIONS))
    greedy: dict[str, Any] = {"group_size": 1, "max_new_tokens": T, "temperature": 0.0, "may_ask": False}
    whole = generate(plain, reading, **greedy)
    (third,) = plain.tokenizer.batch_decode([[int(whole.tokens[0, 0, 0, 2])]])
    base = replace(plain, stops=Stops((third,), plain.tokenizer))
    said = generate(base, reading, **greedy)
    assert said.stopped is not None
    assert said.stopped[0, 0, 0].any()
    cut = replace(said, mask=said.mask & ~said.stopped, stopped=None)
    assert torch.equal(request_after(base, reading, said), request_after(base, reading, cut))


def test_a_hint_ends_before_a_stop_and_what_follows_it_stops_too(plain: BaseModel) -> None:
    base = stopping(plain)
    prompts, said = encode(base, QUESTIONS), sample(base)
    hints = {(k, p): Hint(share=1.0).of(base, "1+13+1") for k in range(2) for p in range(2)}
    assert base.tokenizer.decode(hints[0, 0]) == "1+1"
    sources = [torch.Generator().manual_seed(k) for k in range(2)]
    more, answers = go_on(base, prompts, said, hints, max_new_tokens=T, temperature=HEAT, generators=sources)
    assert answers
    assert all(base.stops.cut(text) == text for text in answers.values())
    assert more.stopped is not None
    assert more.resumed is not None
    last = more.mask.long().cumsum(-1) == more.mask.sum(-1, keepdim=True)  # (K, P, G, T)
    assert (last & more.mask)[more.stopped].all()
    assert more.stopped[more.resumed > 0].any()
    assert base.spell("12") == base.spell("12345")


def test_stops_that_forbid_to_ask_or_are_empty_are_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.stop holds '\+', which is part of the help request '1\+1'"):
        load_model(ModelConfig(path=str(tiny_checkpoint), help="1+1", stop=("+",)))
    with pytest.raises(ConfigError, match=r"model\.stop=.* holds an empty text"):
        check(load_config(None, ['model.stop=[""]']))
    assert load_config(None, ['model.stop=["\\n"]']).model.stop == ("\n",)
