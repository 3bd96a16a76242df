"""A head that is solved from sums: what a step adds, by hand; FedProx leaves it alone; a whole run, twice the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flsim
from clients.da_grpo import DaGrpo
from clients.device.device import Device
from clients.device.head import SUMS, Head
from clients.device.rollout import _judge
from clients.device.world import World, load_world
from flsim.budget.ledger import Ledger
from flsim.learning.benefit import FIRST_CHANCES, NUMBERS, PIECES, question_features
from flsim.loop.checkpoints import latest_checkpoint
from flsim.metrics.rows import without_timing
from flsim.models.adapter import Adapter, extras_of, lora_of
from flsim.models.decoding import Completions
from flsim.problems.problem import Problem
from flsim.problems.recorded import RECORDED, Record
from tests.tiny import TinyRun, tiny_world

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

SOLVED: dict[str, Any] = {"imitate": 0.0, "replay": 0, "head_features": "question", "head_ridge": 0.3}
WORK: dict[str, Any] = {"steps": 1, "prompts": 6, "group_size": 4, "max_new_tokens": 6, "lr": 0.01}
LEARNER = DaGrpo(**SOLVED, **WORK)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    config = tiny_world(tiny_checkpoint, "stream.quantity_sigma=0.5", "cloud.oracle_error=0.3")
    return load_world(config, extras=LEARNER.extras, head=LEARNER.head)


def adapter(world: World) -> Adapter:
    rng = np.random.default_rng(0)
    factors = {n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in lora_of(world.first).items()}
    return {**factors, SUMS: world.first[SUMS]}


def trained(world: World, proximal: float = 0.0) -> list[Adapter]:
    ledgers = [Ledger(world.config.budget) for _ in range(3)]
    devices = [Device(k, 1, adapter(world), 0.3, ledger, None) for k, ledger in enumerate(ledgers)]
    devices = [replace(device, proximal=proximal) for device in devices]
    return [update.adapter for update in LEARNER.local_update(world, devices)]


def test_what_a_question_looks_like() -> None:
    """5 7 5 5 behind one place of padding: four tokens, two of them different, counted in two groups; and filling."""
    ids = torch.tensor([[[5, 5, 7, 5, 5], [0, 0, 0, 0, 9]]])
    mask = torch.tensor([[[False, True, True, True, True], [False, False, False, False, False]]])
    found = question_features(ids, mask)[0]  # (2, 2 + PIECES)
    assert found[0, :2].tolist() == pytest.approx([np.log(4), np.log(2)])
    counts = sorted(found[0, 2:].tolist())
    assert counts == pytest.approx([0.0] * (PIECES - 2) + [np.log(2), np.log(4)])
    assert not found[1].any()


def test_a_step_adds_what_it_saw_and_fedprox_does_not_pull_it_back(world: World) -> None:
    """Counts, and labels, of drafts and of what was bought; a group counts as one prompt."""
    own, pulled = trained(world), trained(world, proximal=5.0)
    problems = LEARNER.problems(world, [Device(k, 1, {}, 0.3, Ledger(world.config.budget), None) for k in range(3)], 0)
    for device, row in enumerate(problems):
        sums = own[device][SUMS]
        np.testing.assert_array_equal(pulled[device][SUMS], sums)
        judged, bought = sums[:, 0, 0]
        assert judged == pytest.approx(len(row))
        assert 0 < bought < judged
        assert bought == round(float(bought))
        assert (sums[:, 0, -1] <= sums[:, 0, 0]).all()
        assert np.abs(sums[:, 3:NUMBERS]).max() == 0.0  # the other numbers of drafts are left out
        np.testing.assert_allclose(sums[..., :-1], sums[..., :-1].transpose(0, 2, 1), rtol=1e-5)
    right, bought = (sum(float(one[SUMS][1, 0, at]) for one in own) for at in (-1, 0))
    assert 0 < right < bought  # the cloud errs in three of ten


def test_a_fresh_fleet_asks_by_its_first_chances(world: World) -> None:
    assert LEARNER.head is not None
    first = {name: torch.from_numpy(value)[None] for name, value in extras_of(world.first).items()}
    weight = LEARNER.head.weights(first)[0]  # (2, F)
    assert torch.sigmoid(weight[:, 0]).tolist() == pytest.approx(FIRST_CHANCES)
    assert not weight[:, 1:].any()


def test_a_run_learns_it_the_same_twice(tiny_run: TinyRun) -> None:
    """The server's sums are the mean device's: of three rounds, as many prompts as one device met."""
    given = [f"client.{name}={value}" for name, value in SOLVED.items()]
    given += ["rounds=3", "stream.quantity_sigma=0", "evaluation.every_rounds=3"]
    configs = [tiny_run(name, *given) for name in ("one", "again")]
    runs = [flsim.run(config, progress=False) for config in configs]
    rows = [without_timing(run.rows) for run in runs]
    assert rows[0].equals(rows[1])
    checkpoint = latest_checkpoint(runs[0].folder)
    assert checkpoint is not None
    sums = checkpoint.adapter[SUMS]
    prompts = configs[0].client["steps"] * configs[0].client["prompts"] * 3
    assert sums[0, 0, 0] == pytest.approx(prompts, rel=1e-5)
    assert 0 < sums[1, 0, 0] < prompts


def test_an_empty_draft_that_a_head_sends_stands_for_what_was_recorded() -> None:
    """Of two recorded questions the device had the first right; both drafts are empty, and both asked."""
    records = Record(True, True), Record(False, True)
    problems = [[Problem("maths", "", 1, f"{n}", own.text, verifier=RECORDED) for n, own in enumerate(records)]]
    mask = torch.ones(1, 2, 1, 1, dtype=torch.bool)
    said = Completions(mask.long(), mask, mask.float(), torch.ones(1, 2, 1, dtype=torch.bool), [[[""], [""]]])
    right, says = _judge(problems, said, all_=True)
    assert right[0, :, 0].tolist() == [1.0, 0.0]
    assert not says.any()
    assert not _judge(problems, said, all_=False)[0].any()


def test_old_sums_fade_and_a_hidden_state_is_held_back_as_the_numbers_beside_it_are() -> None:
    """Of a draft of two steps ago a quarter is left; six features of a state count as seven numbers do."""
    head = Head("both", ridge=0.5, fade=0.5)
    phi = torch.tensor([[[[1.0, 2.0]]]])  # (K, P, G, F)
    labels, known = torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    sums = {SUMS: torch.zeros(1, 2, 2, 3)}
    for _ in range(3):
        sums = {SUMS: head.gathered(sums, phi, labels, known)}
    assert sums[SUMS][0, 0].tolist() == [[1.75, 3.5, 1.75], [3.5, 7.0, 3.5]]
    assert head.ridges(NUMBERS + 6).tolist() == pytest.approx([0.5] * NUMBERS + [0.5 * 6 / 7] * 6)
    assert Head("hidden", ridge=0.5).ridges(NUMBERS + 6).tolist() == [0.5] * (NUMBERS + 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_fade": 0.9}, "no effect without head_ridge"),
        ({"head_ridge": 1.0, "head_fade": 0.0}, "above 0 and at most 1"),
        ({"head_ridge": -1.0}, "head_ridge=-1.0 must be finite"),
        ({"head_ridge": 1.0, "head_gradient": 0.5}, "leave one of them out"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DaGrpo(**settings)
