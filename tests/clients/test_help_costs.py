"""What modes of help cost: caps that no exchange passes, weights that follow what help took, rows that are the same."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flsim
from clients.da_grpo import DaGrpo
from clients.device.device import Device
from clients.device.rollout import Rollout
from clients.device.weighing import Weights, request_weights, shares_of, taken_weights
from clients.device.world import World, load_world
from clients.gapg import kept_prompts
from clients.helping.helping import ASK
from experiments.command.price import priced_run
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Answer
from flsim.config.ranges import ConfigError
from flsim.config.schema import BudgetConfig, CloudConfig
from flsim.config.system import StandsForConfig, SystemConfig
from flsim.learning.dual import DualRule, solved_price
from flsim.metrics.rows import without_timing
from flsim.system.shapes import DECODERS
from flsim.system.system import System
from tests.clients.made_up_help import AtPart, Within
from tests.clients.test_units import CAPS, EIGHTHS, ROUNDS, Even, carried_out, counting, device_of, total
from tests.flsim.cloud.test_cloud import problems
from tests.tiny import TinyRun, tiny_runs_in, tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ("client.policy=token", "client.explore=0.5", "client.imitate=0", "client.replay=0", "fleet.devices=3")
LARGE = SystemConfig(jitter=0.3, stands_for=StandsForConfig(cloud=0.1))


LEARNER = DaGrpo(steps=1, prompts=40, lr=0.01, max_new_tokens=4, dual_solve=1.0, dual_max=20.0)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    config = tiny_world(tiny_checkpoint, "model.alpha=6", "budget.tau=0.2")
    return load_world(config, Even(0.5), LEARNER.extras, LEARNER.head)


# ------------------------------------------------------------------------------------------------- caps


MODES = st.builds(Within, cuts=st.booleans(), stateless=st.booleans())


@given(CAPS, ROUNDS, st.tuples(EIGHTHS, EIGHTHS), MODES, st.data())
def test_no_exchange_passes_a_cap_in_any_unit_over_rounds_and_attempts(
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
    budget: BudgetConfig,
    rounds: list[list[int]],
    price: tuple[float, float],
    mode: Within,
    data: st.DataObject,
) -> None:
    """Of any size within its quote, and with failures; what was ended and begun again is granted the same."""
    prices = CloudConfig(world.prices.path, price_per_prompt_token=price[0], price_per_completion_token=price[1])
    config = replace(world.config, budget=budget, cloud=prices, system=LARGE)
    shape = DECODERS["SmolLM2-135M"].shape(rank=8, weight_bytes=0.5)
    own = replace(world, config=config, helping=mode, system=System(LARGE, shape, 0))
    kills = [data.draw(st.integers(0, len(steps))) for steps in rounds]
    folder = tmp_path_factory.mktemp("books")
    peace = carried_out(own, folder / "peace", rounds, [0] * len(rounds), 0)
    assert carried_out(own, folder / "killed", rounds, kills, 0) == peace
    carried_out(own, folder / "turned", rounds, kills, data.draw(st.integers(1, len(rounds))))


# ------------------------------------------------------------------------------------------------- weights by hand


def at_half(world: World, unit: str = "tokens") -> World:
    return replace(counting(world, unit), helping=AtPart(0.5))


def test_shares_by_hand(world: World) -> None:
    """Asking takes 64 tokens and, for an answer without words, its end. Help that took 13 took a fifth of it.

    Where a question is a call, or help is asking, there are none; where asking costs nothing, it is all of it.
    """
    at, (first, second) = at_half(world), problems(2)
    device = device_of(at)
    took = Answer("", 12, 1, exchange=Exchange(trips=3, up_bytes=9))
    dear = Answer("", 100, 30, exchange=Exchange(trips=1))
    row = [[first, second]]
    assert shares_of(at, [device], row, {(0, 0): took, (0, 1): dear}) == {(0, 0): 0.2, (0, 1): 2.0}
    assert shares_of(replace(at, helping=ASK), [device], row, {(0, 0): took}) == {}
    assert shares_of(at_half(world, "calls"), [device], row, {(0, 0): took}) == {}
    free = replace(at.config, cloud=CloudConfig(price_per_prompt_token=0, price_per_completion_token=0))
    free = replace(free, budget=replace(free.budget, unit="money"))
    gratis = replace(device, tariff=replace(device.tariff, prices=free.cloud))
    assert shares_of(replace(at, config=free), [gratis], row, {(0, 0): took}) == {(0, 0): 1.0}


def test_weights_of_help_by_hand() -> None:
    """Costs of 1 and 3 weigh 1/2 and 3/2 of asking; half of that on a device whose help took half so far.

    Help at the first took a quarter, so it counts 1/8, and the device's share goes to 0.9 x 0.5 + 0.1 x 0.25. What is
    dearer than asking counts as asking.
    """
    whole = torch.tensor([[0.5, 1.5]])
    weights = Weights(whole, 0.5 * whole, 0.5 * whole)
    device = cast(Device, SimpleNamespace(share=0.5))
    taken = taken_weights([device], weights, {(0, 0): 0.25})
    assert taken is not None
    assert taken.each.tolist() == [[0.125, 0.75]]
    assert torch.equal(taken.expected, 0.5 * whole)
    assert device.share == pytest.approx(0.475)
    dear = taken_weights([device], weights, {(0, 0): 3.0, (0, 1): 0.5})
    assert dear is not None
    assert dear.each.tolist() == [[0.5, 0.75]]
    assert device.share == pytest.approx(0.9 * 0.475 + 0.1 * 0.75)
    assert taken_weights([device], weights, {}) is weights
    assert taken_weights([device], None, {(0, 0): 0.25}) is None


def test_usage_is_of_what_asking_everything_would_take() -> None:
    """All ask for help at half the cost: half of it. The second prompt was explored: all of its responses count."""
    open_, asked, none = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, 2), cast(Any, None)
    weights = Weights(torch.tensor([[0.5, 1.5]]), torch.tensor([[0.25, 0.75]]), torch.tensor([[0.25, 0.75]]))
    rollout = Rollout(none, none, none, none, asked, open_, none, none, None, weights)
    assert rollout.usage.tolist() == [0.5]
    assert rollout.costs.tolist() == [[[0.25, 0.25], [0.75, 0.75]]]
    alone = replace(
        rollout, asked=0 * asked, open=torch.tensor([[True, False]]), explored=torch.tensor([[False, True]])
    )
    assert alone.usage.tolist() == [0.375]


# ------------------------------------------------------------------------------------------------- what methods do


@pytest.mark.parametrize("part", [1.0, 0.5, 0.25])
def test_a_price_lets_devices_ask_so_much_more_often_as_help_is_cheaper(part: float) -> None:
    """Benefits are uniform in [0, 1] and tau 0.2: 0.2 / part ask, those above lambda part; solved, and by ascent."""
    gains, tau = torch.linspace(0, 1, 2001), 0.2
    weight = torch.full_like(gains, part)
    solved = solved_price(gains, tau, 1e-4, weight)
    assert solved * part == pytest.approx(1 - tau / part, abs=1e-3)
    rule, dual = DualRule(lr=0.05, maximum=4.0), torch.tensor([0.5])
    for _ in range(4000):
        asked = (gains > dual * part).float().mean()
        dual = rule.ascend(dual, (asked * part)[None], tau)
    assert float((gains > dual * part).float().mean()) == pytest.approx(tau / part, abs=0.02)


def test_the_filter_keeps_more_of_the_clouds_prompts_where_help_is_cheaper() -> None:
    """Four prompts of the device's own and tau = 0.2, so rho = 1/4: one of the cloud's, and two at half the cost.

    These two take 1 of 6; a third would take 1.5 of 7, above 0.2. At a tenth of the cost all three are kept.
    """
    alone = torch.zeros(1, 7, 2)
    alone[0, :4, 0] = 1
    right = torch.ones(1, 7, 2)
    real, whole = torch.ones(1, 7, dtype=torch.bool), torch.ones(1, 7)
    for part, count in ((1.0, 1), (0.5, 2), (0.1, 3)):
        kept = kept_prompts(alone, right, real, rho=[0.25], weight=part * whole, whole=whole)
        assert kept.tolist() == [[True] * (4 + count) + [False] * (3 - count)]
    assert kept_prompts(alone, right, real, rho=[0.25]).sum() == 5


def requests_of(world: World, share: float) -> tuple[float, float, Device]:
    """Requests of responses, and their usage, of a device whose help took such a share so far."""
    device = device_of(world)
    device.share = share
    (update,) = LEARNER.local_update(world, [device])
    (asked, all_), (weighed, whole) = total(update, "cloud_requests"), total(update, "weighed_requests")
    assert whole == pytest.approx(all_)
    return asked / all_, weighed / whole, device


def test_devices_ask_twice_as_often_where_help_takes_half(world: World) -> None:
    """At equal tau, of 320 drafts; and what help took is remembered, and stands in a row."""
    often, usage, device = requests_of(counting(world, "tokens"), 1.0)
    assert device.share == 1.0
    assert often == usage == pytest.approx(0.2, abs=0.05)
    twice, same, device = requests_of(at_half(world), 0.5)
    assert twice == pytest.approx(2 * often, rel=0.25)
    assert same == pytest.approx(0.2, abs=0.05)
    assert same == pytest.approx(0.5 * twice, rel=0.02)
    assert device.share == pytest.approx(0.5, rel=0.02)
    _, _, learning = requests_of(at_half(world), 1.0)
    assert learning.share == pytest.approx(0.95, rel=0.002)
    weighing = request_weights(at_half(world), [learning], [problems(3)])
    assert weighing is not None
    torch.testing.assert_close(weighing.expected, learning.share * weighing.whole)


# ------------------------------------------------------------------------------------------------- runs

MODE = ("client.helping.path=tests.clients.made_up_help:Within", "client.helping.cuts=true")
SYSTEM = ("system.stands_for.cloud=0.1", "system.jitter=0.2")
BUDGET = ("bytes_per_round=4000", "joules_per_round=60", "seconds_per_question=4", "unit=joules", "tau=0.5")


@pytest.mark.usefixtures("no_report")
def test_rows_with_a_mode_are_the_same_in_any_pack_and_after_a_resume(tiny_run: TinyRun) -> None:
    more = (*MODE, *SYSTEM, "rounds=3", "client.prompts=4", *(f"budget.{one}" for one in BUDGET))
    whole = without_timing(flsim.run(tiny_run("whole", *more), progress=False).rows)
    assert not (whole["name"] == "set_aside").any()
    one = without_timing(flsim.run(tiny_run("one by one", *more, "engine.pack=1"), progress=False).rows)
    mine, theirs = (rows[rows["name"].str.contains("cloud|help|lower|drafted|accepted")] for rows in (one, whole))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)  # others may differ by a last bit between packs
    flsim.run(tiny_run("stopped", *more), until=1, progress=False)
    again = flsim.run(resume=tiny_run("stopped", *more).folder, progress=False).rows
    pd.testing.assert_frame_equal(without_timing(again), whole, check_exact=True)
    rows = whole[whole["split"] == "train"].groupby("name")["total"]
    assert 0 < rows.max()["cloud_bytes"] <= 4000
    assert 0 < rows.max()["asking_joules"] <= 60
    some = ("cloud_further_trips", "cloud_session_trips", "helped_read", "helped_drawn", "lower_read", "help_share")
    for name in (*some, "drafted_tokens", "cloud_refused", "cloud_failures"):
        assert name == "cloud_failures" or rows.sum()[name] > 0
    assert rows.sum()["helped_drawn"] <= rows.sum()["sampled_tokens"]
    texts = rows.sum()["cloud_up_bytes"] + rows.sum()["cloud_down_bytes"]
    queued = rows.sum()["cloud_trips"] - rows.sum()["cloud_session_trips"]
    assert rows.sum()["cloud_bytes"] == texts + 2 * 500 * queued


@pytest.mark.usefixtures("no_report")
def test_a_run_with_a_mode_is_priced_from_its_counts(tiny_run: TinyRun) -> None:
    """Its rows are those of the same run with the system, bit for bit, but for what single test questions took."""
    plain = flsim.run(tiny_run("plain", *MODE), progress=False)
    timed = flsim.run(tiny_run("timed", *MODE, *SYSTEM), progress=False).rows
    _, priced = priced_run(Path(plain.folder), None, list(SYSTEM))
    keys = ["round", "device", "task", "split", "model", "name"]
    found = [without_timing(rows).sort_values(keys, ignore_index=True) for rows in (priced, timed)]
    tests = found[1]["name"].str.contains(r"^(?:question_|within_|right_within_)")
    pd.testing.assert_frame_equal(found[0], found[1][~tests].reset_index(drop=True), check_exact=True)
    assert tests.any()
    with pytest.raises(ConfigError, match=r"client.helping has devices hold 25% of the layers .*stands_for.cloud"):
        priced_run(Path(plain.folder), None, ["system.jitter=0"])


@pytest.mark.usefixtures("no_report")
def test_a_mode_that_chooses_by_time_is_priced_under_its_own_system_alone(tiny_run: TinyRun) -> None:
    timed = (*MODE, "client.helping.timed=true")
    with pytest.raises(ConfigError, match="chooses by seconds, which are only known in virtual time"):
        flsim.run(tiny_run("untimed", *timed), progress=False)
    folder = Path(flsim.run(tiny_run("timed", *timed, *SYSTEM, "rounds=1"), progress=False).folder)
    _, same = priced_run(folder, None, [])
    assert (same["name"] == "joules").any()
    with pytest.raises(ConfigError, match="would have chosen otherwise under another system"):
        priced_run(folder, None, ["system.jitter=0.5"])


def test_a_device_that_cannot_hold_its_layers_is_refused_before_the_run(tiny_run: TinyRun) -> None:
    config = tiny_run("large", *MODE, "system.stands_for.cloud=70")
    with pytest.raises(ConfigError, match=r"memory_gb=0.6 does not hold .* 8.8 GB of the cloud's model"):
        flsim.run(config, progress=False)
    assert not Path(config.folder).exists()


WITHIN = "client.helping.path=tests.clients.made_up_help:Within"


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("learner", ["clients.sft:Sft", "clients.gapg:Gapg", "clients.fixed_price:FixedPrice"])
def test_whoever_learns_may_be_helped_by_a_mode(learner: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """No device is set aside over what its mode read and drew; one that samples nothing says so, too."""
    run = tiny_runs_in(tmp_path, tiny_checkpoint, (f"client.path={learner}", WITHIN, "rounds=1", "budget.tau=1"))
    rows = flsim.run(run("helped"), progress=False).rows
    assert not (rows["name"] == "set_aside").any()
    assert rows[rows["name"] == "helped_drawn"]["total"].sum() > 0


def test_a_mode_that_nobody_asks_for_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = tiny_runs_in(tmp_path, tiny_checkpoint, ("client.path=clients.grpo:Grpo", WITHIN))
    with pytest.raises(ConfigError, match=r"helping=Within has no effect: nobody asks; name a rule"):
        flsim.run(run("silent"), progress=False)
