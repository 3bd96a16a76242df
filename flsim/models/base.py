"""Load a base model and its tokenizer, built in or from a Hugging Face folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from flsim.config import ConfigError
from flsim.models.builtin import BUILTIN_DIR
from flsim.models.forward import AnyForward, Forward
from flsim.models.llama import LlamaForward, fits
from flsim.models.tokenizer import HELP

NO_HELP = -1
"""No token's id: what `help_id` is in a cloud model that knows no help request."""


@dataclass(frozen=True)
class BaseModel:
    """A causal language model with what generation needs to know about its tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pad_id: int
    eos_id: int
    help_id: int
    """The token that asks the cloud for help and ends a response; `NO_HELP` in a model that has none."""

    @cached_property
    def forward(self) -> Forward:
        """How the model reads: the short way for the Llama family, the model's own for all others."""
        return LlamaForward(self.model) if fits(self.model) else AnyForward(self.model)


def folder_of(path: str, key: str = "model.path") -> Path:
    """The checkpoint folder that `builtin:slm`, `builtin:cloud` or a path means; `key` is the setting it comes from.

    Raises:
        ConfigError: if it holds no checkpoint.
    """
    folder = BUILTIN_DIR / path.removeprefix("builtin:") if path.startswith("builtin:") else Path(path)
    if not (folder / "config.json").is_file():
        built_in = ", ".join(f"builtin:{child.name}" for child in sorted(BUILTIN_DIR.iterdir()))
        raise ConfigError(f"{key}={path!r}: {folder} holds no checkpoint (config.json); built in are: {built_in}")
    return folder


def load_base(
    path: str, *, dtype: str = "float32", place: str = "cpu", key: str = "model.path", asks: bool = True
) -> BaseModel:
    """Load a checkpoint, frozen and in evaluation mode.

    Args:
        path: as for `folder_of`.
        dtype: `float32` or `bfloat16`.
        place: torch's name of the device that computes, such as `cpu` or `cuda`.
        key: the setting that the path comes from, for errors.
        asks: whether it has to be able to ask for help; a cloud need not.

    Raises:
        ConfigError: if there is no checkpoint, or its tokenizer has no help token.
    """
    folder = folder_of(path, key)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    if asks and HELP not in vocabulary:
        raise ConfigError(f"{key}={path!r}: its tokenizer has no single token {HELP!r} for the help request")
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{key}={path!r}: its tokenizer names no end-of-sequence token")
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
    return BaseModel(model.to(place), tokenizer, pad_id, tokenizer.eos_token_id, vocabulary.get(HELP, NO_HELP))
