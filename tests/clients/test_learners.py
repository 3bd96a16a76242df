"""The learners beside DA-GRPO: laws between their gradients, KL and clipped updates, replay, bounds, and real runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor

import flsim
from clients.collaborative_grpo import CollaborativeGrpo
from clients.da_grpo import DaGrpo
from clients.dapo import Dapo
from clients.device.device import Device, keep, remember
from clients.device.head import WEIGHT
from clients.device.pack import Pack
from clients.device.replay import Replay
from clients.device.rollout import Rollout, roll_out
from clients.device.world import World, load_world
from clients.dr_grpo import DrGrpo
from clients.fixed_price import FixedPrice
from clients.gapg import Gapg
from clients.grpo import Grpo
from clients.gvpo import Gvpo
from clients.learner import Learner
from clients.reinforcement import Reinforcement
from clients.sft import Sft
from flsim.budget.ledger import Ledger
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.flower.messages import DeviceUpdate
from flsim.metrics.rows import ASKED
from flsim.models.adapter import Adapter
from flsim.models.base import load_base
from flsim.models.lora_settings import lora_config
from flsim.problems.judging import are_right
from flsim.tasks.stream import stream_of
from tests.flsim.cloud.answers import answered
from tests.tiny import TOKEN, TOKEN_RUN

TAU = 0.5
WORK: dict[str, Any] = {"steps": 1, "prompts": 6, "clip_norm": 1e6}


@pytest.fixture(scope="module")
def world(one_thread: None) -> World:
    """The built-in SLM, which is right often enough to learn from itself, and a cloud that errs."""
    settings = ["model.rank=2", "rounds=3", "fleet.devices=3", "cloud.kind=oracle", "cloud.oracle_error=0.3"]
    return load_world(load_config(None, [*settings, f"budget.tau={TAU}"]))


def device_of(world: World, index: int = 0, *, seed: int = 7, round_: int = 1) -> Device:
    rng = np.random.default_rng(seed)
    adapter = {name: rng.normal(0, 0.05, t.shape).astype(np.float32) for name, t in world.first.items()}
    if WEIGHT in adapter:
        adapter[WEIGHT] = (world.first[WEIGHT] + adapter[WEIGHT] / 10).astype(np.float32)  # or it might never ask
    return Device(index, round_, adapter, 0.5, Ledger(world.config.budget), None)


def first_gradient(world: World, learner: Learner) -> Tensor:
    """Of the device's first step, read off Adam's first moment: m = (1 - beta_1) g."""
    device = device_of(world)
    replace(learner, steps=1).local_update(world, [device])
    assert device.optimizer is not None
    gradient = device.optimizer.first * 10  # (1, n)
    assert float(gradient.abs().max()) > 1e-4
    return gradient


def rollout_of(world: World, learner: Reinforcement, devices: Sequence[Device] = ()) -> Rollout:
    devices = devices or [device_of(world)]
    world.lora.attach(world.lora.stack([device.adapter for device in devices]))
    return roll_out(
        world,
        devices,
        learner.problems(world, devices, 0),
        learner.sampling,
        step=0,
    )


def distance(one: Adapter, other: Adapter) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def total(update: DeviceUpdate, name: str) -> tuple[float, float]:
    rows = [row for row in update.rows if row.name == name]
    assert rows, f"no row {name!r}"
    return sum(row.total for row in rows), sum(row.weight for row in rows)


LOCAL = (Grpo, DrGrpo, Dapo, Gvpo)
TokenDaGrpo = partial(DaGrpo, **TOKEN)
"""The paper's policy, which needs no head in the world."""
ALL = (*LOCAL, TokenDaGrpo, Gapg, CollaborativeGrpo, Sft)


