"""Whether a pack fits into memory, estimated before anything is started."""

import psutil
from transformers import AutoConfig, PretrainedConfig

from flsim.config import Config, ConfigError
from flsim.models.base import folder_of

_BYTES = 4  # float32
_PROMPT_TOKENS = 64  # a generous prompt of the built-in world


def training_bytes(model: PretrainedConfig, rows: int, tokens: int) -> int:
    """Bytes that a forward pass keeps for its backward: `rows` sequences of `tokens` tokens through every layer.

    Per token and layer about 14 vectors of the hidden size and 4 of the intermediate size, and for the logits three
    vectors of the vocabulary's size (logits, log-probabilities, gradient).
    """
    per_layer = 14 * model.hidden_size + 4 * getattr(model, "intermediate_size", 4 * model.hidden_size)
    return int(_BYTES * rows * tokens * (model.num_hidden_layers * per_layer + 3 * model.vocab_size))


def refuse_too_large(config: Config, *, rows_per_device: int, new_tokens: int) -> None:
    """Refuse a pack whose training step cannot fit into the memory that is free now.

    Args:
        config: the run's; `engine.pack` and the number of workers count.
        rows_per_device: completions that a device trains on in one step.
        new_tokens: longest completion.

    Raises:
        ConfigError: with the estimate, what is free, and the largest pack that fits.
    """
    model = AutoConfig.from_pretrained(folder_of(config.model.path))
    workers = config.engine.workers if config.engine.kind == "ray" else 1
    pack = min(config.engine.pack, config.cohort_size)
    one = workers * training_bytes(model, rows_per_device, _PROMPT_TOKENS + new_tokens)
    free = psutil.virtual_memory().available
    if one * pack > free:
        raise ConfigError(
            f"engine.pack={config.engine.pack} needs about {one * pack / 2**30:.1f} GiB on {workers} workers, "
            f"{free / 2**30:.1f} GiB are free; the largest pack that fits is {max(0, free // one)} "
            f"(or lower engine.workers, the client's prompts or its group_size)"
        )
