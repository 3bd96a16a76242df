"""The ClientApp of a node: it says who it is, for which it loads nothing heavy, and answers for its one device."""

from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from flsim.federation.envelope import Hello, hello, own_version
from flsim.federation.own import PARTITION, PARTITIONS, count_in


class NodeApp(ClientApp):
    """What `[tool.flwr.app.components] clientapp` names."""

    def __init__(self, folder: Path) -> None:
        """Name the app.

        Args:
            folder: with its `config.yaml`.
        """
        super().__init__()
        self._folder = folder

    def __call__(self, message: Message, context: Context) -> Message:
        """Flower's entry."""
        if message.metadata.message_type.startswith(MessageType.QUERY):
            own = context.node_config
            return hello(message, Hello(count_in(own, PARTITION), count_in(own, PARTITIONS), own_version()))
        from flsim.federation.answering import answered  # only now: it imports torch

        return answered(self._folder, message, context)
