"""The real thing: a SuperLink and three SuperNodes on loopback, and Flower's own simulation, by `flwr run`."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import flsim
from flsim.federation.app import write_app
from flsim.metrics.rows import read_rows
from tests.flsim.federation.deployment import Deployment, answers, deployment, wait_until
from tests.same_rows import differences
from tests.tiny import TinyRun

TINY = ("fleet.devices=3", "engine.pack=1", "rounds=2")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
_LONG_S = 900.0  # minutes where other tests run: Flower starts a process for every message


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Deployment]:
    """A SuperLink and three SuperNodes."""
    with deployment(tmp_path / "flower") as one:
        one.start("link", "flower-superlink", "--insecure", "--port", str(one.link))
        wait_until(lambda: answers(one.link), _LONG_S, one.said)
        for device in range(3):
            one.start_node(device)
        yield one


def finished(run: Path, one: Deployment) -> pd.DataFrame:
    """The rows of a run, once its report is there."""
    wait_until(lambda: (run / "report.html").is_file(), _LONG_S, one.said)
    return read_rows(run)


def test_every_device_has_the_simulations_rows_to_the_bit(
    tiny_run: TinyRun, tmp_path: Path, flower: Deployment
) -> None:
    config = tiny_run("run")
    write_app(config, tmp_path / "app")
    assert "Successfully started run" in flower.flwr("run", str(tmp_path / "app"), "mine", timeout=_LONG_S)
    rows = finished(config.folder, flower)
    assert set(rows["device"]) >= {"device-000", "device-001", "device-002"}
    assert "set_aside" not in set(rows["name"])
    simulated = flsim.run(tiny_run("simulated"), progress=False)
    assert differences(simulated.folder, config.folder) == []
    for device in range(3):
        assert list((flower.folder / "states" / f"node-{device}").glob(f"*/device-{device:03d}/devices/*.states"))


def test_a_node_that_is_killed_in_a_round_and_comes_back_is_one_device(
    tiny_run: TinyRun, tmp_path: Path, flower: Deployment
) -> None:
    """It is killed once it has been sent what to learn in round 1, and started again at once, under another node id."""
    config = tiny_run("run", "rounds=3", "evaluation.every_rounds=9", "engine.timeout_s=200")
    write_app(config, tmp_path / "app")
    flower.flwr("run", str(tmp_path / "app"), "mine", timeout=_LONG_S)
    wait_until(lambda: "ROUND 1]" in (flower.folder / "node-1.log").read_text(), _LONG_S, flower.said)
    flower.kill("node-1")
    flower.start_node(1)
    rows = finished(config.folder, flower)
    aside = rows[rows["name"] == "set_aside"]
    assert set(aside["device"]) == {"device-001"}
    assert set(aside["task"]) <= {"late", "died"}
    assert 1 in set(aside["round"])
    learned = rows[rows["name"] == "uplink_bytes"]
    others = learned[learned["device"] != "device-001"]
    assert {(device, round_) for device, round_ in zip(others["device"], others["round"], strict=True)} == {
        (device, round_) for device in ("device-000", "device-002") for round_ in range(1, 4)
    }
    assert 3 in set(learned.loc[learned["device"] == "device-001", "round"])  # it takes part again


def test_flwr_run_in_flowers_own_simulation(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The same app, on a SuperLink that simulates: what `flwr run` starts by itself if none is named."""
    config = tiny_run("run")
    write_app(config, tmp_path / "app")
    with deployment(tmp_path / "flower") as one:
        one.start("link", "flower-superlink", "--insecure", "--simulation", "--port", str(one.link))
        wait_until(lambda: answers(one.link), _LONG_S, one.said)
        nodes = "num-supernodes=3 client-resources-num-cpus=1 init-args-num-cpus=2"
        said = one.flwr("run", str(tmp_path / "app"), "mine", "--federation-config", nodes, timeout=_LONG_S)
        assert "Successfully started run" in said, said + one.said()
        finished(config.folder, one)
    simulated = flsim.run(tiny_run("simulated"), progress=False)
    assert differences(simulated.folder, config.folder) == []
