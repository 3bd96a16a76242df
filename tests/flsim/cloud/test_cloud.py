from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.device.answering import answer_alone
from clients.device.buying import ask_cloud
from clients.device.device import Device
from clients.device.rollout import Sampling, roll_out
from clients.device.world import World, load_world
from flsim.budget.ledger import Account, Ledger
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import Answer, Cloud
from flsim.config.budget import PAID_CAPS
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import BudgetConfig, CloudConfig, Config, ConfigError
from flsim.models.adapter import initial_adapter
from flsim.models.base import load_base
from flsim.problems.families import FAMILIES, draw
from flsim.problems.problem import Problem
from flsim.tasks.stream import stream_of
from tests.flsim.cloud.answers import answered

ORACLE = "cloud.path=flsim.cloud.builtin:Oracle"
pytestmark = pytest.mark.usefixtures("one_thread")


def problems(count: int, seed: int = 0) -> list[Problem]:
    """Different questions of all families and levels."""
    rng, found = Random(seed), dict[str, Problem]()
    while len(found) < count:
        family = rng.choice(FAMILIES)
        problem = draw(family, rng.choice(family.levels), "train", rng)
        found[problem.question] = problem
    return list(found.values())


# ------------------------------------------------------------------------------------------------------- the ledger

MONEY = st.integers(0, 40).map(lambda quarters: quarters / 4)  # exact in binary, so that sums can be compared
CAPS = st.builds(
    BudgetConfig,
    calls_per_round=st.none() | st.integers(0, 5),
    calls_total=st.none() | st.integers(0, 8),
    tokens_per_round=st.none() | st.integers(0, 60),
    tokens_total=st.none() | st.integers(0, 100),
    money_per_round=st.none() | MONEY,
    money_total=st.none() | MONEY.map(lambda money: 2 * money),
)
Query = tuple[int, float, int, float, bool]  # tokens, money, at most so much of each unused, returned at once
QUERY = st.tuples(st.integers(1, 30), MONEY, st.integers(0, 30), MONEY, st.booleans())
ROUNDS = st.lists(st.lists(QUERY, max_size=8), max_size=3)


def within_caps(ledger: Ledger) -> bool:
    amounts = ("calls", "tokens", "money")
    pairs = [
        (getattr(ledger.budget, f"{amount}_{span}"), getattr(account, amount))
        for amount in amounts
        for span, account in (("per_round", ledger.round), ("total", ledger.total))
    ]
    return all(cap is None or 0 <= booked <= cap for cap, booked in pairs)


@given(CAPS, ROUNDS)
def test_no_cap_is_ever_passed_and_all_is_accounted_for(budget: BudgetConfig, rounds: list[list[Query]]) -> None:
    """Whatever the order of queries, of returns (at once or at the end of the round) and of new rounds."""
    ledger, spent = Ledger(budget), Account()  # our own books
    for queries in rounds:
        ledger = Ledger(budget, ledger.total)
        later: list[tuple[int, float]] = []
        for tokens, money, spare_tokens, spare_money, at_once in queries:
            granted = ledger.reserve(tokens, money)
            assert within_caps(ledger)
            spent.calls += granted
            spent.refused += not granted
            if granted:
                unused = (min(spare_tokens, tokens), min(spare_money, money))
                spent.tokens += tokens - unused[0]
                spent.money += money - unused[1]
                if at_once:
                    ledger.give_back(*unused)
                else:
                    later.append(unused)
        for unused in later:
            ledger.give_back(*unused)
            assert within_caps(ledger)
        assert ledger.round.calls + ledger.round.refused == len(queries)
    assert ledger.total == spent


