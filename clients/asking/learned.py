"""Rules with a score that is learned: a router reads the question, a cascade the device's answer as well.

`Classifier` is of the kind of RouteLLM (Ong et al. 2024, arXiv 2406.18665) and HybridLLM (Ding et al. 2024, arXiv
2404.14618); its label, whether the device alone solves the prompt, is that of the router that GAPG is compared with
(Fang et al. 2025, arXiv 2509.24050). `Cascade` is of the kind of FrugalGPT (Chen et al. 2023, arXiv 2305.05176). Their
scorers are language models trained on thousands of prompts; both of these are a logistic regression on character
n-grams and a few dozen prompts of the device itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clients.asking.alone import Alone
from clients.asking.rule import Flags, Scores
from clients.asking.threshold import Learned, Score

Wrongness = Callable[[Sequence[str], Scores], Scores]
"""The chance `(N,)` that a device is wrong, from N texts and F numbers beside each, `(N, F)`."""


def learn_wrongness(texts: Sequence[str], numbers: Scores, wrong: Flags, *, c: float) -> Wrongness:
    """Fit TF-IDF of 1- to 3-grams and standardised numbers; labels all alike give their share as a constant.

    Args:
        texts: N of them.
        numbers: beside each text, `(N, F)`; F may be 0.
        wrong: the labels, `(N,)`.
        c: inverse weight of the ridge penalty (scikit-learn's `C`).
    """
    if len(set(wrong.tolist())) < 2:
        share = float(wrong.mean()) if len(wrong) else 0.0
        return lambda texts, numbers: np.full(len(texts), share)
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False).fit(texts)
    scale = StandardScaler().fit(numbers) if numbers.shape[1] else None

    def features(texts: Sequence[str], numbers: Scores) -> Scores:
        beside = numbers if scale is None else scale.transform(numbers)  # (N, F)
        return np.hstack([grams.transform(texts).toarray(), beside])  # (N, grams + F)

    model = LogisticRegression(C=c, max_iter=1000).fit(features(texts, numbers), wrong)

    def chance(texts: Sequence[str], numbers: Scores) -> Scores:
        found: Scores = model.predict_proba(features(texts, numbers))[:, 1]  # (N,)
        return found

    return chance


@dataclass(frozen=True)
class Classifier(Learned):
    """Asks where the question looks like one that the device gets wrong."""

    by_question: ClassVar[bool] = True

    def learn(self, alone: Alone, right: Flags) -> Score:
        """The chance of being wrong, by the question."""
        wrongness = learn_wrongness(alone.questions, np.zeros((len(right), 0)), ~right, c=self.c)
        return lambda alone: wrongness(alone.questions, np.zeros((len(alone.questions), 0)))

    def claim(self, scores: Scores, alone: Alone) -> Scores:
        """The score itself."""
        return scores


@dataclass(frozen=True)
class Cascade(Learned):
    """Asks where question, answer and the answer's mean log-probability look wrong together."""

    def learn(self, alone: Alone, right: Flags) -> Score:
        """The chance of being wrong, by question, answer and confidence."""
        wrongness = learn_wrongness(_pairs(alone), alone.logprobs[:, None], ~right, c=self.c)
        return lambda alone: wrongness(_pairs(alone), alone.logprobs[:, None])

    def claim(self, scores: Scores, alone: Alone) -> Scores:
        """The score itself."""
        return scores


def _pairs(alone: Alone) -> list[str]:
    return [f"{question} {answer}" for question, answer in zip(alone.questions, alone.answers, strict=True)]
