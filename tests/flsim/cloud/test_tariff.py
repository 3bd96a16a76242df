"""What a question costs in every unit: known before it is asked, and never less than what its answer then takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.budget.ledger import Account, Ledger, Trip
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.journal import TRAINING, Journal
from flsim.cloud.protocol import MONEY, Answer, bytes_sent
from flsim.cloud.tariff import TOKEN_BYTES, Tariff
from flsim.config.schema import BudgetConfig, CloudConfig
from flsim.config.system import ClassConfig, CloudTimesConfig, LinkConfig, SystemConfig
from flsim.system.asking import Asking
from tests.flsim.cloud.answers import answered
from tests.flsim.cloud.test_cloud import problems

pytestmark = pytest.mark.usefixtures("one_thread")
WAITS = ClassConfig(1.0, flops=1e11, bandwidth=1e10, memory_gb=1.0, battery_wh=10.0, busy_w=4.0, waiting_w=2.0)
LINK = LinkConfig(1.0, down_mbit=8.0, up_mbit=4.0, rtt_ms=100.0, up_mw_per_mbit=0.0, down_mw_per_mbit=0.0)
LINK = replace(LINK, base_mw=1000.0, tail_s=5.0, tail_mw=100.0)
CLOUD = CloudTimesConfig(queue_s=0.2, prefill_per_s=1000.0, decode_per_s=10.0, request_bytes=500)
SYSTEM = SystemConfig(classes={"one": WAITS}, links={"one": LINK}, cloud=CLOUD)
TARIFF = Tariff(CloudConfig(), follows=True, asking=Asking(SYSTEM, 0))
COUNT = st.integers(0, 10_000)


def test_a_question_takes_what_the_formulas_say() -> None:
    """500 bytes up at 4 Mbit/s and 1,000 down at 8 with 500 beside each: 1 and 1.5 kB, 2 ms and 1.5 ms.

    With the trip of 0.1 s, the queue, 100 tokens read and 10 said: 0.1 + 0.0035 + 0.2 + 0.1 + 1 = 1.4035 s. The battery
    pays 2 W meanwhile, 1 W for the transfers, 0.1 W for the tails: 1.4 s between them, and 5 s after.
    """
    trip = TARIFF.trip(Answer("", 100, 10), 500, 1000)
    assert (trip.bytes, trip.microseconds) == (2500, 1_403_500)
    assert trip.microjoules == pytest.approx(1e6 * (2 * 1.4035 + 0.0035 + 0.1 * (1.4 + 5)), abs=1)
    assert replace(TARIFF, asking=None).trip(Answer("", 100, 10), 500, 1000) == Trip(1500)
    assert replace(TARIFF, follows=False).trip(Answer("", 100, 10), 500, 1000) == Trip()


@given(st.lists(st.tuples(COUNT, COUNT), min_size=4, max_size=4), st.integers(0, 30), st.sampled_from([0.0, 0.8]))
def test_more_of_anything_never_costs_less(pairs: list[tuple[int, int]], device: int, jitter: float) -> None:
    """Of tokens and bytes alike, of any class, on any link, so that a quote is a bound wherever its counts are."""
    (p, more_p), (c, more_c), (up, more_up), (down, more_down) = pairs
    tariff = replace(TARIFF, asking=Asking(SystemConfig(jitter=jitter), 3), device=device)
    small = tariff.trip(Answer("", p, c), up, down)
    large = tariff.trip(Answer("", p + more_p, c + more_c), up + more_up, down + more_down)
    spare = large.beyond(small)
    assert min(spare.bytes, spare.microjoules, spare.microseconds) >= 0


def test_no_answer_of_a_cloud_is_beyond_its_quote(tiny_checkpoint: Path) -> None:
    """The random model says keywords of up to nine letters, and is cut at 16 tokens."""
    asked = problems(40)
    for cloud in (Oracle(0.5), Builtin(str(tiny_checkpoint))):
        for problem, answer in zip(asked, answered(cloud, asked), strict=True):
            quote, sent = cloud.quote(problem), bytes_sent(problem)
            spare = TARIFF.most(quote, sent).beyond(TARIFF.came(answer, sent))
            assert min(spare.bytes, spare.microjoules, spare.microseconds) >= 0
            assert quote.most_bytes is not None


def test_an_answer_beyond_its_quote_is_charged_as_it_is() -> None:
    """Quoted at one token of 16 bytes, it has 40 letters: 24 more than the cap allows, and no more is granted."""
    tariff, ledger = replace(TARIFF, asking=None), Ledger(BudgetConfig(bytes_per_round=116))
    most = tariff.most(Answer("", 9, 1), 100)
    assert most == Trip(100 + TOKEN_BYTES)
    assert ledger.reserve(10, 0.0, most)
    ledger.give_back(0, 0.0, most.beyond(tariff.came(Answer("x" * 40, 9, 1), 100)))
    assert ledger.round == Account(1, 10, 0.0, 0, bytes=140)
    assert not ledger.reserve(1, 0.0, Trip(1))


def test_each_cap_on_trips_refuses_by_itself() -> None:
    """Trips of 100 bytes, 0.3 J and 2 s: a cap of exactly two grants two; 0.3 + 0.3 is no more than 0.6."""
    trip = Trip(100, 300_000, 2_000_000)
    for caps, granted in (
        ({"bytes_per_round": 200}, [True, True, False]),
        ({"bytes_per_round": 199}, [True, False, False]),
        ({"joules_per_round": 0.6}, [True, True, False]),
        ({"joules_per_round": 0.59}, [True, False, False]),
        ({"seconds_per_question": 2.0}, [True] * 3),
        ({"seconds_per_question": 1.99}, [False] * 3),
    ):
        settings: dict[str, Any] = caps
        ledger = Ledger(BudgetConfig(**settings))
        assert [ledger.reserve(1, 0.0, trip) for _ in range(3)] == granted, caps
        assert ledger.round.calls == sum(granted)
        assert ledger.round.bytes == 100 * sum(granted)


def test_a_failed_question_was_sent_all_the_same() -> None:
    ledger, most = Ledger(BudgetConfig()), TARIFF.most(Answer("", 9, 4), 80)
    failed = TARIFF.came(None, 80)
    assert ledger.reserve(13, 0.1, most)
    ledger.cancel(13, 0.1, most.beyond(failed))
    assert ledger.round == Account(bytes=80 + 2 * 500, microjoules=failed.microjoules)
    assert 0 < failed.microjoules < most.microjoules


def test_a_journal_remembers_trips_and_older_ones_are_read(tmp_path: Path) -> None:
    """What came counts as it was, and what was never answered as its quote; earlier releases wrote no bytes."""
    path, prices = tmp_path / "round-00001.train", CloudConfig()
    journal = Journal(path, prices, TARIFF)
    journal.begin(Account(), MONEY)
    came, lost = Answer("12345", 7, 6), Answer("", 8, 9, most_bytes=20)
    journal.send(TRAINING, [("a", Answer("", 7, 9)), ("b", lost)], {"a": 50, "b": 60})
    journal.close(TRAINING, [("a", came)], {"a": 50})
    again, trips = Journal(path, prices, TARIFF), [TARIFF.came(came, 50), TARIFF.most(lost, 60)]
    assert again.held.bytes == sum(trip.bytes for trip in trips) == 50 + 5 + 60 + 20 + 4 * 500
    assert again.held.microjoules == sum(trip.microjoules for trip in trips)
    assert again.left(TRAINING) == again.held
    again.met(TRAINING, "a")
    assert (again.held.bytes, again.held.microjoules) == (trips[1].bytes, trips[1].microjoules)
    plain = Journal(path, prices)
    assert (plain.held.calls, plain.held.tokens, plain.held.bytes) == (2, 7 + 6 + 8 + 9, 0)
    lines = [
        line.partition(', "bytes"')[0] + "}" if '"sent"' in line else line for line in path.read_text().split("\n")
    ]
    path.write_text("\n".join(line.replace(', "bytes": 50', "") for line in lines))
    assert "bytes" not in path.read_text()
    assert Journal(path, prices).held == plain.held


def test_a_unit_says_what_a_question_costs() -> None:
    """To the oracle a letter is a token; a request and its reply have 500 bytes beside their texts."""
    problem = problems(1)[0]
    cloud, prices = Oracle(0.0), CloudConfig(price_per_prompt_token=0.5, price_per_completion_token=2.0)
    quote, tariff = cloud.quote(problem), replace(TARIFF, prices=prices)
    sent, down = len(problem.prompt), len(problem.answer)
    assert tariff.cost(quote, problem, "calls") == 1
    assert tariff.cost(quote, problem, "tokens") == sent + down + 1
    assert tariff.cost(quote, problem, "money") == 0.5 * sent + 2.0 * (down + 1)
    assert tariff.cost(quote, problem, "bytes") == sent + down + 1000
    trip = tariff.most(quote, sent)
    assert tariff.cost(quote, problem, "joules") == trip.microjoules > 0
    assert tariff.cost(quote, problem, "seconds") == trip.microseconds > 0
