"""Every aggregation against a dense float64 oracle with unequal ranks and alphas, and the laws they all share."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from flsim.aggregation.layers import by_layer
from flsim.config.model import LoraShape
from flsim.config.schema import Config, ConfigError
from flsim.flower.messages import Measures
from flsim.models.adapter import Adapter, cropped, only
from strategies.base import DeltaStrategy, InRound, Update
from strategies.fedavg import FedAvg
from strategies.fedex_lora import FedExLora
from strategies.fedsa_lora import FedSaLora
from strategies.ffa_lora import FfaLora
from strategies.flex_lora import FlexLora
from strategies.flora import Flora
from strategies.het_lora import HetLora
from strategies.local_only import LocalOnly
from strategies.mean import MeanStrategy
from strategies.parts.samplers import RandomShare
from strategies.parts.weighters import RewardGain
from strategies.robust import GeometricMedian, Median, MultiKrum, TrimmedMean
from strategies.rolora import RoLora
from tests.strategies.lora_fleet import (
    EQUAL,
    UNEQUAL,
    apart,
    best,
    dense,
    draw,
    fleet,
    plus,
    shares,
    update,
    updates_of,
)

COUNTS = (5, 2, 7, 1, 4, 3)
SERVER = LoraShape(4, 8.0)
WHOLE = [FedAvg, FlexLora, FedExLora, HetLora, MultiKrum, GeometricMedian, TrimmedMean, Median, Flora]
PARTS = [FfaLora, RoLora, FedSaLora]
Make = Callable[[], DeltaStrategy]


def begun(make: Make, config: Config) -> DeltaStrategy:
    strategy = make()
    strategy.begin(config)
    return strategy


def whole_product(strategy: DeltaStrategy, adapter: Adapter) -> dict[str, np.ndarray]:
    """What a device of the widest rank would add to the base: residual and adapter."""
    product = dense(adapter, SERVER.scale)
    return product if strategy.residual is None else plus((1.0, product), (1.0, dense(strategy.residual, 1.0)))


def moved(updates: list[Update]) -> list[dict[str, np.ndarray]]:
    return [plus((1.0, dense(u.adapter, u.scale)), (-1.0, dense(u.sent, u.scale))) for u in updates]


def test_flex_lora_is_the_best_rank_of_the_server_plus_the_mean_move_of_the_products() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(FlexLora, config)
    updates = updates_of(strategy, config, server, COUNTS)
    moves = zip(shares(COUNTS), moved(updates), strict=True)
    exact = plus((1.0, dense(server, SERVER.scale)), *moves)
    new = strategy.aggregate(server, updates)
    assert apart(dense(new, SERVER.scale), best(exact, 4)) < 1e-6
    left, whole = plus((1.0, exact), (-1.0, best(exact, 4))), exact
    energy = sum(float((m**2).sum()) for m in left.values()) / sum(float((m**2).sum()) for m in whole.values())
    assert strategy.cut_energy == pytest.approx(energy, rel=1e-6)
    assert energy > 1e-5


def test_how_many_layers_are_cut_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the run has processes, if there is enough to do."""
    at_a_time: list[int | None] = []

    def counted(work: Callable[[str], Any], layers: Iterable[str], *, threads: int | None) -> dict[str, Any]:
        at_a_time.append(threads)
        return by_layer(work, layers, threads=threads)

    monkeypatch.setattr("strategies.flex_lora.by_layer", counted)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("flsim.aggregation.layers._WORTH", 1)
    results = []
    for workers in (1, 3):
        config = fleet(*UNEQUAL, f"engine.workers={workers}")
        strategy, server = begun(FlexLora, config), draw(4, 0)
        adapter = strategy.aggregate(server, updates_of(strategy, config, server, COUNTS))
        results.append((strategy.cut_energy, [tensor.tobytes() for tensor in adapter.values()]))
    assert at_a_time == [1, 3]
    assert results[0] == results[1]


@pytest.mark.parametrize("settings", [EQUAL, UNEQUAL])
def test_flex_lora_of_adapters_is_the_papers_best_rank_of_the_mean_product(settings: tuple[str, ...]) -> None:
    config, server = fleet(*settings), draw(4, 0)
    strategy = begun(lambda: FlexLora("adapters"), config)
    updates = updates_of(strategy, config, server, COUNTS)
    exact = plus(*((w, dense(u.adapter, u.scale)) for w, u in zip(shares(COUNTS), updates, strict=True)))
    assert apart(dense(strategy.aggregate(server, updates), SERVER.scale), best(exact, 4)) < 1e-6


def test_for_equal_ranks_deltas_and_adapters_are_one_average() -> None:
    config, server = fleet(*EQUAL), draw(4, 0)
    results = []
    for average in ("deltas", "adapters"):
        strategy = begun(lambda average=average: FlexLora(average), config)  # type: ignore[misc]
        results.append(strategy.aggregate(server, updates_of(strategy, config, server, COUNTS)))
    assert apart(dense(results[0], 2.0), dense(results[1], 2.0)) < 1e-6


