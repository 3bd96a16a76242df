"""Do the runs that are missing, several side by side, each in a process of its own; never one that is finished."""

import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import flsim
from experiments.compare_strategies.plan import CONFIG, Arm, Part
from flsim.config import Config
from flsim.config_files import load_config
from flsim.run_folder import open_again

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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


def do_all(tasks: Sequence[Task], jobs: int) -> None:
    """Run what is not finished yet, with a bar that says how much time is left.

    Raises:
        ConfigError: if a folder holds a run of other settings.
    """
    missing = [task for task in tasks if not _finished(task)]
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(missing), unit="run")
    with _one_thread(), bar, ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_run, task.config): task for task in missing}
        for done in as_completed(running):
            done.result()
            bar.set_postfix_str(str(running[done].folder.name))
            bar.update()


def _finished(task: Task) -> bool:
    """Whether the run is there with its summary; if it was begun with other settings that is an error."""
    if (task.folder / "config.yaml").is_file():
        open_again(task.folder, task.config)
    return (task.folder / "summary.json").is_file()


def _run(config: Config) -> None:
    begun = (config.folder / "config.yaml").is_file()
    flsim.run(config, resume=config.folder if begun else None, progress=False)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for each process that is started here; with more, the processes would hinder each other."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _plain(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
