"""The request for help: one token, or a text at the end of a response; here is which tokens and logits it touches.

A response has asked once it spells the tokens of the request in their order. So one token is the case of a sequence of
length one: it may stand anywhere and ends the response; a text ends it, too, and also counts if the response ends with
it in other tokens. Where asking is ruled out, the last token of the sequence cannot follow the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TEXT = "<unknown> I need external assistance </unknown>"
"""The request of a tokenizer that has no token for one."""
NO_HELP = -1
"""No token's id."""


@dataclass(frozen=True)
class HelpRequest:
    """What a model says to ask the cloud; without tokens, of a model that never asks."""

    text: str = ""
    ids: tuple[int, ...] = ()
    """Its m tokens as the tokenizer writes them."""

    @property
    def token(self) -> int:
        """The one token that is the whole request; `NO_HELP` where there is none."""
        return self.ids[0] if len(self.ids) == 1 else NO_HELP

    @property
    def is_text(self) -> bool:
        """Whether it takes more than one token, so that other tokens may spell it, too."""
        return len(self.ids) > 1

    def ends(self, text: str) -> bool:
        """Whether a response of more than the request's own tokens asks by its text."""
        return self.is_text and text.rstrip().endswith(self.text)

    def closing(self, tokens: Tensor) -> Tensor:
        """True where a token would complete the request, as all its others stand right before.

        Args:
            tokens: of responses `(..., T)`.

        Returns:
            `(..., T + 1)`; the last place is that of the token after them.
        """
        count, length = len(self.ids), tokens.shape[-1]
        if count == 1 or not self.ids or length < count - 1:
            return torch.full((*tokens.shape[:-1], length + 1), count == 1, device=tokens.device)
        before = tokens.unfold(-1, count - 1, 1)  # (..., T - m + 2, m - 1)
        found = (before == torch.tensor(self.ids[:-1], device=tokens.device)).all(-1)  # (..., T - m + 2)
        return torch.cat([found.new_zeros(*tokens.shape[:-1], count - 1), found], -1)

    def completed(self, tokens: Tensor) -> Tensor:
        """True at tokens `(..., T)` that complete the request."""
        if not self.ids:
            return torch.zeros_like(tokens, dtype=torch.bool)
        return self.closing(tokens)[..., :-1] & (tokens == self.ids[-1])

    def ruled_out(self, logits: Tensor, closing: Tensor) -> Tensor:
        """Logits `(n, V)` with which it cannot be completed; `closing` `(n,)` says where it otherwise could."""
        if not self.ids:
            return logits
        last = torch.arange(logits.shape[-1], device=logits.device) == self.ids[-1]  # (V,)
        return logits.masked_fill(last & closing[:, None] if self.is_text else last, -torch.inf)

    def biased(self, logits: Tensor, bias: Tensor | None, first: Tensor) -> Tensor:
        """Logits `(n, V)` with a bias `(n,)` on beginning it; None changes nothing.

        A text is weighed as a whole, where a response begins with it (`first`, `(n,)`); a token wherever it may stand.
        """
        if bias is None or not self.ids:
            return logits
        place = torch.tensor(self.ids[:1], device=logits.device)
        bias = bias * first if self.is_text else bias  # (n,)
        return logits.index_add(1, place, bias[:, None].to(logits.dtype))  # (n, V)


NEVER = HelpRequest()
"""Of a model that never asks."""
