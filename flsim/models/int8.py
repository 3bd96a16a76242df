"""Weights of a frozen model as whole numbers of 8 bits: a quarter of float32's memory, for models that only answer.

A row of a linear layer's weights W `(out, in)` is kept as round(W / s), with s = max |W| / 127 of the row, so that no
weight moves by more than s / 2 (absmax quantisation; Dettmers et al. 2022, arXiv 2208.07339, section 2.1). A product
widens the whole numbers again, layer by layer, and multiplies what comes out by s: activations are never rounded to
8 bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flsim.models.builtin_llama import AnyModel

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
_MOST = 127


class Int8Linear(nn.Module):
    """A linear layer, frozen, with weights of 8 bits and a scale for each row."""

    weight: Tensor
    """`(out, in)`, int8."""
    scale: Tensor
    """`(out,)`, in the dtype that the model computes in."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        """Take over a layer's weights.

        Args:
            layer: with weights `(out, in)`, which are not changed.
            dtype: of the scale.
        """
        super().__init__()
        rows = layer.weight.detach().float()  # (out, in)
        scale = (rows.abs().amax(1) / _MOST).clamp_min(torch.finfo(torch.float32).tiny)  # (out,)
        self.register_buffer("weight", (rows / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(dtype))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """`(..., out)` from `(..., in)`."""
        y = F.linear(x, self.weight.to(x.dtype)) * self.scale  # (..., out)
        return y if self.bias is None else y + self.bias


def multiplies_in_bfloat16() -> bool:
    """Whether this processor has products of bfloat16, so that they take no longer than those of float32."""
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.9
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def shrink(model: AnyModel, dtype: torch.dtype) -> None:
    """Put every linear layer but the head into 8 bits, in place; embeddings and head stay, as they decide words.

    Args:
        model: frozen.
        dtype: of all other weights, and what it computes in; buffers, such as those of positions, stay as they are.
    """
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer is not head:
                setattr(parent, name, Int8Linear(layer, dtype))
    for parameter in model.parameters():  # cloned, since a single one that is left keeps the whole file in memory
        parameter.data = parameter.detach().clone().to(dtype)