def test_flex_lora_deals_every_rank_its_own_best_cut() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(FlexLora, config)
    for device in range(3):
        shape = config.shape_of(device)
        dealt = strategy.deal(server, shape)
        assert {len(t) for n, t in dealt.items() if "lora_A" in n} == {shape.rank}
        assert apart(dense(dealt, shape.scale), best(dense(server, SERVER.scale), shape.rank)) < 1e-6


def test_fedit_averages_padded_moves_of_the_factors_with_the_scale_folded_in() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(FedAvg, config)
    updates = updates_of(strategy, config, server, COUNTS)
    expected = {name: tensor.astype(np.float64) for name, tensor in server.items()}
    for share, u in zip(shares(COUNTS), updates, strict=True):
        for name, delta in u.delta.items():
            if "lora_A" in name:
                expected[name][: len(delta)] += share * delta
            else:
                expected[name][:, : delta.shape[1]] += share * delta * u.scale / SERVER.scale
    for name, tensor in strategy.aggregate(server, updates).items():
        np.testing.assert_allclose(tensor, expected[name], atol=2e-6)


def test_het_lora_weighs_padded_adapters_by_the_norms_of_their_products() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(HetLora, config)
    updates = updates_of(strategy, config, server, COUNTS)
    norms = [np.sqrt(sum(float((m**2).sum()) for m in dense(u.adapter, u.scale).values())) for u in updates]
    for name, tensor in strategy.aggregate(server, updates).items():
        expected = np.zeros(tensor.shape)
        for norm, u in zip(norms, updates, strict=True):
            part = u.adapter[name] * (norm / sum(norms))
            if "lora_A" in name:
                expected[: len(part)] += part
            else:
                expected[:, : part.shape[1]] += part * u.scale / SERVER.scale
        np.testing.assert_allclose(tensor, expected, atol=2e-6)


@pytest.mark.parametrize("settings", [EQUAL, UNEQUAL])
def test_fedex_and_its_residual_are_the_exact_mean_of_the_products(settings: tuple[str, ...]) -> None:
    config, server = fleet(*settings), draw(4, 0)
    strategy = begun(FedExLora, config)
    total = None
    for _ in range(2):
        updates = updates_of(strategy, config, server, COUNTS)
        exact = plus(*((w, dense(u.adapter, u.scale)) for w, u in zip(shares(COUNTS), updates, strict=True)))
        server = strategy.aggregate(server, updates)
        new = exact if total is None else plus((1.0, exact), (1.0, total))
        assert strategy.residual is not None
        total = dense(strategy.residual, 1.0)
        assert apart(plus((1.0, total), (1.0, dense(server, SERVER.scale))), new) < 1e-6


def test_fedex_may_bound_its_residual() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    norms, ranks = {}, {}
    for name, make in {
        "free": lambda: FedExLora(),
        "gone": lambda: FedExLora(decay=0.0),
        "capped": lambda: FedExLora(cap=0.01),
        "narrow": lambda: FedExLora(residual_rank=2),
    }.items():
        strategy, adapter = begun(make, config), server
        for _ in range(3):
            adapter = strategy.aggregate(adapter, updates_of(strategy, config, adapter, COUNTS))
        assert strategy.residual is not None
        product = dense(strategy.residual, 1.0)
        norms[name] = np.sqrt(sum(float((m**2).sum()) for m in product.values()))
        ranks[name] = max(np.linalg.matrix_rank(m, tol=1e-5) for m in product.values())
        if name == "capped":
            own = np.sqrt(sum(float((m**2).sum()) for m in dense(adapter, SERVER.scale).values()))
            assert norms[name] == pytest.approx(0.01 * own, rel=1e-5)
    assert norms["gone"] < norms["free"]
    assert ranks["narrow"] == 2 < ranks["free"]


@pytest.mark.parametrize("settings", [EQUAL, UNEQUAL])
def test_flora_merges_the_stacked_products_and_starts_afresh(settings: tuple[str, ...]) -> None:
    config, server = fleet(*settings), draw(4, 0)
    strategy = begun(Flora, config)
    merged = plus((0.0, dense(server, 1.0)))
    for round_ in (1, 2):
        strategy._round = InRound(round_)
        updates = updates_of(strategy, config, server, COUNTS)
        stacked = ((w, dense(u.adapter, u.scale)) for w, u in zip(shares(COUNTS), updates, strict=True))
        merged = plus((1.0, merged), *stacked)
        before, server = server, strategy.aggregate(server, updates)
        assert strategy.residual is not None
        assert apart(dense(strategy.residual, 1.0), merged) < 1e-6
        assert not any(tensor.any() for name, tensor in server.items() if "lora_B" in name)
        assert not any(np.array_equal(tensor, before[name]) for name, tensor in server.items() if "lora_A" in name)
    assert strategy.fresh_optimizer


