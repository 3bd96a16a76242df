"""`flsim why` and `flsim replay` as they are typed: sentences, data, a debugger, a device that raised, and mistakes."""

import io
import json
import sys
from pathlib import Path

import pytest

import flsim
from experiments.command.__main__ import main
from tests.tiny import TinyRun, without_report

TINY = ("fleet.devices=3", "engine.pack=2", "client.group_size=3", "budget.calls_per_round=0")
STUMBLES = """
from clients.da_grpo import DaGrpo

class Stumbles(DaGrpo):
    def local_update(self, world, devices):
        if any(device.name == "device-001" and device.round == 2 for device in devices):
            raise ValueError("it stumbles")
        return super().local_update(world, devices)
"""


@pytest.fixture(scope="module")
def folder(tiny_runs: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which device-001 raises in its last round."""
    file = tmp_path_factory.mktemp("mine") / "stumbles.py"
    file.write_text(STUMBLES)
    with without_report():
        return flsim.run(tiny_runs("mine", f"client.path={file}:Stumbles"), progress=False).folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, on one line."""
    return " ".join(capsys.readouterr().out.split())


def test_why_tells_of_a_round_and_of_its_devices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", str(folder)]) == 0
    told = said(capsys)
    assert "3 devices learned in it, and the updates of 2 were aggregated." in told
    assert "Set aside were device-001 (raised)." in told
    assert main(["why", str(folder), "device=1"]) == 0
    assert "Its update was not used, raised: ValueError: it stumbles" in said(capsys)
    assert main(["why", str(folder), "round=1", "device=device-002"]) == 0
    told = said(capsys)
    assert "all of arithmetic. It was in phase A (arithmetic), and no switch had come yet." in told
    assert "what it began with is not recorded, as client.dual_init is not in the config." in told
    assert main(["why", str(folder), "round=1", "device=2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["round"], facts["device"], facts["set_aside"]) == (1, "device-002", None)
    assert facts["asked"]["granted"] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["why", "RUN", "round=9"], "round=9 is no round of"),
        (["why", "RUN", "round=0"], "round 0 only measures, and devices learned in rounds 1 to 2"),
        (["why", "RUN", "device=phone"], "took part in no round of"),
        (["replay", "RUN", "device=7"], "in round 2 there were device-000, device-001, device-002"),
        (["replay", "RUN"], "say which device, such as device=7"),
        (["replay", "RUN", "device=1", "client.lr=0.1"], "the run was started with another config (client.lr"),
        (["why", "RUN", "seed=3"], "seed is no part of a question"),
        (["why", "nowhere"], "nowhere is no run: it has no config.yaml"),
        (["why", "RUN", "12"], "'12' is not key=value; write it as round=12 or device=7"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_there_is_not_is_one_sentence(
    words: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main([str(folder) if word == "RUN" else word for word in words])
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert sentence in err.splitlines()[-1]


def test_a_device_that_raised_is_replayed_with_its_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The device beside it in the pack, too, whose round counts."""
    assert main(["replay", str(folder), "device=1"]) == 0
    out, err = capsys.readouterr()
    assert "The state before round 2 is copied" in " ".join(err.split())
    assert 'raise ValueError("it stumbles")' in out
    assert "are equal to the bit" in " ".join(out.split())
    assert main(["replay", str(folder), "device=0"]) == 0
    told = said(capsys)
    assert "in one pack with device-001" in told
    assert "rows and the state that it left are equal to the bit." in told
    assert "Traceback" not in told


def test_pdb_stops_where_the_device_learns(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the pack of two and once for the device alone, as the pack raised; then where it raised."""
    commands = "p [device.name for device in devices]\nc\np len(devices)\nc\np 6 * 7\nq\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(commands))
    assert main(["replay", str(folder), "device=1", "--pdb"]) == 0
    told = said(capsys)
    places = [told.index(part) for part in ("['device-000', 'device-001']", "(Pdb) 1", "(Pdb) 42", "equal to the bit")]
    assert places == sorted(places)
    monkeypatch.setattr(sys, "stdin", io.StringIO("q\n"))
    assert main(["replay", str(folder), "round=1", "device=2", "--pdb"]) == 130


def test_a_replay_that_differs_has_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The learner was mended since: its device, which the run set aside, replies now."""
    config = flsim.load_config(folder / "config.yaml")
    file = Path(str(config.client["path"]).partition(":")[0])
    file.write_text(STUMBLES.replace("device.round == 2", "device.round == 3"))
    try:
        assert main(["replay", str(folder), "device=1"]) == 1
        assert "set_aside: the run has raised, the replay nothing" in said(capsys)
    finally:
        file.write_text(STUMBLES)
