"""What helps with a part of a question, behind the cache, at the desk and where nobody may pay: bought once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from flsim.cloud.buying import Service, buy, obtain
from flsim.cloud.cache import Cache
from flsim.cloud.cached import CachedCloud
from flsim.cloud.desk import Desk
from flsim.cloud.exchange import Exchange
from flsim.cloud.journal import TRAINING, Journal, digest_of
from flsim.cloud.more_help import Beginning, Continuation, Depth, Draft, Shared, Verified, going_on, verifying
from flsim.cloud.protocol import MONEY, Answer, Cloud, RefusedError
from flsim.cloud.unpaid import Unpaid
from flsim.collaboration.payload import Payload
from flsim.config.schema import CloudConfig, ConfigError
from flsim.models.cut import Cut
from flsim.problems.problem import Problem

FIRST, SECOND = (Problem("arithmetic", "add", 1, f"{n}+1=", str(n + 1)) for n in (1, 2))
TARGET = (7, 8, 9, 1)  # what it says to everything; 1 ends it
PRICES = CloudConfig(price_per_prompt_token=0.5, price_per_completion_token=1.0)


class Talker(Cloud):
    """It counts aloud, and verifies that others do; it fails at what `bad` holds."""

    costs = MONEY

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bad: set[str] = set()

    def identity(self) -> list[object]:
        return ["talker"]

    def quote(self, problem: Problem) -> Answer:
        return Answer("", 10, 10)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        self.calls += [f"answer {problem.question}" for problem in problems]
        return [Answer("a", 3, 2) for _ in problems]

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
        self.calls += [f"go on {one.problem.question} {one.said} {tokens}" for one in beginnings]
        told = [(one, Answer(f"{len(one.said)} " * tokens, 3, tokens, retries=1)) for one in beginnings]
        return [None if one.said in self.bad else Continuation(answer, tokens > 2) for one, answer in told]

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified | None]:
        self.calls += [f"verify {one.said} {one.drafted} {rule} {temperature}" for one in drafts]
        return [_verified(one) for one in drafts]

    @property
    def vocabulary(self) -> dict[str, int]:
        return {"a": 7}

    def said(self, tokens: Sequence[int]) -> str:
        return "-".join(map(str, tokens))


def _verified(draft: Draft) -> Verified:
    rest = TARGET[len(draft.said) :]
    count = next((n for n, (a, b) in enumerate(zip(draft.drafted, rest, strict=False)) if a != b), len(draft.drafted))
    tokens = rest[: count + 1]
    return Verified(tokens, min(count, len(tokens)), tokens[-1] == 1, billed=(5, 1), retries=2)


def test_a_beginning_is_bought_once_and_failures_are_asked_again(tmp_path: Path) -> None:
    talker = Talker()
    talker.bad.add("bad")
    cloud = CachedCloud(talker, Cache(tmp_path))
    begun = [Beginning(FIRST, ""), Beginning(FIRST, "x"), Beginning(FIRST, ""), Beginning(FIRST, "bad")]
    first = cloud.go_on(begun, 2)
    assert [came and (came.answer.text, came.answer.cached, came.answer.retries, came.ended) for came in first] == [
        ("0 0 ", False, 1, False),
        ("1 1 ", False, 1, False),
        ("0 0 ", True, 0, False),
        None,
    ]
    assert len(talker.calls) == 3
    talker.bad.clear()
    cloud.go_on([begun[3]], 2)
    cloud.go_on(begun, 3)  # another number of tokens is another request
    cloud.go_on([Beginning(SECOND, "x")], 2)
    assert len(talker.calls) == 3 + 1 + 3 + 1
    other = CachedCloud(Talker(), Cache(tmp_path)).go_on(begun, 2)  # another run
    assert [came and came.answer.cached for came in other] == [True] * 4
    assert other[:3] == first[:3]


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_draft_is_verified_once_by_all_that_was_sent(tmp_path: Path, on_disk: bool) -> None:
    """Eight drafts that differ in one thing each, and the first again."""
    chances = np.full((1, 2), 0.5, dtype=np.float32)
    drafts = [
        Draft(FIRST, (), (7, 8)),
        Draft(SECOND, (), (7, 8)),
        Draft(FIRST, (7,), (8,)),
        Draft(FIRST, (), (7, 9)),
        Draft(FIRST, (), (7, 8), (0.5, 0.5, 0.5)),
        Draft(FIRST, (), (7,), (), chances),
        Draft(FIRST, (), (7,), (), chances * np.float32(0.5)),
        Draft(FIRST, (), (7, 8)),
    ]
    talker = Talker()
    cloud = CachedCloud(talker, Cache(tmp_path) if on_disk else None)
    found = cloud.verify(drafts, "shared", 1.0)
    assert len(talker.calls) == 7
    assert [one and one.cached for one in found] == [*[False] * 7, True]
    assert found[0] == Verified((7, 8, 9), 2, False, billed=(5, 1))
    assert [one.retries for one in found if one] == [*[2] * 7, 0]
    assert cloud.verify(drafts, "shared", 1.0) == found
    assert len(talker.calls) == 7
    cloud.verify(drafts, "point", 1.0)
    cloud.verify(drafts, "shared", 0.5)
    assert len(talker.calls) == 21
    again = CachedCloud(Talker(), Cache(tmp_path)).verify(drafts[:1], "shared", 1.0)
    assert again == found[:1]
    assert [one and one.cached for one in again] == [on_disk]
    assert (cloud.vocabulary, cloud.said((7, 8))) == ({"a": 7}, "7-8")


def test_what_another_process_put_first_is_what_everybody_hears(tmp_path: Path) -> None:
    class Late(Talker):
        def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
            CachedCloud(Talker(), Cache(tmp_path)).go_on(beginnings, tokens)
            return [Continuation(Answer("mine", 3, 2), True) for _ in beginnings]

    cloud = CachedCloud(Late(), Cache(tmp_path))
    (came,) = cloud.go_on([Beginning(FIRST, "x")], 2)
    assert came is not None
    assert (came.answer.text, came.answer.cached) == ("1 1 ", False)  # it was paid


def test_a_question_and_a_beginning_of_nothing_have_places_of_their_own(tmp_path: Path) -> None:
    talker = Talker()
    cloud = CachedCloud(talker, Cache(tmp_path))
    cloud.answer([FIRST])
    cloud.go_on([Beginning(FIRST, "")], 2)
    cloud.verify([Draft(FIRST, (), ())], "shared", 0.0)
    assert len(talker.calls) == 3


def test_the_desk_serves_each_kind_in_one_call() -> None:
    talker = Talker()
    desk = Desk(talker)

    async def day() -> list[list[object]]:
        found: list[list[object]] = await asyncio.gather(
            desk.serve("go_on", [Beginning(FIRST, "x")], 2),
            desk.serve("verify", [Draft(FIRST, (), (7, 9))], "shared", 0.0),
            desk.serve("go_on", [Beginning(SECOND, "xy"), Beginning(FIRST, "")], 2),
            desk.serve("go_on", [Beginning(FIRST, "x")], 3),
        )
        return found

    one, verified, two, other = asyncio.run(day())
    assert asyncio.run(desk.batches()) == 3
    assert [*one, *two] == talker.go_on([Beginning(FIRST, "x"), Beginning(SECOND, "xy"), Beginning(FIRST, "")], 2)
    assert verified == [Verified((7, 8), 1, False, billed=(5, 1))]
    assert other == talker.go_on([Beginning(FIRST, "x")], 3)


def test_who_must_not_pay_is_given_what_is_kept_and_nothing_else(tmp_path: Path) -> None:
    cloud = CachedCloud(Talker(), Cache(tmp_path))
    begun, draft = [Beginning(FIRST, "x")], [Draft(FIRST, (), (7,))]
    told = cloud.go_on(begun, 2), cloud.verify(draft, "shared", 0.0)
    unpaid = CachedCloud(Unpaid(Talker(), "ask again"), Cache(tmp_path))
    assert (unpaid.go_on(begun, 2), unpaid.verify(draft, "shared", 0.0)) == told
    assert (unpaid.vocabulary, unpaid.said((7,))) == ({"a": 7}, "7")
    with pytest.raises(RefusedError, match=r"1 beginnings of answers to Talker, which costs money, .*; ask again"):
        unpaid.go_on(begun, 3)
    with pytest.raises(RefusedError, match=r"1 drafts to Talker, which costs money, are not among .*; ask again"):
        unpaid.verify(draft, "shared", 1.0)


def test_a_cloud_that_can_do_neither_is_refused_by_name() -> None:
    class Plain(Talker):
        go_on = None  # type: ignore[assignment]
        verify = None  # type: ignore[assignment]

    for ask in (going_on, verifying):
        with pytest.raises(ConfigError, match=r"Plain cannot .*, as it has no method \w+; take another cloud"):
            ask(Plain())
    with pytest.raises(ConfigError, match="Plain cannot go on"):
        CachedCloud(Plain(), None).go_on([Beginning(FIRST, "")], 1)


class TwoTrips(Service):
    """A wish is two hand-overs; the process dies before the one that `dies` names."""

    def __init__(self, cloud: Cloud, dies: int = 3) -> None:
        self.cloud, self.dies = cloud, dies

    def quote(self, place: int) -> Answer:
        return Answer("", 20, 20)

    def serve(self, places: Sequence[int]) -> list[Answer | None]:
        came: list[Continuation] = []
        for trip in (1, 2):
            if trip == self.dies:
                raise KeyboardInterrupt
            came += [one for one in going_on(self.cloud).go_on([Beginning(FIRST, "x" * trip)], 2) if one is not None]
        if self.dies == 0:
            raise KeyboardInterrupt
        cached = all(one.answer.cached for one in came)
        return [Answer("ab", 6, 4, cached=cached, exchange=Exchange(trips=2))]


@pytest.mark.parametrize(("dies", "lost", "asked"), [(1, 1, 2), (2, 1, 1), (0, 0, 0)])
def test_a_kill_within_an_exchange_buys_no_request_twice_and_hides_none(
    tmp_path: Path, dies: int, lost: int, asked: int
) -> None:
    """What was on its way counts as lost; where all had come, it was bought, and nothing is lost."""
    journal = Journal(tmp_path / "round-00001.train", PRICES)
    journal.begin(journal.before, MONEY)
    first = CachedCloud(Talker(), Cache(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        buy(first, TRAINING, [(journal, FIRST)], TwoTrips(first, dies))
    again = Journal(tmp_path / "round-00001.train", PRICES)
    assert (again.held.calls, again.held.tokens) == (1, 40)
    talker = Talker()
    cloud = CachedCloud(talker, Cache(tmp_path))
    (answer,) = obtain(cloud, TRAINING, [(again, FIRST)], TwoTrips(cloud))
    assert answer is not None
    assert (answer.tokens, answer.cached, len(talker.calls)) == (10, False, asked)
    assert again.held.calls == lost
    third = Journal(tmp_path / "round-00001.train", PRICES)
    spent = third.spent(TRAINING)
    assert (spent.lost.calls, spent.basket.bought.calls, spent.basket.bought.tokens) == (lost, 1, 10)
    kept = third.recall(TRAINING, digest_of(FIRST))
    assert kept == answer
    assert kept.exchange == Exchange(trips=2)


def test_what_two_parts_of_a_model_say_is_computed_once_for_each_cut(tmp_path: Path) -> None:
    calls: list[str] = []

    class Cuttable(Talker):
        depth = Depth(4, 8)

        def share(self, problems: Sequence[Problem], cut: Cut) -> list[Shared]:
            calls.extend(problem.question for problem in problems)
            return [Shared("a", 3, 2, (3, cut.layer), 0.5) for _ in problems]

    cloud = CachedCloud(Cuttable(), Cache(tmp_path))
    first = cloud.share([FIRST, SECOND, FIRST], Cut(1))
    assert [one and (one.uploads, one.cached) for one in first] == [((3, 1), False), ((3, 1), False), ((3, 1), True)]
    cloud.share([FIRST], Cut(2))
    cloud.share([FIRST], Cut(1, Payload("int8")))
    cloud.share([FIRST], Cut(1, threshold=0.5))
    assert calls == [FIRST.question, SECOND.question, *[FIRST.question] * 3]
    again = CachedCloud(Cuttable(), Cache(tmp_path)).share([SECOND], Cut(1))
    assert again == first[1:2]
    assert len(calls) == 5
    assert [one and one.doubt for one in again] == [0.5]
    assert cloud.depth == Depth(4, 8)
    with pytest.raises(ConfigError, match="Talker cannot share its layers, as it has no method share"):
        CachedCloud(Talker(), None).share([FIRST], Cut(1))
