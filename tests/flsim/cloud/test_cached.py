"""A cloud behind the cache: every question once, for all runs, and what counts as bought."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from flsim.budget.ledger import Account, Ledger
from flsim.cloud.cache import Cache, CachedCloud
from flsim.cloud.make import cache_of
from flsim.cloud.protocol import Answer, Basket
from flsim.cloud.purchases import Purchases, Request
from flsim.cloud.teacher import TEXT
from flsim.config.schema import BudgetConfig, CloudConfig
from flsim.problems.families import GROUPS
from flsim.problems.problem import Problem
from flsim.tasks.stream import proxy_problems

FIRST, SECOND, THIRD, *_ = PROBLEMS = proxy_problems(GROUPS, "train", count=6, rng=Random(0))
CONFIG = CloudConfig(kind="endpoint", url="http://localhost/v1", model="m")


class Moody:
    """Never says the same thing twice, and fails at what it is told to."""

    def __init__(self, *bad: Problem) -> None:
        self.bad = set(bad)
        self.asked: list[Problem] = []

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
    cloud = CachedCloud(moody, CONFIG, Cache(tmp_path) if on_disk else None)
    first = cloud.answer([FIRST, SECOND, FIRST])
    assert flags(first) == [False, False, True]
    assert first[0] == first[2] != first[1]
    assert moody.asked == [FIRST, SECOND]
    again = cloud.answer([SECOND, THIRD])
    assert flags(again) == [True, False]
    assert again[0] == first[1]
    assert [answer.retries for answer in (*first, *again) if answer] == [1, 1, 0, 0, 1]
    other = CachedCloud(Moody(), CONFIG, Cache(tmp_path)).answer([FIRST])  # another run
    assert (other == first[:1], flags(other)) == ((True, [True]) if on_disk else (False, [False]))


def test_what_another_process_put_first_is_what_everybody_hears(tmp_path: Path) -> None:
    """Both ask at once: while this one waits for the cloud, the other has put its answer."""

    class Late(Moody):
        def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
            theirs.extend(CachedCloud(Moody(), CONFIG, Cache(tmp_path)).answer(problems))
            self.asked.append(FIRST)
            return super().answer(problems)

    theirs: list[Answer | None] = []
    cloud = CachedCloud(Late(), CONFIG, Cache(tmp_path))
    mine = cloud.answer([FIRST])
    assert mine == theirs
    assert flags(mine) == [False]  # it was paid
    assert cloud.answer([FIRST]) == theirs


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    moody = Moody(SECOND)
    cloud = CachedCloud(moody, CONFIG, Cache(tmp_path))
    assert flags(cloud.answer([FIRST, SECOND, SECOND])) == [False, None, None]
    moody.bad.clear()
    assert flags(cloud.answer([FIRST, SECOND])) == [True, False]
    assert moody.asked == [FIRST, SECOND, SECOND]


def test_another_url_model_prompt_or_length_is_another_answer_and_another_way_there_is_not(tmp_path: Path) -> None:
    def buys(config: CloudConfig) -> int:
        moody = Moody()
        CachedCloud(moody, config, Cache(tmp_path)).answer([FIRST])
        return len(moody.asked)

    assert buys(CONFIG) == 1
    for settings in ({"url": "http://h/v1"}, {"model": "n"}, {"system": "Be brief."}, {"max_tokens": 3}):
        assert buys(replace(CONFIG, **settings)) == 1
        assert buys(replace(CONFIG, **settings)) == 0
    way = replace(CONFIG, key_env="K", concurrency=1, retries=9, deadline_s=1.0, price_per_prompt_token=1.0)
    assert buys(way) == 0


def test_server_and_devices_buy_from_one_shelf(tmp_path: Path) -> None:
    moody, config = Moody(), replace(CONFIG, price_per_prompt_token=0.5, price_per_completion_token=1.0)
    device = CachedCloud(moody, config, Cache(tmp_path)).answer([FIRST])
    shop = Purchases(moody, config, Cache(tmp_path), Ledger(BudgetConfig()), {})
    replies = shop.buy([Request(TEXT, FIRST), Request(TEXT, SECOND)])
    assert replies[0] is not None
    assert [replies[0].answer] == device
    assert moody.asked == [FIRST, SECOND]
    assert shop.basket.charged == Account(calls=2, tokens=10, money=2 * 3.5)
    assert shop.basket.cached == shop.basket.bought == Account(calls=1, tokens=5, money=3.5)
    assert flags(CachedCloud(moody, config, Cache(tmp_path)).answer([SECOND])) == [True]


def test_a_basket_adds_up() -> None:
    """5 tokens for 3.5 each: one bought after two retries, one cached, one failed."""
    basket, prices = Basket(), CloudConfig(price_per_prompt_token=0.5, price_per_completion_token=1.0)
    for answer in (Answer("a", 3, 2, retries=2), Answer("b", 3, 2, cached=True), None):
        basket.add(answer, prices)
    assert basket.charged == Account(calls=2, tokens=10, money=7.0)
    assert (basket.failures, basket.retries) == (1, 2)
    assert basket.bought_facts() == {"bought_calls": 1, "bought_tokens": 5, "bought_money": 3.5, "cached_tokens": 5}


def test_the_folder_is_the_users_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def folder(config: CloudConfig) -> Path:
        cache = cache_of(config)
        assert cache is not None
        return cache.path.parent

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder(CONFIG) == tmp_path / "flsim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert folder(CONFIG) == tmp_path / "me" / ".cache" / "flsim"
    assert folder(replace(CONFIG, cache="here")) == Path("here")
    assert cache_of(replace(CONFIG, cache=None)) is None
