"""The aggregation benchmark on small layers: all ways find the same, and the model's time adds up."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from experiments.benchmark.aggregation import (
    WAYS,
    Quality,
    Shape,
    Timed,
    before,
    quality,
    quality_table,
    strategy_seconds,
    time_table,
    timed,
    updates,
)
from flsim.aggregation.pairs import weighted_sum
from flsim.models.adapter import Adapter

SMALL = Shape("small", 60, 40, 3)


@pytest.mark.parametrize("shape", [SMALL, Shape("wide", 40, 60, 1), Shape("large", 300, 270, 1)])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_finds_the_best(way: str, shape: Shape) -> None:
    terms = updates(shape, 20, 4)
    u, s, v = np.linalg.svd(weighted_sum(terms).product(), full_matrices=False)
    found = WAYS[way](terms, 4, before(shape, 20, 4)).product()
    np.testing.assert_allclose(
        found, (u[:, :4] * s[:4]) @ v[:4], rtol=0, atol=1e-3 if min(found.shape) > 256 else 1e-10
    )


def test_layers_differ_and_a_round_before_points_another_way() -> None:
    one, other = (updates(SMALL, 5, 2, layer=layer)[0][1] for layer in range(2))
    assert not np.allclose(one.a, other.a)
    now = np.linalg.svd(weighted_sum(updates(SMALL, 5, 2)).product())[2][:2]
    overlap = np.linalg.svd(before(SMALL, 5, 2) @ now.T)[1]  # cosines of the angles between the two
    assert 0.5 < overlap.min() < 0.99


@pytest.mark.parametrize("threads", [1, 2])
def test_a_layer_is_timed_by_every_way(threads: int) -> None:
    found = timed(SMALL, 20, 4, 2, "wall", threads)
    assert [len(seconds) for seconds in found.seconds] == [2] * len(WAYS)
    assert all(second > 0 for seconds in found.seconds for second in seconds)


def test_a_layer_is_measured_by_every_way() -> None:
    found = quality(SMALL, 20, 4)
    assert found.method == "dense"
    assert len(set(np.round(found.residuals, 9))) == 1
    assert 0 < found.residuals[0] < 1
    assert min(found.megabytes) > 20 * 4 * (60 + 40) * 8 / 1e6  # the concatenated factors at least
    assert found.estimate == pytest.approx(1)
    assert found.error == 0


def test_a_large_layer_says_about_what_it_cut_and_puts_no_factors_side_by_side() -> None:
    found = quality(Shape("large", 300, 270, 1), 40, 4)
    assert found.method == "matrix_free"
    assert 0 < found.error < 0.2
    assert abs(found.estimate - 1) < 4 * found.error
    assert found.megabytes[0] < 0.5 * found.megabytes[2]


def test_the_strategy_is_timed_for_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks of one layer and of two take three times what one block takes, here a second."""
    seen: list[int] = []

    def a_second(work: Callable[[], Adapter], clock: str) -> float:
        seen.append(len(work()))
        return 1.0

    monkeypatch.setattr("experiments.benchmark.aggregation.seconds_of", a_second)
    assert strategy_seconds([SMALL, Shape("two", 30, 20, 6)], 5, 4, 2, "cpu", 1) == [3.0, 3.0]
    assert seen == [2 * 3, 2 * 3]  # A and B of three layers


def test_tables_by_hand() -> None:
    """3 layers of 10 ms and 2 of 20 ms are 0.07 s; a residual of 0.22 exceeds 0.2 by a tenth."""
    first = Timed(SMALL, [[0.01, 0.01], [0.01, 0.01], [0.02, 0.04], [0.01, 0.01]])
    second = Timed(Shape("b", 1, 1, 2), [[0.02, 0.02]] * 4)
    *_, model = time_table([first, second]).splitlines()
    assert re.findall(r"[\d.]+ \([\d.]+\) s", model) == ["0.07 (0.07..0.07) s"] * 2 + [
        "0.13 (0.10..0.16) s",
        "0.07 (0.07..0.07) s",
    ]
    line = quality_table([Quality(SMALL, "dense", [0.22, 0.2, 0.2, 0.2], [1.0, 2.0, 3.0, 4.0], 1.02, 0.03)])
    cells = [cell.strip() for cell in line.splitlines()[2].split("|")[2:-1]]
    assert cells == ["dense", "0.20000", "1e-01", "0e+00", "0e+00", "1.020 +- 0.030", *"1234"]
