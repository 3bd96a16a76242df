"""The help request as a text: where it is complete, what is sampled, scored and learned with it and without."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as drawn_from
from hypothesis import strategies as st
from torch import Tensor

from experiments.real.checkpoint import write_checkpoint
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_base, load_model
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.forward import Next
from flsim.models.help_request import NEVER, NO_HELP, TEXT, HelpRequest
from flsim.models.scoring import pull_back, rest_of_request, score, unaided
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [["59+6=", "'ihbd'[::-1]="], ["max([17,9,32])="]]
T, HEAT = 6, 1.2
BIAS = torch.tensor([[4.0, -torch.inf], [3.0, 0.0]])  # (K, P); at one prompt it must not be made


@drawn_from(st.lists(st.integers(0, 2), min_size=0, max_size=4), st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_complete_is_where_the_last_tokens_are_the_requests(ids: list[int], tokens: list[int]) -> None:
    help_, row = HelpRequest("x", tuple(ids)), torch.tensor([tokens])
    ends = [bool(ids) and tokens[: t + 1][-len(ids) :] == ids for t in range(len(tokens))]
    assert help_.completed(row).tolist() == [ends]
    might = [bool(ids) and [*tokens[:t], ids[-1]][-len(ids) :] == ids for t in range(len(tokens) + 1)]
    assert help_.closing(row).tolist() == [might]


def test_one_token_is_a_token_and_none_never_asks() -> None:
    assert (HelpRequest("?", (7,)).token, HelpRequest("?", (7,)).is_text) == (7, False)
    assert (HelpRequest("ab", (1, 2)).token, HelpRequest("ab", (1, 2)).is_text) == (NO_HELP, True)
    assert (NEVER.token, NEVER.is_text, NEVER.ends("")) == (NO_HELP, False, False)
    logits = torch.randn(3, 5)
    assert torch.equal(NEVER.ruled_out(logits, torch.ones(3, dtype=torch.bool)), logits)


# ------------------------------------------------------------------------------------- sampling, scores and gradients


@pytest.fixture(scope="module")
def asking(tiny_checkpoint: Path) -> BaseModel:
    """The request is the pair of tokens that the model says most often, so that it is often begun and completed."""
    base = load_base(str(tiny_checkpoint))
    said = sample(replace(base, help=NEVER), group_size=100)
    pairs = Counter(pair for row in said.tokens[said.mask.any(-1)].tolist() for pair in pairwise(row))
    pair = next(pair for pair, _ in pairs.most_common() if not {base.pad_id, base.eos_id} & set(pair))
    return replace(base, help=HelpRequest("no text spells this", pair))


def sample(base: BaseModel, **settings: Any) -> Completions:
    seeds = [torch.Generator().manual_seed(k + 1) for k in range(len(QUESTIONS))]
    settings = {"group_size": 60, "max_new_tokens": T, "temperature": HEAT, "generators": seeds, **settings}
    with torch.no_grad():
        return generate(base, read(base, encode(base, QUESTIONS)), **settings)


def by_hand(base: BaseModel, said: Completions, *, may_ask: bool, bias: Tensor | None) -> Tensor:
    """Log-probabilities of the tokens `(K, P, G, T)`, token by token from the rule's own words."""
    ids, rest = list(base.help.ids), base.help.ids[1:]
    found = torch.zeros(said.logprobs.shape)
    for k, row in enumerate(QUESTIONS):
        for p, question in enumerate(row):
            prompt = base.tokenizer(question)["input_ids"]
            for g in range(said.tokens.shape[2]):
                tokens = said.tokens[k, p, g][said.mask[k, p, g]].tolist()
                more = 0.0 if bias is None else float(bias[k, p])
                barred = not may_ask or more == -math.inf
                with torch.no_grad():
                    logits = base.model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 :]
                for t, token in enumerate(tokens):
                    here = logits[t].clone()
                    begins = t > 0 if base.help.stands == "after" else t == 0
                    if more > -math.inf and (begins or not rest):
                        here[ids[0]] += more
                    misplaced = {"anywhere": False, "before": t != len(rest), "after": t == len(rest)}
                    whole = [*tokens[:t], ids[-1]][-len(ids) :] == ids
                    if (barred or misplaced[base.help.stands]) and whole:
                        here[ids[-1]] = -torch.inf
                    found[k, p, g, t] = torch.log_softmax(here / HEAT, -1)[token]
    return found


