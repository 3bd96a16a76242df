"""What a distillation learns from the cloud's hidden states, beside its tokens: the loss, and the maps that it needs.

The maps lead from the student's states to the cloud's, which are of another width. Every distillation fits them anew to
what it has bought, before the first step: they are a function of the aggregated adapter and these answers, part of no
message, and nothing that a checkpoint would have to keep. Then the adapter takes its steps, and they stay: a block of
least squares and a block of descent in turn. (Steps of Adam for both at once, at one rate, drove the maps away from
where they had been fitted faster than the adapter could follow.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flsim.config.schema import ConfigError
from flsim.learning.features import FEATURE_LOSSES, feature_loss, fitted_maps, mapped_by
from flsim.models.base import BaseModel
from flsim.models.layer_states import layer_states, passes
from strategies.stages.student import Lesson, Student

LAST, EVERY = "last", "every"

Pairs = tuple[tuple[int, int], ...]
"""Layers of the student and of the cloud whose states are to be alike, counted from 1."""


@dataclass(frozen=True)
class Features:
    """How much the hidden states count, and which."""

    weight: float
    """Of their loss beside that of the tokens, both in the mean over tokens."""
    loss: str
    """One of `FEATURE_LOSSES`."""
    pairs: Pairs


@dataclass(frozen=True)
class Matcher:
    """Brings the student's hidden states nearer to the cloud's, by maps that stay as they are."""

    student: Student
    features: Features
    maps: Tensor
    """W of every pair, `(S, d_T, d_S)`."""

    @classmethod
    @torch.no_grad()
    def fitted(
        cls, student: Student, features: Features, theta: Tensor, ranks: Sequence[int], lesson: Lesson
    ) -> "Matcher":
        """With the maps that lead best from a student's states to the cloud's, in all of a lesson.

        Args:
            student: the model that learns.
            features: what counts.
            theta: its adapter, `(1, n)`.
            ranks: of that.
            lesson: with what the cloud has shown.
        """
        student.lora.attach(theta, ranks)
        parts = _parts(student.base, lesson)
        states = torch.cat([_states(student.base, features, lesson, part) for part in parts], 1)  # (S, N, d_S)
        return cls(student, features, fitted_maps(states, _taught(lesson)))

    def gradient(self, theta: Tensor, ranks: Sequence[int], lesson: Lesson) -> Tensor:
        """Of the weighted loss by theta, `(1, n)`."""
        self.student.lora.attach(theta, ranks, train=True)
        for part in _parts(self.student.base, lesson):
            (self._apart(lesson, part).sum() / self._count(lesson)).backward()
        return self.features.weight * self.student.lora.gradient()  # (1, n)

    @torch.no_grad()
    def apart(self, theta: Tensor, ranks: Sequence[int], lesson: Lesson) -> tuple[float, float]:
        """How far the states are apart: the loss summed over pairs and tokens, and how many there are."""
        self.student.lora.attach(theta, ranks)
        sums = [float(self._apart(lesson, part).double().sum()) for part in _parts(self.student.base, lesson)]
        return sum(sums), float(self._count(lesson))

    def _apart(self, lesson: Lesson, part: slice) -> Tensor:
        """The loss of some answers' tokens, `(S, n)`."""
        mapped = mapped_by(self.maps, _states(self.student.base, self.features, lesson, part))  # (S, n, d_T)
        return feature_loss(mapped, _taught(lesson, part), self.features.loss)  # (S, n)

    def _count(self, lesson: Lesson) -> int:
        return len(self.maps) * sum(len(shown.tokens) for shown in lesson.shown)


def _states(base: BaseModel, features: Features, lesson: Lesson, part: slice) -> Tensor:
    """The student's of some answers' tokens, `(S, n, d_S)`."""
    tokens = [shown.tokens.tolist() for shown in lesson.shown[part]]
    own = tuple(layer for layer, _ in features.pairs)
    return layer_states(base, _asked(base, lesson, part), tokens, own).float()  # (S, n, d_S)


def _taught(lesson: Lesson, part: slice = slice(None)) -> Tensor:
    """The cloud's of the same, `(S, n, d_T)`."""
    return torch.cat([torch.from_numpy(shown.states).float() for shown in lesson.shown[part]], 1)  # (S, n, d_T)


def _asked(base: BaseModel, lesson: Lesson, part: slice) -> list[list[int]]:
    """The tokens of some prompts."""
    ids: list[list[int]] = base.tokenizer(list(lesson.prompts[part]))["input_ids"]
    return [row or [base.eos_id] for row in ids]


def _parts(base: BaseModel, lesson: Lesson) -> list[slice]:
    """Which answers to read at once."""
    asked = _asked(base, lesson, slice(None))
    return passes(base, [len(row) + len(shown.tokens) for row, shown in zip(asked, lesson.shown, strict=True)])


def refuse_other_features(weight: float, loss: str, layers: Any) -> None:
    """Refuse settings that no two models could have.

    Raises:
        ValueError: saying which, and what is allowed.
    """
    if not weight >= 0:
        raise ValueError(f"features={weight} must be at least 0: it is the weight of the hidden states' loss")
    if loss not in FEATURE_LOSSES:
        raise ValueError(f"feature_loss={loss!r} is not known; choose one of: {', '.join(FEATURE_LOSSES)}")
    if layers not in (LAST, EVERY) and not _is_pairs(layers):
        raise ValueError(
            f"feature_layers={layers!r} must be {LAST}, {EVERY}, or pairs of a layer of the SLM and one of the cloud, "
            f"counted from 1, such as [[1, 2], [3, 6]]"
        )


def _is_pairs(layers: Any) -> bool:
    if not isinstance(layers, list | tuple) or not layers:
        return False
    twos = all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in layers)
    return twos and all(type(layer) is int and layer >= 1 for pair in layers for layer in pair)


def pairs_of(layers: Any, own: int, clouds: int) -> Pairs:
    """The pairs that a setting means.

    Args:
        layers: `last` of both; `every` layer of the SLM, with the one as deep in the cloud (as every second one of a
            teacher that is twice as deep, DistilBERT's choice); or the pairs themselves.
        own: how many the SLM has.
        clouds: how many the cloud has.

    Raises:
        ConfigError: for a layer that there is not.
    """
    if layers == LAST:
        return ((own, clouds),)
    if layers == EVERY:
        return tuple((layer, max(1, round(layer * clouds / own))) for layer in range(1, own + 1))
    pairs = tuple((int(first), int(second)) for first, second in layers)
    for first, second in pairs:
        if first > own or second > clouds:
            raise ConfigError(
                f"stage.feature_layers has the pair [{first}, {second}], and the SLM has {own} layers, the cloud "
                f"{clouds}; choose layers from 1 to these"
            )
    return pairs
