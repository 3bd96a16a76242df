"""Answers of a cloud's model that is cut in two, below which devices hold its layers.

A batch is answered together where nothing of it can depend on the batch: where each token has clearly more than half of
the probability, and no confidence lies near the threshold. Any other question is answered by itself, as in
`flsim/cloud/checkpoint.py`. A payload that rounds makes steps of last bits, so that a token must have more; and where
only the largest channels are sent, the last bit may choose another channel, so that all questions are by themselves.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flsim.cloud.more_help import Depth, Shared
from flsim.collaboration.exits import GRID, NEVER, last_doubt, uploads
from flsim.collaboration.payload import TOP
from flsim.models.base import BaseModel, one_thread
from flsim.models.cut import Cut, CutModel
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.folder import config_of

_ROUNDED = 0.75
"""The same where states are rounded on their way: 1.1 nats are 19 times what noise of 1e-5 of each number, ten times
that of a batch, was seen to move a token of the built-in cloud that is cut (0.06 with 8 bits, 0.01 with 16)."""


class Cutting:
    """A model with its cuts; it keeps what it has answered."""

    def __init__(
        self, base: BaseModel, longest: int, batch: int, sure: float, said: Callable[[Sequence[int]], str]
    ) -> None:
        """Take the model.

        Args:
            base: which stays whole.
            longest: most tokens of an answer.
            batch: questions that are answered together.
            sure: the probability that no rounding of a batch can have given to a token by mistake, above 0.5; no
                confidence is moved across the threshold by more than what it is above 0.5.
            said: the text of an answer's tokens.
        """
        self._base, self._longest, self._batch, self._sure, self._said = base, longest, batch, sure, said
        self._models: dict[Cut, CutModel] = {}
        self._known: dict[tuple[str, Cut], Shared] = {}

    def share(self, prompts: Sequence[str], cut: Cut) -> list[Shared]:
        """What comes of each prompt, in order.

        Raises:
            ValueError: if the model cannot be cut there.
        """
        new = list(dict.fromkeys(prompt for prompt in prompts if (prompt, cut) not in self._known))
        size = 1 if cut.payload.sent == TOP else self._batch
        for start in range(0, len(new), size):
            some = new[start : start + size]
            self._known |= {(prompt, cut): one for prompt, one in zip(some, self._answered(some, cut), strict=True)}
        return [self._known[prompt, cut] for prompt in prompts]

    def _answered(self, prompts: Sequence[str], cut: Cut) -> list[Shared]:
        """Together, and then by themselves those that this might have changed."""
        found = list(self._together(prompts, cut))
        if len(prompts) > 1:
            for place, (_, sure) in enumerate(found):
                if not sure:
                    found[place] = next(self._together([prompts[place]], cut))
        return [one for one, _ in found]

    @torch.no_grad()
    def _together(self, prompts: Sequence[str], cut: Cut) -> Iterator[tuple[Shared, bool]]:
        """Of each prompt what came, and whether it is sure that no other prompt had a part in it."""
        model = self._model(cut)
        with one_thread():  # whose sums are the same everywhere
            reading = read(model, encode(model, [prompts]))
            said = generate(model, reading, group_size=1, max_new_tokens=self._longest, temperature=0.0, may_ask=False)
        lengths = reading.prompts.mask[0].sum(-1).tolist()  # P of them
        for place, length in enumerate(lengths):
            yield self._one(model, said, place, length)

    def _one(self, model: CutModel, said: Completions, place: int, prompt: int) -> tuple[Shared, bool]:
        tokens = said.tokens[0, place, 0][said.mask[0, place, 0]].cpu()  # (t,)
        least = self._sure if model.cut.payload.is_exact else max(self._sure, _ROUNDED)
        sure = bool((said.logprobs[0, place, 0][: len(tokens)] > math.log(least)).all())
        text, count = self._said(tokens.tolist()), len(tokens)
        if model.exits is None:
            return Shared(text, prompt, count, uploads(prompt, [False] * count)), sure
        looks = model.exits.looks.of_row(place, count)
        one = Shared(text, prompt, count, uploads(prompt, looks.decided.tolist()))
        if model.exits.threshold < NEVER:
            return one, sure and self._far(looks.confidences - model.exits.threshold)
        doubt = last_doubt(looks.confidences.tolist(), (looks.said == tokens).tolist())
        steps = (doubt - torch.tensor(GRID if doubt else [NEVER])).abs()  # (J,)
        firm = bool((steps > (self._sure - 0.5) ** 2).all())  # 1e-4, where it is known to 1e-6
        counts = looks.confidences > doubt - (self._sure - 0.5)  # (t,): below it, another token changes no doubt
        return replace(one, doubt=doubt), sure and firm and self._far(looks.margins[counts] / 2)

    def _far(self, differences: Tensor) -> bool:
        """Whether no rounding of a batch may have turned the sign of any of these differences of probabilities."""
        return bool((differences.abs() > self._sure - 0.5).all())

    def _model(self, cut: Cut) -> CutModel:
        if cut not in self._models:
            self._models[cut] = CutModel.of(self._base, cut)
        return self._models[cut]


def depth_of(path: str, key: str) -> Depth:
    """That of a checkpoint, read from its config alone.

    Args:
        path: as `model.path` names one.
        key: the setting that it comes from, for errors.

    Raises:
        ConfigError: if there is no checkpoint.
    """
    config = config_of(path, key).get_text_config()
    return Depth(config.num_hidden_layers, config.hidden_size)
