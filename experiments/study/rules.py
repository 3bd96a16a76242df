"""Rules for asking beside DA-GRPO's where outcomes were recorded: routers that learned of what the policy met.

The device's own model is recorded there, so no rule changes what a device knows, and one training serves them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from clients.asking.alone import Alone
from clients.asking.rule import AskingRule, Choice, Examined, Flags, Scores
from clients.asking.threshold import Score, Scored, by_thresholds
from clients.device.world import World
from flsim.config.plugins import resolve
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.problems.problem import Problem
from flsim.problems.recorded import Record
from flsim.seeding import generator
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import SOURCE

_CALIBRATION = 32


@dataclass(frozen=True)
class Mixed:
    """Another rule, whose calibration questions mix the tasks as the tests do."""

    rule: str
    """Its path; it takes `calibration`, the questions per task, and `pacing`."""
    pacing: bool = False
    """As of the rule."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        rule: AskingRule = resolve("client.asking.rule", self.rule)(calibration=known(pack.world), pacing=self.pacing)
        return rule.decide(pack)


@dataclass(frozen=True)
class LongQuestions(Scored):
    """Asks where the question is long: the plainest sign of difficulty, and no learning."""

    def score(self, alone: Alone) -> Scores:
        """In characters, `(N,)`."""
        return np.array([len(question) for question in alone.questions], dtype=np.float64)


@dataclass(frozen=True)
class Router:
    """Scores a question by the chance that only the cloud has it right; a threshold per device, as other rules have.

    Of the kind of RouteLLM (Ong et al. 2024, arXiv 2406.18665): TF-IDF and logistic regression on the questions. It
    knows both verdicts of every question that its device meets in the whole run, where the policy knows the cloud's
    only where it asked. That is more than a router in use could know, so it is a strong one to be compared with.
    With `bought` it knows what the policy does, and scores by the difference of two regressions, as a benefit head.
    """

    pooled: bool = False
    """One score, learned from what all devices meet, in place of one per device."""
    bought: bool = False
    """Whether it knows the cloud's verdict only of the share tau of the prompts, drawn at random: as many as DA-GRPO
    buys, and like it every verdict of the device's own."""
    c: float = 1.0
    """Inverse weight of the ridge penalty."""
    pacing: bool = False
    """As of other rules with a threshold."""
    _scores: dict[int, Score] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By device, or the one of all under -1; what devices meet is the same in every round that is tested."""

    _ALL: ClassVar[int] = -1

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        if not self._scores:
            lessons = met(pack.world.config, pack.world.stream)
            if self.pooled:
                lessons = {self._ALL: [problem for own in lessons.values() for problem in own]}
            self._scores.update({device: self._learned(pack, device, own) for device, own in lessons.items()})
        scores = [self._scores[self._ALL if self.pooled else device] for device in pack.devices]
        return by_thresholds(pack, scores, known(pack.world), pacing=self.pacing)

    def _learned(self, pack: Examined, device: int, lessons: Sequence[Problem]) -> Score:
        if not self.bought:
            return learned(lessons, self.c)
        draws = generator(pack.world.seed, "router buys", device).random(len(lessons))  # (N,)
        return learned_from_bought(lessons, draws < pack.world.tau, self.c)


def learned(lessons: Sequence[Problem], c: float) -> Score:
    """The chance that only the cloud is right, from both verdicts of all lessons; each question counts once."""
    verdicts = {problem.question: Record.read(problem.answer) for problem in lessons}
    need = [record.cloud and not record.local for record in verdicts.values()]
    return chance_of(list(verdicts), need, c)


def learned_from_bought(lessons: Sequence[Problem], bought: Flags, c: float) -> Score:
    """The chance that the cloud is right, from what was `bought` `(N,)`, minus that the device is, from all N."""
    alone = {problem.question: Record.read(problem.answer).local for problem in lessons}
    pairs = zip(lessons, bought, strict=True)
    cloud = {problem.question: Record.read(problem.answer).cloud for problem, paid in pairs if paid}
    scores = [chance_of(list(verdicts), list(verdicts.values()), c) for verdicts in (cloud, alone)]
    return lambda tried: scores[0](tried) - scores[1](tried)


def chance_of(questions: Sequence[str], labels: Sequence[bool], c: float) -> Score:
    """Logistic regression on character 1- to 3-grams; labels that are all alike give a constant."""
    if len(set(labels)) < 2:
        return lambda alone: np.zeros(len(alone.questions))
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    model = make_pipeline(grams, LogisticRegression(C=c, max_iter=1000)).fit(questions, np.array(labels))

    def score(alone: Alone) -> Scores:
        found: Scores = model.predict_proba(list(alone.questions))[:, 1]  # (N,)
        return found

    return score


def met(config: Config, stream: TaskStream) -> Mapping[int, list[Problem]]:
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


def known(world: World) -> int:
    """Calibration questions per task: 32, or with several tasks what the smallest set of a device holds.

    So tasks are mixed in them as they are in the tests; else thresholds would be set for another mixture.
    """
    if len(world.stream.tasks) == 1:
        return _CALIBRATION
    split = SOURCE[world.config.evaluation.split]
    sets = [
        own
        for device in range(world.config.fleet.devices)
        for own in world.stream.evaluation_problems(device_name(device), split, per_task=_CALIBRATION).values()
    ]
    return max(2, min(len({problem.question for problem in own}) for own in sets))
