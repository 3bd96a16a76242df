"""Who is who: nodes that come late, are none of the fleet, are two of one device, or are too few."""

from collections.abc import Callable

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flsim.config.schema import ConfigError
from flsim.federation.envelope import Hello, hello
from flsim.federation.roster import Roster
from flsim.flower.grid import identify
from tests.flsim.federation.links import Links, Node


class Says(ClientApp):
    """A node that introduces itself by a given text and nothing else."""

    def __init__(self, mine: Callable[[], Hello]) -> None:
        super().__init__()
        self._mine = mine

    def __call__(self, message: Message, context: Context) -> Message:
        return hello(message, self._mine())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    identify()
    monkeypatch.setattr("flsim.federation.roster._LOOK_S", 0.0)
    monkeypatch.setattr("flsim.federation.roster.own_version", lambda: "1")


def node(partition: int, *, partitions: int = -1, version: str = "1") -> Node:
    return Node(Says(lambda: Hello(partition, partitions, version)), {})  # type: ignore[arg-type]


def test_devices_are_found_by_partition_whatever_the_ids() -> None:
    roster = Roster(Links({9: node(0), 3: node(2), 5: node(1)}), 3)
    roster.gather(1.0)
    assert [roster.node_of(device) for device in range(4)] == [9, 5, 3, None]


def test_who_is_missing_is_said_with_what_keeps_the_others_out() -> None:
    others = {2: node(-1), 3: node(7), 4: node(1, version="2")}
    with pytest.raises(ConfigError) as told:
        Roster(Links({1: node(0), **others}), 3).gather(0.05)
    said = str(told.value)
    assert "1 of 3 devices have a SuperNode, and none has device-001, device-002" in said
    assert "node 2: it was started without partition-id" in said
    assert "node 3: its partition-id=7 is none of 0 to 2" in said
    assert "node 4: it has flsim 2, and the server 1; they must be the same" in said


def test_two_nodes_of_one_device_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"two SuperNodes, 1 and 2, both say partition-id=0"):
        Roster(Links({1: node(0), 2: node(0)}), 2).gather(1.0)


def test_a_simulated_federation_that_is_too_small_is_refused_at_once() -> None:
    links = Links({1: node(0, partitions=2), 2: node(1, partitions=2)})
    with pytest.raises(ConfigError, match=r"num-supernodes=16"):
        Roster(links, 16).gather(600.0)


def test_a_node_that_comes_later_takes_the_place_of_one_that_went() -> None:
    links = Links({1: node(0), 2: node(1)})
    roster = Roster(links, 2)
    roster.gather(1.0)
    links.nodes[1].is_there = False
    roster.look()
    assert roster.node_of(0) is None
    links.nodes[7] = node(0)
    roster.look_for([0])
    assert roster.node_of(0) == 7


def test_a_node_that_went_and_came_back_as_itself_is_asked_again() -> None:
    """With keys of its own a SuperNode keeps its id."""
    links = Links({1: node(0), 2: node(1)})
    roster = Roster(links, 2)
    roster.gather(1.0)
    links.nodes[2].is_there = False
    roster.look()
    links.nodes[2] = node(1)
    roster.look_for([1])
    assert roster.node_of(1) == 2
    assert [entry for entry in links.sent if entry[0] == 2] == [(2, "query")] * 2


def test_a_round_waits_for_nobody_who_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsim.federation.roster._ANSWER_S", 1e9)
    links = Links({1: node(0)})
    roster = Roster(links, 2)
    roster.look_for([0, 1])  # for ever, if it did
    assert roster.node_of(1) is None
