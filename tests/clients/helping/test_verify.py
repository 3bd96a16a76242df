"""Drafts that the cloud verifies: the text is the cloud's own, what an exchange takes, packs, and two vocabularies."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import flsim
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from clients.helping.helping import Asked, Caller
from clients.helping.verify import Verify
from experiments.real.checkpoint import FAMILIES, write_checkpoint
from flsim.cloud.builtin import Builtin
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.exchange import Exchange, work_of
from flsim.cloud.more_help import Draft, Verified
from flsim.cloud.protocol import MONEY, NOTHING, Answer
from flsim.collaboration.accept import RULES
from flsim.collaboration.lengths import Bandit
from flsim.collaboration.worth import Turn
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of
from flsim.models.adapter import Adapter
from flsim.models.base import load_model
from flsim.models.decoding import prompts_of, read
from flsim.models.drafting import SharedWords, halved
from flsim.models.sizes import system_of
from flsim.problems.problem import Problem
from tests.tiny import TOKEN_RUN, TinyRun, tiny_runs_in

pytestmark = pytest.mark.usefixtures("one_thread")

ALONE = Builtin(batch_size=1)
"""Reads a question at a time, and keeps its answers."""


def world_of(cloud: Builtin | None = None, *more: str) -> World:
    config = load_config(None, ["rounds=1", "fleet.devices=3", "evaluation.prompts_per_task=4", *more])
    return load_world(config, Builtin() if cloud is None else cloud)


@pytest.fixture(scope="module")
def world(one_thread: None) -> World:
    return world_of()


def adapter_of(world: World, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.05, t.shape).astype(np.float32) for name, t in world.first.items()}


def attach(world: World, seeds: Sequence[int]) -> None:
    world.lora.attach(world.lora.stack([adapter_of(world, seed) for seed in seeds]) if seeds else None)


@torch.no_grad()
def helped(
    world: World, mode: Verify, rows: Sequence[Sequence[Problem]], seed: int = 0, knob: tuple[float, ...] = ()
) -> list[list[Answer]]:
    callers = [Caller(k, [Asked(one, "", seed + p) for p, one in enumerate(row)], knob) for k, row in enumerate(rows)]
    found = [[answer for answer in row if answer is not None] for row in mode.help(world.pair, callers)]
    assert [len(row) for row in found] == [len(row) for row in rows]
    return found


def took(answer: Answer) -> Exchange:
    assert answer.exchange is not None
    return answer.exchange


def asked_alone(world: World, problems: Sequence[Problem]) -> list[Answer]:
    """What the cloud answers by itself, one at a time."""
    cloud = ALONE if type(world.cloud) is Builtin and world.cloud.model == ALONE.model else world.cloud.for_server()
    return [answer for answer in cloud.answer(problems) if answer is not None]


# ------------------------------------------------------------------------------------------------- the text


@pytest.mark.parametrize("k", range(9))
def test_the_greedy_text_is_the_clouds_for_every_length_of_a_draft(world: World, k: int) -> None:
    attach(world, [1, 2, 3])
    rows = [own_tests(world, device)[:6] for device in range(3)]
    mode = Verify(k, RULES[k % 3], length=("constant", "confident")[k % 2])
    for row, answers in zip(rows, helped(world, mode, rows), strict=True):
        for alone, answer in zip(asked_alone(world, row), answers, strict=True):
            assert answer.text == alone.text
            assert took(answer).accepted + answer.completion_tokens == alone.completion_tokens
            assert answer.completion_tokens in (took(answer).trips, took(answer).trips - 1)  # or the end was accepted
            assert answer.prompt_tokens == alone.prompt_tokens + took(answer).drafted


def test_without_drafts_it_costs_what_the_clouds_stream_costs(world: World) -> None:
    """A trip for each token, and the tokens of asking."""
    attach(world, [1])
    tests = own_tests(world, 0)
    for problem, alone, answer in zip(
        tests, asked_alone(world, tests), helped(world, Verify(0), [tests])[0], strict=True
    ):
        assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == (
            alone.text,
            alone.prompt_tokens,
            alone.completion_tokens,
        )
        trips = alone.completion_tokens
        assert took(answer) == Exchange(trips, len(problem.prompt), 4 * trips, in_session=trips - 1)


def test_a_model_accepts_all_of_its_own_drafts() -> None:
    """Greedy and drawn: by shared numbers, and by rejection, for which p / q is 1 but for half precision."""
    world = world_of(Builtin("builtin:slm"))
    attach(world, [])
    tests = own_tests(world, 0)
    for mode in (Verify(4), Verify(4, temperature=1.0), Verify(8, "point")):
        answers = helped(world, mode, [tests])[0]
        assert sum(took(answer).accepted for answer in answers) == sum(took(answer).drafted for answer in answers) > 0
    answers = helped(world, Verify(4, "rejection", temperature=1.0), [tests])[0]
    accepted, drafted = (sum(getattr(took(a), name) for a in answers) for name in ("accepted", "drafted"))
    assert accepted >= 0.99 * drafted


def test_with_shared_numbers_no_draft_changes_the_text(world: World) -> None:
    """Whatever the adapter, the length, and whether anything is drafted; and it is another than the greedy one."""
    tests = own_tests(world, 0)
    texts = []
    for seeds, mode in (([1], Verify(0)), ([1], Verify(4)), ([2], Verify(4)), ([], Verify(7, length="confident"))):
        attach(world, seeds)
        texts.append([a.text for a in helped(world, replace(mode, temperature=2.5), [tests])[0]])
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert texts[0] != [a.text for a in asked_alone(world, tests)]
    assert texts[0] != [a.text for a in helped(world, Verify(4, temperature=2.5), [tests], seed=100)[0]]


@torch.no_grad()
def first_two(cloud: Builtin, problem: Problem, heat: float) -> dict[tuple[int, ...], float]:
    """The chances of an answer's first two tokens, or of the one that ends it at once."""
    base, ids = cloud.base, list(cloud.base.tokenizer(problem.prompt)["input_ids"])
    words = len(cloud.vocabulary)
    first = torch.softmax(without_help(cloud, read(base, prompts_of(base, [[ids]])).logits) / heat, -1)[0]  # (V,)
    after = read(base, prompts_of(base, [[[*ids, token] for token in range(words)]])).logits  # (V, V)
    both = first[:, None] * torch.softmax(without_help(cloud, after) / heat, -1)  # (V, V)
    ended = base.eos_id
    found = {(a, b): float(both[a, b]) for a in range(words) for b in range(words) if a != ended}
    return found | {(ended,): float(first[ended])}