@pytest.mark.parametrize("method", LOCAL)
def test_who_learns_without_asking_never_asks(world: World, method: type[Learner]) -> None:
    device = device_of(world)
    (update,) = method(**WORK).local_update(world, [device])
    assert total(update, "cloud_requests")[0] == 0
    assert device.ledger.total.calls == 0
    assert total(update, "reward") == total(update, "alone_reward")
    assert 0 < total(update, "reward")[0] < total(update, "reward")[1]


def test_gvpo_on_policy_is_the_centred_policy_gradient(world: World) -> None:
    """GVPO: beta / (G - 1) sum (R - mean) grad log pi per prompt; Dr.GRPO: 1 / (G L) times the same sum, L = 9."""
    gvpo = first_gradient(world, Gvpo(updates=1, beta=0.1, group_size=8, **WORK))
    dr_grpo = first_gradient(world, DrGrpo(group_size=8, max_new_tokens=9, **WORK))
    torch.testing.assert_close(gvpo, dr_grpo * (0.1 * 8 * 9 / 7), rtol=1e-3, atol=1e-6)


def test_gapg_is_the_policy_gradient_on_the_prompts_that_it_keeps(world: World) -> None:
    """With any number of helped prompts kept, only prompts without signal are dropped: the mean is over fewer."""
    gapg = Gapg(help_reward=0.4, rho=1e6, **WORK)
    plain = TokenDaGrpo(help_reward=0.4, dual_init=0.0, dual_lr=0.0, dual_gain=0.0, **WORK)
    rollout = rollout_of(world, gapg)
    some = (rollout.right > 0).any(-1)  # (1, P)
    kept, all_ = int(some.sum()), rollout.prompts.counts[0]
    one, other = first_gradient(world, gapg), first_gradient(world, replace(plain, dual_init=0.0))
    device = device_of(world)
    device.dual = 0.0
    plain.local_update(world, [device])
    assert device.optimizer is not None
    assert 0 < kept <= all_
    torch.testing.assert_close(one, device.optimizer.first * 10 * (all_ / kept), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(one, other, rtol=1e-2)  # which paid lambda 0.5


def test_gapg_filters_by_the_budget_that_a_device_has_in_the_round(world: World) -> None:
    """Two devices of one pack, alike but for their tau: 0 keeps no prompt that only the cloud can solve, 1 all."""
    gapg = Gapg(**WORK)
    frugal, rich = (replace(device_of(world), ledger=Ledger(replace(world.config.budget, tau=t))) for t in (0.0, 1.0))
    pack = Pack.of(world, [frugal, rich])
    rollout = rollout_of(world, gapg, [frugal, rich])
    alone, right = (flags > 0 for flags in (rollout.right_alone, rollout.right))  # (2, P, G)
    helped = (right & ~alone).any(-1) & ~alone.any(-1)  # (2, P)
    kept = gapg.kept(pack, rollout)  # (2, P)
    assert helped.any(-1).all()
    assert not (kept[0] & helped[0]).any()
    assert (kept[1] & helped[1]).sum() == helped[1].sum()


def test_gapgs_filter_bounds_what_teaches_to_ask(world: World) -> None:
    gapg = Gapg(rho=0.0, **WORK)
    rollout = rollout_of(world, gapg)
    device = device_of(world)
    (update,) = gapg.local_update(world, [device])
    solved = (rollout.right_alone > 0).any(-1)
    assert update.effective_groups is not None
    assert update.effective_groups <= int(solved.sum())


def test_a_fixed_price_stays_where_it_is_put(world: World) -> None:
    config = world.config
    learner = FixedPrice.client_app(config, price=0.25, **WORK).algorithm
    assert learner.first_dual == 0.25
    state = RecordDict()
    device = remember(state, 0, 1, device_of(world).adapter, budget=config.budget, dual=learner.first_dual)
    (update,) = learner.local_update(world, [device])
    assert device.dual == 0.25
    assert total(update, "dual_variable") == (0.25, 1.0)
    assert total(update, "cloud_requests")[0] / total(update, "cloud_requests")[1] != TAU


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dual_lr": 0.1}, "would move lambda"),
        ({"price": -0.1}, "price=-0.1 must be at least 0"),
    ],
)
def test_a_fixed_price_that_moves_is_refused(world: World, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedPrice.client_app(world.config, **settings)


def test_the_baselines_of_the_cost_and_the_scaling_give_other_gradients(world: World) -> None:
    """Same rollout, same lambda: what differs is the baseline alone."""
    forms = [{"cost_baseline": b} for b in ("group", "batch", "budget")] + [{"normalise": "separately"}]
    found = [first_gradient(world, TokenDaGrpo(dual_gain=0.0, **form, **WORK)) for form in forms]  # type: ignore[arg-type]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert not torch.allclose(one, other, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("method", [Grpo, pytest.param(TokenDaGrpo, marks=pytest.mark.slow)])
def test_the_kl_pulls_nowhere_at_the_rounds_start_and_back_from_elsewhere(world: World, method: Any) -> None:
    """k3's slope is 0 where policy and reference agree; after some steps a heavy one keeps the adapter nearer."""
    torch.testing.assert_close(
        first_gradient(world, method(kl=5.0, **WORK)), first_gradient(world, method(**WORK)), rtol=1e-3, atol=1e-6
    )
    more = {**WORK, "steps": 6, "lr": 0.01}
    ends = {}
    for kl in (0.0, 50.0):
        device = device_of(world)
        (update,) = method(kl=kl, **more).local_update(world, [device])
        ends[kl] = distance(update.adapter, device.adapter)
    assert ends[50.0] != ends[0.0]


def test_a_second_update_on_the_same_responses_is_clipped(world: World) -> None:
    """With bounds of zero width, tokens that have moved the wanted way pull no more; the others still do."""
    free = Grpo(updates=2, clip_low=1.0, clip_high=1e6, **{**WORK, "lr": 0.01})
    tight = replace(free, clip_low=0.0, clip_high=0.0)
    once = replace(free, updates=1)
    ends = {}
    for name, learner in {"free": free, "tight": tight, "once": once}.items():
        device = device_of(world)
        (update,) = learner.local_update(world, [device])
        assert device.optimizer is not None
        ends[name] = (update.adapter, device.optimizer.first)
    assert distance(ends["free"][0], ends["once"][0]) > 0
    second = {name: (ends[name][1] - 0.9 * ends["once"][1]) * 10 for name in ("free", "tight")}  # the second gradient
    assert 0 < float(second["tight"].norm()) < 0.8 * float(second["free"].norm())


def test_sft_is_cross_entropy_on_the_clouds_right_answers(world: World) -> None:
    """Against peft's own model and autograd, one answer at a time; the help request is ruled out of the softmax."""
    learner = Sft(**WORK)
    device = device_of(world)
    (problems,) = learner.problems(world, [device], 0)
    asked = learner._to_send(world, [device], [problems], 0)[0].tolist()
    sent = [problem for problem, wish in zip(problems, asked, strict=False) if wish]
    answers = answered(world.cloud, sent)
    good = [(p, a.text) for p, a in zip(sent, answers, strict=True) if are_right([(p, a.text)])[0]]
    assert 0 < len(good) < len(sent)
    model = get_peft_model(load_base(world.config.model.path).as_transformers(), lora_config(world.config.model))
    set_peft_model_state_dict(model, {name: torch.from_numpy(t) for name, t in device.adapter.items()})
    base, losses = world.base, []
    for problem, text in good:
        prompt = base.tokenizer(problem.question)["input_ids"]
        answer = [*base.tokenizer(text, add_special_tokens=False)["input_ids"], base.eos_id]
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].clone()
        logits[:, base.help_id] = -torch.inf
        losses.append(-torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)])
    torch.cat(losses).mean().backward()
    named = {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}
    (update,) = learner.local_update(world, [device])
    assert device.optimizer is not None
    (measured,) = world.lora.unstack(device.optimizer.first * 10)
    for name, parameter in named.items():
        assert parameter.grad is not None
        np.testing.assert_allclose(measured[name], parameter.grad.numpy(), rtol=1e-3, atol=1e-5)
    assert total(update, "cloud_calls") == (len(sent), 1.0)
    assert total(update, "cloud_purchases") == (len(sent), len(problems))
    assert total(update, "reward") == (len(good), len(sent))


