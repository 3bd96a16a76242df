"""Subspace iteration: as many passes as it takes, nothing new overlooked, and an estimate that says how good it is."""

from collections.abc import Callable

import numpy as np
import pytest

from flsim.aggregation import subspace
from flsim.aggregation.pairs import Factors, Matrix, Pair, Terms, weighted_sum
from flsim.aggregation.subspace import Block, iterated

RANK = 4


def with_values(values: Matrix, *, shape: tuple[int, int] = (60, 50), seed: int = 0) -> Terms:
    """A sum of two terms that has these singular values."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(side, len(values))))[0] for side in shape)
    return [(2.0, Pair(u[:, ::2] * values[::2] / 2, v.T[::2])), (-1.0, Pair(u[:, 1::2] * values[1::2], -v.T[1::2]))]


def left_out(block: Block, terms: Terms) -> float:
    return float(np.linalg.norm(weighted_sum(terms).product() - (block.u * block.s) @ block.v) ** 2)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the passes that were made."""
    made: list[str] = []
    bits = {np.float32: "32", np.float64: "64"}

    def counted(name: str) -> Callable[[Terms, Matrix, subspace.Floats], Matrix]:
        plain: Callable[[Terms, Matrix, subspace.Floats], Matrix] = getattr(subspace, name)

        def one(terms: Terms, columns: Matrix, dtype: subspace.Floats) -> Matrix:
            made.append(name + bits[dtype])
            return plain(terms, columns, dtype)

        return one

    for name in ("_forward", "_backward"):
        monkeypatch.setattr(subspace, name, counted(name))
    return made


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (np.append(np.ones(RANK), np.full(40, 1e-3)), 3),  # what is common stands far above the rest
        (np.append(np.ones(RANK), np.full(40, 0.1)), 5),
        (np.linspace(1.0, 0.9, 44), 6),  # hardly anything stands above anything
        (np.ones(RANK), 3),  # nothing is beyond
    ],
)
def test_passes_are_made_until_no_other_can_bring_anything(values: Matrix, most: int, passes: list[str]) -> None:
    """And the first directions then cut hardly more than the least possible, where a gap lets one say so."""
    terms = with_values(values)
    block = iterated(terms, RANK, start=None, seed=0)
    assert len(passes) <= most
    assert passes == (["_forward64", "_backward64"] * 3)[: len(passes)]
    if most < 6:
        np.testing.assert_allclose(block.s[:RANK], values[:RANK], rtol=1e-6)
    else:
        assert len(passes) == 6


def test_whoever_begins_where_it_ended_needs_two(passes: list[str]) -> None:
    terms = with_values(np.append(np.ones(RANK), np.full(40, 0.1)))
    found = iterated(terms, RANK, start=None, seed=0)
    passes.clear()
    again = iterated(terms, RANK, start=found.v, seed=0)
    assert len(passes) == 2
    np.testing.assert_allclose(again.s[:RANK], np.ones(RANK), rtol=1e-9)


@pytest.mark.parametrize("rows", [RANK, 40])
def test_a_direction_that_the_start_lacks_is_not_overlooked(rows: int) -> None:
    """The start is all that the product has but its strongest direction, in as many rows as it likes."""
    values = np.append(10.0, np.full(43, 0.1))
    terms = with_values(values)
    v = np.linalg.svd(weighted_sum(terms).product(), full_matrices=False)[2]
    block = iterated(terms, RANK, start=v[1 : rows + 1], seed=0)
    assert block.s[0] == pytest.approx(10.0, rel=1e-9)


def test_the_estimate_is_right_in_the_mean_and_knows_its_error() -> None:
    """Over 400 seeds: the mean within four standard errors of the true rest, the scatter as large as was stated."""
    terms = with_values(np.append(np.ones(RANK), 0.5 ** np.arange(3, 40)))
    blocks = [iterated(terms, RANK, start=None, seed=seed) for seed in range(400)]
    ratios = np.array([block.rest / left_out(block, terms) for block in blocks])  # (400,)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / 20
    stated = np.sqrt(np.mean([(block.error / block.rest) ** 2 for block in blocks]))
    assert stated == pytest.approx(ratios.std(), rel=0.2)


