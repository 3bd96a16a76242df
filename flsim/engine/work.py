"""What a worker does with a pack of messages; the same function in a Ray worker and in the driver's own process."""

import time
import traceback
from abc import abstractmethod
from collections.abc import Sequence

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

import flsim.messages as wire
from flsim.engine.store import DeviceStore
from flsim.tasks.stream import device_name


class PackedClientApp(ClientApp):
    """A Flower ClientApp that can answer for several devices in one batch; called alone, it is a pack of one."""

    @abstractmethod
    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """One reply per message, in order; may change the contexts' state. All messages are of one type and round."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Flower's own entry: one device."""
        return self.answer([message], [context])[0]


def answer_pack(app: ClientApp, messages: Sequence[Message], store: DeviceStore, devices: int) -> list[Message]:
    """Let the client answer a pack; a device that fails gets an error reply and keeps its old state.

    When a pack of several fails, each of its devices is tried alone, so that one culprit does not cost the others
    their round.

    Args:
        app: the client; any ClientApp, a `PackedClientApp` gets the whole pack at once.
        messages: one per device, of one type and round.
        store: where the devices' states are.
        devices: size of the fleet.
    """
    if len(messages) > 1 and not isinstance(app, PackedClientApp):
        return [answer_pack(app, [message], store, devices)[0] for message in messages]
    started = time.perf_counter()
    round_ = wire.round_of(messages[0])
    try:
        contexts = [_context(message, store, devices) for message in messages]
        if isinstance(app, PackedClientApp):
            replies = app.answer(messages, contexts)
        else:
            replies = [app(messages[0], contexts[0])]
    except Exception as error:
        if len(messages) > 1:
            return [answer_pack(app, [message], store, devices)[0] for message in messages]
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return [wire.error_reply(wire.RAISED, detail, messages[0])]
    seconds = (time.perf_counter() - started) / len(messages)
    return [
        _close(message, context, reply, store, round_, seconds)
        for message, context, reply in zip(messages, contexts, replies, strict=True)
    ]


def _context(message: Message, store: DeviceStore, devices: int) -> Context:
    """Flower's view of the device: its index as `partition-id`, and what it kept."""
    node = message.metadata.dst_node_id
    state = store.load(device_name(node - 1), wire.round_of(message))
    return Context(1, node, {"partition-id": node - 1, "num-partitions": devices}, state, {})


def _close(
    message: Message, context: Context, reply: Message, store: DeviceStore, round_: int, seconds: float
) -> Message:
    """Keep the device's state if its reply can be used, and note how long it took."""
    if message.metadata.message_type.startswith(MessageType.TRAIN) and not reply.has_error():
        wrong = wire.complaint(reply, wire.adapter_of(message))
        if wrong is not None:
            return wire.error_reply(*wrong, message)
        store.save(device_name(context.node_id - 1), round_, context.state)
    if not reply.has_error():
        wire.stamp(reply, seconds)
    return reply
