"""Split and exit: what they say, what they take by hand, that quotes are bounds, and who is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flsim
from clients.asking.simple import Always
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests
from clients.helping.exit import Exit
from clients.helping.helping import Asked, Caller, exchange_of
from clients.helping.layers import SharedLayers, longest_of, taken
from clients.helping.split import Split, seconds_of
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.exchange import Exchange
from flsim.cloud.more_help import Depth, Shared
from flsim.cloud.protocol import Answer
from flsim.collaboration.exits import NEVER
from flsim.collaboration.payload import Payload
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of
from flsim.metrics.rows import without_timing
from flsim.models.cut import Cut
from flsim.problems.problem import Problem
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ("rounds=1", "fleet.devices=3", "evaluation.prompts_per_task=4", "stream.phases=[[arithmetic, strings]]")
LAYERS, WIDTH = 6, 128  # of the built-in cloud


def world_of(helping: SharedLayers, *more: str) -> World:
    return load_world(load_config(None, [*SETTINGS, *more]), helping=helping)


@pytest.fixture(scope="module")
def cloud() -> Builtin:
    return Builtin()


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(load_config(None, [*SETTINGS]))


def callers(world: World, count: int = 3) -> list[Caller]:
    return [Caller(k, [Asked(problem, "", 0) for problem in own_tests(world, k)]) for k in range(count)]


def helped(world: World, mode: SharedLayers, cloud: Builtin, asked: Sequence[Caller] | None = None) -> list[Answer]:
    found = mode.help(replace(world.pair, cloud=cloud), callers(world) if asked is None else asked)
    return [answer for row in found for answer in row if answer is not None]


def questions(world: World) -> list[Problem]:
    return [one.problem for caller in callers(world) for one in caller.asked]


def test_what_a_split_takes_by_hand() -> None:
    """10 tokens of a prompt and 4 of an answer, 2 of 6 layers below, 100 channels of 16 bits.

    13 states go up in 4 requests, 10 and then one each; the cloud bills 4/6 of 10 and of 4 tokens, rounded up.
    """
    said = Shared("7", 10, 4, (10, 1, 1, 1))
    answer = taken(said, Depth(6, 100), Cut(2, Payload("float16")))
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("7", 7, 3)
    assert answer.exchange == Exchange(
        trips=4, up_bytes=13 * 200, down_bytes=4 * 3, lower_read=3334, lower_drawn=1334, in_session=3
    )


def test_what_exits_take_by_hand() -> None:
    """The first two tokens are decided below: 12 states go up at once, and one more; the cloud says 2 tokens.

    Of the 13 states one is that of a token that the cloud said itself, so it reads 12. If all are decided nothing goes.
    """
    of = Depth(6, 100), Cut(3, Payload("int8"), 0.9)
    answer = taken(Shared("7", 10, 4, (12, 1)), *of)
    assert (answer.prompt_tokens, answer.completion_tokens) == (6, 1)
    assert answer.exchange == Exchange(
        trips=2, up_bytes=13 * 104, down_bytes=2 * 3, lower_read=5000, lower_drawn=2000, in_session=1
    )
    alone = taken(Shared("7", 10, 4, ()), *of)
    assert (alone.tokens, alone.exchange) == (0, Exchange(lower_read=5000, lower_drawn=2000))


def test_of_an_answer_by_both_parties_the_whole_is_computed_once() -> None:
    """Below and above together L + T tokens through all layers, at any cut that divides them."""
    for layer in (1, 2, 3, 4, 5):
        answer = taken(Shared("", 60, 12, (60, *[1] * 11)), Depth(6, 8), Cut(layer))
        took = exchange_of(answer)
        assert took.lower_read + took.lower_drawn + 1000 * answer.tokens == 72_000


@pytest.mark.parametrize("layer", range(1, LAYERS))
def test_a_split_says_what_the_cloud_says(layer: int, world: World, cloud: Builtin) -> None:
    whole = cloud.answer(questions(world))
    found = helped(world, Split(layer=layer), cloud)
    assert [answer.text for answer in found] == [answer.text for answer in whole]
    assert [exchange_of(answer).trips for answer in found] == [answer.completion_tokens for answer in whole]
    up = [WIDTH * 4 * (answer.prompt_tokens + answer.completion_tokens - 1) for answer in whole]
    assert [exchange_of(answer).up_bytes for answer in found] == up


def test_payloads_change_few_answers_and_the_bytes(world: World, cloud: Builtin) -> None:
    whole = [answer.text for answer in cloud.answer(questions(world))]
    kinds = [Split(), Split("float16"), Split("int8"), Split("top", 4)]
    found = [helped(world, mode, cloud) for mode in kinds]
    same = [np.mean([a.text == b for a, b in zip(answers, whole, strict=True)]) for answers in found]
    assert same[0] == 1
    assert min(same[1:3]) >= 0.9 > same[3]  # 4 of 128 channels say too little
    first = [exchange_of(answers[0]).up_bytes / exchange_of(answers[0]).trips for answers in found[:3]]
    states = first[0] / (4 * WIDTH)
    assert first == [states * 4 * WIDTH, states * 2 * WIDTH, states * (WIDTH + 4)]


def test_at_a_threshold_of_1_an_exit_is_the_cloud(world: World, cloud: Builtin) -> None:
    """And at 0 the lower layers say it all, which takes nothing of the cloud."""
    split, never, always = (
        helped(world, mode, cloud)
        for mode in (Split(layer=4), Exit(layer=4, threshold=1.0), Exit(layer=4, threshold=0.0))
    )
    assert never == split
    assert [answer.text for answer in never] == [answer.text for answer in cloud.answer(questions(world))]
    assert all(answer.tokens == exchange_of(answer).trips == exchange_of(answer).up_bytes == 0 for answer in always)
    assert [answer.text for answer in always] != [answer.text for answer in never]


def test_a_lower_threshold_asks_the_cloud_less(world: World, cloud: Builtin) -> None:
    trips = [
        sum(exchange_of(answer).trips for answer in helped(world, Exit(layer=5, threshold=at), cloud))
        for at in (1.0, 0.95, 0.7, 0.0)
    ]
    assert trips == sorted(trips, reverse=True)
    assert len(set(trips)) == 4


@pytest.mark.slow
def test_the_calibrated_threshold_keeps_the_risk(cloud: Builtin) -> None:
    """Of 40 questions each that were not calibrated on, on three devices, no more than the risk and some differ."""
    world = world_of(Exit(layer=5), "evaluation.prompts_per_task=20")
    mode = Exit(layer=5)
    pair = replace(world.pair, cloud=cloud)
    assert pair.calibration == "validation"
    thresholds = {mode.calibrated(pair, caller.index, Cut(5)) for caller in callers(world)}
    assert thresholds < set(np.arange(100) / 100) | {NEVER}
    found = helped(world, mode, cloud)
    whole = cloud.answer(questions(world))
    differ = np.mean([a.text != b.text for a, b in zip(found, whole, strict=True)])
    assert differ <= 0.1 + 0.05
    assert sum(exchange_of(answer).trips for answer in found) < sum(answer.completion_tokens for answer in whole)


def test_without_enough_questions_nothing_exits(world: World, cloud: Builtin) -> None:
    """28 without any error are not enough for a risk of 0.1; here there are 2 tasks of 8 each."""
    assert Exit(calibration=8).calibrated(replace(world.pair, cloud=cloud), 0, Cut(3)) == NEVER


@pytest.mark.parametrize(
    "mode",
    [Split(layer=2, sent="float16"), Split(layer="auto"), Exit(layer=3, threshold=0.8), Exit(layer=5, threshold=1.0)],
    ids=lambda mode: f"{type(mode).__name__} {mode.layer}",
)
def test_a_quote_is_the_most(mode: SharedLayers, world: World, cloud: Builtin) -> None:
    """In every count, so in every unit."""
    if isinstance(mode, Split) and mode.chosen_by_time:
        found = [helped(world, Split(layer=layer), cloud) for layer in range(1, LAYERS)]
    else:
        found = [helped(world, mode, cloud)]
    for answers in found:
        for problem, answer in zip(questions(world), answers, strict=True):
            most = mode.quote(cloud, problem)
            took, bound = exchange_of(answer), exchange_of(most)
            assert answer.prompt_tokens <= most.prompt_tokens
            assert answer.completion_tokens <= most.completion_tokens
            for name in ("trips", "up_bytes", "down_bytes", "lower_read", "lower_drawn", "in_session"):
                assert getattr(took, name) <= getattr(bound, name)
            assert bound.trips - bound.in_session == 1


def test_no_answer_depends_on_who_shares_the_pack(world: World) -> None:
    for mode in (Split(layer=3, sent="int8"), Exit(layer=5, threshold=0.9)):
        together = helped(world, mode, Builtin())
        alone = [answer for caller in callers(world) for answer in helped(world, mode, Builtin(), [caller])]
        assert together == alone


def test_the_layer_with_the_fewest_seconds(cloud: Builtin) -> None:
    """Seconds fall or rise with each layer alike: a slow phone holds one, and a fast one all that its memory holds.

    Of the cloud's 1.5 billion parameters at 4 bits a sixth are 0.125 GB.
    """
    slow, fast = "flops=1e10", "flops=1e14 bandwidth=1e13"
    for class_, most, expected in ((slow, 4, 1), (fast, 4, 5), (fast, 0.45, 2)):
        more = [f"system.classes.mid.{one}" for one in class_.split()]
        sizes = ["system.stands_for.device=SmolLM2-135M", "system.stands_for.cloud=1.5"]
        world = world_of(Split(layer="auto"), *sizes, *more, f"system.classes.mid.memory_gb={most}")
        pair = replace(world.pair, cloud=cloud)
        cuts = Split(layer="auto").cuts_of(pair, callers(world)[0])
        assert {cut.layer for cut in cuts} == {expected}
        assert pair.system is not None
        longest = longest_of(cloud.quote(questions(world)[0]))
        each = [seconds_of(pair.system, 0, longest, Depth(LAYERS, WIDTH), Cut(layer)) for layer in range(1, LAYERS)]
        assert each == sorted(each, reverse=expected != 1)


def test_memory_is_that_of_the_lowest_cut(cloud: Builtin) -> None:
    assert [mode.held(cloud) for mode in (Split(layer=2), Exit(), Split(layer="auto"))] == [2 / 6, 3 / 6, 1 / 6]


def test_tests_of_devices_are_rows(cloud: Builtin) -> None:
    """Two tasks of 4 questions, half of which are asked: their trips are the tokens of the cloud's own answers."""
    world = world_of(Split(layer=3, sent="float16"), "budget.tau=0.5")
    rows = evaluate_pack(world, [0], None, model="own", round_=1, asking=Always())[0]
    found: dict[str, float] = {}
    for row in rows:
        found[row.name] = found.get(row.name, 0.0) + row.total
    assert found["cloud_grants"] == 4
    whole = cloud.answer(own_tests(world, 0)[:4])
    assert found["cloud_test_trips"] == sum(answer.completion_tokens for answer in whole)
    states = sum(answer.prompt_tokens + answer.completion_tokens - 1 for answer in whole)
    assert found["cloud_test_bytes"] == states * 2 * WIDTH + 3 * found["cloud_test_trips"]
    assert found["accuracy"] >= found["alone_accuracy"]


