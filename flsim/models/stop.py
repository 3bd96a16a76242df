"""Stop texts: a response ends as soon as its decoded text holds one of them, and its text is what stands before it.

Whether a text is held is a question to the decoded text, since a tokenizer may spell one in many ways. Only a token
whose own letters may be the last of a stop text makes it worth asking, so that nearly all steps look into a table and
decode nothing. Such a row is decoded whole: what is found is exactly what stands in the response.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flsim.models.builtin_tokenizer import AnyTokenizer

_BROKEN = "�"  # in place of bytes that are no letter yet
_ANCHOR = "a"  # read before a token, since some tokenizers drop the white space that a text begins with


@dataclass(frozen=True)
class Stops:
    """Texts that end a response; without any, nothing but an ending token and the help request does."""

    texts: tuple[str, ...] = ()
    tokenizer: AnyTokenizer | None = None
    """Of the model; None only without texts."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.texts)

    def cut(self, text: str) -> str:
        """What stands before the first of them."""
        found = [place for place in map(text.find, self.texts) if place >= 0]
        return text[: min(found)] if found else text

    def met(self, tokens: Tensor) -> Tensor:
        """True `(n,)` at rows whose text holds one, of rows `(n, T)` that held none without their last token."""
        table = self._may_complete.to(tokens.device)
        places = table[tokens[:, -1].clamp(max=len(table) - 1)].nonzero()[:, 0]  # (m,)
        found = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)  # (n,)
        if len(places):
            held = [self.cut(text) != text for text in self._decoded(tokens[places].tolist())]
            found[places] = torch.tensor(held, device=tokens.device)
        return found

    @cached_property
    def _may_complete(self) -> Tensor:
        """True at tokens that may hold the last letter of a stop text, `(V + 1,)`; the last is for all beyond."""
        assert self.tokenizer is not None, "stop texts come with a tokenizer"
        begin = list(self.tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])
        (before,) = self._decoded([begin])
        words = self._decoded([[*begin, token] for token in range(len(self.tokenizer))])
        return torch.tensor([self._may(word, before) for word in words] + [False])

    def _may(self, word: str, before: str) -> bool:
        """Of one token, decoded after the text `before`."""
        if not word.startswith(before):
            return True  # it changed what stood there: nobody knows
        own = word[len(before) :]
        if _BROKEN in own:
            return True
        ends = [stop[place:] for stop in self.texts for place in range(len(stop))]
        within = any(stop in own for stop in self.texts)
        return within or any(said.startswith(end) for said in (own, own.strip()) if said for end in ends)

    def _decoded(self, rows: list[list[int]]) -> list[str]:
        assert self.tokenizer is not None, "stop texts come with a tokenizer"
        found: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return found


NO_STOPS = Stops()
