"""How much a training step may keep in memory, whether a pack fits, and what a process keeps of what it freed."""

import ctypes

import psutil

from flsim.config.model import AUTO, ModelConfig
from flsim.config.schema import ConfigError, EngineConfig
from flsim.models.builtin_llama import AnyConfig, AnyModel
from flsim.models.folder import config_of

LOGITS = 2**28
"""Most numbers of a pass's logits, 1 GiB: with a large vocabulary they, not the tokens, fill the memory."""
GRAPH = 2**28
"""Bytes that a pass on a CPU keeps for its backward, of other models than the built-in ones, which need less; three are
held at a time: of what prompts share, of their own tokens, and of responses."""
_BYTES = {"float32": 4, "bfloat16": 2}
_SHORT = ("llama", "mistral", "qwen2", "qwen3")  # families that the short forward passes read
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BUILT_IN_PROMPT, _PROMPT = 64, 512  # tokens of a generous prompt: of the built-in world, and with other models


def training_bytes(model: AnyConfig, tokens: int, judged: int, settings: ModelConfig) -> int:
    """Bytes that a forward pass keeps for its backward.

    Per token what `kept_per_token` says, in the base's dtype; and per token that is judged three vectors of the
    vocabulary's size (logits, log-probabilities, gradient) in float32. Where a pass may keep `GRAPH` bytes and no more,
    three passes keep as much, and of the rest the layers' inputs.

    Args:
        model: of the base, from its `config.json`.
        tokens: that go through every layer.
        judged: those among them whose logits are looked at, which prompts are not.
        settings: the run's.
    """
    kept = tokens * bytes_per_token(model, settings.dtype, checkpointing=settings.gradient_checkpointing)
    short = settings.device_map is None and model.model_type in _SHORT and not settings.path.startswith("builtin:")
    if short and not settings.gradient_checkpointing:
        inputs = tokens * bytes_per_token(model, settings.dtype, checkpointing=True)
        kept = min(kept, 3 * GRAPH + inputs)
    return int(kept + judged * 3 * 4 * model.get_text_config().vocab_size)


def kept_per_token(hidden: int, inner: int, layers: int, *, checkpointing: bool) -> int:
    """Numbers that one token keeps for the backward pass: in each layer 14 vectors of the hidden, 4 of the inner size.

    With gradient checkpointing each layer keeps its input, and one layer at a time the rest.
    """
    per_layer = 14 * hidden + 4 * inner
    return per_layer + layers * hidden if checkpointing else layers * per_layer


def bytes_per_token(model: AnyConfig, dtype: str, *, checkpointing: bool = False) -> int:
    """What one token keeps for the backward pass."""
    model = model.get_text_config()
    hidden, inner = model.hidden_size, getattr(model, "intermediate_size", 4 * model.hidden_size)
    return _BYTES[dtype] * kept_per_token(hidden, inner, model.num_hidden_layers, checkpointing=checkpointing)


def bytes_kept(model: AnyModel, *, checkpointing: bool = False) -> int:
    """The same of a model that is loaded."""
    return bytes_per_token(model.config, str(model.dtype).removeprefix("torch."), checkpointing=checkpointing)


def weight_bytes(model: AnyConfig, dtype: str) -> int:
    """About what the frozen base takes: embeddings, head, and of every layer attention and a gated network."""
    model = model.get_text_config()
    hidden, inner = model.hidden_size, getattr(model, "intermediate_size", 4 * model.hidden_size)
    tables = model.vocab_size * hidden * (1 if getattr(model, "tie_word_embeddings", False) else 2)
    return int(_BYTES[dtype] * (tables + model.num_hidden_layers * (4 * hidden * hidden + 3 * hidden * inner)))


def prompt_tokens(model: ModelConfig) -> int:
    """The longest prompt that memory is estimated for."""
    if model.max_prompt_tokens is not None:
        return model.max_prompt_tokens
    return _BUILT_IN_PROMPT if model.path.startswith("builtin:") else _PROMPT


def refuse_too_large(
    settings: ModelConfig,
    engine: EngineConfig,
    *,
    cohort: int,
    prompts: int,
    responses: int,
    new_tokens: int,
    micro_batch: int,
) -> None:
    """Refuse a pack whose training step cannot fit into the memory that is free now.

    Args:
        settings: of the model.
        engine: its pack and number of workers count. A GPU's memory is not looked at.
        cohort: devices per round.
        prompts: that a device trains on in one step.
        responses: of a device in one step.
        new_tokens: longest response.
        micro_batch: most tokens of responses in one forward pass.

    Raises:
        ConfigError: with the estimate, what is free, and the largest pack that fits.
    """
    if engine.gpus > 0:
        return
    model = config_of(settings.path)
    workers = engine.workers if engine.kind == "ray" else 1

    def needed(pack: int) -> int:
        most = min(micro_batch, LOGITS // model.get_text_config().vocab_size)
        at_once = max(pack * prompts * new_tokens, min(most, pack * responses * new_tokens))
        tokens = pack * prompts * prompt_tokens(settings) + at_once
        return workers * (training_bytes(model, tokens, at_once, settings) + weight_bytes(model, settings.dtype))

    pack = 1 if engine.pack == AUTO else min(int(engine.pack), cohort)
    free = psutil.virtual_memory().available
    if needed(pack) > free:
        fits = next((size for size in range(pack, 0, -1) if needed(size) <= free), 0)
        raise ConfigError(
            f"engine.pack={engine.pack} needs about {needed(pack) / 2**30:.1f} GiB on {workers} workers, "
            f"{free / 2**30:.1f} GiB are free; the largest pack that fits is {fits} "
            f"(or lower engine.workers, the client's micro_batch, prompts or group_size, give model.max_prompt_tokens, "
            f"or set model.gradient_checkpointing or model.dtype=bfloat16)"
        )


def keep_freed() -> None:
    """Have glibc keep up to a quarter of a GiB that was freed.

    Tensors of a few MB come and go with every step: to have the system hand out and clear their pages each time takes
    as long as what is done to them.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # not elsewhere than in glibc
    if set_option is not None:
        set_option(_M_TRIM_THRESHOLD, 2**28)
        set_option(_M_MMAP_THRESHOLD, 2**25)  # the most that it allows
