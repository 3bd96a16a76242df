"""A federation in this process: Flower's grid by hand, over nodes that are the app's own ClientApp.

Whatever travels goes through Flower's wire format and back, as on a network.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from flsim.federation.node import NodeApp


def carried(content: RecordDict) -> RecordDict:
    """A content as it arrives."""
    return recorddict_from_proto(ProtoRecordDict.FromString(recorddict_to_proto(content).SerializeToString()))


@dataclass
class Node:
    """A SuperNode."""

    app: NodeApp
    config: dict[str, bool | float | int | str]
    is_there: bool = True
    mute: bool = False
    """Whether it takes messages and never replies."""
    twist: Callable[[Message], Message] = field(default=lambda reply: reply)
    """What it does to its replies."""

    def answer(self, message: Message, node: int) -> Message:
        return self.twist(self.app(message, Context(7, node, self.config, RecordDict(), {})))


class Links(Grid):
    """A SuperLink and its nodes, by node id."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.nodes = nodes
        self.sent: list[tuple[int, str]] = []
        """To whom a message went, and of which kind."""
        self._ids = count(1)
        self._replies: dict[str, Message] = {}
        self._waiting: dict[str, tuple[int, Message]] = {}

    def get_node_ids(self) -> list[int]:
        return [node for node, one in self.nodes.items() if one.is_there]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            name = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = name
            self.sent.append((message.metadata.dst_node_id, message.metadata.message_type))
            self._waiting[name] = (message.metadata.dst_node_id, message)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = []
        for name in [one for one in message_ids if one in self._waiting]:
            node, message = self._waiting[name]
            one = self.nodes[node]
            if one.is_there and one.mute:
                continue
            del self._waiting[name]
            if not one.is_there:
                gone = Error(ErrorCode.NODE_UNAVAILABLE, "Error: Node Unavailable")
                found.append(Message(gone, reply_to=message))
                continue
            arrived = Message(carried(message.content), node, message.metadata.message_type)
            reply = one.answer(arrived, node)
            content = None if reply.has_error() else carried(reply.content)
            found.append(Message(reply.error if content is None else content, reply_to=message))
        return found

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=7)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError


def links_of(app: Path, states: Path, devices: int) -> Links:
    """A federation of an app, whose nodes 101, 102, ... are devices 0, 1, ..., each with a folder of its own."""
    client = NodeApp(app)
    configs: list[dict[str, bool | float | int | str]] = [
        {"partition-id": device, "state-dir": str(states / f"node-{device}")} for device in range(devices)
    ]
    return Links({101 + device: Node(client, config) for device, config in enumerate(configs)})
