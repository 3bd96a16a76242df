"""What of hidden states goes over a link: as they are, in fewer bits, or their largest channels alone.

Each token is sent by itself, so that nothing that arrives depends on the other tokens of a message.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT32, FLOAT16, INT8, TOP = "float32", "float16", "int8", "top"
SENT = (FLOAT32, FLOAT16, INT8, TOP)

_MOST = 127
_SCALE_BYTES = 4
_CHANNEL_BYTES = 2 + 2  # a float16, and which of at most 65,536 channels it is


@dataclass(frozen=True)
class Payload:
    """How the hidden state of a token is sent."""

    sent: str = FLOAT32
    """`float32`: as it is; `float16`: rounded; `int8`: whole numbers of 8 bits with a scale of max |h| / 127 for the
    token (absmax quantisation; Dettmers et al. 2022, arXiv 2208.07339, section 2.1); `top`: the `channels` of largest
    magnitude as float16 with their numbers, all others are 0."""
    channels: int | None = None
    """Of `top`; None of all others."""

    def __post_init__(self) -> None:
        """Refuse what is no payload."""
        if self.sent not in SENT:
            raise ValueError(f"sent={self.sent!r} must be one of: {', '.join(SENT)}")
        if (self.sent == TOP) != (self.channels is not None):
            raise ValueError(
                f"channels={self.channels} with sent={self.sent}: the number of channels belongs to sent=top, and only "
                f"to it; such as sent=top channels=64"
            )
        if self.channels is not None and not self.channels >= 1:
            raise ValueError(f"channels={self.channels} must be at least 1: so many numbers of a token are sent")

    @property
    def is_exact(self) -> bool:
        """Whether the very states arrive."""
        return self.sent == FLOAT32

    def bytes(self, width: int) -> int:
        """Of a token with so many channels."""
        if self.sent == INT8:
            return width + _SCALE_BYTES
        if self.sent == TOP:
            return min(self.channels or width, width) * _CHANNEL_BYTES
        return width * (4 if self.sent == FLOAT32 else 2)

    def received(self, states: Tensor) -> Tensor:
        """What arrives of hidden states `(..., D)`, in their dtype.

        A number beyond those of float16 arrives as the largest that it has.
        """
        if self.sent == FLOAT32:
            return states
        if self.sent == INT8:
            return _in_int8(states.float()).to(states.dtype)  # (..., D)
        kept = states if self.sent == FLOAT16 else _largest(states, self.channels or 1)  # (..., D)
        return _in_float16(kept).to(states.dtype)  # (..., D)


def _in_float16(states: Tensor) -> Tensor:
    limit = torch.finfo(torch.float16).max
    return states.float().clamp(-limit, limit).to(torch.float16)  # (..., D)


def _in_int8(states: Tensor) -> Tensor:
    scale = (states.abs().amax(-1, keepdim=True) / _MOST).clamp_min(torch.finfo(torch.float32).tiny)  # (..., 1)
    return (states / scale).round() * scale  # (..., D)


def _largest(states: Tensor, channels: int) -> Tensor:
    """States `(..., D)` with all but the channels of largest magnitude at 0; of equal ones the first."""
    kept = states.abs().argsort(dim=-1, descending=True, stable=True)[..., :channels]  # (..., r)
    return torch.zeros_like(states).scatter(-1, kept, states.gather(-1, kept))  # (..., D)
