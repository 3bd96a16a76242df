"""Drafts: what a device said before it asked, which is its answer where nobody helps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clients.device.buying as buying
from clients.device.answering import Problems, answer_alone
from clients.device.device import Device
from clients.device.rollout import Rollout, Sampling, roll_out
from clients.device.world import World, load_world
from flsim.budget.ledger import Ledger
from flsim.problems.judging import are_right
from tests.tiny import tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLING = Sampling(group_size=24, temperature=1.5, max_new_tokens=6)


def world_of(checkpoint: Path, *more: str) -> World:
    return load_world(tiny_world(checkpoint, "stream.quantity_sigma=0.5", "stream.seed=2", *more))


def rolled_out(world: World, problems: Problems) -> Rollout:
    devices = [Device(k, 1, world.first, 0.5, Ledger(world.config.budget), None) for k in range(len(problems))]
    world.lora.attach(world.lora.stack([device.adapter for device in devices]))
    with torch.no_grad():
        return roll_out(world, devices, problems, SAMPLING, step=0, help_bias=torch.full((2, 6), 2.0))


def problems_of(world: World) -> Problems:
    drawn = world.stream.evaluation_problems("device-000", "train", per_task=3)
    each = [problem for own in drawn.values() for problem in own]
    return [each[:6], each[6:9]]


def drafted(world: World) -> tuple[Problems, Rollout]:
    """Problems whose right answer is the first draft of a response that asked, and a rollout of them."""
    problems = problems_of(world)
    before = rolled_out(world, problems)
    told = [
        [
            replace(problem, answer=next((t for t, a in zip(texts, asks, strict=True) if a and t.strip()), "0"))
            for problem, texts, asks in zip(row, before.completions.texts[k], before.asked[k].tolist(), strict=False)
        ]
        for k, row in enumerate(problems)
    ]
    after = rolled_out(world, told)
    assert torch.equal(after.completions.tokens, before.completions.tokens)
    return told, after


def by_hand(problems: Problems, rollout: Rollout) -> torch.Tensor:
    right = torch.zeros(rollout.asked.shape)
    for k, row in enumerate(problems):
        for p, problem in enumerate(row):
            right[k, p] = torch.tensor(are_right([(problem, t) for t in rollout.completions.texts[k][p]])).float()
    return right


def says(problems: Problems, rollout: Rollout) -> torch.Tensor:
    """True where a response said something: a token of padding decodes to nothing."""
    found = torch.zeros(rollout.asked.shape, dtype=torch.bool)
    for k, row in enumerate(problems):
        for p in range(len(row)):
            found[k, p] = torch.tensor([bool(text.strip()) for text in rollout.completions.texts[k][p]])
    return found


def test_a_response_that_is_refused_is_its_own_draft(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call may be made: each response earns what it said itself, and only who said nothing is sampled again."""
    again: list[Problems] = []

    def noting(world: World, problems: Problems, most: int, devices: Sequence[Device] = ()) -> list[list[str]]:
        again.append(problems)
        return answer_alone(world, problems, most, devices)

    monkeypatch.setattr(buying, "answer_alone", noting)
    world = world_of(tiny_checkpoint, "model.request=after", "budget.calls_per_round=0")
    problems, rollout = drafted(world)
    said, asked, spoke = by_hand(problems, rollout), rollout.asked.bool(), says(problems, rollout)
    assert torch.equal(rollout.right_draft, said)
    assert torch.equal(rollout.right[spoke], said[spoke])
    assert torch.equal(rollout.right_alone, said * (1 - rollout.asked))
    assert (said[asked] == 1).any()
    assert (said[asked & spoke] == 0).any()  # responses to one prompt end differently
    assert not rollout.right_draft[1, 3:].any()  # nobody's prompts
    silent = (asked & ~spoke).any(-1)  # (K, P)
    wanted = [[problem for p, problem in enumerate(row) if silent[k, p]] for k, row in enumerate(problems)]
    assert again[1:] == ([wanted] if silent.any() else [])
    assert (asked & spoke).sum() > 5 * (asked & ~spoke).sum()


def test_where_the_cloud_answers_the_draft_counts_for_nothing_but_itself(tiny_checkpoint: Path) -> None:
    """The oracle is always right."""
    world = world_of(tiny_checkpoint, "model.request=after")
    problems, rollout = drafted(world)
    assert torch.equal(rollout.right_draft, by_hand(problems, rollout))
    torch.testing.assert_close(rollout.right, rollout.right_alone + rollout.asked)


def test_who_asks_at_once_is_answered_alone_and_who_drafts_is_not(tiny_checkpoint: Path) -> None:
    """A built-in model that asks in both places, as its world says: the same weights under another name."""
    world = world_of(tiny_checkpoint, "model.request=anywhere", "budget.calls_per_round=0")
    config = replace(world.config, model=replace(world.config.model, path="builtin:slm_draft"))
    before, both = world, replace(world, config=config)
    problems, rollout = drafted(before)
    asked = rollout.asked.bool()
    spoke = says(problems, rollout)
    assert (asked & spoke).any()
    assert (asked & ~spoke).any()
    alone = rollout.right[asked]  # as one answer of each prompt
    assert all(len({float(r) for r in rollout.right[k, p][asked[k, p]]}) <= 1 for k in range(2) for p in range(6))
    now = rolled_out(both, problems)
    assert torch.equal(now.right_draft, rollout.right_draft)
    expected = torch.where(asked & spoke, rollout.right_draft, rollout.right)
    assert torch.equal(now.right, expected)
    assert not torch.equal(now.right[asked], alone)
