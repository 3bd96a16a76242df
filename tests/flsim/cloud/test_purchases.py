"""What a server buys: caps, charges that no cache changes, nothing twice, and what the built-in teacher says."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from flsim.budget.ledger import Account, Ledger
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.cache import Cache, key_of
from flsim.cloud.protocol import Answer, Cloud, Reply, text_reply
from flsim.cloud.purchases import Purchases, Request
from flsim.cloud.teacher import FEATURES, LOGITS, SCORES, TEXT, TOP_LOGPROBS, access_of, includes, teacher_of
from flsim.config.load import load_config
from flsim.config.schema import BudgetConfig, CloudConfig, ConfigError
from flsim.loop.checks import check
from flsim.models.decoding import encode
from flsim.problems.families import TASKS
from flsim.problems.problem import Problem
from flsim.tasks.stream import proxy_problems

pytestmark = pytest.mark.usefixtures("one_thread")

PROBLEMS = proxy_problems(TASKS, "train", count=12, rng=Random(0))
PRICES = CloudConfig(price_per_prompt_token=0.25, price_per_completion_token=0.5)  # exact in binary


class Noting(Oracle):
    """Notes what it is asked."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__(error)
        self.asked: list[str] = []

    def answer(self, problems: Sequence[Problem]) -> list[Answer]:
        self.asked += [problem.question for problem in problems]
        return super().answer(problems)


def shop_at(
    folder: Path | str, cloud: Cloud, budget: BudgetConfig, total: Account, known: dict[bytes, None]
) -> Purchases:
    return Purchases(cloud, PRICES, Cache(folder), Ledger(budget, total), known)


def of(places: Sequence[int]) -> list[Request]:
    return [Request(TEXT, PROBLEMS[place]) for place in places]


CAPS = st.builds(
    BudgetConfig,
    calls_per_round=st.none() | st.integers(0, 5),
    calls_total=st.none() | st.integers(0, 8),
    tokens_per_round=st.none() | st.integers(0, 80),
    tokens_total=st.none() | st.integers(0, 150),
    money_per_round=st.none() | st.integers(0, 40).map(float),
    money_total=st.none() | st.integers(0, 60).map(float),
)
BASKETS = st.lists(st.lists(st.integers(0, len(PROBLEMS) - 1), max_size=6), max_size=4)


@bounds(max_examples=25)
@given(CAPS, BASKETS, st.lists(st.integers(0, len(PROBLEMS) - 1), max_size=8))
def test_no_cap_is_passed_and_a_warm_cache_changes_nothing_but_what_is_bought(
    budget: BudgetConfig, rounds: list[list[int]], warm: list[int]
) -> None:
    """Cold, and with a cache that another run has filled with anything: equal replies, grants and charges."""
    told, books = [], []
    for before in ([], warm):
        with TemporaryDirectory() as folder:
            shop_at(folder, Noting(), BudgetConfig(), Account(), {}).buy(of(before))
            cloud, total, known = Noting(), Account(), dict[bytes, None]()
            bought = Account()
            for places in rounds:
                shop = shop_at(folder, cloud, budget, total, known)
                told.append([None if r is None else r.answer for r in shop.buy(of(places))])
                spans = (("per_round", shop.ledger.round), ("total", total))
                for cap, spent in ((getattr(budget, f"{a}_{s}"), getattr(x, a)) for s, x in spans for a in AMOUNTS):
                    assert cap is None or spent <= cap
                bought.tokens += shop.basket.bought.tokens
                assert shop.basket.charged.tokens == shop.basket.bought.tokens + shop.basket.cached.tokens
            assert len(cloud.asked) == len(set(cloud.asked))  # nothing twice
            assert not set(cloud.asked) & {PROBLEMS[place].question for place in before}
            assert bought.tokens == total.tokens or before
            books.append(total)
    assert told[: len(rounds)] == told[len(rounds) :]
    assert books[0] == books[1]


AMOUNTS = ("calls", "tokens", "money")


def test_by_hand(tmp_path: Path) -> None:
    """Two questions of the oracle at 1/4 per character asked and 1/2 per character answered, one of them twice."""
    problem, other = PROBLEMS[0], PROBLEMS[1]
    cloud, total = Noting(), Account()
    shop = shop_at(tmp_path, cloud, BudgetConfig(calls_total=2), total, {})
    replies = shop.buy([*of([0, 1, 0, 2])])
    assert [None if r is None else r.answer.text for r in replies] == [
        problem.answer,
        other.answer,
        problem.answer,
        None,
    ]
    sent = len(problem.question) + len(other.question)
    received = len(problem.answer) + len(other.answer) + 2
    assert total == Account(calls=2, tokens=sent + received, money=sent / 4 + received / 2, refused=1)
    assert shop.basket.bought == Account(calls=2, tokens=sent + received, money=sent / 4 + received / 2)


