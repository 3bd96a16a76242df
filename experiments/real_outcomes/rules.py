"""Every rule asked about one finished run: whose questions it would send, on the same devices, tests and verdicts.

The device's own model is recorded, so no rule changes what a device knows, and one run of the learner serves all rules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from clients.asking.alone import Alone
from clients.asking.learned import Classifier
from clients.asking.policy import OwnCalibrated
from clients.asking.rule import AskingRule, Scores
from clients.asking.scores import Confidence
from clients.asking.simple import AtRandom, Oracle
from clients.asking.threshold import SOURCE, Scored
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack
from experiments.real_outcomes.router import Router, met
from flsim.config.schema import Config
from flsim.devices import device_name
from flsim.metrics.rows import evaluation_split, read_rows, read_rows_file, write_rows

OWN = "DA-GRPO"
"""The policy's own wish, which the run itself has measured."""
CALIBRATED = "DA-GRPO, calibrated"
_CALIBRATION = 32


@dataclass(frozen=True)
class LongQuestions(Scored):
    """Asks where the question is long: the plainest sign of difficulty, and no learning."""

    def score(self, alone: Alone) -> Scores:
        """In characters, `(N,)`."""
        return np.array([len(question) for question in alone.questions], dtype=np.float64)


RULES: dict[str, Callable[[World], AskingRule]] = {
    CALIBRATED: lambda world: OwnCalibrated(known(world)),
    "router, own outcomes": lambda world: Router(met(world.config, world.stream), calibration=known(world)),
    "router, all outcomes": lambda world: Router(
        met(world.config, world.stream), pooled=True, calibration=known(world)
    ),
    "router, half of calibration": lambda world: Classifier(known(world)),
    "long questions": lambda world: LongQuestions(known(world)),
    "unsure reader": lambda world: Confidence(known(world)),
    "at random": lambda world: AtRandom(),
    "oracle": lambda world: Oracle(),
}
"""Name -> what makes the rule for the devices of a run."""
NAMES = (OWN, *RULES)


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


def rows_by_rule(config: Config) -> dict[str, pd.DataFrame]:
    """All rows of a finished run, once per rule: its training, with the rule's tests at the end in place of its own.

    What was found is kept beside the run's rows, so that it is done once.

    Args:
        config: of the run.
    """
    run = read_rows(config.folder)
    is_test = (run["model"] == "global") & (run["split"] == evaluation_split(run))
    beside, tested = run[~is_test], _kept(config)
    return {OWN: run} | {name: pd.concat([beside, rows], ignore_index=True) for name, rows in tested.items()}


def _kept(config: Config) -> dict[str, pd.DataFrame]:
    paths = {name: config.folder / "rules" / f"{_plain(name)}.parquet" for name in RULES}
    missing = {name: path for name, path in paths.items() if not path.is_file()}
    if missing:
        _measure(config, missing)
    return {name: read_rows_file(path) for name, path in paths.items()}


def _measure(config: Config, paths: Mapping[str, Path]) -> None:
    """Ask these rules about the devices at the end of the run; each is kept as soon as it has answered."""
    learned = replace(config.model, adapter=str(config.folder / "adapter"))
    world = load_world(replace(config, model=learned))
    devices = list(range(config.fleet.devices))
    same = [world.first] * len(devices)
    for name, path in paths.items():
        rule = RULES[name](world)
        found = evaluate_pack(world, devices, same, model="global", round_=config.rounds, asking=rule)
        path.parent.mkdir(exist_ok=True)
        write_rows(path, [row for own in found for row in own])


def _plain(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_")
