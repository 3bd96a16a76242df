"""What a test question takes as a picture: which units it shows, and that only runs with a mode of help have it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import flsim
from flsim.comparison.question_figure import question_figure, shown
from flsim.config.load import load_config, to_yaml
from flsim.metrics.rows import Row, write_rows

SETTINGS = ("rounds=1", "fleet.devices=2", "stream.phases=[[arithmetic]]", "engine.kind=local")
COUNTS = {"accuracy": 6.0, "cloud_grants": 3.0, "cloud_test_tokens": 60.0, "cloud_test_bytes": 300.0}
TIMES = {"question_joules": 5.0, "question_seconds": 4.0}


def run_of(folder: Path, values: dict[str, float], *more: str) -> Path:
    """A finished run of two devices, with 10 questions each."""
    config = load_config(None, [*SETTINGS, f"run_dir={folder}", *more])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    for round_ in (0, 1):
        rows = [
            Row(round_, f"device-00{k}", "arithmetic", "test", "global", name, total + k, 10.0)
            for name, total in values.items()
            for k in (0, 1)
        ]
        write_rows(folder / "rows" / f"round-{round_:05d}.parquet", rows)
    return folder


def two(root: Path, values: dict[str, float], helping: Sequence[str]) -> flsim.Comparison:
    """Asking beside another mode, which has half the bytes."""
    ask = run_of(root / "ask", values, "name=ask")
    return flsim.compare([ask, run_of(root / "other", values | {"cloud_test_bytes": 150.0}, "name=other", *helping)])


@pytest.mark.parametrize("values", [COUNTS, COUNTS | TIMES], ids=["counts", "system"])
def test_panels_are_those_that_all_runs_know(values: dict[str, float], tmp_path: Path) -> None:
    found = two(tmp_path, values, ["client.helping.path=my.module:Mode"])
    known = [name.replace("cloud_test_bytes", "question_bytes") for name in values if name != "accuracy"]
    assert shown(found) == known
    drawn = [axes for axes in question_figure(found).axes if axes.get_visible()]
    assert len(drawn) == len(known)
    dots = [np.asarray(dot.get_offsets()) for dot in drawn[2].collections]
    means = {tuple(np.round(own[0], 6)) for own in dots if len(own) == 1}
    assert means >= {(30.05, 0.65), (15.05, 0.65)}  # bytes of 10 questions, one more for the second user


def test_units_that_lie_far_apart_are_written_in_numbers(tmp_path: Path) -> None:
    """On an axis of logarithms, without the TeX that nothing here reads."""
    far = run_of(tmp_path / "far", COUNTS | {"cloud_test_bytes": 90_000.0}, "client.helping.path=my.module:Mode")
    figure = question_figure(flsim.compare([run_of(tmp_path / "near", COUNTS), far]))
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert any(labels)
    assert not any("$" in label for label in labels)


@pytest.mark.usefixtures("no_pictures")
def test_the_page_has_it_where_a_run_names_a_mode_of_help(tmp_path: Path) -> None:
    with_mode = two(tmp_path / "mode", COUNTS, ["client.helping.path=my.module:Mode"])
    assert "questions.png" in {path.name for path in with_mode.write(tmp_path / "one")}
    assert "how devices are helped" in (tmp_path / "one" / "page.html").read_text()
    plain = two(tmp_path / "plain", COUNTS, ["client.lr=0.5"])
    assert shown(plain) == []