def without_help(cloud: Builtin, logits: Tensor) -> Tensor:
    return cloud.base.help.ruled_out(logits, torch.ones(len(logits), dtype=torch.bool))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["rejection", "point"])
def test_sampled_answers_are_distributed_as_the_clouds(
    world: World, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two tokens of 600 answers to one question, some of them drafted, against the cloud's chances."""
    said: list[tuple[int, ...]] = []

    def noted(_: Builtin, tokens: Sequence[int]) -> str:
        said.append(tuple(tokens[:2]))
        return ""

    monkeypatch.setattr(Builtin, "said", noted)
    attach(world, [])
    assert isinstance(world.cloud, Builtin)
    problem = next(one for one in own_tests(world, 0) if len(one.answer) == 2)
    answers = helped(world, Verify(3, rule, temperature=2.5), [[problem] * 600])[0]
    assert 100 < sum(took(a).accepted for a in answers) < sum(took(a).drafted for a in answers) - 100
    chances = first_two(world.cloud, problem, 2.5)
    assert sum(chances.values()) == pytest.approx(1.0, abs=1e-5)
    common = [tokens for tokens, chance in chances.items() if 600 * chance >= 5]
    counted = [said.count(tokens) for tokens in common]
    expected = [600 * chances[tokens] for tokens in common]
    assert len(common) > 5
    apart = sum((ours - mean) ** 2 / mean for ours, mean in zip(counted, expected, strict=True))
    rest = 600 - sum(expected)
    apart += (600 - sum(counted) - rest) ** 2 / rest
    # chi-square with as many degrees of freedom as common ones, within three of its deviations
    assert apart < len(common) + 3 * math.sqrt(2 * len(common))


# ------------------------------------------------------------------------------------------------- what it takes


def test_an_exchange_by_hand() -> None:
    """100 tokens of a prompt of 7 bytes, 4 turns of 4 accepted and 1 own, as the page of the system model has it."""
    cloud: Any = SimpleNamespace(vocabulary=dict.fromkeys(map(str, range(1000)), 0), verify=print)
    problem, whole, turns = Problem("own", "", 0, "1+1=2+0", "2"), Answer("", 100, 20), [Turn(4, 4, 1)] * 4
    session, stateless, chances = (
        mode._charged(cloud, problem, whole, turns)
        for mode in (Verify(4), Verify(4, stateless=True), Verify(4, "rejection", temperature=1.0))
    )
    assert (session.prompt_tokens, session.completion_tokens) == (116, 4)
    assert took(session) == Exchange(4, 7 + 48, 16, read=3, drawn=16, drafted=16, accepted=16, in_session=3)
    assert (stateless.prompt_tokens, stateless.completion_tokens) == (446, 4)
    assert took(stateless).up_bytes == 4 * 7 + 48 + 3 * (5 + 10 + 15)
    assert took(stateless).in_session == 0
    assert took(chances).up_bytes == 7 + 16 * (3 + 2 * 1000)


@pytest.mark.parametrize(
    "mode", [Verify(1), Verify(4, stateless=True), Verify(8, "rejection", 1.0), Verify(3, length="confident", least=1)]
)
def test_no_exchange_passes_what_was_reserved_for_it(world: World, mode: Verify) -> None:
    attach(world, [4])
    tests = own_tests(world, 0)
    for problem, answer in zip(tests, helped(world, mode, [tests])[0], strict=True):
        most = mode.quote(world.cloud, problem)
        assert answer.prompt_tokens <= most.prompt_tokens
        assert answer.completion_tokens <= most.completion_tokens
        for name in ("trips", "up_bytes", "down_bytes", "read", "drawn", "drafted"):
            assert getattr(took(answer), name) <= getattr(took(most), name)


def test_an_unsure_device_sends_less_and_is_accepted_more(world: World) -> None:
    """With a confidence of 0 it sends all, with more than any model has one token a trip."""
    attach(world, [3])
    tests = own_tests(world, 0)

    def sums(**more: Any) -> Exchange:
        total = Exchange()
        for answer in helped(world, Verify(6, **more), [tests])[0]:
            total = total.plus(took(answer))
        return total

    all_, some, one = sums(), sums(length="confident", least=0.6), sums(length="confident", least=1.0)
    assert all_ == sums(length="confident", least=0.0)
    assert some.drafted < all_.drafted
    assert some.accepted / some.drafted > all_.accepted / all_.drafted
    assert one.drafted <= one.trips


# ------------------------------------------------------------------------------------------------- packs and failures


@pytest.mark.parametrize(
    "mode", [Verify(3), Verify(4, "rejection", 1.0), Verify(3, temperature=1.0, length="confident")]
)
def test_a_device_is_helped_as_if_it_were_alone(world: World, mode: Verify) -> None:
    """Also beside one that has no question."""
    rows = [own_tests(world, 0)[:3], [], own_tests(world, 2)[:5]]
    attach(world, [1, 2, 3])
    together = helped(world, mode, rows)
    for k, row in enumerate(rows):
        attach(world, [k + 1])
        assert helped(world, mode, [row])[0] == together[k]


class Failing(Builtin):
    """Verifies so many drafts, and fails from then on."""

    def __init__(self, drafts: int) -> None:
        super().__init__()
        self.left = drafts

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified | None]:  # type: ignore[override]
        """One by one."""
        found: list[Verified | None] = []
        for draft in drafts:
            found.append(super().verify([draft], rule, temperature)[0] if self.left > 0 else None)
            self.left -= 1
        return found