@given(st.lists(st.tuples(st.integers(1, 30), MONEY, st.booleans()), max_size=8))
def test_what_is_cancelled_was_never_booked(queries: list[tuple[int, float, bool]]) -> None:
    """Whichever queries the cloud fails at, and however their cancelling is mixed with others' reserving."""
    ledger, kept = Ledger(BudgetConfig()), Ledger(BudgetConfig())
    for tokens, money, fails in queries:
        assert ledger.reserve(tokens, money)
        if fails:
            ledger.cancel(tokens, money)
        else:
            kept.reserve(tokens, money)
    assert (ledger.round, ledger.total) == (kept.round, kept.total)


def test_after_nothing_but_failures_nothing_is_paid_to_the_last_bit() -> None:
    """0.1 + 0.2 + 0.3, and these taken away in that order, leave 5.6e-17."""
    ledger = Ledger(BudgetConfig())
    for money in (0.1, 0.2, 0.3):
        ledger.reserve(1, money)
    for money in (0.1, 0.2, 0.3):
        ledger.cancel(1, money)
    assert ledger.total == ledger.round == Account()


@given(st.lists(QUERY, max_size=8))
def test_without_caps_everything_is_granted(queries: list[Query]) -> None:
    ledger = Ledger(BudgetConfig())
    assert all(ledger.reserve(tokens, money) for tokens, money, *_ in queries)
    assert ledger.total == Account(len(queries), sum(q[0] for q in queries), sum(q[1] for q in queries), 0)


def budget_of(**caps: float) -> BudgetConfig:
    return replace(BudgetConfig(), **caps)  # type: ignore[arg-type]


@pytest.mark.parametrize("cap", PAID_CAPS)
def test_each_cap_refuses_by_itself(cap: str) -> None:
    """Of queries of 10 tokens and 0.5 money, a cap of exactly two grants two, and one just below it only one."""
    size = {"calls": 2, "tokens": 20, "money": 1.0}[cap.partition("_")[0]]
    ledger = Ledger(budget_of(**{cap: size}))
    assert [ledger.reserve(10, 0.5) for _ in range(3)] == [True, True, False]
    assert ledger.round == ledger.total == Account(calls=2, tokens=20, money=1.0, refused=1)
    below = Ledger(budget_of(**{cap: size - (0.25 if "money" in cap else 1)}))
    assert [below.reserve(10, 0.5) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("amount", ["calls", "tokens", "money"])
def test_a_rounds_cap_starts_anew_each_round_and_a_runs_does_not(amount: str) -> None:
    """Room for one query of 1 token and 1.0 money, per round or in all: the second round grants one, or none."""
    for span, granted in (("per_round", [True, False, True]), ("total", [True, False, False])):
        first = Ledger(budget_of(**{f"{amount}_{span}": 1}))
        seen = [first.reserve(1, 1.0), first.reserve(1, 1.0)]
        second = Ledger(first.budget, first.total)
        assert [*seen, second.reserve(1, 1.0)] == granted


def test_what_is_given_back_can_be_spent_again() -> None:
    """20 tokens: a query of 15 leaves no room for another, until the first turns out to have used 5."""
    ledger = Ledger(BudgetConfig(tokens_total=20))
    assert ledger.reserve(15, 0.0)
    assert not ledger.reserve(15, 0.0)
    ledger.give_back(10, 0.0)
    assert ledger.reserve(15, 0.0)
    assert ledger.total == Account(calls=2, tokens=20, money=0.0, refused=1)


# ------------------------------------------------------------------------------------------------------- the oracle


def test_oracle_errs_on_the_asked_share() -> None:
    """Of 5000 questions; the standard error of a share of 0.1 is 0.004."""
    asked = problems(5000)
    answers = Oracle(0.1).answer(asked)
    wrong = [answer.text != problem.answer for problem, answer in zip(asked, answers, strict=True)]
    assert sum(wrong) / len(asked) == pytest.approx(0.1, abs=0.015)
    assert [answer.text for answer in Oracle(0.0).answer(asked)] == [problem.answer for problem in asked]
    assert {answer.text for answer in Oracle(1.0).answer(asked)} == {""}


def test_oracle_errs_by_task_group_where_it_is_told_so() -> None:
    """Strings always, numbers never, all others as often as before and at the same questions."""
    asked = problems(600)
    mixed = answered(Oracle(0.3, {"strings": 1.0, "numbers": 0.0}), asked)
    for problem, answer, plain in zip(asked, mixed, Oracle(0.3).answer(asked), strict=True):
        expected = {"strings": "", "numbers": problem.answer}.get(problem.task, plain.text)
        assert answer.text == expected
    config = load_config(None, ["cloud.path=flsim.cloud.builtin:Oracle", "cloud.errors={arithmetic: 0.1}"])
    cloud = make_cloud(config.cloud)
    assert isinstance(cloud, Oracle)
    assert (cloud.error, cloud.errors) == (0.03, {"arithmetic": 0.1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("cloud.errors={sums: 0.1}", ORACLE), r"names 'sums', which is no task; .*arithmetic"),
        (("cloud.errors={lists: 1.5}", ORACLE), r"cloud\.errors\.lists=1\.5 must be in \[0, 1\]"),
        (("cloud.error=2", ORACLE), r"cloud\.error=2\.0 must be in \[0, 1\]"),
        (("cloud.errors={lists: 0.5}",), r"builtin:Builtin cannot take the settings of cloud: .*'errors'"),
    ],
)
def test_wrong_error_rates_are_refused(settings: tuple[str, ...], message: str) -> None:
    config = load_config(None, settings)
    with pytest.raises(ConfigError, match=message):
        make_cloud(config.cloud).check(stream_of(config), 1)


