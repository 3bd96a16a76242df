"""Every mode on the built-in pair: exchanges stay within their quotes, and so within caps in any unit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.device.world import World, load_world
from clients.evaluate import own_tests
from clients.helping.exit import Exit
from clients.helping.handover import Handover
from clients.helping.helping import Asked, Caller, Helping
from clients.helping.split import Split
from clients.helping.verify import Verify
from flsim.budget.ledger import Trip
from flsim.cloud.builtin import Builtin
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Answer, bytes_sent
from flsim.config.load import load_config
from flsim.config.schema import BudgetConfig
from flsim.config.system import StandsForConfig, SystemConfig
from tests.clients.test_units import CAPS, carried_out

pytestmark = pytest.mark.usefixtures("one_thread")
SYSTEM = SystemConfig(stands_for=StandsForConfig("SmolLM2-135M", cloud=0.5), jitter=0.3)
MODES: dict[str, Helping] = {
    "handover": Handover(),
    "handover of one token": Handover(tokens=1, below=1.0, times=8),
    "one handover": Handover(tokens=16, below=0.0, times=1),
    "verify": Verify(),
    "verify, nothing drafted": Verify(0),
    "verify, drawn": Verify(3, "rejection", temperature=1.0),
    "verify, by a bandit": Verify(8, length="bandit"),
    "verify, stateless": Verify(5, length="confident", stateless=True),
    "split": Split(),
    "split at a layer of each device's own, in int8": Split(layer="auto", sent="int8"),
    "exit": Exit(threshold=0.6),
    "exit that is calibrated": Exit(layer=1, sent="top", channels=16, risk=0.3, calibration=4),
    "no exit": Exit(threshold=1.0),
}


@pytest.fixture(scope="module")
def world(one_thread: None) -> World:
    """Devices that stand for larger ones, whose budgets follow trips."""
    config = load_config(None, ["rounds=1", "fleet.devices=3", "evaluation.prompts_per_task=4"])
    budget = replace(config.budget, unit="seconds")
    config = replace(config, system=SYSTEM, budget=budget)
    return load_world(config, Builtin())


def most_of(answer: Answer) -> list[int]:
    """What a quote bounds, or an answer took: tokens, bytes, requests and those that wait, the device's part."""
    took = answer.exchange
    assert took is not None
    own = [took.read, took.drawn, took.lower_read, took.lower_drawn]
    sent = [took.trips, took.trips - took.in_session, took.up_bytes, took.down_bytes]
    return [answer.prompt_tokens, answer.completion_tokens, *sent, *own]


@torch.no_grad()
def helped(world: World, mode: Helping, said: str) -> list[tuple[Answer, Answer, int, int]]:
    """Quotes and answers of all devices' questions, with the device and the bytes of the question."""
    world.lora.attach(None)
    rows = [own_tests(world, device) for device in range(3)]
    asked = [[Asked(one, said, p) for p, one in enumerate(row)] for row in rows]
    callers = [Caller(k, row, mode.first_knob) for k, row in enumerate(asked)]
    found = []
    for k, (row, answers) in enumerate(zip(rows, mode.help(world.pair, callers), strict=True)):
        for problem, answer in zip(row, answers, strict=True):
            assert answer is not None
            found.append((mode.most(world.pair, problem), answer, k, bytes_sent(problem)))
    return found


@pytest.mark.parametrize("name", MODES)
def test_no_count_and_no_cost_is_above_the_quote(world: World, name: str) -> None:
    """Of questions of all families, begun by the device or not."""
    mode = MODES[name]
    for said in ("", "1") if mode.goes_on else ("",):
        for quote, answer, device, sent in helped(world, mode, said):
            pairs = zip(most_of(quote), most_of(answer), strict=True)
            assert all(took <= most for most, took in pairs), (quote, answer)
            tariff = world.tariff(device, 1)
            left: Trip = tariff.most(quote, sent).beyond(tariff.came(answer, sent))
            assert min(left.bytes, left.microjoules, left.microseconds) >= 0


@pytest.mark.parametrize("name", MODES)
def test_the_devices_part_costs_seconds_and_joules(world: World, name: str) -> None:
    """So a question in which it drew something costs more than the same without."""
    for _, answer, device, sent in helped(world, MODES[name], ""):
        tariff, took = world.tariff(device, 1), answer.exchange
        assert took is not None
        bare = replace(answer, exchange=replace(took, read=0, drawn=0, lower_read=0, lower_drawn=0))
        beyond = tariff.came(answer, sent).beyond(tariff.came(bare, sent))
        works = took.read + took.drawn + took.lower_read + took.lower_drawn > 0
        assert (beyond.microseconds > 0, beyond.microjoules > 0, beyond.bytes) == (works, works, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
@settings(max_examples=12)
@given(budget=CAPS, rounds=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=2), min_size=1, max_size=2))
def test_no_cap_is_passed_by_a_real_mode(
    world: World, tmp_path_factory: pytest.TempPathFactory, name: str, budget: BudgetConfig, rounds: list[list[int]]
) -> None:
    """Whatever the unit, and after a kill in the middle of each round, too."""
    config = replace(world.config, budget=replace(budget, unit="seconds"))
    own = replace(world, config=config, helping=MODES[name])
    folder: Path = tmp_path_factory.mktemp("books")
    peace = carried_out(own, folder / "peace", rounds, [0] * len(rounds), 0)
    assert carried_out(own, folder / "killed", rounds, [1] * len(rounds), 0) == peace


def test_a_quote_without_its_devices_part_would_be_noticed(world: World) -> None:
    """Hand-over's own quote knows no longest answer of the device: the part that it leaves out is what `most` adds."""
    mode, problem = MODES["handover"], own_tests(world, 0)[0]
    quote, most = mode.quote(world.cloud, problem), mode.most(world.pair, problem)
    assert quote.exchange is not None
    more = Exchange(read=quote.exchange.down_bytes, drawn=world.answer_tokens + 4)
    assert most == replace(quote, exchange=quote.exchange.plus(more))
