"""A learned router that reads the prompt only: it asks where the device is likely to be wrong.

Of the kind of RouteLLM (Ong et al. 2024, arXiv 2406.18665) and HybridLLM (Ding et al. 2024, arXiv 2404.14618); the
label is that of the router that GAPG is compared with (Fang et al. 2025, arXiv 2509.24050), whether the device alone
solves the prompt. Theirs are language models trained on thousands of prompts; this one has character n-grams and a few
dozen prompts of the device itself.
"""

from dataclasses import dataclass

import numpy as np

from clients.asking.alone import Alone
from clients.asking.rule import Flags
from clients.asking.threshold import Learned, Score
from clients.asking.wrongness import learn_wrongness


@dataclass(frozen=True)
class Classifier(Learned):
    """Scores the question alone."""

    def learn(self, alone: Alone, right: Flags) -> Score:
        """The chance of being wrong, by the question."""
        wrongness = learn_wrongness(alone.questions, np.zeros((len(right), 0)), ~right, c=self.c)
        return lambda alone: wrongness(alone.questions, np.zeros((len(alone.questions), 0)))
