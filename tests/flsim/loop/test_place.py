"""Where a run may live: what cannot hold one is refused before any work, whatever is odd about its path."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flsim
from flsim.config.schema import ConfigError
from flsim.loop.place import refuse_place
from tests.tiny import TinyRun

Make = Callable[[Path], Path]


def _file(root: Path) -> Path:
    (root / "file").write_text("kept")
    return root / "file"


def _link(root: Path, to: str) -> Path:
    (root / "link").symlink_to(to)
    return root / "link"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_file, "there is a file of that name"),
        (lambda root: _file(root) / "below" / "run", r"file is no folder: there is a file of that name"),
        (lambda root: _link(root, str(_file(root))), "it is a link to a file"),
        (lambda root: _link(root, "nowhere"), "it is a link that leads nowhere, to nowhere"),
        (lambda root: _link(root, "link"), "it is a link that leads nowhere, to link"),
        (lambda root: _link(root, "nowhere") / "run", "link is no folder: it is a link that leads nowhere"),
        (lambda root: root / ("n" * 300), r"too long \(\d+ bytes, 300 in its longest name\)"),
        (lambda root: root / "not" / "there" / ("n" * 300), "300 in its longest name"),
        (lambda root: root.joinpath(*["deep" * 10] * 110), r"its path is too long \(\d{4} bytes, "),
        (lambda root: root / "nu\0ll", "null byte"),
    ],
)
def test_what_cannot_hold_a_run_is_refused_and_left_as_it_is(tmp_path: Path, make: Make, said: str) -> None:
    folder = make(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=said) as caught:
        refuse_place(folder)
    assert str(caught.value).startswith(f"run_dir={str(folder)!r} cannot hold a run: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written into, for root too."""
    folder = tmp_path / "still"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    steps = (["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,ro,bind", str(folder)])
    if any(subprocess.run(step, capture_output=True).returncode for step in steps):
        subprocess.run(["umount", folder], capture_output=True)
        pytest.skip("permissions do not bind root, who may mount nothing here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_folder_that_is_read_only_is_refused(read_only: Path) -> None:
    why = "on a read-only file system" if os.geteuid() == 0 else "not this user's to write"
    for folder in (read_only, read_only / "new" / "run"):
        with pytest.raises(ConfigError, match=f"still is {why}"):
            refuse_place(folder)


@pytest.mark.usefixtures("no_report")
def test_odd_names_and_linked_folders_hold_a_run_that_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Spaces, line breaks, other scripts, quotes; the last part of the path is a link to a folder on the way."""
    real = tmp_path / "r e\nal 'é' 日本 $x"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    config = tiny_run("link")
    flsim.run(config, until=1, progress=False)
    assert flsim.run(None, resume=config.folder, progress=False).folder == config.folder
    assert sorted(path.name for path in (real / "rows").iterdir()) == [f"round-{n:05d}.parquet" for n in range(3)]
    assert config.folder.is_symlink()


@pytest.mark.usefixtures("no_report")
def test_a_resume_tidies_what_a_killed_process_had_half_written(tiny_run: TinyRun) -> None:
    config = tiny_run("killed")
    flsim.run(config, until=1, progress=False)
    gone = subprocess.Popen(["true"])
    gone.wait()
    for folder in ("rows", "devices", "."):
        (config.folder / folder / f".x.{gone.pid}.part").write_text("half")
    flsim.run(None, resume=config.folder, progress=False)
    assert not list(config.folder.rglob("*.part"))
