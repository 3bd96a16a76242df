"""`flsim watch`: what it refuses, its table, and that it ends at once; the page itself is tested in a browser."""

import math
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from experiments.command.__main__ import main
from experiments.command.unloaded import attribute, facts_unloaded
from experiments.command.walk import classes_in, find
from flsim.config.load import load_config
from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.loop.diagnosing import facts_of


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run that has not begun its rounds, and that nobody works on."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("rounds: 3\n")
    (folder / "environment.json").write_text("{}")
    return tmp_path / "runs"


def test_the_table_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(runs), "--text", "--once"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "1 run: 1 stopped"
    assert " ".join(out[4].split()) == "tiny stopped - of 3 - - - - - -"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["RUNS", "--once"], "--once belongs to --text"),
        (["RUNS", "--port", "70000"], "--port 70000 is none; it is a number from 0 to 65535"),
        (["RUNS", "--every", "0"], "--every 0 must be at least 0.2 seconds"),
        (["RUNS", "--every", "nan"], "--every nan must be at least 0.2 seconds"),
        (["RUNS", "--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address here"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    try:
        status = main(["watch", *(str(runs) if one == "RUNS" else one for one in arguments)])
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["watch", str(runs), "--port", str(port)]) == 2
    said = f"error: nothing can listen at port {port} of 127.0.0.1 (Address already in use); --port 0 takes a free one"
    assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_signal_ends_it_at_once(runs: Path, number: int, status: int) -> None:
    """Also while a page asks; the address that it says is that of the port which it took."""
    command = [sys.executable, "-m", "flsim", "watch", str(runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert b'"state":"stopped"' in urlopen(f"{address}/runs.json", timeout=30).read()
            process.send_signal(number)
            begun = time.monotonic()
            assert process.wait(30) == status
            assert time.monotonic() - begun < 10
            assert process.stderr.read().strip() == "stopped"
        finally:
            process.kill()


def test_what_a_client_is_stands_in_its_source() -> None:
    """Of every client that ships, the facts without an import are those with one."""
    clients = [one for one in classes_in("clients") if not one.is_abstract and attribute(one, "may_ask") is not None]
    assert len(clients) > 8
    for one in clients:
        config = load_config(None, [f"client.path={one.path}"])
        assert facts_unloaded(config) == facts_of(config), one.path
        named = resolve("client.path", one.path)
        assert attribute(one, "dual_lr") == getattr(named, "dual_lr", None), one.path


def test_attributes_by_hand() -> None:
    fixed = find("clients.fixed_price:FixedPrice")
    assert (attribute(fixed, "dual_max"), attribute(fixed, "no_such_thing")) == (math.inf, None)


def test_of_ones_own_client_no_code_is_run(tmp_path: Path) -> None:
    config = load_config(None, [f"client.path={tmp_path / 'boom.py'}:Boom"])
    (tmp_path / "boom.py").write_text("raise SystemExit('boom')")
    facts = facts_unloaded(config)
    assert (facts.learns_to_ask, facts.tau) == (False, config.budget.tau)
    with pytest.raises((ConfigError, SystemExit)):
        resolve("client.path", f"{tmp_path / 'boom.py'}:Boom")


@pytest.mark.parametrize("command", ["watch", "price"])
def test_an_address_is_no_folder(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "s3://me:hush@bucket/runs?region=x"])
    said = capsys.readouterr().err
    assert "s3://bucket/runs?region=x lies in an object store, and this takes a folder; docs/storage.md" in said
    assert "hush" not in said
