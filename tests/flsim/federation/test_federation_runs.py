"""Runs on a federation: the rows are a simulation's, a node that fails is one device, and a resume goes on.

The nodes are in this process (`links.py`); tests/flsim/federation/test_deployment.py has real ones.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import flsim
import flsim.flower.messages as wire
from flsim.config.schema import Config, ConfigError
from flsim.federation.app import write_app
from flsim.federation.envelope import FEDERATION, Terms, with_terms
from flsim.federation.server import serve
from flsim.flower.grid import identify
from flsim.loop.checkpoints import latest_checkpoint
from tests.flsim.federation.links import Links, links_of
from tests.same_rows import differences
from tests.tiny import TinyRun, without_report

TINY = ("fleet.devices=3", "engine.pack=1", "rounds=3")
pytestmark = pytest.mark.usefixtures("no_report", "one_thread", "quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for: the nodes here answer when they are looked at."""
    monkeypatch.setattr("flsim.federation.roster._LOOK_S", 0.0)
    monkeypatch.setattr("flsim.federation.grid._FIRST_S", 0.001)


def app_of(config: Config, folder: Path) -> Path:
    """The folder of an app's package."""
    written = write_app(config, folder / "app")
    return next(path for path in written.folder.iterdir() if path.is_dir())


def federate(app: Path, run: Path, links: Links, *, resume: bool = False, wait_s: float = 5.0) -> pd.DataFrame:
    """Carry a run out on a federation; its rows."""
    return serve(app, links, {"run-dir": str(run), "resume": resume, "wait-s": wait_s}).rows


def set_aside(rows: pd.DataFrame) -> list[tuple[int, str, str]]:
    """Who was set aside, in which round, and the word for it."""
    found = rows[rows["name"] == "set_aside"]
    return sorted(zip(found["round"], found["device"], found["task"], strict=True))


def simulated(config: Config) -> Path:
    """The folder of the same run as a simulation, up to its end."""
    return flsim.run(config, progress=False).folder


def digests(run: Path) -> dict[int, tuple[int, bytes]]:
    """The states that a run's newest checkpoint names, by device."""
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    assert checkpoint.inventory is not None
    return {device: (one.round, one.digest) for device, one in checkpoint.inventory.states.items()}


def test_rows_adapter_and_states_are_the_simulations_bit_for_bit(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "rounds=4")
    app = app_of(config, tmp_path)
    federate(app, tmp_path / "run", links_of(app, tmp_path / "states", 3))
    assert differences(simulated(config), tmp_path / "run") == []
    assert digests(config.folder) == digests(tmp_path / "run")
    assert not (tmp_path / "run" / "devices").exists()
    left = sorted(path.name for path in (tmp_path / "states").glob("node-1/*/device-001/devices/*"))
    assert [name[:11] for name in left] == ["round-00002", "round-00003", "round-00004"]  # of two checkpoints, and new