def test_oracle_errs_always_on_the_same_questions() -> None:
    """Whoever asks, in whatever order; and one that errs more often errs also where a better one does."""
    asked = problems(1000)
    answers = Oracle(0.2).answer(asked)
    assert Oracle(0.2).answer(asked[::-1]) == answers[::-1]
    worse = Oracle(0.5).answer(asked)
    assert all(bad.text == "" for good, bad in zip(answers, worse, strict=True) if good.text == "")


# ------------------------------------------------------------------------------------------------------- the model


@pytest.fixture
def cloud(tiny_checkpoint: Path) -> Builtin:
    return Builtin(str(tiny_checkpoint))


@pytest.fixture
def passes(cloud: Builtin) -> Iterator[list[int]]:
    """The batch size of every forward pass of the cloud's model, seen at its output layer."""
    seen: list[int] = []
    hook = cloud.base.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0]))
    )
    yield seen
    hook.remove()


def test_builtin_cloud_is_deterministic_whatever_the_batch(cloud: Builtin, tiny_checkpoint: Path) -> None:
    asked = problems(40)
    answers = cloud.answer(asked)
    assert Builtin(str(tiny_checkpoint), batch_size=7).answer(asked) == answers
    assert Builtin(str(tiny_checkpoint)).answer(asked[::-1]) == answers[::-1]
    assert len({answer.text for answer in answers}) > 10


def test_builtin_cloud_computes_a_question_once(cloud: Builtin, passes: list[int]) -> None:
    """Ten questions, each asked twice in one call, then again: ten rows in the first call's first pass, none after.

    Later passes read the tokens of answers, so that they have a row for each.
    """
    asked = problems(10)
    answers = cloud.answer(asked + asked)
    assert answers[:10] == answers[10:]
    assert passes[0] == 10
    assert max(passes) <= 10 * cloud.max_new_tokens
    before = len(passes)
    assert cloud.answer(asked[3:5]) == answers[3:5]
    assert len(passes) == before
    cloud.answer([*asked, *problems(1, seed=9)])
    assert passes[before] == 1  # only the eleventh is new
    assert max(passes[before:]) <= cloud.max_new_tokens
    assert cloud.answer([]) == []


