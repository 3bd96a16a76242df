"""Real data sets, which are no part of the repository, and small files in the layouts of real ones."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def real() -> Callable[[str], Path]:
    """Folder of a real data set under `FLSIM_DATA`, or else `shared/data` beside the checkout; skips without."""

    def folder(name: str) -> Path:
        found = Path(os.environ.get("FLSIM_DATA", _BESIDE)) / name
        if not found.is_dir():
            pytest.skip(f"{found} is not there (set FLSIM_DATA to a folder that holds {name})")
        return found

    return folder
