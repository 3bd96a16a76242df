"""A node answers one message: the same function as a worker's of a simulation, on the states that lie on the node."""

from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from flsim.cloud.protocol import RefusedError
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.devices import device_name, node_of
from flsim.federation.envelope import Left, Terms, terms_of, with_left, without_terms
from flsim.federation.home import Home, LostStateError
from flsim.federation.own import PARTITION, NodeConfig, count_in, own_settings, states_root
from flsim.files import DamagedFileError, UnwritableError
from flsim.flower.contract import client_of
from flsim.flower.grid import identify
from flsim.flower.work import answer_pack
from flsim.loop.place import CONFIG
from flsim.models.folder import sketch


def answered(folder: Path, message: Message, context: Context) -> Message:
    """The reply to a message of the server; whatever keeps the device from answering is an error that says why.

    Args:
        folder: of the app, with its `config.yaml`.
        message: to this node.
        context: Flower's, whose `node_config` says which device this is.
    """
    identify()  # in a simulated federation the processes of nodes have no identity of Flower's
    try:
        return _answered(folder, terms_of(message), message, context.node_config)
    except LostStateError as error:
        return wire.error_reply(wire.LOST, str(error), message)
    except (ConfigError, DamagedFileError, UnwritableError, RefusedError, ValueError) as error:
        return wire.error_reply(wire.RAISED, str(error), message)
    except Exception as error:  # Flower would tell the server where in Ray it happened, and not what
        return wire.error_reply(wire.RAISED, f"{type(error).__name__}: {error}", message)


def _answered(folder: Path, terms: Terms, message: Message, own: NodeConfig) -> Message:
    mine = count_in(own, PARTITION)
    if mine != terms.device:
        raise LostStateError(f"this node is partition-id={mine}, and no longer {device_name(terms.device)}")
    app = _app(folder, own_settings(own), terms.model)
    torch.set_num_threads(1)  # as in a simulation's worker: their number enters the last bits of a sum
    with Home(states_root(own), terms.run, terms.device).locked() as home:
        begun = home.begin(terms.begins)
        asked = Message(without_terms(message.content), node_of(terms.device), message.metadata.message_type)
        result = answer_pack(app, [asked], home.store, terms.devices, None, begun)
        left = result.saved.get(terms.device)
        if left is not None:
            home.keep(terms.begins, left)
    (reply,) = result.replies
    if reply.has_error():
        return Message(reply.error, reply_to=message)
    return Message(with_left(reply.content, Left(left, result.busy_s, result.parts)), reply_to=message)


@lru_cache(maxsize=1)
def _app(folder: Path, settings: tuple[str, ...], model: str) -> ClientApp:
    """The client that the app's config names, with its model: once for as long as the process lives.

    Raises:
        ConfigError: if this node has another base model than the server.
    """
    config = load_config(folder / CONFIG, settings)
    if sketch(config.model.path) != model:
        raise ConfigError(
            f"model.path={config.model.path!r} is another checkpoint on this node than on the server; put the same "
            f"files there, or name them by --node-config 'model.path=\"...\"'"
        )
    return client_of(config)
