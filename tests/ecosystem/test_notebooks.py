"""Notebooks in a real kernel: the tutorial runs as it stands, and classes of cells work on Ray's workers."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flsim.loop.test_session_runs import CELL, OWN
from tests.tiny import RUN

pytestmark = pytest.mark.ecosystem

nbformat = pytest.importorskip("nbformat", reason="notebooks are read by nbformat (the extra notebook)")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient (the extra notebook)")
pytest.importorskip("ipykernel", reason="a notebook needs a kernel (the extra notebook)")

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
LIMIT_S = 900  # two minutes on two cores that are free
LARGEST = 300_000  # bytes of the tutorial with its outputs


def executed(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook after a new kernel has run it in a folder; a cell that raises ends the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # of a busy machine
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # else Ray compiles for longer than it waits
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=where).execute()
    return notebook


def outputs_of(notebook: Any, kind: str) -> list[Any]:
    return [out for cell in notebook.cells for out in cell.get("outputs", ()) if out["output_type"] == kind]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's client
def test_the_tutorial_runs_as_it_stands_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed(nbformat.read(TUTORIAL, as_version=4), tmp_path, monkeypatch)
    assert not [out["text"] for out in outputs_of(notebook, "stream") if out["name"] == "stderr"]
    shown = [out["data"] for cell in notebook.cells for out in cell.get("outputs", ()) if "data" in out]
    bars = [data["text/html"] for data in shown if "<progress" in data.get("text/html", "")]
    assert len(bars) == 3  # one for each run, written over
    assert all('value="4" max="4"' in bar and "accuracy=" in bar and "usage=" in bar for bar in bars)
    tables = [data["text/html"] for data in shown if "data:image/png" in data.get("text/html", "")]
    assert len(tables) == 2  # a run and a comparison
    assert "global, may ask" in tables[0]
    assert all(name in tables[1] for name in ("demo", "half way", "fixed fee"))


def test_the_tutorial_is_stored_with_small_outputs_of_all_its_cells() -> None:
    stored = json.loads(TUTORIAL.read_text())
    counts = [cell["execution_count"] for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert TUTORIAL.stat().st_size < LARGEST
    assert not [cell for cell in stored["cells"] for out in cell.get("outputs", ()) if out.get("name") == "stderr"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_client_strategy_cloud_and_verifier_of_cells_work_on_ray(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"model.path={tiny_checkpoint}", *RUN, *OWN]
    cells = [
        CELL,
        f"import flsim, pandas as pd\nfrom flsim.metrics.rows import without_timing\nsettings = {settings!r}",
        "alone = flsim.run(None, [*settings, 'run_dir=alone'])",
        "ray = flsim.run(None, [*settings, 'run_dir=ray', 'engine.kind=ray', 'engine.workers=2'])\nray",
        "pd.testing.assert_frame_equal(without_timing(alone.rows), without_timing(ray.rows))",
        "assert not (ray.rows['name'] == 'set_aside').any()\nray.users",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    executed(notebook, tmp_path, monkeypatch)
    (tmp_path / "ray" / "summary.json").stat()
    assert any("<table" in out["data"].get("text/html", "") for out in outputs_of(notebook, "execute_result"))
