"""The bare loop does the round's own work: it ends at the same adapters, whatever its layout."""

import pytest
import torch

from clients.device.world import load_world
from experiments.benchmark.bare import Layout, Passes, our_passes, plain_passes
from experiments.benchmark.limit import Case, limit_cells
from experiments.benchmark.setting import Setting
from flsim.models.base import first_adapter


@pytest.fixture(scope="module")
def case(one_thread: None) -> Case:
    setting = Setting(devices=2, prompts=2, seeds=(0,), repeats=1, pack=2, steps=2)
    return Case(setting, load_world(setting.config), first_adapter(setting.config.model, setting.config.seed))


@pytest.mark.parametrize("passes", [our_passes, plain_passes])
@pytest.mark.parametrize("layout", [Layout(1, 0.75), Layout(4, 0.99, waste=1.0)])
def test_the_bare_loop_ends_where_the_round_ends(case: Case, passes: Passes, layout: Layout) -> None:
    recorded, adapters = case.record()
    assert len(recorded) == 2
    bare = case.bare(recorded, passes, layout)()  # (K, n)
    first, ours = case.world.lora.stack([case.adapter] * 2), case.world.lora.stack(adapters)
    assert (ours - first).norm() > 0.1
    # Adam divides by the gradient's size, so where that is near zero a last bit can turn a whole step
    assert (bare - ours).norm() < 0.02 * (ours - first).norm()
    torch.testing.assert_close(case.bare(recorded, passes, layout)(), bare, rtol=0, atol=0)


@pytest.mark.slow
def test_limit_gives_speeds_and_shares(case: Case) -> None:
    cells = limit_cells(case.setting, "cpu")
    assert len(cells) == 5
    assert all(float(cell.split()[0]) > 0 for cell in cells)
