"""The aggregation benchmark on small layers: all ways find the same, and the model's time adds up."""

import re

import numpy as np
import pytest

from experiments.benchmark.aggregation import WAYS, Measured, Shape, measure, quality_table, time_table, updates
from flsim.aggregation.pairs import weighted_sum

SMALL = Shape("small", 60, 40, 3)


@pytest.mark.parametrize("shape", [SMALL, Shape("wide", 40, 60, 1)])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_finds_the_best(way: str, shape: Shape) -> None:
    terms = updates(shape, 20, 4)
    u, s, v = np.linalg.svd(weighted_sum(terms).product(), full_matrices=False)
    np.testing.assert_allclose(WAYS[way](terms, 4).product(), (u[:, :4] * s[:4]) @ v[:4], rtol=0, atol=1e-10)


def test_a_layer_is_measured_by_every_way() -> None:
    found = measure(SMALL, 20, 4, 2, "wall")
    assert found.method == "dense"
    assert [len(seconds) for seconds in found.seconds] == [2] * len(WAYS)
    assert len(set(np.round(found.residuals, 9))) == 1
    assert 0 < found.residuals[0] < 1
    assert min(found.megabytes) > 20 * 4 * (60 + 40) * 8 / 1e6  # the concatenated factors at least


def test_tables_by_hand() -> None:
    """3 layers of 10 ms and 2 of 20 ms are 0.07 s; a residual of 0.22 exceeds 0.2 by a tenth."""
    seconds = [[0.01, 0.01], [0.01, 0.01], [0.02, 0.04], [0.01, 0.01]]
    first = Measured(SMALL, "dense", seconds, [0.22, 0.2, 0.2, 0.2], [1.0, 2.0, 3.0, 4.0])
    second = Measured(Shape("b", 1, 1, 2), "qr", [[0.02, 0.02]] * 4, [0.2] * 4, [1.0] * 4)
    *_, model = time_table([first, second]).splitlines()
    assert re.findall(r"[\d.]+ \([\d.]+\) s", model) == ["0.07 (0.07..0.07) s"] * 2 + [
        "0.13 (0.10..0.16) s",
        "0.07 (0.07..0.07) s",
    ]
    line = quality_table([first]).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["0.20000", "1e-01", "0e+00", "0e+00", *"1234"]
