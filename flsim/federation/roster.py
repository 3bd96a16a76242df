"""Which node is which device: nodes are asked as they come, and say it by their `partition-id`."""

import logging
import time
from collections.abc import Sequence

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flsim.config.schema import ConfigError
from flsim.devices import device_name
from flsim.federation.envelope import UNKNOWN, Hello, hello_of, own_version
from flsim.federation.opened import short

_LOOK_S = 2.0  # between two looks at who is there
_ANSWER_S = 15.0  # that a round waits for a node to say who it is, before it does without
_AGAIN_S = 30.0  # after which a node that could not answer is asked again
_TELL_S = 30.0  # between two lines that say who is missing
_LOG = logging.getLogger("flsim.run")


class Roster:
    """The nodes of a federation, by device."""

    def __init__(self, grid: Grid, devices: int) -> None:
        """Know nobody yet.

        Args:
            grid: Flower's.
            devices: size of the fleet.
        """
        self._grid, self._devices = grid, devices
        self._there: set[int] = set()
        self._asked: dict[int, float] = {}  # node, and when
        self._open: dict[str, int] = {}  # questions that are not answered, by message id, and who was asked
        self._node: dict[int, int] = {}
        self.unfit: dict[int, str] = {}
        """Nodes that cannot take part, and why."""
        self._looked = -_LOOK_S
        self._gathering = False

    def node_of(self, device: int) -> int | None:
        """The node of a device, if it is connected."""
        node = self._node.get(device)
        return node if node in self._there else None

    def look(self) -> None:
        """Hear the answers that came, see who is there, and ask those that are new; it waits for nobody."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self._there = set(self._grid.get_node_ids())
        for known in (self._asked, self.unfit):
            for gone in [node for node in known if node not in self._there]:
                del known[gone]  # if it comes back it is asked again
        self._open = {name: node for name, node in self._open.items() if node in self._there}
        if self._open:
            for reply in list(self._grid.pull_messages(list(self._open))):
                node = self._open.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    self._hear(node, reply)
        for node in sorted(self._there):
            if node not in self._asked or (node in self.unfit and now - self._asked[node] > _AGAIN_S):
                self._asked[node] = now
                question = Message(RecordDict(), node, MessageType.QUERY)
                self._open |= {one: node for one in self._grid.push_messages([question]) if one}

    def look_for(self, devices: Sequence[int]) -> None:
        """Look, and where one of these has no node, give nodes that have just come a moment to say who they are."""
        self.look()
        while any(self.node_of(device) is None for device in devices):
            now = time.monotonic()
            if not any(now - self._asked.get(node, now) < _ANSWER_S for node in self._open.values()):
                return
            time.sleep(min(_LOOK_S, 0.2))
            self.look()

    def gather(self, wait_s: float) -> None:
        """Wait until every device has a node.

        Raises:
            ConfigError: if some have none in time, if two nodes are one device, or if there can never be enough.
        """
        begun = told = time.monotonic()
        self._gathering = True
        while True:
            self.look()
            missing = [device for device in range(self._devices) if self.node_of(device) is None]
            now = time.monotonic()
            if not missing:
                self._gathering = False
                _LOG.info("all %d devices have a node", self._devices)
                return
            if now - begun > wait_s:
                raise ConfigError(self._lacking(missing, wait_s))
            if now - told > _TELL_S:
                told = now
                _LOG.info("waiting for %s", _named(missing))
            time.sleep(0.2)

    def _hear(self, node: int, reply: Message) -> None:
        """A node has said who it is."""
        try:
            if reply.has_error():
                raise ValueError(short(reply.error.reason or f"error {reply.error.code}"))
            said = hello_of(reply)
            reason = self._unfit(said)
        except (ValueError, TypeError) as error:
            said, reason = None, str(error)
        if said is None or reason is not None:
            if self.unfit.get(node) != reason:
                _LOG.warning("node %d cannot take part: %s", node, reason)
            self.unfit[node] = str(reason)
            return
        self._refuse_too_few(said)
        before = self._node.get(said.partition)
        if self._gathering and before is not None and before != node and before in self._there:
            raise ConfigError(
                f"two SuperNodes, {before} and {node}, both say partition-id={said.partition}: give each its own by "
                f"--node-config, or wait a minute if one of them was started in the place of the other"
            )
        if before is not None and before != node:
            _LOG.warning("%s is at node %d now, after node %d", device_name(said.partition), node, before)
        self.unfit.pop(node, None)
        self._node[said.partition] = node

    def _unfit(self, said: Hello) -> str | None:
        """Why a node cannot take part; None if it can."""
        if said.partition == UNKNOWN:
            return "it was started without partition-id in its --node-config"
        if not 0 <= said.partition < self._devices:
            return f"its partition-id={said.partition} is none of 0 to {self._devices - 1}"
        if said.version != own_version():
            return f"it has flsim {said.version}, and the server {own_version()}; they must be the same"
        return None

    def _refuse_too_few(self, said: Hello) -> None:
        """Refuse a simulated federation that can never be large enough."""
        if said.partitions != UNKNOWN and said.partitions < self._devices:
            raise ConfigError(
                f"the federation has {said.partitions} SuperNodes and the config fleet.devices={self._devices}: start "
                f'as many, in a simulated federation by --federation-config "num-supernodes={self._devices}"'
            )

    def _lacking(self, missing: list[int], wait_s: float) -> str:
        came = self._devices - len(missing)
        lacking = [f"node {node}: {why}" for node, why in sorted(self.unfit.items())]
        more = f"; of those that came, some cannot take part ({'; '.join(lacking[:4])})" if lacking else ""
        return (
            f"after wait-s={wait_s:g} seconds {came} of {self._devices} devices have a SuperNode, and none has "
            f"{_named(missing)}{more}; start each with --node-config 'partition-id=INDEX', or give a longer wait-s"
        )


def _named(devices: list[int]) -> str:
    """Some devices, by name."""
    some = ", ".join(device_name(device) for device in devices[:8])
    return some if len(devices) <= 8 else f"{some} and {len(devices) - 8} more"