def test_numbers_by_hand() -> None:
    """diag(3, -2, 1): the block holds all of it, so that nothing is beyond, whatever the probes are."""
    block = iterated([(1.0, Pair(np.diag([3.0, -2.0, 1.0]), np.eye(3)))], 1, start=None, seed=0)
    np.testing.assert_allclose(block.s, [3, 2, 1], rtol=1e-14)
    np.testing.assert_allclose((block.u * block.s) @ block.v, np.diag([3.0, -2.0, 1.0]), atol=1e-14)
    assert [block.rest, block.error] == pytest.approx([0, 0], abs=1e-28)


def test_rounding_by_hand() -> None:
    """Columns (3, 4) and rows (1, 0) make 5 each: 16 eps (0.5 * 10 + |-2| * 5)."""
    pair = Pair(np.array([[3.0, 3.0], [4.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    one = Pair(pair.b[:, :1], pair.a[:1])
    eps = np.finfo(np.float64).eps
    assert subspace.rounding(pair) == pytest.approx(16 * eps * 10)
    narrow = Factors(pair.b.astype(np.float32), pair.a.astype(np.float32), 3.0)
    assert subspace.rounding(narrow) == pytest.approx(16 * eps * 30)
    assert iterated([(0.5, pair), (-2.0, one)], 1, start=None, seed=0).rounding == pytest.approx(16 * eps * 15)


def narrow(terms: Terms) -> Terms:
    """The same, but for rounding, as adapters hold it."""
    return [(w / 2, Factors(f.b.astype(np.float32), f.a.astype(np.float32), 2.0)) for w, f in terms]


@pytest.mark.parametrize("gap", [0.5, 0.1, 1e-3])
def test_factors_in_float32_are_read_as_they_are_until_the_last_pass(gap: float, passes: list[str]) -> None:
    """What is found is that of the pairs that they stand for: no digit of float64 is missing in its values."""
    terms = narrow(with_values(np.append(np.ones(RANK), np.full(40, gap))))
    one = iterated(terms, RANK, start=None, seed=0)
    assert passes[0] == "_forward32"
    assert passes[-1].endswith("64")
    passes.clear()
    other = iterated([(w, f.pair) for w, f in terms if isinstance(f, Factors)], RANK, start=None, seed=0)
    assert all(name.endswith("64") for name in passes)
    np.testing.assert_allclose(one.s[:RANK], other.s[:RANK], rtol=1e-6 if gap > 0.1 else 1e-9)
    assert one.rest == pytest.approx(other.rest, rel=1e-3)
    assert left_out(one, terms) == pytest.approx(one.rest, abs=4 * one.error)


def test_where_float32_has_too_few_digits_all_is_done_again(passes: list[str]) -> None:
    """Terms that are a million times their sum, so that float32 sees only noise; and a rest of a billionth."""
    values = np.append(np.ones(RANK), np.full(40, 0.1))
    rng = np.random.default_rng(2)
    large = Factors(rng.normal(size=(60, 9)).astype(np.float32), rng.normal(size=(9, 50)).astype(np.float32), 1.0)
    small_rest = narrow(with_values(np.append(np.ones(RANK), np.full(40, 1e-9))))
    for terms in ([(1e6, large), *narrow(with_values(values)), (-1e6, large)], small_rest):
        passes.clear()
        block = iterated(terms, RANK, start=None, seed=0)
        again = passes.index("_forward64")
        assert set(passes[:again]) <= {"_forward32", "_backward32"}
        assert all(name.endswith("64") for name in passes[again:])
        assert len(passes[again:]) > 1
        np.testing.assert_allclose(block.s[:RANK], np.ones(RANK), rtol=1e-6)