@pytest.mark.parametrize("stands", ["anywhere", "before", "after"])
@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("may_ask", [True, False])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_tokens_are_drawn_and_scored_by_the_rule(
    asking: BaseModel, stands: str, tokens: int, may_ask: bool, bias: Tensor | None
) -> None:
    base = replace(asking, help=replace(asking.help, ids=asking.help.ids[:tokens], stands=stands))
    said = sample(base, group_size=40, may_ask=may_ask, help_bias=bias)
    expected = by_hand(base, said, may_ask=may_ask, bias=bias)
    torch.testing.assert_close(said.logprobs, expected, atol=1e-5, rtol=0)
    rule: dict[str, Any] = {"may_ask": may_ask, "help_bias": bias}
    with torch.no_grad():
        reading = read(base, encode(base, QUESTIONS))
        scores = score(base, reading, said, temperature=HEAT, **rule)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    if bias is None:
        assert bool(said.asked.any()) == may_ask
    else:
        assert not said.asked[bias.isneginf()].any()
    lengths = said.mask.sum(-1)[said.asked]
    assert (lengths == tokens).all() if stands == "before" else (lengths > tokens).all() or stands == "anywhere"


def test_the_rule_of_anywhere_is_no_rule_and_the_others_share_it_out(asking: BaseModel) -> None:
    """Of a request of one token the chances before and after a draft are those of a free one, where it is free."""
    base = replace(asking, help=replace(asking.help, ids=asking.help.ids[:1]))
    logits, closing = torch.randn(2, 44), torch.ones(2, dtype=torch.bool)
    at = torch.tensor([0, 1])
    out = {}
    for stands in ("anywhere", "before", "after"):
        barred = replace(base.help, stands=stands).barred(closing, None, at, may_ask=True)
        out[stands] = None if barred is None else barred.tolist()
    assert out == {"anywhere": None, "before": [False, True], "after": [True, False]}
    held = base.help.ruled_out(logits, torch.tensor(out["before"]))
    assert torch.equal(held[0], logits[0])
    assert held[1, base.help.ids[0]] == -torch.inf


def test_a_completed_request_ends_a_response_and_is_never_completed_where_ruled_out(asking: BaseModel) -> None:
    for may_ask in (True, False):
        said = sample(asking, may_ask=may_ask)
        complete = asking.help.completed(said.tokens) & said.mask  # (K, P, G, T)
        assert complete.any() == may_ask
        lengths = said.mask.sum(-1)  # (K, P, G)
        where = complete.nonzero()
        assert all(int(t) == int(lengths[k, p, g]) - 1 for k, p, g, t in where)
        assert torch.equal(said.asked, complete.any(-1))
        begun = ((said.tokens == asking.help.ids[0]) & said.mask).any(-1)
        assert begun.sum() > 20  # it is begun often enough for this to show something


def test_whole_distributions_without_the_request_add_up_to_one(asking: BaseModel) -> None:
    """Only after the first token the second is out; everywhere else the distribution is the model's."""
    said = sample(asking, may_ask=False)
    logits, places = torch.randn(said.tokens.numel(), 44), torch.arange(said.tokens.numel())
    chances = unaided(asking, said)(logits, places).exp()
    torch.testing.assert_close(chances.sum(-1), torch.ones(len(chances)))
    before = said.tokens.roll(1, -1)
    before[..., 0] = -1
    out = (before == asking.help.ids[0]).flatten()
    assert 0 < out.sum() < len(out)
    assert torch.equal(chances[:, asking.help.ids[1]] == 0, out)


