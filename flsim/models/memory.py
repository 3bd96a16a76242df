"""Whether a pack fits into memory, estimated before anything is started."""

import psutil
from transformers import AutoConfig, PretrainedConfig

from flsim.config import AUTO, Config, ConfigError
from flsim.models.folder import folder_of

_BYTES = 4  # float32
_PROMPT_TOKENS = 64  # a generous prompt of the built-in world


def training_bytes(model: PretrainedConfig, tokens: int) -> int:
    """Bytes that a forward pass keeps for its backward, for so many tokens through every layer.

    Per token and layer about 14 vectors of the hidden size and 4 of the intermediate size, and for the logits three
    vectors of the vocabulary's size (logits, log-probabilities, gradient).
    """
    per_layer = 14 * model.hidden_size + 4 * getattr(model, "intermediate_size", 4 * model.hidden_size)
    return int(_BYTES * tokens * (model.num_hidden_layers * per_layer + 3 * model.vocab_size))


def refuse_too_large(config: Config, *, prompts: int, responses: int, new_tokens: int, micro_batch: int) -> None:
    """Refuse a pack whose training step cannot fit into the memory that is free now.

    Args:
        config: the run's; `engine.pack` and the number of workers count. A GPU's memory is not looked at.
        prompts: that a device trains on in one step.
        responses: of a device in one step.
        new_tokens: longest response.
        micro_batch: most tokens of responses in one forward pass.

    Raises:
        ConfigError: with the estimate, what is free, and the largest pack that fits.
    """
    if config.engine.gpus > 0:
        return
    model = AutoConfig.from_pretrained(folder_of(config.model.path))
    workers = config.engine.workers if config.engine.kind == "ray" else 1

    def needed(pack: int) -> int:
        at_once = max(pack * prompts * new_tokens, min(micro_batch, pack * responses * new_tokens))
        return workers * training_bytes(model, pack * prompts * _PROMPT_TOKENS + at_once)

    pack = 1 if config.engine.pack == AUTO else min(int(config.engine.pack), config.cohort_size)
    free = psutil.virtual_memory().available
    if needed(pack) > free:
        fits = next((size for size in range(pack, 0, -1) if needed(size) <= free), 0)
        raise ConfigError(
            f"engine.pack={config.engine.pack} needs about {needed(pack) / 2**30:.1f} GiB on {workers} workers, "
            f"{free / 2**30:.1f} GiB are free; the largest pack that fits is {fits} "
            f"(or lower engine.workers, the client's micro_batch, prompts or group_size)"
        )
