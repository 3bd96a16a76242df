"""A decoder in two parts: layers below a seam, held by one party, and all above it, held by another.

Hidden states cross the seam as a payload lets them (`flsim/collaboration/payload.py`), and the part above sees nothing
else. The model's own last norm and head, on the states that come to the seam, say what the lower part would say by
itself; where that is sure enough, it is what is said (an exit; CALM, Schuster et al. 2022, arXiv 2207.07061). All that
is decoded is decoded as with a whole model (`flsim/models/decoding.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flsim.collaboration.payload import Payload
from flsim.models.base import BaseModel, forward_of
from flsim.models.forward import Decoder, Forward, Next, Past, Readout
from flsim.models.prefix import Prefix
from flsim.models.seam import Seam, body_of

_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f")
_SCALES = ("logit_scale", "logits_scaling")  # of configs whose heads do more than multiply


@dataclass(frozen=True)
class Cut:
    """Where a model is cut, and how."""

    layer: int
    """How many of its layers lie below."""
    payload: Payload = field(default_factory=Payload)
    """What of their states arrives above."""
    threshold: float | None = None
    """The lower part says a token by itself where its top probability is above this; None: it is not even asked."""


@dataclass(frozen=True)
class Looks:
    """What the lower part would say at each of T tokens of N rows, `(N, T)` each; filled as they are decoded."""

    said: Tensor
    """Its likeliest token."""
    confidences: Tensor
    """The probability of that."""
    margins: Tensor
    """By how much it is more probable than the next."""
    decided: Tensor
    """True where it is what was said."""

    @classmethod
    def of(cls, rows: int, tokens: int) -> "Looks":
        """Of rows that have said nothing yet."""
        said, decided = (torch.zeros(rows, tokens, dtype=of) for of in (torch.long, torch.bool))  # (N, T) each
        return cls(said, torch.zeros(rows, tokens), torch.zeros(rows, tokens), decided)

    def of_row(self, row: int, tokens: int) -> "Looks":
        """At the first tokens of a row, `(t,)` each."""
        return Looks(*(getattr(self, one.name)[row, :tokens] for one in fields(self)))

    def begin(self, first: "Looks", share: int) -> None:
        """Take over what was thought of the first token of each prompt, for all of its `share` rows."""
        for one in fields(self):
            getattr(self, one.name)[:, 0] = getattr(first, one.name)[:, 0].repeat_interleave(share)


@dataclass(frozen=True)
class CutModel(BaseModel):
    """A base model that is cut; it is `forward` that knows."""

    cut: Cut = field(default_factory=lambda: Cut(1))

    @classmethod
    def of(cls, base: BaseModel, cut: Cut) -> "CutModel":
        """The two parts of a model, which stays whole for whoever holds `base`.

        Raises:
            ValueError: if the cut is not between two of its layers.
        """
        layers = len(body_of(base.model)[1])
        if not 1 <= cut.layer < layers:
            raise ValueError(f"layer={cut.layer} must be between two of the {layers} layers: from 1 to {layers - 1}")
        return cls(**{one.name: getattr(base, one.name) for one in fields(BaseModel)}, cut=cut)

    @cached_property
    def forward(self) -> Forward:
        """Through the seam; with exits if there is a threshold."""
        return self.whole if self.exits is None else self.exits

    @cached_property
    def whole(self) -> Forward:
        """Through the seam at every token."""
        seam = Seam(self.cut.layer, self.cut.payload.received)
        return forward_of(self.model, seam=seam)

    @cached_property
    def exits(self) -> "ExitForward | None":
        """With exits; None without a threshold."""
        return None if self.cut.threshold is None else ExitForward(self, self.whole, self.cut.threshold)


class ExitForward:
    """Passes of a model that is cut, whose logits are the lower part's where that is sure (`Forward`)."""

    def __init__(self, base: BaseModel, through: Forward, threshold: float) -> None:
        """Take the passes through the seam.

        Args:
            base: whose they are.
            through: its passes, which say what came to the seam.
            threshold: above it the lower part is sure.
        """
        self._base, self._through, self.threshold = base, through, threshold
        self._early = head_of(base)
        self._first = Looks.of(0, 1)
        self.looks = Looks.of(0, 1)
        """Of the rows that were decoded last."""

    def read(self, ids: Tensor, mask: Tensor, prefix: Prefix | None = None) -> tuple[Next, Past]:
        """See `Forward`."""
        following, past = self._through.read(ids, mask, prefix)
        self._first = Looks.of(len(following.logits), 1)
        return self.look(following, self._first, torch.arange(len(following.logits)), 0), past

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """See `Forward`."""
        self.looks = Looks.of(past.rows * share, tokens)
        self.looks.begin(self._first, share)
        return _ExitDecoder(self, self._through.decoder(mask, past, share, tokens), past.rows * share)

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """See `Forward`; without exits, as the tokens are given."""
        return self._through.follow(ids, mask, prompts, past, readout)

    def look(self, following: Next, looks: Looks, rows: Tensor, place: int) -> Next:
        """What comes next at a place of some of the rows `(n,)`, noted in `looks`."""
        assert following.below is not None, "a model that is cut says what came to its seam"
        early = self._early(following.below)  # (n, V)
        alone = self._unaided(early)  # (n, V)
        best = torch.softmax(alone, -1).topk(2, -1)  # (n, 2) each
        sure = best.values[:, 0]  # (n,): the confidence of CALM
        decided = sure > self.threshold  # (n,)
        if place < looks.said.shape[1]:
            looks.said[rows, place] = best.indices[:, 0].cpu()
            looks.confidences[rows, place] = sure.cpu()
            looks.margins[rows, place] = (sure - best.values[:, 1]).cpu()
            looks.decided[rows, place] = decided.cpu()
        logits = torch.where(decided[:, None], early, following.logits)  # (n, V)
        return Next(logits, following.states, following.below)

    def _unaided(self, logits: Tensor) -> Tensor:
        """Logits `(n, V)` with a help request of one token ruled out, as nobody asks in an answer."""
        closing = torch.full(logits.shape[:1], len(self._base.help.ids) == 1, device=logits.device)  # (n,)
        return self._base.help.ruled_out(logits.float(), closing)


