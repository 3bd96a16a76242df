"""Tiny random checkpoints of real families: architecture, tokenizer, chat template and end tokens as theirs.

    python -m experiments.real.checkpoint llama runs/tiny-llama

They know nothing. They show that a family runs, from a folder, before gigabytes are fetched.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from flsim.models.help_request import TEXT

_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
_MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """What is peculiar to a family."""

    model: str
    """Name of the class in transformers, without `ForCausalLM`."""
    eos: str
    """The tokenizer's end of a sequence."""
    template: str | None = None
    bos: str | None = None
    """What the tokenizer itself puts before every text."""
    other: tuple[str, ...] = ()
    """More special tokens."""
    ends: tuple[str, ...] = ()
    """What `generation_config` names as ends; none means `eos` alone."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the architecture."""


_CHATML_TOKENS: dict[str, Any] = {"other": ("<|im_start|>", "<|endoftext|>"), "ends": ("<|im_end|>", "<|endoftext|>")}
_GEMMA_TOKENS: dict[str, Any] = {
    "eos": "<eos>",
    "bos": "<bos>",
    "template": _GEMMA,
    "other": ("<start_of_turn>", "<end_of_turn>"),
    "ends": ("<eos>", "<end_of_turn>"),
}
_WINDOWED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}

FAMILIES = {
    "llama": Family(
        "Llama",
        "<|eot_id|>",
        _LLAMA,
        "<|begin_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
        ("<|end_of_text|>", "<|eot_id|>"),
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "smollm2": Family("Llama", "<|im_end|>", _CHATML, settings={"tie_word_embeddings": True}, **_CHATML_TOKENS),
    "smollm3": Family("SmolLM3", "<|im_end|>", _CHATML, settings={"no_rope_layer_interval": 2}, **_CHATML_TOKENS),
    "qwen2": Family("Qwen2", "<|im_end|>", _CHATML, **_CHATML_TOKENS),
    "qwen3": Family("Qwen3", "<|im_end|>", _CHATML, settings={"head_dim": 8}, **_CHATML_TOKENS),
    "gemma2": Family(
        "Gemma2",
        settings={**_WINDOWED, "head_dim": 8, "query_pre_attn_scalar": 8, "hidden_activation": "gelu_pytorch_tanh"},
        **_GEMMA_TOKENS,
    ),
    "gemma3": Family("Gemma3", settings={**_WINDOWED, "head_dim": 8, "query_pre_attn_scalar": 8}, **_GEMMA_TOKENS),
    "phi3": Family(
        "Phi3",
        "<|endoftext|>",
        _PHI3,
        None,
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        ("<|endoftext|>", "<|end|>"),
    ),
    "phi": Family("Phi", "<|endoftext|>", settings={"partial_rotary_factor": 0.5}),
    "mistral": Family("Mistral", "</s>", _MISTRAL, "<s>", ("[INST]", "[/INST]"), settings={"sliding_window": 8}),
}


def write_checkpoint(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    spread: float = 0.3,
    width: int = 32,
    layers: int = 2,
    texts: Sequence[str] = (),
    pieces: int = 40,
) -> Path:
    """Write a random model, by default tiny, with a byte-level tokenizer that has the family's special tokens.

    Args:
        folder: is made.
        family: one of `FAMILIES`.
        seed: of the weights.
        spread: standard deviation of the weights; drawn wide, so that the model has clear preferences.
        width: hidden size, a multiple of 32.
        layers: how many.
        texts: what the tokenizer's pieces are learned from, beside the help request.
        pieces: of the tokenizer, beside bytes and special tokens.

    Raises:
        ValueError: for a family that there is not.
    """
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} is not known; choose one of: {', '.join(FAMILIES)}")
    peculiar = FAMILIES[family]
    tokenizer = build_tokenizer(peculiar, texts, pieces)
    tokenizer.save_pretrained(folder)
    name = "Gemma3Text" if peculiar.model == "Gemma3" else peculiar.model
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": width * 3 // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": spread,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, f"{name}Config")(**{**sizes, **peculiar.settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{peculiar.model}ForCausalLM")(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases as if they had learned something
                torch.nn.init.normal_(parameter, float(parameter.detach().mean()), spread / 3)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in peculiar.ends or (peculiar.eos,)]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    return folder


def build_tokenizer(family: Family, texts: Sequence[str] = (), pieces: int = 40) -> PreTrainedTokenizerFast:
    """Bytes, and pieces of the help request, so that it takes a few tokens as with a real vocabulary."""
    special = ["<pad>", family.eos, *([family.bos] if family.bos else []), *family.other]
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(dict.fromkeys(special))
    trainer = BpeTrainer(vocab_size=256 + len(special) + pieces, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator([*[f"{TEXT}\n"] * 3, *texts], trainer)
    if family.bos is not None:
        begin = (family.bos, core.token_to_id(family.bos))
        core.post_processor = processors.TemplateProcessing(single=f"{family.bos} $A", special_tokens=[begin])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token=family.eos, bos_token=family.bos, padding_side="left"
    )
    tokenizer.chat_template = family.template
    return tokenizer


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    print(write_checkpoint(given.folder, given.family, seed=given.seed))


if __name__ == "__main__":
    main()
