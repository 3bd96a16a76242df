"""The app that `flsim flower` writes: Flower takes it, it holds the run, and what it cannot do is told beforehand."""

import tomllib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app

from experiments.command.flower import main
from flsim.config.load import differences
from flsim.config.schema import ConfigError
from flsim.federation.app import write_app
from tests.tiny import TinyRun, tiny_file

STRATEGY = '''
"""A strategy of one's own."""
from strategies.fedavg import FedAvg


class Mine(FedAvg):
    """Nothing new."""
'''


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # in Flower's own code
def test_flower_builds_and_loads_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    app = write_app(tiny_run("mine", "name=My-run 2"), tmp_path / "app")
    named = zipfile.ZipFile(BytesIO(build_fab_from_disk(app.folder))).namelist()
    held = {name for name in named if not name.startswith(".info")}
    package = "my_run_2_app"
    files = {f"{package}/{name}" for name in ("__init__.py", "server_app.py", "client_app.py", "config.yaml")}
    assert held == files | {"pyproject.toml"}
    parts = tomllib.loads((app.folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert parts["config"] == {"run-dir": str(tmp_path / "mine"), "resume": False, "wait-s": 600.0}
    for side, kind in (("serverapp", ServerApp), ("clientapp", ClientApp)):
        assert isinstance(load_app(parts["components"][side], ValueError, app.folder), kind)


def test_its_config_is_the_runs_but_for_where_it_runs(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("mine", "engine.kind=ray", "engine.workers=7", "engine.pack=4")
    app = write_app(config, tmp_path / "app")
    changed = differences(config, app.config)
    assert [line.partition(":")[0] for line in changed] == ["engine.pack", "engine.timeout_s"]
    assert app.config.engine.timeout_s == 3600.0
    assert write_app(tiny_run("mine", "engine.timeout_s=9"), tmp_path / "other").config.engine.timeout_s == 9.0


def test_files_of_ones_own_travel_and_others_are_told(
    tiny_run: TinyRun, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(STRATEGY)
    app = write_app(tiny_run("run", "strategy.path=mine.py:Mine", "track=[{path: mine.py:Mine}]"), Path("app"))
    assert app.config.strategy == {"path": "run_app.mine:Mine"}
    assert app.config.track == ({"path": "run_app.mine:Mine"},)
    assert (app.folder / "run_app" / "mine.py").read_text() == STRATEGY
    assert app.places == (str(tiny_checkpoint),)
    assert str(tiny_checkpoint) in (app.folder / "README.md").read_text()


def test_a_place_beside_the_user_is_a_whole_path_in_the_app(
    tiny_run: TinyRun, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent)
    app = write_app(tiny_run("run", f"model.path={tiny_checkpoint.name}"), tmp_path / "app")
    assert app.config.model.path == str(tiny_checkpoint)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["system={}"], "system puts devices into virtual time"),
        (["warmup.steps=3"], "make it once by flsim warmup CONFIG FOLDER"),
        (["strategy.path=test_mine.py:Mine"], "Flower leaves files of tests out"),
        (["strategy.path=server_app.py:Mine"], "give the file another name, such as my_mine.py"),
        (["strategy.path=mine.py:Mine", "stage.path=sub/mine.py:Mine"], "would be one module of the app"),
    ],
)
def test_what_a_federation_cannot_do_is_refused(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    for name in ("mine.py", "test_mine.py", "server_app.py", "sub/mine.py"):
        Path(name).write_text(STRATEGY)
    with pytest.raises(ConfigError, match=sentence):
        write_app(tiny_run("run", *settings), tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_a_folder_that_is_in_use_stays(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="there already and not empty"):
        write_app(tiny_run("run"), tmp_path / "app")


def test_the_command_writes_it_and_says_what_to_do(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, app = tiny_file(tmp_path, tiny_checkpoint), tmp_path / "app"
    assert main([str(file), str(app), "fleet.devices=5"]) == 0
    said = capsys.readouterr().out
    assert "num-supernodes=5" in said
    assert f"needed on the server and on every node: {tiny_checkpoint}" in said
    assert (app / "tiny_app" / "config.yaml").is_file()


def test_the_command_checks_the_run_first(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tiny_file(tmp_path, tiny_checkpoint)
    with pytest.raises(ConfigError, match="no_such"):
        main([str(file), str(tmp_path / "app"), "strategy.path=no_such:Thing"])
    assert not (tmp_path / "app").exists()
