"""A learner whose request is raised by its draft's surprise: at its tests, in runs, and where it is refused."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import flsim
from clients.asking.alone import answers_alone
from clients.asking.policy import Own
from clients.asking.rule import Examined
from clients.da_grpo import DaGrpo
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from clients.gapg import Gapg
from clients.grpo import Grpo
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of
from flsim.metrics.rows import without_timing
from flsim.models.decoding import encode, generate, read
from flsim.models.sampling import CALM
from tests.tiny import TinyRun, tiny_runs_in, tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICES = (0, 1)
AFTER = ("model.request=after", "client.policy=token")


@pytest.fixture
def run_of(tiny_checkpoint: Path, tmp_path: Path) -> TinyRun:
    return tiny_runs_in(tmp_path, tiny_checkpoint, ("client.path=clients.da_grpo:DaGrpo", *AFTER))


def world_of(checkpoint: Path, kappa: float) -> World:
    """Of a model that is sure of some of its answers."""
    world = load_world(tiny_world(checkpoint, "evaluation.prompts_per_task=5", "model.request=after"), surprise=kappa)
    with torch.no_grad():
        world.base.model.get_output_embeddings().weight.mul_(4.0)
    world.lora.attach(world.lora.stack([world.first]))
    return world


def surprises(world: World) -> list[list[list[float]]]:
    """Of every token of each device's own answers but an ending one, `[device][prompt][token]`."""
    problems = [own_tests(world, device) for device in DEVICES]
    reading = read(world.base, encode(world.base, world.base.prompts(problems)))
    most = world.answer_tokens
    said = generate(world.base, reading, group_size=1, max_new_tokens=most, temperature=0.0, may_ask=False)
    counted = said.mask & ~world.base.ends(said.tokens)
    return [
        [(-said.logprobs[k, p, 0][counted[k, p, 0]]).tolist() for p in range(len(row))]
        for k, row in enumerate(problems)
    ]


def test_at_tests_a_device_asks_where_its_answer_begins_to_surprise_it(tiny_checkpoint: Path) -> None:
    """With a huge kappa: after the first token up to which the mean surprise is above 0.3, if there is one."""
    world = world_of(tiny_checkpoint, 1e7)
    tests = [own_tests(world, device) for device in DEVICES]
    choices = Own().decide(Examined(world, DEVICES, tests, [0.3, 0.3], [-2.0, 0.0]))
    wanted = 0
    for choice, own in zip(choices, surprises(world), strict=True):
        for wish, each in zip(choice.wishes, own, strict=True):
            over = [sum(each[:t]) / t > CALM for t in range(1, len(each) + 1)]
            room = over[: world.answer_tokens - 1]  # a request needs a token, too
            assert bool(wish) == any(room)
            wanted += bool(wish)
    assert 0 < wanted < sum(len(row) for row in tests)


def test_the_wish_rises_with_the_surprise_of_the_answer(tiny_checkpoint: Path) -> None:
    """Its log-odds by kappa times what the mean is above 0.3, and by nothing without an answer."""
    without, raised = (world_of(tiny_checkpoint, kappa) for kappa in (0.0, 3.0))
    problems = [own_tests(without, device) for device in DEVICES]
    for own, other, each in zip(
        answers_alone(without, problems), answers_alone(raised, problems), surprises(without), strict=True
    ):
        assert own.answers == other.answers
        for before, after, tokens in zip(own.wish, other.wish, each, strict=True):
            offset = 3.0 * (sum(tokens) / len(tokens) - 0.3) if tokens else 0.0
            odds = [wish - math.log(-math.expm1(wish)) for wish in (float(before), float(after))]
            assert odds[1] - odds[0] == pytest.approx(offset, abs=1e-3)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_none_changes_no_row_and_some_does(run_of: TinyRun) -> None:
    more = ("client.asking.path=clients.asking.policy:OwnCalibrated", "client.asking.calibration=2")
    plain, none, some = (
        without_timing(flsim.run(run_of(name, *more, *settings), progress=False).rows)
        for name, settings in {"plain": (), "none": ("client.surprise=0",), "some": ("client.surprise=10",)}.items()
    )
    pd.testing.assert_frame_equal(plain, none, check_exact=True)
    assert not (some["name"] == "set_aside").any()
    assert not some.equals(plain)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_a_pack_equals_its_devices_alone(run_of: TinyRun) -> None:
    """Up to the last bits of norms, as without it."""
    one, other = (
        without_timing(
            flsim.run(run_of(f"pack{pack}", f"engine.pack={pack}", "client.surprise=10"), progress=False).rows
        )
        for pack in (1, 2)
    )
    pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (DaGrpo, {"policy": "token", "surprise": -1.0}, "surprise=-1.0 must be finite and at least 0"),
        (DaGrpo, {"policy": "token", "surprise": math.inf}, "surprise=inf must be finite"),
        (DaGrpo, {"policy": "head", "surprise": 1.0}, "has no effect: this method asks by its benefit head"),
        (Grpo, {"surprise": 1.0}, "has no effect: this method never asks; leave it out"),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(method: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**settings)
    assert replace(Gapg(), surprise=2.0).sampling.surprise == 2.0


@pytest.mark.parametrize("request_", ["before", "anywhere"])
def test_a_model_that_asks_before_it_answers_is_refused(run_of: TinyRun, request_: str) -> None:
    config = run_of("before", f"model.request={request_}", "client.surprise=1")
    with pytest.raises(ConfigError, match=rf"client\.surprise=1.*model\.request={request_}.*set model\.request=after"):
        client_of(config)