def test_where_the_cloud_fails_nothing_is_paid_or_kept_and_the_rest_is(tmp_path: Path) -> None:
    """Two of three questions fail; the call that was taken back may be spent again, and the question asked again."""

    class Flaky(Noting):
        bad = {PROBLEMS[0].question, PROBLEMS[2].question}

        def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:  # type: ignore[override]
            found = zip(problems, super().answer(problems), strict=True)
            return [None if problem.question in self.bad else answer for problem, answer in found]

    cloud, total, known = Flaky(), Account(), dict[bytes, None]()
    shop = shop_at(tmp_path, cloud, BudgetConfig(calls_total=3), total, known)
    first = shop.buy(of([0, 1, 2]))
    assert [reply is None for reply in first] == [True, False, True]
    alone = Oracle(0.0).answer([PROBLEMS[1]])[0]
    assert total == Account(calls=1, tokens=alone.tokens, money=alone.money(PRICES))
    assert shop.basket.failures == 2
    assert shop.basket.bought == shop.basket.charged == total
    cloud.bad = set()
    assert None not in shop.buy(of([0, 2]))
    assert total.calls == 3
    assert cloud.asked.count(PROBLEMS[0].question) == 2


def test_another_cloud_is_another_purchase_and_another_price_is_not(tmp_path: Path) -> None:
    def asked(prices: CloudConfig = PRICES, error: float = 0.0) -> int:
        cloud = Noting(error)
        Purchases(cloud, prices, Cache(tmp_path), Ledger(BudgetConfig()), {}).buy(of([0]))
        return len(cloud.asked)

    assert [asked(), asked()] == [1, 0]
    assert asked(CloudConfig(price_per_prompt_token=9.0, access="text")) == 0
    assert asked(error=0.5) == 1


def test_a_reply_survives_its_bytes_bit_for_bit() -> None:
    reply = Reply(
        Answer("µ 12", 3, 2),
        np.array([4, 1], dtype=np.int32),
        np.array([[4, 5, 6], [1, 2, 3]], dtype=np.int32),
        np.array([[-0.0, -1 / 3, -np.inf]] * 2, dtype=np.float32),
    )
    for one in (reply, text_reply(Answer("", 0, 0))):
        back = Reply.from_bytes(one.to_bytes())
        assert back.answer == one.answer
        for name in ("tokens", "ids", "logprobs"):
            before, after = getattr(one, name), getattr(back, name)
            assert (before.dtype, before.shape, before.tobytes()) == (after.dtype, after.shape, after.tobytes())


def test_a_reply_with_hidden_states_survives_and_one_without_is_kept_as_ever() -> None:
    states = np.array([[[1.5, -0.0, 65504.0]], [[2.0**-24, np.inf, 0.1]]], dtype=np.float16)
    plain = text_reply(Answer("12", 3, 2))
    back = Reply.from_bytes(replace(plain, states=states).to_bytes())
    assert (back.states.shape, back.states.tobytes()) == ((2, 1, 3), states.tobytes())
    assert b"states" not in plain.to_bytes()
    assert Reply.from_bytes(plain.to_bytes()).states.size == 0


@cache
def teacher() -> Builtin:
    return Builtin()


def test_the_builtin_teacher_says_what_it_answers_and_what_a_plain_forward_says() -> None:
    problems = PROBLEMS[:4]
    cloud, size = teacher(), len(teacher().vocabulary)
    answers = cloud.answer(problems)
    full = cloud.tell(problems, size)
    for problem, answer, reply in zip(problems, answers, full, strict=True):
        assert reply.answer == answer
        assert (reply.ids[:, 0] == reply.tokens).all()  # greedy: the likeliest is the one it said
        assert reply.logprobs.shape == (answer.completion_tokens, size - 1)
        assert np.exp(reply.logprobs.astype(np.float64)).sum(-1) == pytest.approx(1.0, abs=1e-5)
        assert cloud.base.help_id not in reply.ids
        prompt = encode(cloud.base, [[problem.question]]).ids[0]
        ids = torch.cat([prompt, torch.from_numpy(reply.tokens[None]).long()], 1)
        with torch.no_grad():
            logits = cloud.base.model(ids).logits[0, prompt.shape[1] - 1 : -1]
        logits[:, cloud.base.help_id] = -torch.inf
        plain = torch.log_softmax(logits, -1).gather(-1, torch.from_numpy(reply.ids).long())
        torch.testing.assert_close(torch.from_numpy(reply.logprobs), plain, rtol=1e-4, atol=1e-4)


def test_hidden_states_come_with_the_answer_and_are_those_that_it_was_drawn_from() -> None:
    """Through the output layer the last layer's are the log-probabilities, but for the 16 bits that they travel in."""
    cloud, size = teacher(), len(teacher().vocabulary)
    assert cloud.depth.layers == 6
    head = cloud.base.model.get_output_embeddings()
    assert head is not None
    for plain, reply in zip(cloud.tell(PROBLEMS[:4], size), cloud.tell(PROBLEMS[:4], size, (2, 6)), strict=True):
        assert replace(reply, states=plain.states).to_bytes() == plain.to_bytes()
        assert reply.states.shape == (2, reply.answer.completion_tokens, 128)
        assert reply.states.dtype == np.float16
        logits = head(torch.from_numpy(reply.states[1]).float())  # (T, V)
        logits[:, cloud.base.help_id] = -torch.inf
        drawn = torch.log_softmax(logits, -1).gather(-1, torch.from_numpy(reply.ids).long())
        torch.testing.assert_close(drawn, torch.from_numpy(reply.logprobs), rtol=1e-2, atol=1e-2)