@pytest.mark.slow
def test_sft_sends_tau_of_its_prompts(world: World) -> None:
    device, learner = device_of(world), Sft(steps=40, prompts=5, lr=1e-6)
    (update,) = learner.local_update(world, [device])
    sent, prompts = total(update, "cloud_purchases")
    assert abs(sent / prompts - TAU) < 0.08  # 40 roundings of at most one prompt each, sd 0.5


def test_sft_without_answers_changes_nothing_but_by_momentum(world: World) -> None:
    device = device_of(world)
    device.ledger = Ledger(replace(world.config.budget, calls_per_round=0))
    (update,) = Sft(**WORK).local_update(world, [device])
    assert distance(update.adapter, device.adapter) == 0.0


def test_what_sft_meets_again_is_not_paid_again(world: World) -> None:
    """Two rounds with the same questions sent; the buffer adds lessons and no calls."""
    plain, replayed = device_of(world), device_of(world)
    (one,) = Sft(**{**WORK, "steps": 4}).local_update(world, [plain])
    (two,) = Sft(replay=8, replay_share=0.5, **{**WORK, "steps": 4}).local_update(world, [replayed])
    assert plain.ledger.total == replayed.ledger.total
    assert replayed.replay.seen > 0
    assert distance(one.adapter, two.adapter) > 1e-5