@pytest.mark.parametrize("settings", [EQUAL, UNEQUAL])
@pytest.mark.parametrize(("make", "rounds"), [(FfaLora, 1), (RoLora, 2)])
def test_learning_one_factor_at_a_time_averages_the_products_exactly(
    make: Make, rounds: int, settings: tuple[str, ...]
) -> None:
    config, server = fleet(*settings), draw(4, 0)
    strategy = begun(make, config)
    for round_ in range(1, rounds + 1):
        if isinstance(strategy, RoLora):
            strategy.learns = "B" if round_ % 2 else "A"
        updates = updates_of(strategy, config, server, COUNTS)
        assert all(set(u.adapter) == {n for n in server if f"lora_{strategy.learns}" in n} for u in updates)
        moves = []
        for share, u in zip(shares(COUNTS), updates, strict=True):
            start = cropped(server, config.shape_of(u.device), SERVER)
            moves += [(share, dense(start | u.adapter, u.scale)), (-share, dense(start, u.scale))]
        exact = plus((1.0, dense(server, SERVER.scale)), *moves)
        server = strategy.aggregate(server, updates)
        assert apart(dense(server, SERVER.scale), exact) < 1e-6


def test_fedsa_shares_a_and_leaves_b_alone() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(FedSaLora, config)
    updates = updates_of(strategy, config, server, COUNTS)
    assert all(set(u.adapter) == set(only(server, "A")) for u in updates)
    new = strategy.aggregate(server, updates)
    for name, tensor in server.items():
        assert np.array_equal(new[name], tensor) == ("lora_B" in name)


def test_alone_nothing_travels_and_nothing_changes() -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(LocalOnly, config)
    updates = updates_of(strategy, config, server, COUNTS)
    assert all(not u.adapter for u in updates)
    new = strategy.aggregate(server, updates)
    assert all(np.array_equal(new[name], tensor) for name, tensor in server.items())


@pytest.mark.parametrize("make", [*WHOLE, *PARTS])
def test_the_order_of_the_devices_is_nothing(make: Make) -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    results = []
    for order in ([0, 1, 2, 3, 4, 5], [3, 5, 0, 2, 1, 4]):
        strategy = begun(make, config)
        updates = updates_of(strategy, config, server, COUNTS)
        results.append(whole_product(strategy, strategy.aggregate(server, [updates[place] for place in order])))
    assert apart(*results) < 3e-6


@pytest.mark.parametrize("make", [*WHOLE, *PARTS])
def test_only_the_ratio_of_the_weights_counts(make: Make) -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    results = []
    for factor in (1, 100):
        strategy = begun(make, config)
        updates = updates_of(strategy, config, server, [factor * count for count in COUNTS])
        results.append(whole_product(strategy, strategy.aggregate(server, updates)))
    assert apart(*results) < 3e-6


@pytest.mark.parametrize("make", WHOLE)
def test_one_device_gives_its_own_product(make: Make) -> None:
    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = begun(make, config)
    updates = updates_of(strategy, config, server, COUNTS[:1])
    new = strategy.aggregate(server, updates)
    assert apart(whole_product(strategy, new), dense(updates[0].adapter, SERVER.scale)) < 2e-6


@pytest.mark.parametrize("make", WHOLE)
def test_equal_devices_give_their_own_product(make: Make) -> None:
    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = begun(make, config)
    first = updates_of(strategy, config, server, COUNTS[:1])[0]
    same = [update(device, first.sent, first.adapter, count, SERVER) for device, count in enumerate(COUNTS)]
    new = strategy.aggregate(server, same)
    assert apart(whole_product(strategy, new), dense(first.adapter, SERVER.scale)) < 2e-6


@pytest.mark.parametrize("make", [*WHOLE, *PARTS, LocalOnly])
def test_a_cohort_without_any_weight_leaves_every_bit(make: Make) -> None:
    config, server = fleet(*UNEQUAL), draw(4, 0)
    strategy = begun(make, config)
    new = strategy.aggregate(server, updates_of(strategy, config, server, [0] * 6))
    assert {name: tensor.tobytes() for name, tensor in new.items()} == {n: t.tobytes() for n, t in server.items()}
    assert strategy.residual is None
    assert not strategy.shares


def poisoned(make: Make, size: float, settings: tuple[str, ...] = EQUAL) -> float:
    """How far one device of six that multiplies its move by `size` carries the server from where it would go."""
    config, server = fleet(*settings), draw(4, 0)
    products = []
    for factor in (1.0, size):
        strategy = begun(make, config)
        updates = updates_of(strategy, config, server, [4] * 6)
        bad = updates[0]
        huge = {name: (bad.sent[name] + factor * delta).astype(np.float32) for name, delta in bad.delta.items()}
        updates[0] = update(0, bad.sent, huge, 4, config.shape_of(0))
        products.append(whole_product(strategy, strategy.aggregate(server, updates)))
    return apart(products[1], products[0])