def test_summed_by_the_server_a_mean_is_the_one_that_workers_sum(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Above engine.stream workers of a simulation sum; nodes never do, and the sum is exact."""
    config = tiny_run("simulated", "strategy.path=strategies.fedavg:FedAvg", "engine.stream=2", "rounds=2")
    app = app_of(config, tmp_path)
    federate(app, tmp_path / "run", links_of(app, tmp_path / "states", 3))
    assert differences(simulated(config), tmp_path / "run") == []


def test_any_flower_strategy_and_its_mods_run_there(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "strategy.path=flwr.serverapp.strategy:FedAdam", "rounds=2")
    app = app_of(config, tmp_path)
    federate(app, tmp_path / "run", links_of(app, tmp_path / "states", 3))
    assert differences(simulated(config), tmp_path / "run") == []


def at_round(links: Links, round_: int, act: Callable[[], None]) -> None:
    """Do something before the first training message of a round is sent."""
    push, done = links.push_messages, list[int]()

    def watched(messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train" and wire.round_of(message) == round_ and not done:
                done.append(round_)
                act()
        return push(messages)

    links.push_messages = watched  # type: ignore[method-assign]


def test_a_node_that_goes_away_and_comes_back_is_one_device_of_one_round(tiny_run: TinyRun, tmp_path: Path) -> None:
    """It comes back as another node, with the folder of its states, as a SuperNode that is started again."""
    config = tiny_run("simulated", "rounds=4", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)

    def leave_and_return() -> None:
        links.nodes[102].is_there = False
        links.nodes[202] = links_of(app, tmp_path / "states", 3).nodes[102]

    at_round(links, 2, leave_and_return)
    rows = federate(app, tmp_path / "run", links)
    assert set_aside(rows) == [(2, "device-001", "died")]
    learned = rows[(rows["name"] == "uplink_bytes") & (rows["device"] == "device-001")]
    assert set(learned["round"]) == {1, 3, 4}
    assert (202, "train") in links.sent


def test_a_node_that_does_not_reply_is_late(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "rounds=1", "engine.timeout_s=3", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)

    def fall_silent() -> None:
        links.nodes[103].mute = True

    at_round(links, 1, fall_silent)
    rows = federate(app, tmp_path / "run", links)
    assert set_aside(rows) == [(1, "device-002", "late")]


def test_a_node_that_lost_its_state_gives_no_number(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)

    def move() -> None:
        links.nodes[101].config["state-dir"] = str(tmp_path / "elsewhere")

    at_round(links, 2, move)
    rows = federate(app, tmp_path / "run", links)
    assert set_aside(rows) == [(2, "device-000", "lost"), (3, "device-000", "lost")]
    log = (tmp_path / "run" / "run.log").read_text()
    assert "lacks the state that device-000 left in round 1 (it has rounds: none, in" in log
    assert "bring that folder back" in log


def test_a_node_with_another_model_gives_no_number(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "rounds=1", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)
    links.nodes[102].config["model.path"] = "builtin:slm"
    rows = federate(app, tmp_path / "run", links)
    assert set_aside(rows) == [(1, "device-001", "raised")]
    assert "is another checkpoint on this node than on the server" in (tmp_path / "run" / "run.log").read_text()


def test_a_node_needs_no_identity_of_flowers(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of Flower's own simulation have none, and one that Flower gave stays."""
    app = app_of(tiny_run("simulated"), tmp_path)
    identify()
    asked = Message(with_terms(RecordDict(), Terms("0" * 16, "none", 0, 3, None)), 5, "train")
    monkeypatch.setattr(TaskIdentity, "_run_id", None)
    links = links_of(app, tmp_path / "states", 3)
    reply = links.nodes[101].answer(asked, 5)
    assert reply.error.reason is not None
    assert "is another checkpoint on this node" in reply.error.reason
    monkeypatch.setattr(TaskIdentity, "_run_id", 77)
    links.nodes[101].answer(asked, 5)
    assert TaskIdentity.run_id == 77


def in_its_rows(old: str, new: str) -> Callable[[Message], Message]:
    """A node that writes something else into its rows."""

    def twist(reply: Message) -> Message:
        if wire.ROWS in reply.content and wire.METRICS in reply.content and wire.ARRAYS in reply.content:
            said = str(reply.content[wire.ROWS]["json"])
            reply.content[wire.ROWS] = ConfigRecord({"json": said.replace(old, new)})
        return reply

    return twist


def without_its_state(reply: Message) -> Message:
    """A node that does not say what its device left."""
    if wire.ARRAYS in reply.content:
        reply.content[FEDERATION] = ConfigRecord({})
    return reply


def with_another_record(reply: Message) -> Message:
    """A node that sends something in the wrong kind of record."""
    if wire.ARRAYS in reply.content:
        reply.content[wire.SHARED] = reply.content[wire.ARRAYS]
    return reply


@pytest.mark.parametrize(
    "twist",
    [
        in_its_rows("device-001", "device-002"),
        in_its_rows('"own", "', '"own", 7, "'),
        with_another_record,
    ],
    ids=["rows of another device", "no rows", "another kind of record"],
)
def test_what_a_node_says_is_looked_at(tiny_run: TinyRun, tmp_path: Path, twist: Callable[[Message], Message]) -> None:
    config = tiny_run("simulated", "rounds=1", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)
    links.nodes[102].twist = twist
    rows = federate(app, tmp_path / "run", links)
    assert set_aside(rows) == [(1, "device-001", "misshapen")]


def test_a_node_that_hides_what_its_device_left_is_set_aside(tiny_run: TinyRun, tmp_path: Path) -> None:
    """In round 1 a device had nothing before, and may well have left nothing; from then on it cannot have."""
    config = tiny_run("simulated", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)

    def begin_to_hide() -> None:
        links.nodes[102].twist = without_its_state

    at_round(links, 2, begin_to_hide)
    rows = federate(app, tmp_path / "run", links)
    assert set_aside(rows) == [(2, "device-001", "misshapen"), (3, "device-001", "misshapen")]


class Killed(BaseException):
    """What ends a server in these tests."""


@pytest.fixture(scope="module")
def in_peace(tiny_runs: TinyRun) -> Path:
    """The simulation with which runs of a server that was killed are compared."""
    with without_report():
        return simulated(tiny_runs("in-peace"))


@pytest.mark.parametrize("round_", [1, 2, 3])
def test_a_server_that_was_killed_in_a_round_goes_on_with_equal_rows(
    tiny_run: TinyRun, in_peace: Path, tmp_path: Path, round_: int
) -> None:
    """The nodes have answered by then, so each has a state of a round that was given up."""
    app = app_of(tiny_run("federated"), tmp_path)
    links = links_of(app, tmp_path / "states", 3)

    def die(reply: Message) -> Message:
        if wire.ARRAYS in reply.content and reply.metadata.src_node_id == 103:
            rounds.append(1)
            if len(rounds) == round_:
                raise Killed
        return reply

    rounds: list[int] = []
    links.nodes[103].twist = die
    with pytest.raises(Killed):
        federate(app, tmp_path / "run", links)
    links.nodes[103].twist = lambda reply: reply
    federate(app, tmp_path / "run", links, resume=True)
    assert differences(in_peace, tmp_path / "run") == []
    assert digests(in_peace) == digests(tmp_path / "run")


def test_without_resume_a_run_that_is_there_stays(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "rounds=1", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)
    federate(app, tmp_path / "run", links)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        federate(app, tmp_path / "run", links)
    federate(app, tmp_path / "run", links, resume=True)  # it is done: it gets its report again


def test_a_federated_run_is_no_simulation_to_go_on_with(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "rounds=2", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    links = links_of(app, tmp_path / "states", 3)

    def die() -> None:
        raise Killed

    at_round(links, 2, die)
    with pytest.raises(Killed):
        federate(app, tmp_path / "run", links)
    with pytest.raises(ConfigError, match=r"whose nodes keep the devices' states.*flwr run APP"):
        flsim.run(resume=tmp_path / "run", progress=False)


def test_a_simulation_is_no_federated_run_to_go_on_with(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("simulated", "rounds=1", "evaluation.every_rounds=9")
    app = app_of(config, tmp_path)
    with pytest.raises(ConfigError, match="holds a simulated run, whose devices' states no node has"):
        federate(app, simulated(config), links_of(app, tmp_path / "states", 3), resume=True)