def test_builtin_cloud_reports_the_tokens_that_were_exchanged(cloud: Builtin) -> None:
    asked = problems(30)
    tokenizer = cloud.base.tokenizer
    for problem, answer in zip(asked, cloud.answer(asked), strict=True):
        assert answer.prompt_tokens == len(tokenizer(problem.question)["input_ids"])
        spoken = len(tokenizer(answer.text)["input_ids"])
        assert spoken <= answer.completion_tokens <= cloud.max_new_tokens  # an `<eos>` or padding piece has no text


@pytest.mark.parametrize("kind", ["builtin", "oracle"])
def test_no_answer_is_larger_than_its_quote(cloud: Builtin, kind: str) -> None:
    """In tokens of either kind, so at any prices."""
    chosen: Cloud = cloud if kind == "builtin" else Oracle(0.3)
    asked = problems(50)
    for problem, answer in zip(asked, answered(chosen, asked), strict=True):
        quote = chosen.quote(problem)
        assert quote.prompt_tokens >= answer.prompt_tokens > 0
        assert quote.completion_tokens >= answer.completion_tokens > 0


def test_price_by_hand() -> None:
    """7 tokens sent at 2 and 3 received at 10 cost 14 + 30 = 44."""
    answer = Answer("x", 7, 3)
    assert answer.tokens == 10
    assert answer.money(CloudConfig(price_per_prompt_token=2.0, price_per_completion_token=10.0)) == 44.0


def test_config_names_the_cloud() -> None:
    oracle = make_cloud(CloudConfig("flsim.cloud.builtin:Oracle", {"error": 0.25}))
    assert isinstance(oracle, Oracle)
    assert oracle.error == 0.25


# ------------------------------------------------------------------------------------------------- a device that asks


def world_of(checkpoint: Path, *, oracle_error: float = 0.0, **caps: float) -> World:
    return load_world(
        Config(
            model=ModelConfig(path=str(checkpoint), rank=2),
            cloud=CloudConfig("flsim.cloud.builtin:Oracle", {"error": oracle_error}),
            budget=budget_of(**caps),
        )
    )


def pack(world: World, count: int) -> list[Device]:
    adapter = initial_adapter(load_base(world.config.model.path).model, world.config.model, 0)
    world.lora.attach(world.lora.stack([adapter] * count))
    return [Device(k, 1, adapter, 0.5, Ledger(world.config.budget), None) for k in range(count)]


def test_the_second_request_is_refused_and_answered_alone(tiny_checkpoint: Path) -> None:
    """One call per round. The cloud is always wrong, so what is right can only be the device's own answer.

    Both devices want both their prompts. The answers that the problems ask for are those that the device would give
    alone, so both second requests end right; the first ones went to the cloud and end wrong.
    """
    world = world_of(tiny_checkpoint, oracle_error=1.0, calls_per_round=1)
    devices = pack(world, 2)
    asked = [problems(2), problems(2, seed=1)]
    alone = answer_alone(world, asked, 8)
    assert all(text for row in alone for text in row)
    own = [[replace(p, answer=t) for p, t in zip(*pair, strict=True)] for pair in zip(asked, alone, strict=True)]
    every = torch.ones(2, 2, dtype=torch.bool)
    help_ = ask_cloud(world, devices, own, every, every, max_new_tokens=8)
    helped, came = help_.right, help_.came  # (K, P) each
    assert came.tolist() == [[True, False], [True, False]]
    assert helped.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    for device, row in zip(devices, own, strict=True):
        spent = answered(world.cloud, row[:1])[0]
        assert device.ledger.round == device.ledger.total
        assert device.ledger.total == Account(1, spent.tokens, spent.money(world.config.cloud), 1)


def test_only_wanted_queries_are_sent(tiny_checkpoint: Path) -> None:
    """The cloud is always right, so the marks are where it was asked; the device alone is wrong."""
    world = world_of(tiny_checkpoint)
    devices = pack(world, 2)
    asked = [problems(3), problems(3, seed=1)]
    wanted = torch.tensor([[True, False, True], [False, False, False]])
    helped = ask_cloud(world, devices, asked, wanted, wanted, max_new_tokens=8).right  # (K, P)
    assert helped.tolist() == wanted.float().tolist()
    assert [device.ledger.total.calls for device in devices] == [2, 0]
    assert [device.ledger.total.refused for device in devices] == [0, 0]