def test_what_a_failing_cloud_has_verified_is_billed_all_the_same() -> None:
    for trips in (0, 2):
        world = world_of(Failing(trips))
        attach(world, [2])
        problem = next(one for one in own_tests(world, 0) if len(one.answer) >= 4)
        ((answer,),) = Verify(0).help(world.pair, [Caller(0, [Asked(problem, "", 0)])])
        if not trips:
            assert answer is None
            continue
        assert answer is not None
        assert answer.void == "the cloud failed after 2 of its verifications"
        assert (answer.text, answer.completion_tokens) == ("", 2)
        assert took(answer).trips == 3  # the one that failed was sent as well


# ------------------------------------------------------------------------------------------------- the bandit


def test_a_bandit_learns_from_the_seconds_of_its_link(world: World) -> None:
    config = load_config(None, ["rounds=1", "system.deadlines_s=[2]", "fleet.devices=3"])
    assert config.system is not None
    timed = replace(world.pair, system=system_of(config.system, config.model, 0))
    attach(world, [1])
    mode, tests = Verify(3, length="bandit"), own_tests(world, 0)[:4]
    assert mode.first_knob == (0.0,) * 9
    knob: tuple[float, ...] = mode.first_knob
    for length in (3, 2, 1):  # each once, the longest first
        caller = Caller(1, [Asked(one, "", 0) for one in tests], knob)
        answers = helped(world, mode, [[], tests], knob=knob)[1]
        assert answers == helped(world, Verify(length), [[], tests])[1]
        knob = mode.learned(timed, caller, answers)
        known = Bandit.of(knob)
        works = [work_of(took(a), a.prompt_tokens, a.completion_tokens) for a in answers]
        assert known.played[length - 1] == len(tests)
        assert timed.system is not None
        assert known.seconds[length - 1] == pytest.approx(sum(timed.system.question(1, work)[0] for work in works))
        assert known.tokens[length - 1] == sum(one.completion_tokens for one in asked_alone(world, tests))
    assert mode.learned(timed, Caller(1, [], knob), [None]) == knob


