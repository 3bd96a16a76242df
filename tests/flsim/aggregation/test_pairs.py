"""Sums and differences of LoRA products, against dense matrices; the scale in and out; what is refused."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation.pairs import Pair, Pairs, adapter_of, cropped, difference, padded, pairs_of, total
from flsim.models.adapter import Adapter

SHAPES = {"base.layers.0.q_proj": (7, 5), "base.layers.0.up_proj": (4, 9)}
A, B = ".lora_A.weight", ".lora_B.weight"
SEEDS = st.integers(0, 999)
RANKS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def draw(seed: int, rank: int) -> Adapter:
    """An adapter as a device sends it."""
    rng = np.random.default_rng(seed)
    adapter = {}
    for layer, (m, n) in SHAPES.items():
        adapter[layer + A] = rng.normal(size=(rank, n)).astype(np.float32)
        adapter[layer + B] = (0.1 * rng.normal(size=(m, rank))).astype(np.float32)
    return adapter


def dense(adapter: Adapter, scale: float) -> dict[str, Any]:
    """What it adds to each layer, the plain way."""
    return {layer: scale * (adapter[layer + B].astype(float) @ adapter[layer + A].astype(float)) for layer in SHAPES}


def close(pairs: Pairs, expected: dict[str, Any]) -> None:
    assert list(pairs) == list(expected)
    for layer, matrix in expected.items():
        np.testing.assert_allclose(pairs[layer].product(), matrix, rtol=0, atol=1e-13)


@given(seed=SEEDS, rank=st.integers(1, 8), scale=st.sampled_from([2.0, 5 / 3, 0.1, 16 / 7**0.5]))
def test_the_scale_goes_in_and_out_without_changing_a_bit(seed: int, rank: int, scale: float) -> None:
    adapter = draw(seed, rank)
    pairs = pairs_of(adapter, scale)
    close(pairs, dense(adapter, scale))
    back = adapter_of(pairs, scale)
    assert list(back) == list(adapter)  # peft's order: A before B
    for name, tensor in adapter.items():
        assert back[name].dtype == np.float32
        assert back[name].tobytes() == tensor.tobytes()


def test_pairs_are_those_of_the_layers_only() -> None:
    """What is learned beside LoRA is no product."""
    pairs = pairs_of(draw(0, 2) | {"head.bias": np.ones(2, np.float32)}, 1.0)
    assert (list(pairs), len(pairs)) == (list(SHAPES), 2)
    assert "base.layers.9.q_proj" not in pairs


@given(ranks=RANKS, seed=SEEDS)
def test_a_sum_is_exact_at_any_ranks_and_alphas(ranks: list[int], seed: int) -> None:
    """Device k has rank r_k and alpha 3 + k; weights have either sign."""
    weights = np.random.default_rng(seed).normal(size=len(ranks))
    scales = [(3 + k) / rank for k, rank in enumerate(ranks)]
    adapters = [draw(seed + k, rank) for k, rank in enumerate(ranks)]
    terms = [(float(w), pairs_of(a, s)) for w, a, s in zip(weights, adapters, scales, strict=True)]
    summed = total(terms)
    expected = [dense(a, s) for a, s in zip(adapters, scales, strict=True)]
    close(summed, {name: sum(w * e[name] for w, e in zip(weights, expected, strict=True)) for name in SHAPES})
    assert {pair.rank for pair in summed.values()} == {sum(ranks)}
    close(total(terms[::-1]), {name: pair.product() for name, pair in summed.items()})


def test_a_term_without_weight_takes_no_rank() -> None:
    terms = [(0.0, pairs_of(draw(0, 3), 1.0)), (2.0, pairs_of(draw(1, 2), 1.0))]
    assert {pair.rank for pair in total(terms).values()} == {2}
    close(total(terms[:1]), {layer: np.zeros(shape) for layer, shape in SHAPES.items()})


@given(seed=SEEDS, new=st.integers(1, 5), old=st.integers(1, 5))
def test_a_difference_is_exact_at_any_ranks(seed: int, new: int, old: int) -> None:
    after, before = draw(seed, new), draw(seed + 1, old)
    moved = difference(pairs_of(after, 2.0), pairs_of(before, 0.5))
    close(moved, {layer: dense(after, 2.0)[layer] - dense(before, 0.5)[layer] for layer in SHAPES})
    assert {pair.rank for pair in moved.values()} == {new + old}


def test_a_small_difference_keeps_its_digits() -> None:
    """A move of 1e-9 in B alone is `dB A` to 1e-15 of itself; subtracting products would leave seven digits."""
    rng = np.random.default_rng(0)
    b, a, step = rng.normal(size=(7, 3)), rng.normal(size=(3, 5)), 2.0**-30 * rng.integers(-9, 9, size=(7, 3))
    b = np.round(b * 2**20) / 2**20  # so that b + step is exact
    moved = difference({"l": Pair(b + step, a)}, {"l": Pair(b, a)})["l"].product()
    assert np.linalg.norm(moved - step @ a) <= 1e-15 * np.linalg.norm(step @ a)
    unmoved = difference({"l": Pair(b, a)}, {"l": Pair(b, a)})["l"].product()
    assert not unmoved.any()


def test_padding_keeps_the_product_and_cropping_undoes_it() -> None:
    pair = pairs_of(draw(0, 3), 2.0)["base.layers.0.q_proj"]
    wide = padded(pair, 5)
    assert (wide.rank, wide.b.shape, wide.a.shape) == (5, (7, 5), (5, 5))
    assert wide.product().tobytes() == pair.product().tobytes()
    narrow = cropped(wide, 3)
    assert (narrow.b.tolist(), narrow.a.tolist()) == (pair.b.tolist(), pair.a.tolist())
    assert cropped(pair, 9).rank == 3
    np.testing.assert_array_equal(cropped(pair, 1).product(), np.outer(pair.b[:, 0], pair.a[0]))


def test_numbers_by_hand() -> None:
    """Half of 2 * [1; 0] [1 2] and half of [0; 1] [4 0] are [[1 2] [2 0]]."""
    first = {f"l{A}": np.array([[1, 2]], np.float32), f"l{B}": np.array([[1], [0]], np.float32)}
    second = {f"l{A}": np.array([[4, 0]], np.float32), f"l{B}": np.array([[0], [1]], np.float32)}
    summed = total([(0.5, pairs_of(first, 2.0)), (0.5, pairs_of(second, 1.0))])
    assert summed["l"].product().tolist() == [[1, 2], [2, 0]]
    assert adapter_of(summed, 0.5)["l" + B].tolist() == [[2, 0], [0, 1]]


def one(m: int, n: int) -> Pairs:
    return {"l": Pair(np.ones((m, 1)), np.ones((1, n)))}


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: pairs_of({f"l{A}": np.ones((1, 2), np.float32)}, 1.0), "'l.lora_B.weight' stands alone or is missing"),
        (
            lambda: pairs_of({f"l{A}": np.ones((1, 2), np.float32), f"l{B}": np.ones((2, 3), np.float32)}, 1.0),
            "'l' has A of shape (1, 2) and B of (2, 3)",
        ),
        (lambda: pairs_of({}, 0.0), "the scale is 0.0"),
        (lambda: adapter_of({}, float("nan")), "the scale is nan"),
        (lambda: Pair(np.ones((3, 2)), np.ones((3, 2))), "b has shape (3, 2) and a (3, 2)"),
        (lambda: Pair(np.ones((3, 0)), np.ones((0, 2))), "R >= 1"),
        (lambda: total([]), "there are no updates"),
        (lambda: total([(1, one(2, 3)), (1, {"k": one(2, 3)["l"]})]), "update 1 and update 0 differ in layers, first"),
        (lambda: total([(1, one(2, 3)), (1, one(2, 4))]), "product 1 has shape (2, 4), product 0 (2, 3)"),
        (lambda: difference(one(2, 3), one(3, 3)), "product 1 has shape (3, 3)"),
        (lambda: padded(one(2, 3)["l"], 0), "rank 1 cannot be padded to rank 0"),
        (lambda: cropped(one(2, 3)["l"], 0), "rank 0 leaves nothing"),
    ],
)
def test_what_cannot_be_is_refused(work: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        work()