def test_hidden_states_are_bought_like_all_else_and_their_bytes_are_counted(tmp_path: Path) -> None:
    """2 layers of 128 numbers in 16 bits a token: 512 bytes; by a cold and a warm cache, and once in a run."""
    asked = [Request(FEATURES, problem, 1, layers=(3, 6)) for problem in PROBLEMS[:3]]
    for bought in (True, False):
        total, known = Account(), dict[bytes, None]()
        shop = shop_at(tmp_path, teacher(), BudgetConfig(), total, known)
        replies = [reply for reply in shop.buy(asked) if reply is not None]
        said = sum(reply.answer.completion_tokens for reply in replies)
        assert shop.basket.feature_bytes == 512 * said
        assert shop.basket.bought.tokens == (total.tokens if bought else 0)
        assert total.tokens == sum(reply.answer.tokens for reply in replies)
        again = shop_at(tmp_path, teacher(), BudgetConfig(), total, known)
        assert [None if r is None else r.to_bytes() for r in again.buy(asked)] == [r.to_bytes() for r in replies]
        assert again.basket.feature_bytes == 0
    (other,) = shop_at(tmp_path, teacher(), BudgetConfig(), Account(), {}).buy(
        [Request(FEATURES, PROBLEMS[0], 1, layers=(6,))]
    )
    assert other is not None
    np.testing.assert_array_equal(other.states[0], replies[0].states[1])


def test_a_cap_on_tokens_holds_hidden_states_back(tmp_path: Path) -> None:
    asked = [Request(FEATURES, problem, 1, layers=(6,)) for problem in PROBLEMS[:3]]
    most = asked[0].quote(teacher()).tokens
    total = Account()
    shop = shop_at(tmp_path, teacher(), BudgetConfig(tokens_total=most), total, {})
    assert shop.buy(asked)[0] is not None
    assert total.refused >= 1
    assert total.tokens <= most


def test_keys_of_what_was_bought_before_there_were_hidden_states_are_as_they_were() -> None:
    plain = key_of(["builtin"], TEXT, PROBLEMS[0])
    parts = json.dumps(["builtin", TEXT, PROBLEMS[0].prompt, 0, []], sort_keys=True)
    assert plain == hashlib.sha256(parts.encode()).digest()
    keys = {key_of(["builtin"], FEATURES, PROBLEMS[0], 1, layers=of) for of in ((), (6,), (3, 6), (6, 3))}
    assert len(keys) == 4


def test_scores_of_its_own_answer_are_its_own_logprobs_and_billed_as_sent() -> None:
    cloud = teacher()
    told = cloud.tell(PROBLEMS[:3], 1)
    scored = cloud.score(PROBLEMS[:3], [reply.tokens.tolist() for reply in told])
    for one, other in zip(told, scored, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-5)
        assert other.answer.prompt_tokens == one.answer.tokens
        assert other.answer.completion_tokens == 0


def test_what_the_teacher_says_does_not_depend_on_who_else_is_asked() -> None:
    together = teacher().tell(PROBLEMS[:5], 3)
    alone = [reply for problem in PROBLEMS[:5] for reply in teacher().tell([problem], 3)]
    assert [reply.to_bytes() for reply in together] == [reply.to_bytes() for reply in alone]


def test_a_quote_is_never_below_what_is_billed(tmp_path: Path) -> None:
    told = teacher().tell(PROBLEMS, 2)
    for problem, reply in zip(PROBLEMS, told, strict=True):
        assert Request(TOP_LOGPROBS, problem, 2).quote(teacher()).tokens >= reply.answer.tokens
        tokens = tuple(reply.tokens.tolist())
        (scored,) = teacher().score([problem], [tokens])
        assert Request(SCORES, problem, tokens=tokens).quote(teacher()) == scored.answer


def test_access_is_the_backends_unless_the_config_allows_less() -> None:
    assert access_of(teacher(), None) == FEATURES
    assert access_of(teacher(), "scores") == SCORES
    assert access_of(Oracle(0.0), None) == TEXT
    with pytest.raises(ConfigError, match=r"cloud\.access='scores' is more than the cloud Oracle can give.*: text"):
        access_of(Oracle(0.0), "scores")
    with pytest.raises(ConfigError, match="choose one of: text, top_logprobs, scores, logits"):
        check(load_config(None, ["cloud.access=everything"]))
    assert [includes(SCORES, level) for level in (TEXT, TOP_LOGPROBS, SCORES, LOGITS)] == [True, True, True, False]


def test_a_teacher_with_other_tokens_is_refused() -> None:
    class Foreign(Oracle):
        vocabulary: Mapping[str, int] = {"a": 0, "b": 1}

    with pytest.raises(ConfigError, match=r"differ in 'b'; .* set cloud\.access=text"):
        teacher_of(Foreign(0.0), {"a": 0, "b": 2})
    assert teacher_of(teacher(), teacher().vocabulary).access == FEATURES
