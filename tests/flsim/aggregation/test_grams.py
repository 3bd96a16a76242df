"""Inner products from factors, against dense matrices; unequal ranks; many directions in parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation import grams
from flsim.aggregation.grams import energy, gram, layer_gram, squared_distances, vector_gram
from flsim.aggregation.pairs import Matrix, Pair, Pairs, difference

SHAPES = {"q": (9, 7), "down": (4, 12)}
RANKS = st.lists(st.integers(1, 6), min_size=1, max_size=8)


def draw(seed: int, rank: int) -> Pairs:
    rng = np.random.default_rng(seed)
    return {name: Pair(rng.normal(size=(m, rank)), rng.normal(size=(rank, n))) for name, (m, n) in SHAPES.items()}


def vector(update: Pairs) -> Matrix:
    return np.concatenate([pair.product().ravel() for pair in update.values()])


@given(ranks=RANKS, seed=st.integers(0, 999), columns=st.sampled_from([1, 5, 2048]))
def test_it_is_the_gram_of_the_dense_products(ranks: list[int], seed: int, columns: int) -> None:
    """In one part, in parts of a few devices, and a device a part."""
    updates = [draw(seed + k, rank) for k, rank in enumerate(ranks)]
    vectors = np.stack([vector(update) for update in updates])  # (K, all entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grams, "_COLUMNS", columns)
        found = gram(updates)
    size = np.abs(vectors @ vectors.T).max()
    np.testing.assert_allclose(found, vectors @ vectors.T, rtol=0, atol=1e-13 * size)
    np.testing.assert_array_equal(found, found.T)


def test_devices_in_another_order() -> None:
    updates, order = [draw(k, 1 + k % 4) for k in range(7)], np.random.default_rng(0).permutation(7)
    np.testing.assert_allclose(gram([updates[k] for k in order]), gram(updates)[np.ix_(order, order)], rtol=1e-12)


def test_it_does_not_depend_on_the_frame() -> None:
    """Any invertible change of the inner directions, here of one device alone."""
    one, two = draw(0, 3), draw(1, 3)
    change = np.random.default_rng(2).normal(size=(3, 3))
    turned = {name: Pair(pair.b @ change, np.linalg.inv(change) @ pair.a) for name, pair in one.items()}
    np.testing.assert_allclose(gram([turned, two]), gram([one, two]), rtol=1e-11)


def test_distances_are_those_of_the_moves_too() -> None:
    """Never negative, zero to oneself, and no matter where all have started."""
    start, updates = draw(9, 5), [draw(k, 1 + k) for k in range(5)]
    vectors = np.stack([vector(update) for update in updates])
    expected = ((vectors[:, None] - vectors[None]) ** 2).sum(-1)
    whole = squared_distances(gram(updates))
    moves = squared_distances(gram([difference(update, start) for update in updates]))
    np.testing.assert_allclose(whole, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moves, expected, rtol=1e-11, atol=1e-11)
    equal = squared_distances(gram([updates[0], updates[0]]))
    assert ((equal >= 0) & (equal < 1e-12)).all()
    assert not np.diag(whole).any()


@given(m=st.integers(1, 20), n=st.integers(1, 20), rank=st.integers(1, 40), seed=st.integers(0, 99))
def test_energy_either_way(m: int, n: int, rank: int, seed: int) -> None:
    """Few directions from Grams, many from the product's rows, a few rows at a time."""
    rng = np.random.default_rng(seed)
    pair = Pair(rng.normal(size=(m, rank)), rng.normal(size=(rank, n)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grams, "_ELEMENTS", 3 * n)
        found = energy(pair)
    assert found == pytest.approx(np.linalg.norm(pair.product()) ** 2, rel=1e-11)


@given(devices=st.integers(1, 6), seed=st.integers(0, 99))
def test_factor_space_is_that_of_the_flat_tensors(devices: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = [
        {"a": rng.normal(size=(3, 5)).astype(np.float32), "b": rng.normal(size=(11, 3)).astype(np.float32)}
        for _ in range(devices)
    ]
    flat = np.stack([np.concatenate([t.ravel() for t in u.values()]) for u in updates]).astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grams, "_ELEMENTS", 4 * devices)
        np.testing.assert_allclose(vector_gram(updates), flat @ flat.T, rtol=0, atol=1e-12)


def test_numbers_by_hand() -> None:
    """[1; 2][3 4] beside [1; 0][1 1]: squared norms 5 * 25 and 1 * 2, inner product 1 * 7."""
    one = Pair(np.array([[1.0], [2.0]]), np.array([[3.0, 4.0]]))
    two = Pair(np.array([[1.0], [0.0]]), np.array([[1.0, 1.0]]))
    assert layer_gram([one, two]).tolist() == [[125, 7], [7, 2]]
    assert squared_distances(layer_gram([one, two])).tolist() == [[0, 113], [113, 0]]
    assert energy(one) == 125


def test_what_does_not_match_is_refused() -> None:
    one = draw(0, 2)
    with pytest.raises(ValueError, match="there are no updates"):
        gram([])
    with pytest.raises(ValueError, match="update 1 and update 0 differ in layers, first 'down'"):
        gram([one, {"q": one["q"]}])
    with pytest.raises(ValueError, match="there are no updates"):
        vector_gram([])
    with pytest.raises(ValueError, match="tensors of update 2 differ in name or shape"):
        vector_gram([{"a": np.ones(2)}, {"a": np.ones(2)}, {"a": np.ones(3)}])