def test_training_counts_what_devices_compute_of_the_cloud(tiny_run: TinyRun, no_report: None) -> None:
    """In a run whose budget is in bytes: rows of layers, whose weight is all of them, and the same again."""
    mode = "client.helping.path=clients.helping.exit:Exit", "client.helping.layer=5", "client.helping.calibration=16"
    shared = "client.path=clients.da_grpo:DaGrpo", "cloud.kind=builtin", "budget.unit=bytes", "budget.tau=0.9", *mode
    first, again = (flsim.run(tiny_run(name, *shared), progress=False).rows for name in ("first", "again"))
    lower = first[first["name"].isin(["lower_read", "lower_drawn"])]
    assert set(lower["name"]) == {"lower_read", "lower_drawn"}
    assert (lower["total"] > 0).all()
    assert set(lower["weight"]) == {1000.0}
    pd.testing.assert_frame_equal(without_timing(first), without_timing(again))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["client.helping.layer=6"],
            r"client\.helping\.layer=6 must be between two layers .* which has 6; .* from 1 to 5",
        ),
        (["client.helping.layer=0"], r"client\.helping\.layer=0 must be between"),
        (["client.helping.layer=auto"], r"client\.helping=Split chooses by seconds.* set system"),
        (["client.helping.layer=best"], r"layer='best' must be a number of layers, or auto"),
        (["client.helping.sent=int4"], r"sent='int4' must be one of: float32, float16, int8, top"),
        (["cloud.kind=oracle"], r"client\.helping=Split needs a cloud that gives features, and Oracle .* gives text"),
        (["cloud.access=logits"], r"client\.helping=Split needs a cloud that gives features"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run(settings: list[str], said: str) -> None:
    whole = ["client.path=clients.da_grpo:DaGrpo", "client.helping.path=clients.helping.split:Split"]
    with pytest.raises((ConfigError, ValueError), match=said):
        client_of(load_config(None, [*SETTINGS, *whole, *settings]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1.5}, r"threshold=1\.5 must be in \[0, 1\]"),
        ({"risk": 0.0}, r"risk=0\.0 must be between 0 and 1"),
        ({"delta": 1.0}, r"delta=1\.0 must be between 0 and 1"),
        ({"calibration": 0}, r"calibration=0 must be at least 1"),
    ],
)
def test_exits_refuse_what_is_no_chance(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Exit(**settings)


def test_a_cloud_that_shares_no_layers_is_refused() -> None:
    class Deep(Oracle):
        access = "features"

    with pytest.raises(ConfigError, match=r"client\.helping=Exit has devices hold layers .* Deep shares none"):
        Exit(threshold=0.5).check(Deep(), None)