class _ExitDecoder:
    """Rows that grow, with a look at what the lower part would say."""

    def __init__(self, forward: ExitForward, through: Decoder, rows: int) -> None:
        self._forward, self._through = forward, through
        self._rows = torch.arange(rows)  # (n,), those that go on
        self._read = 0

    def step(self, ids: Tensor) -> Next:
        self._read += 1
        return self._forward.look(self._through.step(ids), self._forward.looks, self._rows, self._read)

    def keep(self, places: Tensor) -> None:
        self._rows = self._rows[places.cpu()]
        self._through.keep(places)


def head_of(base: BaseModel) -> Callable[[Tensor], Tensor]:
    """A model's own last norm and head: logits `(n, V)` of hidden states `(n, D)` of any of its layers.

    Raises:
        ValueError: for a model whose head does what nobody knows here.
    """
    model = base.model
    body, config = body_of(model)[0], model.config.get_text_config()
    found = [getattr(body, name) for name in _NORMS if hasattr(body, name)]
    head: Any = model.get_output_embeddings()
    scaled = [name for name in _SCALES if getattr(config, name, None) not in (None, 1, 1.0)]
    if len(found) != 1 or scaled:
        lacks = f"scales its logits ({scaled[0]})" if scaled else f"has no last norm of a name in {', '.join(_NORMS)}"
        raise ValueError(f"{type(model).__name__} {lacks}, so that its layers cannot speak; take a split instead")
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(states: Tensor) -> Tensor:
        plain: Tensor = head(found[0](states))  # (n, V)
        return plain if cap is None else cap * torch.tanh(plain / cap)  # (n, V)

    return logits