def test_the_ledger_books_what_the_model_really_said(tiny_checkpoint: Path) -> None:
    """Reserved is the longest completion, booked the real one: the difference comes back."""
    world = world_of(tiny_checkpoint)
    world = replace(world, cloud=Builtin(str(tiny_checkpoint)))
    (device,) = pack(world, 1)
    asked = problems(6)
    ask_cloud(world, [device], [asked], *[torch.ones(1, 6, dtype=torch.bool)] * 2, max_new_tokens=8)
    answers = answered(world.cloud, asked)
    assert device.ledger.total.calls == 6
    assert device.ledger.total.tokens == sum(answer.tokens for answer in answers)
    assert device.ledger.total.money == pytest.approx(sum(answer.money(world.config.cloud) for answer in answers))
    assert device.ledger.total.tokens < sum(world.cloud.quote(problem).tokens for problem in asked)


class Flaky(Oracle):
    """Always right, except that it fails at every other question of a call."""

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:  # type: ignore[override]
        return [answer if place % 2 else None for place, answer in enumerate(super().answer(problems))]


def test_where_the_cloud_fails_the_device_answers_alone_and_pays_nothing(tiny_checkpoint: Path) -> None:
    """Four wanted prompts, of which the first and the third fail. Alone the device is right at the first only."""
    world = world_of(tiny_checkpoint)
    (device,) = pack(world, 1)
    asked = problems(4)
    ((first, *_),) = answer_alone(world, [asked], 8)
    asked = [replace(asked[0], answer=first), *asked[1:]]
    world = replace(world, cloud=Flaky(0.0))
    every = torch.ones(1, 4, dtype=torch.bool)
    helped = ask_cloud(world, [device], [asked], every, every, max_new_tokens=8).right  # (K, P)
    assert helped.tolist() == [[1.0, 1.0, 0.0, 1.0]]
    paid = [Oracle(0.0).answer([asked[p]])[0] for p in (1, 3)]
    assert device.ledger.total.calls == 2
    assert device.ledger.total.tokens == sum(answer.tokens for answer in paid)
    assert device.ledger.total.money == pytest.approx(sum(answer.money(world.config.cloud) for answer in paid))
    assert device.sent == [asked[1], asked[3]]
    assert device.basket.failures == 2
    assert device.basket.bought.tokens == device.ledger.total.tokens


def test_a_group_shares_one_query_per_prompt(tiny_checkpoint: Path) -> None:
    """Through the whole rollout, with a pack of unequal numbers of prompts; a device's part is the same as alone."""
    world = world_of(tiny_checkpoint)
    devices = pack(world, 2)
    asked = [problems(6), problems(3, seed=1)]
    sampling = Sampling(group_size=40, temperature=2.0, max_new_tokens=6)
    rollout = roll_out(world, devices, asked, sampling, step=0)
    wanted = (rollout.asked.any(-1)).sum(1).tolist()
    assert [device.ledger.total.calls for device in devices] == wanted
    assert rollout.asked.sum() > sum(wanted) > 0
    assert not (rollout.right_alone * rollout.asked).any()
    torch.testing.assert_close(rollout.right, rollout.right_alone + rollout.asked)  # the oracle is always right
    torch.testing.assert_close(rollout.usage[1], rollout.asked[1, :3].mean())
    assert not rollout.asked[1, 3:].any()
    second = pack(world, 2)[1:]
    world.lora.attach(world.lora.stack([second[0].adapter]))
    alone = roll_out(world, second, asked[1:], sampling, step=0)
    assert torch.equal(alone.asked[0], rollout.asked[1, :3])
    assert torch.equal(alone.right[0], rollout.right[1, :3])