@pytest.mark.parametrize("make", [MultiKrum, GeometricMedian, TrimmedMean, Median])
def test_one_malicious_device_moves_a_robust_method_by_a_bounded_amount(make: Make) -> None:
    """As far at 1e6 as at 1e3, and no farther than about the size of the update itself."""
    near, far = poisoned(make, 1e3), poisoned(make, 1e6)
    assert far < 1.0
    assert far == pytest.approx(near, rel=0.05, abs=1e-4)


@pytest.mark.parametrize("make", [MultiKrum, GeometricMedian])
def test_so_it_is_with_unequal_ranks(make: Make) -> None:
    assert poisoned(make, 1e6, UNEQUAL) < 1.0


def test_a_plain_mean_goes_wherever_it_is_carried() -> None:
    assert poisoned(FedAvg, 1e6) > 1e3
    assert poisoned(FlexLora, 1e6) > 1e3


def test_krum_hears_nothing_of_those_it_sets_aside() -> None:
    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = begun(lambda: MultiKrum(byzantine=0.2), config)
    updates = updates_of(strategy, config, server, [4] * 6)
    huge = {name: t * np.float32(50) for name, t in updates[2].adapter.items()}
    updates[2] = update(2, updates[2].sent, huge, 4, SERVER)
    strategy.aggregate(server, updates)
    assert strategy.shares[2] == 0
    assert sum(strategy.shares.values()) == pytest.approx(1)


def test_het_lora_takes_no_part_that_it_would_not_use() -> None:
    HetLora(0.5, sampler=RandomShare(0.5))
    for part in ("weighter", "reducer"):
        with pytest.raises(TypeError, match=part):
            HetLora(**{part: None})  # type: ignore[arg-type]


def test_number_by_number_needs_factors() -> None:
    from strategies.parts.reducers import Median as MedianReducer

    with pytest.raises(ValueError, match=r"reducer=Median works number by number.*strategies.fedavg:FedAvg"):
        FlexLora(reducer=MedianReducer())


def test_a_strategy_that_does_not_know_ranks_refuses_a_fleet_of_them() -> None:
    class Mine(DeltaStrategy):
        def aggregate(self, adapter: Adapter, updates: object) -> Adapter:
            return adapter

    with pytest.raises(ConfigError, match=r"Mine takes adapters of one rank.*fleet.ranks=\[4, 2, 3\].*FlexLora"):
        Mine().begin(fleet(*UNEQUAL))
    Mine().begin(fleet(*EQUAL))


def test_a_strategy_written_without_calling_the_constructor_works() -> None:
    class Mine(MeanStrategy):
        def __init__(self) -> None:
            self.mine = 1

        def step(self, adapter: Adapter, mean: dict[str, np.ndarray]) -> Adapter:
            return {name: (tensor + mean[name]).astype(np.float32) for name, tensor in adapter.items()}

    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = begun(Mine, config)
    updates = updates_of(strategy, config, server, COUNTS)
    expected = FedAvg().aggregate(server, updates)
    assert all(np.array_equal(t, expected[n]) for n, t in strategy.aggregate(server, updates).items())


def test_measures_are_what_a_weighter_sees() -> None:
    seen: list[Measures] = []

    def only_even(measures: Measures) -> float:
        seen.append(measures)
        return float(measures.device % 2 == 0)

    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = begun(lambda: FlexLora(weighter=only_even), config)
    updates = updates_of(strategy, config, server, COUNTS)
    strategy.aggregate(server, updates)
    assert strategy.shares == pytest.approx({0: 1 / 3, 2: 1 / 3, 4: 1 / 3, 1: 0, 3: 0, 5: 0})
    assert [(m.device, m.num_examples, m.reward) for m in seen] == [(k, n, 0.5) for k, n in enumerate(COUNTS)]


@pytest.mark.parametrize("make", [FedAvg, FlexLora, FedExLora, Flora])
def test_a_weighter_that_learns_hears_of_every_round(make: Callable[..., DeltaStrategy]) -> None:
    """Reward 0.5, then 0.9 of device 1 alone: its history moves from 0.5 to 0.5 + 0.3 * 0.4."""
    strategy = begun(lambda: make(weighter=RewardGain()), fleet(*EQUAL))
    for reward in (0.5, 0.9):
        strategy.observe([Measures(0, 1, 1, 0.5), Measures(1, 1, 1, reward)])
    assert isinstance(strategy.weighter, RewardGain)
    assert strategy.weighter.history == pytest.approx({0: 0.5, 1: 0.62})
