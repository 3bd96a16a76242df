"""A cloud behind the cache: every question once, for all runs, and what counts as bought."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flsim.budget.ledger import Account, Ledger
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.cache import Cache
from flsim.cloud.cached import CachedCloud
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.make import cache_of
from flsim.cloud.protocol import Answer, Basket, Cloud, instruction
from flsim.cloud.purchases import Purchases, Request
from flsim.cloud.recorded import Recorded
from flsim.cloud.teacher import TEXT
from flsim.config.schema import BudgetConfig, CloudConfig
from flsim.problems.families import TASKS
from flsim.problems.problem import Problem
from flsim.tasks.stream import proxy_problems

FIRST, SECOND, THIRD, *_ = PROBLEMS = proxy_problems(TASKS, "train", count=6, rng=Random(0))
PRICES = CloudConfig(price_per_prompt_token=0.5, price_per_completion_token=1.0)


class Moody(Cloud):
    """Never says the same thing twice, and fails at what it is told to."""

    def __init__(self, *bad: Problem) -> None:
        self.bad = set(bad)
        self.asked: list[Problem] = []

    def identity(self) -> list[object]:
        return ["moody"]

    def quote(self, problem: Problem) -> Answer:
        return Answer("", 100, 100)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        self.asked += problems
        said = len(self.asked)
        return [None if p in self.bad else Answer(f"{said}: {p.question}", 3, 2, retries=1) for p in problems]


def flags(answers: Sequence[Answer | None]) -> list[bool | None]:
    return [None if answer is None else answer.cached for answer in answers]


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_question_is_bought_once_and_only_its_first_answer_counts_as_bought(tmp_path: Path, on_disk: bool) -> None:
    moody = Moody()
    cloud = CachedCloud(moody, Cache(tmp_path) if on_disk else None)
    first = cloud.answer([FIRST, SECOND, FIRST])
    assert flags(first) == [False, False, True]
    assert first[0] == first[2] != first[1]
    assert moody.asked == [FIRST, SECOND]
    again = cloud.answer([SECOND, THIRD])
    assert flags(again) == [True, False]
    assert again[0] == first[1]
    assert [answer.retries for answer in (*first, *again) if answer] == [1, 1, 0, 0, 1]
    other = CachedCloud(Moody(), Cache(tmp_path)).answer([FIRST])  # another run
    assert (other == first[:1], flags(other)) == ((True, [True]) if on_disk else (False, [False]))


def test_what_another_process_put_first_is_what_everybody_hears(tmp_path: Path) -> None:
    """Both ask at once: while this one waits for the cloud, the other has put its answer."""

    class Late(Moody):
        def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
            theirs.extend(CachedCloud(Moody(), Cache(tmp_path)).answer(problems))
            self.asked.append(FIRST)
            return super().answer(problems)

    theirs: list[Answer | None] = []
    cloud = CachedCloud(Late(), Cache(tmp_path))
    mine = cloud.answer([FIRST])
    assert mine == theirs
    assert flags(mine) == [False]  # it was paid
    assert cloud.answer([FIRST]) == theirs


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    moody = Moody(SECOND)
    cloud = CachedCloud(moody, Cache(tmp_path))
    assert flags(cloud.answer([FIRST, SECOND, SECOND])) == [False, None, None]
    moody.bad.clear()
    assert flags(cloud.answer([FIRST, SECOND])) == [True, False]
    assert moody.asked == [FIRST, SECOND, SECOND]


def test_another_url_model_prompt_or_length_is_another_answer_and_another_way_there_is_not(tmp_path: Path) -> None:
    class Named(Moody):
        def __init__(self, endpoint: Endpoint) -> None:
            super().__init__()
            self.endpoint = endpoint

        def identity(self) -> list[object]:
            return list(self.endpoint.identity())

    def buys(**settings: Any) -> int:
        cloud = Named(Endpoint(**{"url": "http://localhost/v1", "model": "m", **settings}))
        CachedCloud(cloud, Cache(tmp_path)).answer([FIRST])
        return len(cloud.asked)

    assert buys() == 1
    for settings in ({"url": "http://h/v1"}, {"model": "n"}, {"system": "Be brief."}, {"max_tokens": 3}):
        assert buys(**settings) == 1
        assert buys(**settings) == 0
    more = {"key_env", "concurrency", "retries", "backoff_s", "deadline_s", "stop_when_refused"}
    assert set(Endpoint.reach) == more
    assert buys(key_env="K", concurrency=1, retries=9, backoff_s=0.1, deadline_s=1.0) == 0


def test_the_identities_of_shipped_clouds_are_what_they_were(tmp_path: Path) -> None:
    """So that old caches stay good: the old kind, the settings by their old names, and what the cloud itself said."""
    (tmp_path / "t.csv").write_text("question,right,prompt_tokens,completion_tokens\nq,1,1,1\n")
    said = {"url": "http://h/v1", "model": "m", "system": None, "max_tokens": 64}
    assert Endpoint("http://h/v1", "m").identity() == ["endpoint", said, instruction()]
    assert Oracle(0, {"lists": 0.5}).identity() == [
        "oracle",
        {"oracle_error": 0.0, "oracle_errors": {"lists": 0.5}},
        "",
    ]
    assert Recorded().identity() == ["replay", {}, "recorded with the questions"]
    assert Recorded(str(tmp_path / "t.csv")).identity()[:2] == ["replay", {}]
    assert Builtin().identity()[:2] == ["builtin", {}]
    words = str(Checkpoint("builtin:cloud", max_tokens=16).identity()[2])
    assert words == f"{Builtin().identity()[2]} "


def test_server_and_devices_buy_from_one_shelf(tmp_path: Path) -> None:
    moody = Moody()
    device = CachedCloud(moody, Cache(tmp_path)).answer([FIRST])
    shop = Purchases(moody, PRICES, Cache(tmp_path), Ledger(BudgetConfig()), {})
    replies = shop.buy([Request(TEXT, FIRST), Request(TEXT, SECOND)])
    assert replies[0] is not None
    assert [replies[0].answer] == device
    assert moody.asked == [FIRST, SECOND]
    assert shop.basket.charged == Account(calls=2, tokens=10, money=2 * 3.5)
    assert shop.basket.cached == shop.basket.bought == Account(calls=1, tokens=5, money=3.5)
    assert flags(CachedCloud(moody, Cache(tmp_path)).answer([SECOND])) == [True]


def test_a_basket_adds_up() -> None:
    """5 tokens for 3.5 each: one bought after two retries, one cached, one failed."""
    basket = Basket()
    for answer in (Answer("a", 3, 2, retries=2), Answer("b", 3, 2, cached=True), None):
        basket.add(answer, PRICES)
    assert basket.charged == Account(calls=2, tokens=10, money=7.0)
    assert (basket.failures, basket.retries) == (1, 2)
    assert basket.bought_facts() == {"bought_calls": 1, "bought_tokens": 5, "bought_money": 3.5, "cached_tokens": 5}


def test_the_folder_is_the_users_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def folder(named: str) -> Path:
        cache = cache_of(named)
        assert cache is not None
        return cache.path.parent

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder("auto") == tmp_path / "flsim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert folder("auto") == tmp_path / "me" / ".cache" / "flsim"
    assert folder("here") == Path("here")
    assert cache_of(None) is None