@pytest.mark.parametrize("method", ALL)
def test_a_pack_equals_its_devices_alone(world: World, method: Any) -> None:
    """Unequal adapters and numbers of prompts, with replay; what is kept agrees, too."""
    a_pack_equals_its_devices_alone(world, method(replay=4, **{**WORK, "steps": 2, "lr": 1e-3}))


def test_a_pack_with_heads_equals_its_devices_alone(world: World) -> None:
    """DA-GRPO as shipped; all buy right answers, and keep them with the places of their questions."""
    learner = DaGrpo(**{**WORK, "steps": 2, "lr": 1e-3})
    headed = load_world(world.config, extras=learner.extras, head=learner.head)
    for device in a_pack_equals_its_devices_alone(headed, learner):
        assert set(device.answers) == set(device.replay.places) != set()


def a_pack_equals_its_devices_alone(world: World, learner: Learner) -> list[Device]:
    together = [device_of(world, k, seed=k) for k in range(3)]
    alone = [device_of(world, k, seed=k) for k in range(3)]
    updates = learner.local_update(world, together)
    assert len({update.num_examples for update in updates}) > 1
    for k in range(3):
        (own,) = learner.local_update(world, [alone[k]])
        assert updates[k].rows == own.rows
        assert together[k].replay == alone[k].replay
        assert together[k].answers == alone[k].answers
        gaps = np.concatenate([np.abs(updates[k].adapter[n] - t).ravel() for n, t in own.adapter.items()])
        assert np.quantile(gaps, 0.999) < 2e-5  # where a gradient is but rounding, Adam divides it by itself
        assert gaps.max() < 1e-3
    return together


def test_a_buffer_holds_every_question_with_the_same_chance() -> None:
    """Reservoir sampling: each of 12 questions is in a buffer of 3 with probability 1 in 4, over 4000 devices."""
    kept: Counter[tuple[int, int, int]] = Counter()
    places = [(1, step, place) for step in range(4) for place in range(3)]
    for device in range(4000):
        buffer = Replay()
        for start in range(0, 12, 3):
            buffer.remember(places[start : start + 3], 3, 0, f"device-{device}")
        assert len(set(buffer.places)) == 3
        assert buffer.seen == 12
        kept.update(buffer.places)
    for place in places:  # sd of a share is 0.0068
        assert kept[place] / 4000 == pytest.approx(0.25, abs=0.03)


