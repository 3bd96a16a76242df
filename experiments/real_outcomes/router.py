"""The router that learned from the same recorded outcomes as the policy: TF-IDF and logistic regression.

Of the kind of RouteLLM (Ong et al. 2024, arXiv 2406.18665): it predicts from the question that only the cloud is right.
It knows both verdicts of every question that its device met, or that any device met, where the policy knows the cloud's
only where it asked. That is more than a router in use could know, so it is a strong one to be compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from clients.asking.alone import Alone
from clients.asking.rule import Choice, Examined, Scores
from clients.asking.threshold import Score, by_thresholds
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.problems.problem import Problem
from flsim.problems.recorded import Record
from flsim.tasks.stream import TaskStream


@dataclass(frozen=True)
class Router:
    """Scores a question by the chance that only the cloud has it right; a threshold per device, as other rules have."""

    lessons: Mapping[int, Sequence[Problem]]
    """What each device has met."""
    pooled: bool = False
    """One score, learned from all devices' lessons, in place of one per device."""
    calibration: int = 32
    """Questions per task and device that the threshold is set on."""
    c: float = 1.0
    """Inverse weight of the ridge penalty."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        if self.pooled:
            one = learned([problem for own in self.lessons.values() for problem in own], self.c)
            return by_thresholds(pack, [one] * len(pack.devices), self.calibration)
        scores = [learned(self.lessons[device], self.c) for device in pack.devices]
        return by_thresholds(pack, scores, self.calibration)


def learned(lessons: Sequence[Problem], c: float) -> Score:
    """Fit character 1- to 3-grams; labels that are all alike give a constant."""
    known = {problem.question: Record.read(problem.answer) for problem in lessons}
    need = np.array([record.cloud and not record.local for record in known.values()])  # (N,)
    if len(set(need.tolist())) < 2:
        return lambda alone: np.zeros(len(alone.questions))
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    model = make_pipeline(grams, LogisticRegression(C=c, max_iter=1000)).fit(list(known), need)

    def score(alone: Alone) -> Scores:
        found: Scores = model.predict_proba(list(alone.questions))[:, 1]  # (N,)
        return found

    return score


def met(config: Config, stream: TaskStream) -> dict[int, list[Problem]]:
    """Every question that each device meets in a run, in order, with repeats: a pure function of the config."""
    prompts, steps = config.client["prompts"], config.client["steps"]
    found = {}
    for device in range(config.fleet.devices):
        name = device_name(device)
        count = stream.prompts_per_step(name, prompts)
        found[device] = [
            problem
            for round_ in range(1, config.rounds + 1)
            for step in range(steps)
            for problem in stream.training_problems(name, round_, step, count=count, seed=config.seed)
        ]
    return found
