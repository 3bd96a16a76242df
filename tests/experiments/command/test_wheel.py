"""A wheel built from this clone, in an environment of its own and in an empty folder: nothing of the clone is used."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


def do(*command: str | Path, cwd: Path) -> str:
    """Run it without any hint at the clone; returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with the wheel.

    It sees the other packages of the running environment by their folder's name in a `.pth` file, so it needs no
    network; the editable installation that lies there is not followed.
    """
    place = tmp_path_factory.mktemp("wheel")
    clone = place / "clone"
    do("git", "clone", "--quiet", ROOT, clone, cwd=place)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    do(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", place, clone, cwd=place)
    venv.create(place / "venv", with_pip=False)
    programs = place / "venv" / "bin"
    (wheel,) = place.glob("*.whl")
    do(*pip, "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    (own,) = (place / "venv").glob("lib/python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return programs


def test_the_wheel_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """Configs, methods, tuned settings, both built-in models, the shipped questions and the templates are found."""
    where = do(installed / "python", "-c", "import flsim, experiments; print(flsim.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
    flsim = installed / "flsim"
    assert "strategies.fedavg:FedAvg" in do(flsim, "list", cwd=tmp_path)
    small = ["rounds=3", "fleet.devices=4", "client.steps=1", "client.prompts=2", "engine.workers=1"]
    out = do(flsim, "run", "demo", *small, cwd=tmp_path)
    assert "report: runs/demo-seed0/report.html" in out
    assert (tmp_path / "runs" / "demo-seed0" / "report.html").is_file()
    planned = do(flsim, "study", "demo", "method=da_grpo,grpo+random", "seed=0..1", "--list", cwd=tmp_path)
    assert "4 runs in runs/sweep-demo, 0 finished" in planned
    code = (
        "from pathlib import Path; import flsim; from flsim.config.shipped import FOLDER\n"
        "assert list(FOLDER.glob('tuned/*/*.yaml'))\n"
        "assert all(any(Path(data.root).glob('*.jsonl')) for data in flsim.load_config('real').data.values())"
    )
    do(installed / "python", "-c", code, cwd=tmp_path)
    do(flsim, "new", "strategy", "mine", cwd=tmp_path)
    do(flsim, "run", "demo", *small, "strategy.path=mine.py:Mine", "run_dir=runs/mine", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "runs"]
