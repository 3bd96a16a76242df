"""`flsim new` writes files that run as they are; `flsim doctor` says what is there and what is missing."""

from importlib import metadata
from pathlib import Path

import pytest

import flsim
from experiments.command import doctor
from experiments.command.__main__ import main
from experiments.command.new import KINDS
from tests.tiny import TinyRun

TINY = ("client.prompts=2", "client.group_size=2")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("method", ["client.path=my_own_method.py:MyOwnMethod", "client.price=0.3"]),
        ("strategy", ["strategy.path=my_own_strategy.py:MyOwnStrategy", "strategy.step=0.5"]),
    ],
)
@pytest.mark.usefixtures("no_report")
def test_what_is_written_runs_as_it_is(
    kind: str,
    settings: list[str],
    tiny_run: TinyRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command that it says to try holds the same settings."""
    monkeypatch.chdir(tmp_path)
    assert main(["new", kind, f"my_own_{kind}"]) == 0
    said = capsys.readouterr().out
    assert all(setting in said for setting in settings)
    run = flsim.run(tiny_run("run", *settings), progress=False)
    assert set(run.rows["round"]) == {0, 1, 2}
    assert run.rows["total"].notna().all()


def test_a_new_config_can_be_run_and_is_named_after_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "config", "my_own"]) == 0
    assert capsys.readouterr().out.endswith("flsim run my_own.yaml\n")
    config = flsim.load_config("my_own.yaml")
    assert (config.name, config.fleet.devices) == ("my_own", 8)
    from flsim.loop.ready import build_parts  # what a run does before its first round

    build_parts(config)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_overwritten(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", kind, "mine"]) == 0
    (file,) = tmp_path.iterdir()
    file.write_text("precious")
    assert main(["new", kind, "mine"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert file.read_text() == "precious"


def test_the_doctor_knows_every_extra() -> None:
    assert sorted(doctor.EXTRAS) == sorted(metadata.metadata(doctor.DISTRIBUTION).get_all("Provides-Extra") or [])


def test_the_doctor_says_what_is_missing_and_leaves_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that nobody has; sandboxes are tried in tests of their own."""
    monkeypatch.setattr(doctor, "_sandboxes", lambda: iter(()))
    assert main(["doctor"]) == 0
    well = capsys.readouterr().out
    assert "Everything that a run needs is there." in well
    assert "torch" in well
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package>=1", "numpy>=1000"])
    assert main(["doctor"]) == 1
    ill = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    assert "missing: no-such-package" in ill
    assert "numpy" in ill
    assert "(asked for >=1000)" in ill
    assert "Mend what is marked as wrong." in ill
