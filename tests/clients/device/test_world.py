"""What a worker keeps for its devices: prompts that are met again."""

from pathlib import Path

import pytest
import torch

from clients.device.world import World, load_world
from clients.evaluate import own_tests
from flsim.models.decoding import encode
from tests.tiny import tiny_world


@pytest.fixture
def world(tiny_checkpoint: Path) -> World:
    return load_world(tiny_world(tiny_checkpoint, "evaluation.prompts_per_task=6"))


def test_kept_prompts_are_those_that_would_be_encoded_anew(world: World) -> None:
    """Whoever else was asked for in between, in whatever order: a set is known by its problems."""
    sets = [[own_tests(world, device) for device in pack] for pack in ((0, 1), (1, 0), (2,))]
    for problems in (*sets, *reversed(sets)):
        found, anew = world.encoded(problems), encode(world.base, world.base.prompts(problems))
        assert torch.equal(found.ids, anew.ids)
        assert torch.equal(found.mask, anew.mask)
        assert found.counts == anew.counts
    assert world.encoded(sets[0]) is world.encoded(sets[0])


def test_no_more_is_kept_than_there_is_room_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two sets with room for one and a half the one that was met last; one alone stays, however large."""
    one, other = ([own_tests(world, device)] for device in (0, 1))
    first = world.encoded(one)
    monkeypatch.setattr("clients.device.world._TOKENS", first.ids.numel() * 3 // 2)
    second = world.encoded(other)
    assert world.encoded(other) is second
    assert world.encoded(one) is not first
    monkeypatch.setattr("clients.device.world._TOKENS", 0)
    assert world.encoded(one) is world.encoded(one)
