"""A GGUF file as llama.cpp's converter would write it of a tiny random Llama: permuted queries and keys, a byte-level
tokenizer with a chat template, and weights that are quantised or not."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

HEADS, KV_HEADS, WIDTH, INNER, LAYERS = 4, 2, 64, 96, 2
START, END = "<|im_start|>", "<|im_end|>"
PIECES = [START, END, *bytes_to_unicode().values(), "12", "wh"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""What transformers' modules are called in a GGUF file."""

Change = Callable[[GGUFWriter], None]


@dataclass(frozen=True)
class Tiny:
    """What a file is like; the defaults are a sound one."""

    kind: GGMLQuantizationType = GGMLQuantizationType.F32
    """Of the matrices."""
    architecture: str = "llama"
    tokenizer: bool = True
    template: bool = True
    without: str = ""
    """A tensor that is left out."""
    parts: int = 1


def tiny_llama() -> LlamaForCausalLM:
    """The model that the files hold."""
    config = LlamaConfig(
        vocab_size=len(PIECES),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=2048,
        initializer_range=0.3,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def write_gguf(file: Path, tiny: Tiny = Tiny()) -> Path:
    """Write the file; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(file, tiny.architecture)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(PIECES))
    if tiny.parts > 1:
        writer.add_uint16("split.count", tiny.parts)
    if tiny.tokenizer:
        _add_tokenizer(writer)
    if tiny.template:
        writer.add_chat_template(TEMPLATE)
    for name, tensor in tiny_llama().state_dict().items():
        called = _called(name)
        if called != tiny.without:
            _add_tensor(writer, called, tensor.numpy(), tiny.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(PIECES)
    writer.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(PIECES) - 2))
    writer.add_token_merges(["1 2", "w h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)


def _called(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` is `blk.0.ffn_up.weight`."""
    module = name.removesuffix(".weight")
    if module in NAMES:
        return f"{NAMES[module]}.weight"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def _add_tensor(writer: GGUFWriter, name: str, tensor: np.ndarray, kind: GGMLQuantizationType) -> None:
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
    if heads is not None:  # llama.cpp turns neighbours where transformers turns halves
        tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
    if tensor.ndim == 1 or kind == GGMLQuantizationType.F32:
        writer.add_tensor(name, tensor)
    else:
        writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