def test_replay_keeps_the_number_of_prompts_and_brings_back_the_past(world: World) -> None:
    learner, device = Grpo(replay=5, replay_share=0.5, steps=1, prompts=6), device_of(world)
    first = learner.problems(world, [device], 0)[0]
    device.round = 2
    second = learner.problems(world, [device], 0)[0]
    count = world.stream.prompts_per_step(device.name, 6)
    assert len(first) == len(second) == count
    assert second[-min(5, int(0.5 * count)) :] != first  # some of them, in an order of their own
    assert all(problem in first for problem in second[-min(5, int(0.5 * count)) :])


def test_a_buffer_survives_in_the_context_state(world: World) -> None:
    learner, device = Grpo(replay=5, **WORK), device_of(world)
    learner.local_update(world, [device])
    state = RecordDict()
    keep(state, device)
    back = remember(state, 0, 2, device.adapter, budget=world.config.budget, dual=0.5)
    assert back.replay == device.replay
    assert len(back.replay.places) == 5


def test_a_central_learner_meets_what_the_whole_fleet_meets(world: World) -> None:
    pooled = Grpo(pooled=True, **WORK).problems(world, [device_of(world)], 0)[0]
    alone = [p for k in range(3) for p in Grpo(**WORK).problems(world, [device_of(world, k)], 0)[0]]
    assert pooled == alone


def test_a_central_learner_keeps_no_answers_and_learns_those_that_it_buys(world: World) -> None:
    """DA-GRPO as shipped: its buffer is a device's own, so that a pooled one has none, and nobody has to say so."""
    ends = {}
    for imitate in (0.0, 8.0):
        learner = DaGrpo(pooled=True, imitate=imitate, **WORK)
        headed = load_world(world.config, extras=learner.extras, head=learner.head)
        device = device_of(headed)
        (update,) = learner.local_update(headed, [device])
        assert total(update, "cloud_calls")[0] > 0
        assert (device.replay.places, device.answers) == ([], {})
        ends[imitate] = update.adapter
    assert distance(ends[0.0], ends[8.0]) > 1e-5


