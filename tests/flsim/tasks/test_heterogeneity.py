"""Figures of a realised partition by hand, and the files that show it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from flsim.report.partition_figure import partition_figure, write_partition
from flsim.report.plot import drawing_style
from flsim.tasks.heterogeneity import (
    as_lines,
    counts_table,
    effective_number,
    gini,
    heterogeneity,
    jensen_shannon,
    total_variation,
)
from flsim.tasks.item import Item
from flsim.tasks.partition import Assignment, by_user, dirichlet
from flsim.tasks.splits import split_items

SHARES = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(lambda x: np.array(x) / sum(x))


def assignment_of(owners: list[int], names: tuple[str, ...], splits: list[int] | None = None) -> Assignment:
    return Assignment(np.array(owners), np.array(splits or [0] * len(owners), dtype=np.int8), names)


@given(SHARES, SHARES, SHARES)
def test_distances_are_distances(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> None:
    for distance in (total_variation, jensen_shannon):
        assert distance(p, p) == pytest.approx(0, abs=1e-6)
        assert distance(p, q) == pytest.approx(float(distance(q, p)))
        assert 0 <= distance(p, q) <= 1
        assert distance(p, r) <= distance(p, q) + distance(q, r) + 1e-9


def test_distances_by_hand() -> None:
    """(1, 0) to (1/2, 1/2): the mean (3/4, 1/4) has 0.811278 bits, the two 0 and 1, so sqrt(0.811278 - 0.5)."""
    one, half, other = np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0.0, 1.0])
    assert total_variation(one, half) == pytest.approx(0.5)
    assert jensen_shannon(one, half) == pytest.approx(0.311278**0.5, abs=1e-6)
    assert jensen_shannon(one, other) == pytest.approx(1)
    assert effective_number(half) == pytest.approx(2)
    assert effective_number(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)


@pytest.mark.parametrize(
    ("sizes", "value"), [([1, 3], 0.25), ([5, 5, 5], 0), ([0, 0, 0, 8], 0.75), ([0, 0], 0), ([2], 0)]
)
def test_gini_by_hand(sizes: list[int], value: float) -> None:
    assert gini(sizes) == pytest.approx(value)


def test_figures_by_hand() -> None:
    """Device 0 holds 4 of a, device 1 holds 2 of a and 2 of b, device 2 nothing; two items are not dealt, one dropped.

    The fleet has 6 a and 2 b of 8. Total variation: 1/4 and 1/4. Effective labels: 1 and 2. Gini of 4, 4, 0: 1/3.
    """
    items = [Item(f"q{n}", "x", label="a" if n < 6 else "b") for n in range(11)]
    owners = [0, 0, 0, 0, 1, 1, 1, 1, -1, -1, -1]
    assignment = assignment_of(owners, ("x", "y", "z"), [0, 0, 0, 2, 0, 0, 0, 2, 0, 0, -1])
    table = counts_table(items, assignment)
    assert table.to_dict("list") == {
        "device": [0, 0, 1, 1, 1],
        "name": ["x", "x", "y", "y", "y"],
        "label": ["a", "a", "a", "b", "b"],
        "split": ["test", "train", "train", "test", "train"],
        "items": [1, 3, 2, 1, 1],
    }
    found = heterogeneity(table, assignment)
    assert (found.devices, found.labels, found.items, found.smallest, found.largest) == (3, 2, 8, 0, 4)
    assert found.used == pytest.approx(8 / 10)
    assert found.gini == pytest.approx(1 / 3)
    assert found.total_variation == pytest.approx(1 / 4)
    assert found.effective_labels == pytest.approx(1.5)
    assert found.fleet_effective_labels == pytest.approx(4 / 3**0.75)  # exp(entropy of 3/4 and 1/4)
    assert as_lines(found)[0] == "8 items on 3 devices, 80.0 % of those there are"


def test_a_smaller_alpha_is_more_heterogeneous() -> None:
    items = [Item(f"q{n}", "x", label=f"l{n % 8}") for n in range(1600)]
    splits = split_items(items)
    found = []
    for alpha in (0.1, 2.0, 50.0, float("inf")):
        assignment = dirichlet(items, splits, devices=12, alpha=alpha)
        found.append(heterogeneity(counts_table(items, assignment), assignment))
    distances = [figures.jensen_shannon for figures in found]
    mixed = [figures.effective_labels for figures in found]
    assert distances == sorted(distances, reverse=True)
    assert mixed == sorted(mixed)
    assert distances[-1] < 0.05
    assert mixed[-1] > 7.9


@pytest.mark.parametrize(("devices", "labels"), [(1, 1), (12, 5), (90, 40)])
def test_the_partition_is_written_and_pictured(tmp_path: Path, devices: int, labels: int) -> None:
    items = [Item(f"q{n}", "x", label=f"a label with a long name, {n % labels}") for n in range(20 * devices)]
    assignment = dirichlet(items, split_items(items), devices=devices, alpha=1.0)
    table = counts_table(items, assignment)
    figures = write_partition(tmp_path / "deep", table, assignment, title="cost $5, not maths$")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "deep" / "partition.parquet"), table)
    assert figures == heterogeneity(table, assignment)
    with Image.open(tmp_path / "deep" / "partition.png") as picture:
        assert picture.width == 1200
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20  # more than an empty page


@pytest.mark.parametrize(
    ("devices", "kept", "label"),
    [
        (2, False, "x"),
        (25, True, "WWWWWWWW MMMMMMM WWWWWWWWWWWWW MMMM"),
        (2, True, "数学 \n \x07\U0001f600 علم"),
        (41, False, "x"),
    ],
)
def test_no_text_of_the_picture_is_cut_or_lies_on_another(devices: int, kept: bool, label: str) -> None:
    items = [
        Item(f"q{n}", "x", label=f"{label}{n % 7}", user=f"@{label}{n % devices} with a long name")
        for n in range(9 * devices)
    ]
    assignment = by_user(items, split_items(items), devices=devices, keep_user_ids=kept)
    table = counts_table(items, assignment, keep_user_ids=kept)
    title = "a set whose name is long, by a label, with a rule of many words and a sigma of 0.5, and " * 2
    with drawing_style():
        figure = partition_figure(table, assignment, heterogeneity(table, assignment), title=title)
        figure.canvas.draw()
        inside = figure.bbox.padded(1)
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 12
    for text, box in zip(texts, boxes, strict=True):
        assert inside.x0 <= box.x0, text
        assert inside.y0 <= box.y0, text
        assert box.x1 <= inside.x1, text
        assert box.y1 <= inside.y1, text
    for number, box in enumerate(boxes):
        over = [texts[other].get_text() for other in range(number) if box.padded(-1).overlaps(boxes[other].padded(-1))]
        assert not over, (texts[number].get_text(), over)
