"""Weighters: finite and never negative, in ratios that are known; what cannot be a weight is refused by name."""

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.flower.contract import Weight
from flsim.flower.messages import Measures
from strategies.fedavg import FedAvg
from strategies.flex_lora import FlexLora
from strategies.mean import shares_of
from strategies.parts.samplers import Observes
from strategies.parts.weighters import ByExamples, EffectiveGroups, QFair, RewardGain, Uniform
from tests.strategies.lora_fleet import EQUAL, draw, fleet, update, updates_of

WEIGHTERS: list[Weight] = [ByExamples(), Uniform(), EffectiveGroups(), QFair(2.0), RewardGain()]


def told(examples: int, reward: float = 0.5, *, device: int = 0, effective: int = 0) -> Measures:
    return Measures(device, examples, effective, reward)


@given(examples=st.integers(0, 10**6), reward=st.floats(-1e3, 1e3), history=st.floats(-1e3, 1e3))
def test_a_weight_is_finite_and_never_negative(examples: int, reward: float, history: float) -> None:
    gain = RewardGain()
    gain.observe([told(1, history)])
    tried: list[Weight] = [*WEIGHTERS, gain]
    for weighter in tried:
        weight = weighter(told(examples, reward, effective=examples // 2))
        assert 0 <= weight < math.inf
        assert weight == pickle.loads(pickle.dumps(weighter))(told(examples, reward, effective=examples // 2))
        if not examples:
            assert weight == 0


def test_by_hand() -> None:
    """8 examples, 3 of them effective, reward 0.25: q-fair with q = 2 gives 8 * 0.75^2 = 4.5."""
    one = told(8, 0.25, effective=3)
    assert [weighter(one) for weighter in WEIGHTERS] == [8.0, 1.0, 3.0, 4.5, 8.0]
    assert QFair(0.0)(one) == 8.0
    assert QFair(2.0)(told(8, 1.0)) == QFair(2.0)(told(8, 1.7)) == 0.0


def test_the_weight_of_a_gain_by_hand() -> None:
    """History 0.5, then 0.5 + 0.3 (0.7 - 0.5) = 0.56; reward 0.61 is half a temperature above: 8 e^0.5."""
    gain = RewardGain(temperature=0.1, most=1.0, smoothing=0.3)
    gain.observe([told(8, 0.5)])
    gain.observe([told(8, 0.7)])
    assert gain.history == {0: pytest.approx(0.56)}
    assert gain(told(8, 0.61)) == pytest.approx(8 * math.exp(0.5))
    assert gain(told(8, 0.99)) == pytest.approx(8 * math.e)  # 4.3 temperatures, clipped to 1
    assert gain(told(8, 0.0)) == pytest.approx(8 / math.e)
    assert gain(told(8, 0.9, device=1)) == 8.0  # no history yet


def test_only_those_that_go_by_the_past_are_told() -> None:
    assert [isinstance(weighter, Observes) for weighter in WEIGHTERS] == [False] * 4 + [True]


@given(counts=st.lists(st.integers(0, 99), min_size=1, max_size=8), factor=st.integers(1, 1000))
def test_shares_know_ratios_only(counts: list[int], factor: int) -> None:
    measures = [told(count, device=device) for device, count in enumerate(counts)]
    shares = shares_of(measures, [float(count) for count in counts])
    assert shares == pytest.approx(shares_of(measures, [float(factor * count) for count in counts]))
    assert (sum(shares.values()) == pytest.approx(1)) if any(counts) else shares == {}


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_what_is_no_weight_is_refused_with_the_device(weight: float) -> None:
    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = FlexLora(weighter=lambda measures: weight if measures.device == 2 else 1.0)
    strategy.begin(config)
    with pytest.raises(ValueError, match=rf"device-002 has the weight {weight}; a weighter must return finite"):
        strategy.aggregate(server, updates_of(strategy, config, server, [1] * 3))


def test_a_delta_beyond_an_exact_sum_is_left_out_as_where_workers_sum() -> None:
    config, server = fleet(*EQUAL), draw(4, 0)
    strategy = FedAvg()
    strategy.begin(config)
    updates = updates_of(strategy, config, server, [3, 4, 5])
    huge = {name: tensor + np.float32(1e30) for name, tensor in updates[2].adapter.items()}
    poisoned = update(2, updates[2].sent, huge, 5, config.shape)
    new = strategy.aggregate(server, [*updates[:2], poisoned])
    assert set(strategy.left_out) == {2}
    assert strategy.shares == pytest.approx({0: 3 / 7, 1: 4 / 7, 2: 0.0})
    expected = strategy.aggregate(server, updates[:2])
    assert all(np.array_equal(tensor, expected[name]) for name, tensor in new.items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QFair(-1.0), r"q=-1.0 must be at least 0 and finite"),
        (lambda: QFair(math.inf), r"q=inf must be at least 0 and finite"),
        (lambda: RewardGain(temperature=0.0), r"temperature=0.0 of RewardGain must be above 0 and finite"),
        (lambda: RewardGain(most=-1.0), r"most=-1.0 of RewardGain must be in \[0, 100\]"),
        (lambda: RewardGain(smoothing=1.5), r"smoothing=1.5 of RewardGain must be above 0 and at most 1"),
    ],
)
def test_settings_without_meaning_are_refused(make: Callable[[], Weight], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
