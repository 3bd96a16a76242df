"""Exact sums: equal bits in every order and partition, agreement with plain float64, what is refused."""

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.learning.exact_sum import LARGEST, MOST, ExactSum

SHAPES = {"a": (2, 3), "b": (5,)}
Tensors = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]


def f32(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(values, dtype=np.float32)


def draw(seed: int, scale: float = 1.0) -> Tensors:
    """Values over many magnitudes, as deltas of a trained adapter have."""
    rng = np.random.default_rng(seed)
    return {
        name: (scale * rng.normal(size=shape) * 10.0 ** rng.integers(-8, 1, size=shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def sum_of(addends: list[tuple[float, Tensors]]) -> ExactSum:
    total = ExactSum()
    for weight, tensors in addends:
        total.add(weight, tensors)
    return total


def bits(total: ExactSum) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in total.mean().items()}


WEIGHTS = st.lists(st.floats(0.001, 1000), min_size=1, max_size=12)


@given(weights=WEIGHTS, scale=st.sampled_from([1e-6, 1.0, 1000.0]), order=st.randoms(use_true_random=False))
def test_any_order_gives_equal_bits(weights: list[float], scale: float, order: random.Random) -> None:
    addends = [(weight, draw(seed, scale)) for seed, weight in enumerate(weights)]
    expected = bits(sum_of(addends))
    order.shuffle(addends)
    assert bits(sum_of(addends)) == expected


@given(weights=WEIGHTS, parts=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_partition_merged_in_any_order_gives_equal_bits(weights: list[float], parts: int, seed: int) -> None:
    """Some parts may be empty: an empty sum merges without effect, from either side."""
    addends = [(weight, draw(number)) for number, weight in enumerate(weights)]
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, parts, size=len(addends))
    merged = ExactSum()
    for part in rng.permutation(parts):
        merged.merge(sum_of([addend for addend, where in zip(addends, chosen, strict=True) if where == part]))
    whole = sum_of(addends)
    assert bits(merged) == bits(whole)
    assert (merged.weight, merged.count) == (whole.weight, whole.count)


@given(weights=WEIGHTS)
def test_it_agrees_with_exact_arithmetic(weights: list[float]) -> None:
    """Against rational numbers, element by element: within 1e-12 relative, or half a quantum per addend."""
    addends = [(weight, draw(seed)) for seed, weight in enumerate(weights)]
    mean = sum_of(addends).mean()
    total = sum(Fraction(weight) for weight, _ in addends)
    for name, shape in SHAPES.items():
        for place in np.ndindex(*shape):
            exact = sum(Fraction(weight) * Fraction(float(t[name][place])) for weight, t in addends) / total
            size = sum(abs(weight * float(t[name][place])) for weight, t in addends) / float(total)
            quantum = len(weights) * 2.0**-61 / float(total)
            assert abs(mean[name][place] - float(exact)) <= 1e-12 * abs(float(exact)) + 1e-15 * size + quantum


def test_many_large_and_small_values_cancel_exactly() -> None:
    """Thousandfold +-1e6 around 1e-6: plain float32 would be left with nothing of the small one."""
    big, small = np.float32(1e6), np.float32(1e-6)
    total = ExactSum()
    for sign in (1, -1) * 1000:
        total.add(1.0, {"w": np.array([sign * big], dtype=np.float32)})
    total.add(1.0, {"w": np.array([small], dtype=np.float32)})
    assert total.mean()["w"][0] * 2001 == pytest.approx(float(small), rel=1e-12)


def test_a_sum_that_fills_up_is_carried_over_and_stays_exact() -> None:
    """Products of all sizes up to `LARGEST`: 1.9 fills an int64 of quanta four times over in ten addends."""
    values = [1.9, -1.9, 1 / 3, 2.0, 1e-9, float(LARGEST), -1.999]
    addends = [(1.0, {"w": f32(value, 1.9, -1.9)}) for value in values * 40]
    exact = [sum(Fraction(float(t["w"][place])) for _, t in addends) for place in range(3)]
    half = sum_of(addends[1::2])
    half.merge(sum_of(addends[::2]))
    for total in (sum_of(addends), half):
        assert total.mean()["w"].tolist() == [float(one / len(addends)) for one in exact]


def test_a_merge_leaves_the_other_sum_as_it_is() -> None:
    """An empty sum takes the other's numbers; what is added to it afterwards is its own."""
    one, other = ExactSum(), sum_of([(1.0, {"w": f32(2)})])
    one.merge(other)
    one.add(1.0, {"w": f32(4)})
    assert one.mean()["w"].tolist() == [3.0]
    assert other.mean()["w"].tolist() == [2.0]


def test_numbers_by_hand() -> None:
    """Weight 3 on 1 and -2, weight 1 on 5 and 2: (3 + 5) / 4 = 2 and (-6 + 2) / 4 = -1."""
    total = sum_of([(3, {"w": f32(1, -2)}), (1, {"w": f32(5, 2)})])
    assert total.mean()["w"].tolist() == [2.0, -1.0]
    assert total.weight == Fraction(4)
    assert total.mean()["w"].dtype == np.float64


def test_tenths_add_up_to_the_exact_weight() -> None:
    """In floats, ten times 0.1 is 0.9999999999999999; the weights are exact, so the mean of ones is one."""
    total = sum_of([(0.1, {"w": f32(1)})] * 10)
    assert total.weight == 10 * Fraction(0.1)
    assert total.mean()["w"].tolist() == [1.0]


def test_weight_zero_says_nothing_however_large_the_value() -> None:
    total = sum_of([(0.0, {"w": f32(3e38)}), (2.0, {"w": f32(0.5)})])
    assert total.mean()["w"].tolist() == [0.5]
    assert total.count == 2


@pytest.mark.parametrize("total", [ExactSum(), sum_of([(0.0, {"w": f32(1)})])], ids=["empty", "no weight"])
def test_without_weight_there_is_no_mean(total: ExactSum) -> None:
    with pytest.raises(ValueError, match="add up to 0"):
        total.mean()


@pytest.mark.parametrize(
    ("weight", "values", "message"),
    [
        (-1.0, [1, 1], "the weight is -1.0"),
        (float("nan"), [1, 1], "the weight is nan"),
        (1.0, [1, np.nan], "w holds nan"),
        (1.0, [1, -np.inf], "w holds -inf"),
        (2.0, [1, LARGEST], "w holds 3.35544e+07 after weighting"),
        (1.0, [1, 1, 1], "first in"),
    ],
)
def test_what_cannot_be_added_is_refused_and_leaves_the_sum_alone(
    weight: float, values: list[float], message: str
) -> None:
    total = sum_of([(1.0, {"v": f32(7), "w": f32(2, 3)})])
    before = bits(total)
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        total.add(weight, {"v": f32(0), "w": f32(*values)})
    assert bits(total) == before
    assert (float(total.weight), total.count) == (1.0, 1)


def test_the_largest_values_of_the_most_addends_do_not_overflow() -> None:
    """Doubled by merging itself until it is full; the mean of equal values is the value."""
    total = sum_of([(1.0, {"w": np.array([LARGEST, -LARGEST, 1 / 3])})])
    while 2 * total.count <= MOST:
        total.merge(total)
    assert total.count == MOST
    assert total.mean()["w"] == pytest.approx([LARGEST, -LARGEST, 1 / 3], rel=1e-15)
    with pytest.raises(ValueError, match="at most"):
        total.add(1.0, {"w": np.zeros(3)})
