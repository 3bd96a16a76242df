"""DA-GRPO as shipped in whole runs, beside every part of a config that might not get on with heads and kept answers."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

import flsim
from clients.device.head import WEIGHT
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of
from flsim.metrics.rows import EVERY_TASK
from tests.tiny import TinyRun

TINY = ("stream.phases=[[arithmetic],[strings]]", "evaluation.prompts_per_task=5", "budget.tau=0.5")
POOLED = ("client.pooled=true", "strategy.sampler.path=strategies.parts.samplers:First")
DISTILLATION = tuple(
    f"stage.{key}"
    for key in ("path=strategies.stages.distillation:Distillation", "every_rounds=1", "prompts=8", "steps=1")
)
PARTS = {
    "plain": (),
    "lambda solved": ("client.dual_solve=0.5",),
    "pooled": POOLED,
    "no moments kept": ("client.keep_optimizer=false",),
    "alone": ("client.alone_share=0.5",),
    "never": ("budget.tau=0",),
    "always": ("budget.tau=1",),
    "under a cap": ("budget.calls_per_round=1",),
    "equally": ("budget.fleet.calls_total=12", "stream.quantity_sigma=0.5"),
    "traffic": ("budget.fleet.calls_total=12", "budget.fleet.division=traffic"),
    "one price": ("budget.fleet.calls_total=12", "budget.fleet.division=price"),
    "ranks": ("fleet.ranks=[2,1]", "strategy.path=strategies.flex_lora:FlexLora"),
    "poisoned": ("client.path=clients.poisoning:Poisoned", "client.poison_share=0.5"),
    "distilled": DISTILLATION,
    "central data": ("stream.schedule=joint",),
    "on validation": ("evaluation.split=validation",),
    "by lambda": ("client.asking.path=clients.asking.policy:Own",),
    "kl and two updates": ("client.kl=0.1", "client.updates=2"),
}


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("settings", PARTS.values(), ids=PARTS)
def test_every_part_of_a_config_gets_on_with_it(tiny_run: TinyRun, settings: tuple[str, ...]) -> None:
    """Nobody is set aside, the head comes home, and the fleet gets no more than its budget when it is measured."""
    config = tiny_run("run", *settings)
    run = flsim.run(config, progress=False)
    rows = run.rows
    assert not (rows["name"] == "set_aside").any()
    head = load_file(run.folder / "adapter" / "head.safetensors")[WEIGHT]
    assert np.isfinite(head).all()
    measured = rows[(rows["split"] == config.evaluation.split) & (rows["model"] == "global") & (rows["round"] == 2)]
    assert len(measured) > 0
    granted = measured[measured["name"] == "cloud_grants"]
    assert granted["total"].sum() <= math.floor(config.budget.tau * granted["weight"].sum() + 1e-9)
    if config.budget.tau == 0:
        assert measured[measured["name"] == "cloud_requests"]["total"].sum() == 0
    if config.budget.tau == 1 and "client.asking" not in str(settings):
        asked = measured[measured["name"] == "cloud_requests"]
        assert asked["total"].sum() == asked["weight"].sum()


@pytest.mark.usefixtures("no_report")
def test_under_one_price_all_devices_have_one_lambda(tiny_run: TinyRun) -> None:
    more = ("budget.fleet.calls_total=20", "budget.fleet.division=price", "rounds=3", "evaluation.every_rounds=3")
    rows = flsim.run(tiny_run("price", *more), progress=False).rows
    prices = rows[(rows["name"] == "dual_variable") & (rows["device"] != "")]
    assert (prices.groupby("round")["total"].nunique() == 1).all()
    fleets = rows[(rows["name"] == "dual_variable") & (rows["device"] == "")]
    assert set(fleets["task"]) == {EVERY_TASK}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["client.dual_bias=3"], "dual_bias=3 has no effect with policy=head, .*; leave it out, or set policy=token"),
        (["client.cost_baseline=group", "client.dual_gain=0"], "cost_baseline, dual_gain would have no effect"),
        (["client.policy=token", "client.head_rate=2"], "head_rate would have no effect with policy=token"),
        (["client.policy=tail"], "policy='tail' must be one of: head, token"),
        (["client.pooled=true", "client.replay=9"], "a pooled learner has none: set replay=0"),
    ],
)
def test_what_one_policy_alone_reads_is_refused_beside_the_other(settings: list[str], message: str) -> None:
    config = load_config(None, settings)
    with pytest.raises(ConfigError, match=message):
        client_of(config)