@pytest.mark.parametrize(
    ("stands", "may_ask"), [("anywhere", True), ("anywhere", False), ("before", True), ("after", True)]
)
def test_the_pull_is_that_of_the_scores(tiny_checkpoint: Path, asking: BaseModel, stands: str, may_ask: bool) -> None:
    base = replace(load_base(str(tiny_checkpoint)), help=replace(asking.help, stands=stands))
    like = initial_adapter(base.model, ModelConfig(path="", rank=2, alpha=4.0), 0)
    lora = StackedLora(base.model, like, 2.0)
    theta = lora.stack([like, like])
    theta = theta + 0.05 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    lora.attach(theta)
    rule: dict[str, Any] = {"may_ask": may_ask, "help_bias": BIAS}
    said = sample(base, **rule)
    pull = torch.randn(said.tokens.shape, generator=torch.Generator().manual_seed(1))
    learning = theta.clone().requires_grad_()
    lora.attach(learning)
    scores = score(base, read(base, encode(base, QUESTIONS)), said, temperature=HEAT, **rule)
    (expected,) = torch.autograd.grad((scores * pull).sum(), learning)
    lora.attach(theta, train=True)
    reading = read(base, encode(base, QUESTIONS))
    gradient = pull_back(base, lora, reading, said, pull, temperature=HEAT, tokens=30, **rule)
    assert ((gradient - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5


def test_the_wish_is_the_chance_of_the_whole_request(asking: BaseModel) -> None:
    """Of its second token after its first, by a plain forward; of a single token there is no rest."""
    first, last = asking.help.ids
    reading = read(asking, encode(asking, QUESTIONS))
    rest = rest_of_request(asking, reading)  # (K, P)
    for k, row in enumerate(QUESTIONS):
        for p, question in enumerate(row):
            ids = torch.tensor([[*asking.tokenizer(question)["input_ids"], first]])
            expected = torch.log_softmax(asking.model(input_ids=ids).logits[0, -1], -1)[last]
            assert float(rest[k, p]) == pytest.approx(float(expected), abs=1e-5)
    assert rest[1, 1] == 0  # nobody's prompt
    single = replace(asking, help=HelpRequest("x", (first,)))
    assert (rest_of_request(single, reading) == 0).all()


def test_a_request_that_cannot_be_spelt_in_time_is_refused(asking: BaseModel) -> None:
    with pytest.raises(ValueError, match=r"max_new_tokens=1 is less than the 2 tokens .* raise model\.max_new_tokens"):
        sample(asking, max_new_tokens=1)
    sample(asking, max_new_tokens=1, may_ask=False)


# ------------------------------------------------------------------------------------------- asking by any tokens


class Scripted:
    """Says what it is told, whatever it reads."""

    def __init__(self, lines: list[list[int]], size: int) -> None:
        longest = max(map(len, lines))
        ids = torch.tensor([[*line, *[0] * (longest - len(line))] for line in lines])
        self._logits = 50.0 * torch.nn.functional.one_hot(ids, size).float()  # (n, T, V)

    def read(self, ids: Tensor, mask: Tensor, prefix: Any = None) -> tuple[Next, Any]:
        return self._next(self._logits[:, 0]), None

    def decoder(self, mask: Tensor, past: Any, share: int, tokens: int) -> "Scripted":
        self._rows, self._at = torch.arange(len(self._logits)), 0
        return self

    def step(self, ids: Tensor) -> Next:
        self._at += 1
        return self._next(self._logits[self._rows, self._at])

    def keep(self, places: Tensor) -> None:
        self._rows = self._rows[places]

    def _next(self, logits: Tensor) -> Next:
        return Next(logits, torch.zeros(len(logits), 1))


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> BaseModel:
    return load_base(str(write_checkpoint(tmp_path_factory.mktemp("llama") / "tiny", "llama")))


def said_by(base: BaseModel, lines: list[list[int]], *, may_ask: bool = True, stands: str = "anywhere") -> Completions:
    base = replace(base, help=replace(base.help, stands=stands))
    base.__dict__["forward"] = Scripted(lines, len(base.tokenizer))
    reading = read(base, encode(base, [["q"] * len(lines)]))
    most = max(map(len, lines))
    return generate(base, reading, group_size=1, max_new_tokens=most, temperature=0.0, may_ask=may_ask)


def letters_of(base: BaseModel) -> list[int]:
    """The request, a token for each letter."""
    vocabulary = base.tokenizer.get_vocab()
    return [vocabulary["Ġ" if letter == " " else letter] for letter in TEXT]


def test_a_response_asks_if_it_ends_with_the_text_in_whatever_tokens(spelling: BaseModel) -> None:
    base = spelling
    assert base.help.text == TEXT
    whole = list(base.help.ids)
    letters = letters_of(base)
    newline, a = base.tokenizer("\n")["input_ids"][-1], base.tokenizer("a")["input_ids"][-1]
    lines = [
        [*whole, a, a],  # it stops with the last token of the request
        [a, a, *whole, base.eos_id],  # after other words as well
        [*letters, newline, base.eos_id],  # letter by letter, with white space after it
        [*letters, a, base.eos_id],  # it goes on: no request
        [*whole[:-1], a, base.eos_id],  # it breaks off: no request
    ]
    said = said_by(base, lines)
    assert said.asked[0, :, 0].tolist() == [True, True, True, False, False]
    lengths = [len(whole), len(whole) + 2, len(letters) + 2, len(letters) + 2, len(whole) + 1]
    assert said.mask.sum(-1)[0, :, 0].tolist() == lengths
    assert said.texts[0][3] == [f"{TEXT}a"]


@pytest.mark.parametrize("stands", ["anywhere", "before", "after"])
def test_what_stands_before_the_request_is_the_draft(spelling: BaseModel, stands: str) -> None:
    """In its own tokens or in others; a place that the setting forbids makes no request, and other tokens no answer."""
    base = spelling
    letters, a = letters_of(base), base.tokenizer("a")["input_ids"][-1]
    whole, end = list(base.help.ids), base.eos_id
    lines = [[*whole, end], [a, a, *whole, end], [*letters, end], [a, *letters, end], [a, *letters, *letters, end]]
    said = said_by(base, lines, stands=stands)
    first, later = stands != "after", stands != "before"
    assert said.asked[0, :, 0].tolist() == [first, later, first, later, later]
    texts = [text for (text,) in said.texts[0]]
    assert texts[2] == ""
    assert texts[3:] == (["a", "a"] if later else ["", ""])
    if first:
        assert texts[0] == ""
    if later:
        assert texts[1] == "aa"
    else:  # its last token was ruled out, so another stands there
        assert texts[1].startswith("aa")
        assert not texts[1].endswith(TEXT)


def test_after_a_draft_a_response_has_one_token_more(asking: BaseModel) -> None:
    base = replace(asking, help=replace(asking.help, stands="after"))
    with pytest.raises(ValueError, match=r"max_new_tokens=2 is less than the 3 tokens of a draft and the help request"):
        sample(base, max_new_tokens=2)
    sample(base, max_new_tokens=3)


def test_who_may_not_ask_and_spells_it_all_the_same_has_said_nothing(spelling: BaseModel) -> None:
    base = spelling
    letters = letters_of(base)
    said = said_by(base, [[*letters, base.eos_id], [*base.help.ids, base.eos_id]], may_ask=False)
    assert not said.asked.any()
    assert said.texts[0][0] == [""]
    assert base.help.ids[-1] not in said.tokens[0, 1, 0, len(base.help.ids) - 1 :]  # its last token was ruled out


def test_every_end_token_ends_a_response(spelling: BaseModel) -> None:
    """Llama 3 names two; the chat's end of a turn is the one that answers are taught with."""
    base = spelling
    first, other = (base.tokenizer.get_vocab()[token] for token in ("<|eot_id|>", "<|end_of_text|>"))
    assert (base.eos_id, base.more_ends) == (first, (other,))
    a = base.tokenizer("a")["input_ids"][-1]
    said = said_by(base, [[a, first, a, a], [a, a, other, a], [a, a, a, a]], may_ask=False)
    assert said.mask.sum(-1)[0, :, 0].tolist() == [2, 3, 4]
    assert [text for (text,) in said.texts[0]] == ["a", "aa", "aaaa"]
    assert base.spell("a") == [a, first]


@pytest.mark.parametrize(
    ("help_", "ids"), [("I ask", 3), ("<|end_header_id|>", 1)], ids=["a text", "a token of its own"]
)
def test_the_request_is_a_setting(tmp_path: Path, help_: str, ids: int) -> None:
    base = load_model(ModelConfig(path=str(write_checkpoint(tmp_path, "llama")), help=help_))
    assert (base.help.text, len(base.help.ids)) == (help_, ids)
    assert (base.help_id == NO_HELP) == (ids > 1)


@pytest.mark.parametrize("help_", [" padded", "with a <|eot_id|> in it"])
def test_a_request_that_its_text_would_not_show_is_refused(tmp_path: Path, help_: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.path=.* cannot write the help request .* set model\.help"):
        load_model(ModelConfig(path=str(write_checkpoint(tmp_path, "llama")), help=help_))
