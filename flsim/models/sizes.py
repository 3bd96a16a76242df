"""The system of a run whose devices hold language models: sizes are the run's own, or of what it stands for."""

import json
from pathlib import Path

from flsim.config.model import ModelConfig
from flsim.config.ranges import ConfigError, near
from flsim.config.system import SystemConfig
from flsim.models.folder import config_of
from flsim.models.memory import prompt_tokens
from flsim.system.shapes import DECODERS, Decoder
from flsim.system.system import System

_BYTES = {"float32": 4.0, "bfloat16": 2.0}


def system_of(system: SystemConfig, model: ModelConfig, seed: int, held: float = 0.0) -> System:
    """What devices take that hold this model.

    Args:
        system: of the config.
        model: likewise.
        seed: of the stream.
        held: share of the layers of the cloud's model that devices hold, too.

    Raises:
        ConfigError: for a model that nobody knows, or a class whose memory is too small for it.
    """
    own, stands = _own(model), system.stands_for
    if stands.device is None:
        found = System(system, own.shape(rank=model.rank, weight_bytes=_BYTES[model.dtype]), seed)
    else:
        other = _named(stands.device)
        shape = other.shape(rank=model.rank, weight_bytes=stands.weight_bytes)
        found = System(system, shape, seed, carried=other.adapter(1) / own.adapter(1))
    found.refuse_small(prompt_tokens(model) + model.training_tokens, held)
    return found


def _own(model: ModelConfig) -> Decoder:
    return Decoder.read(model.path, config_of(model.path).get_text_config().to_dict())


def _named(name: str) -> Decoder:
    if name in DECODERS:
        return DECODERS[name]
    file = Path(name) / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"system.stands_for.device={name!r} is neither one of {', '.join(DECODERS)}{near(name, DECODERS)} nor a "
            f"folder with a config.json"
        )
    return Decoder.read(name, json.loads(file.read_text()))
