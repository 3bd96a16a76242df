"""The request for help: one token, or a text at the end of a response; here is which tokens and logits it touches.

A response has asked once it spells the tokens of the request in their order. So one token is the case of a sequence of
length one: it may stand anywhere and ends the response; a text ends it, too, and also counts if the response ends with
it in other tokens. Where asking is ruled out, the last token of the sequence cannot follow the others. What stands
before the request is the response's draft; a setting may say that there must be none, or that there must be one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flsim.config.model import AFTER, ANYWHERE, BEFORE

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
    stands: str = ANYWHERE
    """Where in a response it may stand: `before`, as its beginning; `after`, only after a draft of at least one token;
    or `anywhere`."""

    @property
    def token(self) -> int:
        """The one token that is the whole request; `NO_HELP` where there is none."""
        return self.ids[0] if len(self.ids) == 1 else NO_HELP

    @property
    def is_text(self) -> bool:
        """Whether it takes more than one token, so that other tokens may spell it, too."""
        return len(self.ids) > 1

    @property
    def least(self) -> int:
        """Tokens of the shortest response that asks."""
        return len(self.ids) + (self.stands == AFTER)

    def ends(self, text: str) -> bool:
        """Whether a text ends with the request, so that a response may ask in other tokens than the request's own."""
        return self.is_text and text.rstrip().endswith(self.text)

    def draft_of(self, text: str) -> str:
        """What stands before the request in a text that ends with it, however often; another stays as it is."""
        while self.ends(text):
            text = text.rstrip().removesuffix(self.text).rstrip()
        return text

    def may_follow(self, draft: str) -> bool:
        """Whether a request in other tokens than its own may stand after this draft; white space alone is none."""
        return self.stands == ANYWHERE or (draft.strip() == "") == (self.stands == BEFORE)

    def held_by(self, tokens: Tensor) -> Tensor:
        """True at all tokens of a completed request among tokens `(..., T)`."""
        last = self.completed(tokens)  # (..., T)
        held = last.clone()  # (..., T)
        for back in range(1, len(self.ids)):
            held[..., :-back] |= last[..., back:]
        return held

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
        if len(self.ids) == 1:
            return tokens == self.ids[0]
        return self.closing(tokens)[..., :-1] & (tokens == self.ids[-1])

    def ruled_out(self, logits: Tensor, closing: Tensor) -> Tensor:
        """Logits `(n, V)` with which it cannot be completed; `closing` `(n,)` says where it otherwise could."""
        if not self.ids:
            return logits
        last = torch.arange(logits.shape[-1], device=logits.device) == self.ids[-1]  # (V,)
        return logits.masked_fill(last & closing[:, None], -torch.inf)

    def biased(self, logits: Tensor, bias: Tensor | None, places: Tensor) -> Tensor:
        """Logits `(n, V)` with a bias `(n,)` on beginning it; None changes nothing, nor does -inf (see `barred`).

        Both are weighed where they may begin: a token wherever it may stand; a text at the first of its tokens, at the
        beginning of a response, or, where a draft must come before it, everywhere but there. Within a draft a text's
        first token is weighed also where something else goes on with it. `places` `(n,)` count from 0.
        """
        if bias is None or not self.ids:
            return logits
        first = torch.tensor(self.ids[:1], device=logits.device)
        bias = bias.masked_fill(bias.isneginf(), 0.0)  # (n,)
        begins = places > 0 if self.stands == AFTER else places == 0  # (n,)
        bias = bias * begins if self.is_text else bias  # (n,)
        return logits.index_add(1, first, bias[:, None].to(logits.dtype))  # (n, V)

    def raised(self, logits: Tensor, offset: Tensor | None) -> Tensor:
        """Logits `(n, V)` with an offset `(n,)` on its first token, whatever the place; None changes nothing."""
        if offset is None or not self.ids:
            return logits
        first = torch.tensor(self.ids[:1], device=logits.device)
        return logits.index_add(1, first, offset[:, None].to(logits.dtype))  # (n, V)

    def barred(self, closing: Tensor, bias: Tensor | None, places: Tensor, *, may_ask: bool) -> Tensor | None:
        """Where the token that would complete the request is ruled out, `(n,)`; None is nowhere.

        That is everywhere, or where the bias is -inf, or where the request would not stand as it may.

        Args:
            closing: where a token could complete it, `(n,)`.
            bias: on the request, `(n,)`; None is none.
            places: of the tokens in their responses, from 0, `(n,)`.
            may_ask: False rules it out everywhere.
        """
        if not may_ask:
            return closing
        out = None if bias is None else bias.isneginf()  # (n,)
        if self.stands != ANYWHERE:
            begins = places == len(self.ids) - 1  # (n,): of these the request would be the whole response
            misplaced = begins if self.stands == AFTER else ~begins  # (n,)
            out = misplaced if out is None else out | misplaced  # (n,)
        return None if out is None else closing & out


NEVER = HelpRequest()
"""Of a model that never asks."""
