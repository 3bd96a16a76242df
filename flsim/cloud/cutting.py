"""Answers of a cloud's model that is cut in two, below which devices hold its layers.

A batch is answered together where nothing of it can depend on the batch: where each token has clearly more than half of
the probability, and no confidence lies near the threshold. Any other question is answered by itself, as in
`flsim/cloud/checkpoint.py`. A payload that rounds makes steps of last bits, so that a token must have more; and where
only the largest channels are sent, the last bit may choose another channel, so that all questions are by themselves.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import AutoConfig

from flsim.cloud.more_help import Depth, Shared
from flsim.collaboration.exits import NEVER, last_doubt, uploads
from flsim.collaboration.payload import TOP
from flsim.models.base import BaseModel, one_thread
from flsim.models.cut import Cut, CutModel
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.folder import folder_of, loading

_ROUNDED = 0.75
"""The same where states are rounded on their way: 1.1 nats are 19 times what noise of 1e-5 of each number, ten times
that of a batch, was seen to move a token of the built-in cloud that is cut (0.06 with 8 bits, 0.01 with 16)."""


@dataclass(frozen=True)
class Run:
    """One question."""

    shared: Shared
    doubt: float
    """`flsim.collaboration.exits.last_doubt`, if the lower part was asked at all; else 0."""


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
        self._known: dict[tuple[str, Cut], Run] = {}

    def runs(self, prompts: Sequence[str], cut: Cut) -> list[Run]:
        """One for each prompt, in order.

        Raises:
            ValueError: if the model cannot be cut there.
        """
        new = list(dict.fromkeys(prompt for prompt in prompts if (prompt, cut) not in self._known))
        size = 1 if cut.payload.sent == TOP else self._batch
        for start in range(0, len(new), size):
            some = new[start : start + size]
            self._known |= {(prompt, cut): run for prompt, run in zip(some, self._answered(some, cut), strict=True)}
        return [self._known[prompt, cut] for prompt in prompts]

    def doubts(self, prompts: Sequence[str], cut: Cut) -> list[float]:
        """Of each prompt, in order; the threshold of the cut is not looked at."""
        return [run.doubt for run in self.runs(prompts, replace(cut, threshold=NEVER))]

    def _answered(self, prompts: Sequence[str], cut: Cut) -> list[Run]:
        """Together, and then by themselves those that this might have changed."""
        found = list(self._together(prompts, cut))
        if len(prompts) > 1:
            for place, (_, sure) in enumerate(found):
                if not sure:
                    found[place] = next(self._together([prompts[place]], cut))
        return [run for run, _ in found]

    @torch.no_grad()
    def _together(self, prompts: Sequence[str], cut: Cut) -> Iterator[tuple[Run, bool]]:
        """Of each prompt what came, and whether it is sure that no other prompt had a part in it."""
        model = self._model(cut)
        with one_thread():  # whose sums are the same everywhere
            reading = read(model, encode(model, [prompts]))
            said = generate(model, reading, group_size=1, max_new_tokens=self._longest, temperature=0.0, may_ask=False)
        lengths = reading.prompts.mask[0].sum(-1).tolist()  # P of them
        for place, length in enumerate(lengths):
            yield self._run(model, said, place, length)

    def _run(self, model: CutModel, said: Completions, place: int, prompt: int) -> tuple[Run, bool]:
        tokens = said.tokens[0, place, 0][said.mask[0, place, 0]].cpu()  # (t,)
        logprobs = said.logprobs[0, place, 0][: len(tokens)]  # (t,)
        least = self._sure if model.cut.payload.is_exact else max(self._sure, _ROUNDED)
        sure = bool((logprobs > math.log(least)).all())
        decided, doubt = [False] * len(tokens), 0.0
        if model.exits is not None:
            looks = model.exits.looks
            confidences = looks.confidences[place, : len(tokens)]  # (t,)
            decided = looks.decided[place, : len(tokens)].tolist()
            agrees = (looks.said[place, : len(tokens)] == tokens).tolist()
            doubt = last_doubt(confidences.tolist(), agrees)
            sure = sure and not self._near(confidences, model.exits.threshold)
        return Run(Shared(self._said(tokens.tolist()), prompt, len(tokens), uploads(prompt, decided)), doubt), sure

    def _near(self, confidences: Tensor, threshold: float) -> bool:
        """Whether rounding may have moved one of the confidences `(t,)` across; none is ever above 1."""
        return threshold < NEVER and bool(((confidences - threshold).abs() < self._sure - 0.5).any())

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
    with loading(path, key):
        config = AutoConfig.from_pretrained(folder_of(path, key)).get_text_config()
    return Depth(config.num_hidden_layers, config.hidden_size)
