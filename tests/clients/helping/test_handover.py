"""Hand-overs: whose tokens an answer is made of, what they cost, and that nobody else in a pack matters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.device.world import World, load_world
from clients.evaluate import own_tests
from clients.helping.handover import Handover
from clients.helping.helping import Asked, Caller
from flsim.cloud.builtin import Oracle
from flsim.cloud.exchange import Exchange
from flsim.cloud.more_help import Beginning, Continuation
from flsim.cloud.protocol import Answer
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of
from flsim.models.adapter import Adapter
from flsim.models.decoding import encode, generate, read
from flsim.problems.problem import Problem
from tests.tiny import TinyRun, tiny_runs_in

pytestmark = pytest.mark.usefixtures("one_thread")

FAILS: Continuation | None = None


class Knowing(Oracle):
    """An oracle that goes on with what is the beginning of the right answer, and says nothing after anything else."""

    def __init__(self, fails_from: int = 10**6) -> None:
        super().__init__(0.0)
        self.fails_from, self.asked = fails_from, 0

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
        """A character counts as a token, and the end as one."""
        return [self._one(one, tokens) for one in beginnings]

    def _one(self, one: Beginning, tokens: int) -> Continuation | None:
        self.asked += 1
        if self.asked > self.fails_from:
            return FAILS
        right = one.problem.right_text
        rest = right.removeprefix(one.said) if right.startswith(one.said) else ""
        said, ended = rest[:tokens], len(rest) < tokens
        return Continuation(Answer(said, len(one.problem.prompt) + len(one.said), len(said) + ended), ended)


def world_of(cloud: Knowing | None = None) -> World:
    config = load_config(None, ["rounds=1", "fleet.devices=3", "evaluation.prompts_per_task=4"])
    return load_world(config, Knowing() if cloud is None else cloud)


@pytest.fixture
def world() -> World:
    return world_of()


def adapter_of(world: World, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.05, t.shape).astype(np.float32) for name, t in world.first.items()}


def attach(world: World, seeds: Sequence[int]) -> None:
    world.lora.attach(world.lora.stack([adapter_of(world, seed) for seed in seeds]))


@torch.no_grad()
def helped(world: World, mode: Handover, rows: Sequence[Sequence[Problem]], said: str = "") -> list[list[Answer]]:
    callers = [Caller(k, [Asked(problem, said, 0) for problem in row]) for k, row in enumerate(rows)]
    found = [[answer for answer in row if answer is not None] for row in mode.help(world.pair, callers)]
    assert [len(row) for row in found] == [len(row) for row in rows]
    return found


@torch.no_grad()
def alone(world: World, problem: Problem, said: str) -> tuple[str, list[float]]:
    """What the device says after a beginning, and how likely each token was."""
    base = world.base
    reading = read(base, encode(base, [[problem.prompt + said]]))
    found = generate(base, reading, group_size=1, max_new_tokens=world.answer_tokens, temperature=0.0, may_ask=False)
    return found.texts[0][0][0], found.logprobs[0, 0, 0].exp().tolist()


def took(answer: Answer) -> Exchange:
    assert answer.exchange is not None
    return answer.exchange


def test_handing_over_everything_once_is_asking(world: World) -> None:
    attach(world, [1])
    tests = own_tests(world, 0)
    for problem, answer in zip(tests, helped(world, Handover(16, 0.0, 1), [tests])[0], strict=True):
        (asked,) = world.cloud.answer([problem])
        assert asked is not None
        assert (answer.text, answer.tokens) == (asked.text, asked.tokens)
        assert (took(answer).trips, took(answer).drawn) == (1, 0)
        assert took(answer).up_bytes == len(problem.prompt)
        assert took(answer).down_bytes == len(asked.text)


def test_after_one_hand_over_the_device_goes_on_by_itself(world: World) -> None:
    attach(world, [1])
    tests = [problem for problem in own_tests(world, 0) if len(problem.right_text) >= 3]
    for problem, answer in zip(tests, helped(world, Handover(2, 0.0, 4), [tests])[0], strict=True):
        begun = problem.right_text[:2]
        rest, _ = alone(world, problem, begun)
        assert answer.text == begun + "".join(rest)
        assert (answer.prompt_tokens, answer.completion_tokens, took(answer).trips) == (len(problem.prompt), 2, 1)
        assert took(answer).read == 2


def by_hand(world: World, problem: Problem, below: float, times: int) -> tuple[str, int]:
    """The answer with hand-overs of one token, token by token, and how many there were."""
    text = ""
    for handed in range(1, times + 1):
        right = problem.right_text
        more = right.removeprefix(text)[:1] if right.startswith(text) else ""
        text += more
        if not more:
            return text, handed
        rest, chances = alone(world, problem, text)
        sure = next((place for place, chance in enumerate(chances) if chance < below), len(rest))
        if handed == times or sure == len(rest):
            return text + "".join(rest), handed
        text += "".join(rest[:sure])
    raise AssertionError("the last hand-over ends it")


def test_it_hands_over_where_it_is_unsure_and_nowhere_else(world: World) -> None:
    attach(world, [2])
    mode, tests = Handover(1, 0.9, 8), own_tests(world, 0)
    found = [(a.text, took(a).trips) for a in helped(world, mode, [tests])[0]]
    assert found == [by_hand(world, problem, 0.9, 8) for problem in tests]
    assert len({trips for _, trips in found}) > 1


def test_certain_devices_hand_over_once_and_doubtful_ones_at_every_token(world: World) -> None:
    attach(world, [2])
    tests = own_tests(world, 0)
    trips = {
        below: sum(took(a).trips for a in helped(world, Handover(1, below, 5), [tests])[0]) for below in (0, 0.5, 1)
    }
    assert trips[0] == len(tests) < trips[0.5] < trips[1]


def test_a_device_is_helped_as_if_it_were_alone(world: World) -> None:
    rows = [own_tests(world, device)[: 3 + device] for device in range(3)]
    attach(world, [1, 2, 3])
    together = helped(world, Handover(2, 0.8, 3), rows)
    for k, row in enumerate(rows):
        attach(world, [k + 1])
        assert helped(world, Handover(2, 0.8, 3), [row])[0] == together[k]


def test_it_begins_where_the_device_stopped(world: World) -> None:
    attach(world, [1])
    tests = [problem for problem in own_tests(world, 0) if len(problem.right_text) >= 2]
    problem = tests[0]
    first = problem.right_text[0]
    (answer,) = helped(world, Handover(16, 0.0, 1), [[problem]], first)[0]
    assert answer.text == problem.right_text
    assert answer.prompt_tokens == len(problem.prompt) + 1
    assert answer.completion_tokens == len(problem.right_text)


@pytest.mark.parametrize("mode", [Handover(1, 1.0, 8), Handover(4, 0.7, 4), Handover(16, 1.0, 3)])
def test_no_exchange_passes_what_was_reserved_for_it(world: World, mode: Handover) -> None:
    attach(world, [4])
    tests = own_tests(world, 0)
    for problem, answer in zip(tests, helped(world, mode, [tests])[0], strict=True):
        most = mode.quote(world.cloud, problem)
        assert answer.prompt_tokens <= most.prompt_tokens
        assert answer.completion_tokens <= most.completion_tokens
        for name in ("trips", "up_bytes", "down_bytes"):
            assert getattr(took(answer), name) <= getattr(took(most), name)


def test_a_cloud_that_fails_at_once_helps_nobody_and_later_the_device_ends_alone() -> None:
    world = world_of(Knowing(fails_from=0))
    attach(world, [2])
    problem = own_tests(world, 0)[0]
    ask = [Caller(0, [Asked(problem, "", 0)])]
    with torch.no_grad():
        assert Handover(1, 1.0, 8).help(world.pair, ask) == [[None]]
    later = world_of(Knowing(fails_from=1))
    attach(later, [2])
    (answer,) = helped(later, Handover(1, 1.0, 8), [[problem]])[0]
    assert (took(answer).trips, answer.completion_tokens) == (2, 1)
    assert answer.text[:1] == problem.right_text[:1]


class Chatty(Knowing):
    """It always has one more thing to say."""

    def _one(self, one: Beginning, tokens: int) -> Continuation:
        return Continuation(Answer("1", len(one.problem.prompt) + len(one.said), 1), ended=False)


def test_where_one_more_hand_over_would_not_fit_the_device_ends_the_answer_alone() -> None:
    """L + T tokens of question and answer are reserved twice; a beginning of T is sent once, T + 1 no more."""
    world = world_of(Chatty())
    attach(world, [2])
    problem = next(problem for problem in own_tests(world, 0) if len(problem.right_text) <= 2)
    begun = "0" * (len(problem.right_text) + 1)
    (answer,) = helped(world, Handover(1, 1.0, 2), [[problem]], begun)[0]
    rest, _ = alone(world, problem, begun + "1")
    assert answer.text == begun + "1" + "".join(rest)
    assert took(answer).trips == 1


def test_a_cloud_that_only_answers_is_refused_by_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run: TinyRun = tiny_runs_in(tmp_path, tiny_checkpoint, ())
    with pytest.raises(ConfigError, match=r"Handover needs a cloud that goes on .* and Oracle answers whole questions"):
        client_of(run("refused", "client.helping.path=clients.helping.handover:Handover"))
    with pytest.raises(ConfigError, match=r"below=2.* must be in \[0, 1\]"):
        client_of(run("wrong", "client.helping={path: 'clients.helping.handover:Handover', below: 2}"))