def test_all_phases_at_once(world: World) -> None:
    """A, B, A of equal lengths: two thirds of A and one third of B in every round."""
    stream = stream_of(load_config(None, ["rounds=9", "stream.schedule=joint", "fleet.devices=3"]))
    for round_ in (1, 5, 9):
        mixture = stream.mixture("device-001", round_)
        assert mixture == stream.mixture("device-001", 1)
        assert mixture["arithmetic"] + mixture["numbers"] == pytest.approx(2 / 3)
        assert mixture["strings"] + mixture["lists"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (Grpo, {"updates": 0}, "updates=0 must be at least 1"),
        (Grpo, {"kl": -1.0}, "kl=-1.0 must be at least 0"),
        (Grpo, {"ratio": "word"}, "ratio='word' must be one of: token, sequence"),
        (Grpo, {"clip_low": 1.5}, "clip_low=1.5"),
        (Grpo, {"temperature": 0.0}, "temperature=0.0 must be above 0"),
        (Grpo, {"replay": -1}, "replay=-1"),
        (Grpo, {"replay_share": 2.0}, "replay_share=2.0"),
        (Grpo, {"replay": 3, "pooled": True}, "set replay=0"),
        (DaGrpo, {"replay": 64, "pooled": True}, "set replay=0"),
        (Gvpo, {"beta": 0.0}, "beta=0.0 must be above 0"),
        (Gvpo, {"kl": 0.1}, "leave kl out"),
        (Gapg, {"help_reward": 1.5}, "help_reward=1.5"),
        (Gapg, {"rho": -1.0}, "rho=-1.0"),
        (CollaborativeGrpo, {"form": "ppo"}, "form='ppo' must be one of: grpo, dr_grpo"),
        (CollaborativeGrpo, {"help_reward": -0.1}, "help_reward=-0.1"),
        (DaGrpo, {"normalise": "sum"}, "normalise='sum' must be one of: centred, separately"),
        (Sft, {"pooled": True}, "leave it out"),
        (Sft, {"kl": -0.5}, "kl=-0.5"),
    ],
)
def test_settings_without_meaning_are_refused(method: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        method(**settings)


def config_of(folder: Path, *more: str) -> Config:
    tiny = [
        f"run_dir={folder}",
        "model.rank=2",
        "rounds=2",
        "fleet.devices=2",
        "stream.phases=[[arithmetic],[strings]]",
        "cloud.kind=oracle",
        "evaluation.every_rounds=2",
        "evaluation.prompts_per_task=4",
        "engine.kind=local",
        "client.steps=1",
        "client.prompts=3",
    ]
    return load_config(None, [*tiny, *more])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "settings",
    [
        ["client.path=clients.grpo:Grpo", "client.replay=3", "client.kl=0.1", "client.updates=2"],
        ["client.path=clients.sft:Sft", "client.kl=0.1", "client.replay=3"],
        pytest.param(["client.path=clients.gapg:Gapg", "stream.schedule=joint"], marks=pytest.mark.slow),
        pytest.param(
            [
                "client.path=clients.dr_grpo:DrGrpo",
                "client.pooled=true",
                "strategy.sampler.path=strategies.parts.samplers:First",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["grpo", "sft", "gapg, joint", "central"],
)
def test_a_run_ends_with_its_report(one_thread: None, tmp_path: Path, settings: list[str]) -> None:
    run = flsim.run(config_of(tmp_path / "run", *settings), progress=False)
    rows = run.rows
    assert not (rows["name"] == "set_aside").any()
    assert set(rows["round"]) == {0, 1, 2}
    assert (run.folder / "report.html").is_file()
    trained = {"device-000"} if "client.pooled=true" in settings else {"device-000", "device-001"}
    assert set(rows[rows["name"].isin(ASKED)].query("split == 'train'")["device"]) == trained
    tested = rows[(rows["split"] == "test") & (rows["model"] == "global") & (rows["name"] == "accuracy")]
    assert set(tested["device"]) == {"device-000", "device-001"}


@pytest.mark.usefixtures("no_report")
def test_the_method_of_the_docs_runs_as_it_is_written(one_thread: None, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    code = page.split("In `my_method.py`:\n")[1].split("    flsim")[0]
    (tmp_path / "my_method.py").write_text("\n".join(line[4:] for line in code.splitlines()))
    settings = [f"client.path={tmp_path / 'my_method.py'}:Plain", "client.price=0.3", "rounds=2"]
    rows = flsim.run(config_of(tmp_path / "run", *settings), progress=False).rows
    assert not (rows["name"] == "set_aside").any()
    assert (rows[rows["name"] == "reward"]["weight"] > 0).any()


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("tau", "wishes"), [(0.0, 0.0), (1.0, 1.0)])
def test_what_lambda_holds_back_in_training_it_holds_back_at_test(
    one_thread: None, tmp_path: Path, tau: float, wishes: float
) -> None:
    """With a huge threshold: lambda is above its start if the device may not ask and below if it may ask always."""
    settings = [
        f"budget.tau={tau}",
        "client.path=clients.da_grpo:DaGrpo",
        *TOKEN_RUN,
        "client.dual_bias=1e6",
        "client.dual_lr=1",
    ]
    rows = flsim.run(config_of(tmp_path / "run", *settings), progress=False).rows
    asked = rows[(rows["name"] == "cloud_requests") & (rows["round"] == 2)]
    for model in ("global", "own"):
        own = asked[asked["model"] == model]
        assert own["total"].sum() == wishes * own["weight"].sum() >= 0
        assert len(own) > 0
