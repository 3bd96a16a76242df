"""The runs of a comparison: a config and a folder for every arm, part and seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.compare_strategies.plan import CONFIG, Arm, Part
from flsim.config.load import load_config
from flsim.config.schema import Config


@dataclass(frozen=True)
class Task:
    """One run: an arm of a part with a seed."""

    part: Part
    arm: Arm
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.config.folder


def tasks_of(parts: Sequence[Part], seeds: Sequence[int], root: Path, more: Sequence[str]) -> list[Task]:
    """All runs, seed by seed, so that an interrupted comparison has whole seeds.

    Args:
        parts: what to compare.
        seeds: each sets the run's seed and the stream's.
        root: folder of all runs.
        more: settings over every arm's own.
    """
    tasks = []
    for seed in seeds:
        for part in parts:
            for arm in part.arms:
                folder = root / part.name / f"{_plain(arm.name)}-s{seed}"
                own = [f"seed={seed}", f"stream.seed={seed}", f"run_dir={folder}"]
                tasks.append(Task(part, arm, seed, load_config(CONFIG, [*arm.settings, *more, *own])))
    return tasks


def _plain(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