# ------------------------------------------------------------------------------------------------- vocabularies


def test_two_tokenizers_draft_what_both_have(tmp_path: Path) -> None:
    """A device of the built-in tokenizer and a cloud of a byte-level one: the text is still the cloud's alone."""

    class Free(Checkpoint):
        costs = NOTHING  # so that no cache stands before it

    cloud = Free(str(write_checkpoint(tmp_path / "cloud", "qwen2")), max_tokens=8)
    world = world_of(cloud)
    attach(world, [1])
    words = SharedWords.of(world.base, cloud.vocabulary)
    own = world.base.tokenizer.get_vocab()
    assert 0 < len(words.here) < len(own)
    tests = own_tests(world, 0)[:3]
    with pytest.raises(ConfigError, match=r"is not the devices'.* set client.helping.vocabulary=shared, which"):
        Verify(4).check_model(cloud, world.config.model)
    mode = Verify(4, vocabulary="shared")
    mode.check_model(cloud, world.config.model)
    for heat in (0.0, 1.0):
        plain = helped(world, Verify(0, vocabulary="shared", temperature=heat), [tests])[0]
        answers = helped(world, replace(mode, temperature=heat), [tests])[0]
        assert [a.text for a in answers] == [a.text for a in plain]
        assert sum(took(a).drafted for a in answers) > 0
    assert [a.text for a in plain] != [a.text for a in asked_alone(world, tests)]


def test_shared_words_by_hand(world: World) -> None:
    """A cloud that knows '7', '1', '?' and two words of its own; a device never drafts its help request."""
    own = world.base.tokenizer.get_vocab()
    words = SharedWords.of(world.base, {"the": 0, "7": 1, "?": 2, "1": 3, "end": 9})
    assert words.allowed.nonzero().flatten().tolist() == sorted([own["7"], own["1"]])
    assert words.to_cloud([own["1"], own["7"]]) == [3, 1]
    assert words.from_cloud([1, 3]) == [own["7"], own["1"]]
    assert words.from_cloud([1, 0]) is None
    drawn = torch.zeros(1, len(own))
    drawn[0, own["7"]], drawn[0, own["1"]] = 0.25, 0.75
    assert words.chances(drawn).tolist() == [[0, 0.25, 0, 0.75, 0, 0, 0, 0, 0, 0]]


def test_half_precision_by_hand() -> None:
    """1e-8 is nothing in half precision, and 1/3 is 0.33325."""
    kept = halved(torch.tensor([[1 / 3, 2 / 3, 1e-8]]))
    assert kept[0, 2] == 0
    assert kept.sum() == 1
    assert float(kept[0, 0]) == pytest.approx(0.33325195 / (0.33325195 + 0.66650391))


class Billing(Builtin):
    """Costs money, bills every verification by itself, and has some of them from a cache."""

    costs = MONEY

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified]:
        """By the same tokens, 50 and 1 each."""
        found = super().verify(drafts, rule, temperature)
        return [
            replace(one, billed=(50, 1), cached=not draft.said, retries=2)
            for one, draft in zip(found, drafts, strict=True)
        ]


def test_what_a_server_bills_by_itself_is_what_is_paid() -> None:
    cloud = Billing()
    with pytest.raises(ConfigError, match=r"Billing bills what stands before .* set client.helping.stateless=true"):
        Verify(2).check(cloud, None)
    mode, world = Verify(2, stateless=True), world_of()
    mode.check(cloud, None)
    attach(world, [1])
    pair, tests = replace(world.pair, cloud=cloud), own_tests(world, 0)
    with torch.no_grad():
        (answers,) = mode.help(pair, [Caller(0, [Asked(one, "", 0) for one in tests])])
    for answer, alone in zip(answers, asked_alone(world, tests), strict=True):
        assert answer is not None
        assert answer.text == alone.text
        trips = took(answer).trips
        assert (answer.prompt_tokens, answer.completion_tokens, answer.retries) == (50 * trips, trips, 2 * trips)
        assert answer.cached == (trips == 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_of_any_family_drafts_for_a_cloud_of_its_own(family: str, tmp_path: Path) -> None:
    """The same checkpoint asked by another wording: the text is the cloud's, and what is drafted depends on no pack."""

    class Free(Checkpoint):
        costs = NOTHING

    folder = str(write_checkpoint(tmp_path / family, family))
    world = world_of(Free(folder, max_tokens=8), f"model.path={folder}", "model.max_new_tokens=64")
    asked = [Problem("own", "", 0, text, "2", instruction="Do it.") for text in ("1+1=", "What is 12 + 34?", "abc")]
    rows, mode = [asked[:2], asked[2:]], Verify(3)
    mode.check_model(world.cloud, world.config.model)
    attach(world, [1, 2])
    answers = helped(world, mode, rows)
    assert [[a.text for a in row] for row in answers] == [[a.text for a in asked_alone(world, row)] for row in rows]
    assert all(took(a).drafted for row in answers for a in row)
    attach(world, [2])
    assert helped(world, mode, rows[1:]) == answers[1:]


# ------------------------------------------------------------------------------------------------- refusals and runs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"k": -1}, "k=-1 must be at least 0"),
        ({"temperature": -1}, "temperature=-1 must be at least 0"),
        ({"least": 2}, r"least=2 must be in \[0, 1\]"),
        ({"rule": "typical"}, "rule='typical' must be one of: shared, rejection, point"),
        ({"length": "long"}, "length='long' must be one of: constant, confident, bandit"),
        ({"vocabulary": "any"}, "vocabulary='any' must be one of: equal, shared"),
        ({"length": "bandit", "k": 0}, "length='bandit' tries each length from 1 to k tokens, and k=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Verify(**settings)


def test_what_a_run_lacks_is_refused_before_it_begins(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run: TinyRun = tiny_runs_in(tmp_path, tiny_checkpoint, ("client.helping.path=clients.helping.verify:Verify",))
    with pytest.raises(ConfigError, match=r"client.helping=Verify needs a cloud that verifies drafts .* and Oracle"):
        client_of(run("oracle"))
    builtin = ("cloud.kind=builtin",)
    with pytest.raises(
        ConfigError,
        match=r"temperature=1 needs .* logits, and Builtin .* gives scores; leave cloud.access",
    ):
        client_of(run("scores", *builtin, "client.helping.temperature=1", "cloud.access=scores"))
    with pytest.raises(ValueError, match=r"helping=Verify chooses by seconds, .* client.helping.length=constant"):
        client_of(run("bandit", *builtin, "client.helping.length=bandit"))


def test_a_model_whose_logits_are_wider_than_its_tokenizer_drafts_no_filling(tiny_checkpoint: Path) -> None:
    base = load_model(ModelConfig(path=str(tiny_checkpoint)))
    base.as_transformers().resize_token_embeddings(len(base.tokenizer) + 9)
    words = SharedWords.of(base, base.tokenizer.get_vocab())
    assert len(words.allowed) == len(base.tokenizer) + 9
    assert not words.allowed[len(base.tokenizer) :].any()
    assert int(words.allowed.sum()) == len(base.tokenizer) - 1  # all but the help request


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_devices_learn_what_they_learn_where_they_ask(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """To the last bit, but for what help takes: the answers are the same, and a helped question is one call."""
    shared = ("cloud.kind=builtin", "evaluation.every_rounds=1", *TOKEN_RUN, "client.prompts=6", "budget.tau=1")
    run: TinyRun = tiny_runs_in(tmp_path, tiny_checkpoint, shared)
    asking, drafting = (
        flsim.run(run(name, *more), progress=False)
        for name, more in (
            ("asking", ()),
            ("drafting", ("client.helping.path=clients.helping.verify:Verify", "client.helping.k=2")),
        )
    )
    measured = ["accuracy", "alone_accuracy", "cloud_requests", "cloud_grants", "reward", "usage", "dual"]
    rows, others = (of.rows[of.rows["name"].isin(measured)] for of in (asking, drafting))
    assert rows["total"].abs().sum() > 0
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), others.reset_index(drop=True), check_exact=True)
    took_ = drafting.rows.groupby(["name", "split"])["total"].sum()
    assert took_["drafted_tokens", "train"] > 0
    assert took_["cloud_test_trips", "test"] > took_["cloud_grants", "test"] > 0
    assert "drafted_tokens" not in set(asking.rows["name"])
