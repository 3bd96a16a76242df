"""Open the folders of finished runs and sort them into methods: runs that differ in nothing but their seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pandas as pd

from flsim.config.address import is_address
from flsim.config.load import OF_WHAT_IS_SAID, load_config, settings_of
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import read_rows
from flsim.storage.looking import run_folders


class HasFolder(Protocol):
    """Such as `flsim.Run`."""

    @property
    def folder(self) -> Path:
        """The run's."""


Given = str | Path | HasFolder
"""A run as a caller names it: its folder, a folder of run folders, or what `flsim.run` returned."""
Labels = Mapping[str, Given | Sequence[Given]]
"""Name of a method -> one or more of its runs."""

_NO_METHOD = ("seed", "stream.seed", "run_dir", "name")  # two runs that differ in these alone are of one method


@dataclass(frozen=True)
class OpenRun:
    """A finished run."""

    folder: Path
    config: Config

    def rows(self) -> pd.DataFrame:
        """All its measurements, read anew, so that a comparison holds the rows of one run at a time.

        Raises:
            DamagedFileError: if they cannot be read.
        """
        return read_rows(self.folder)

    @property
    def seeds(self) -> tuple[int, int]:
        """The run's seed and its stream's; runs of two methods are paired by both."""
        return (self.config.seed, self.config.stream.seed)


@dataclass(frozen=True)
class Method:
    """What is compared: one run per seed."""

    label: str
    runs: tuple[OpenRun, ...]
    """By their seeds, ascending."""

    @property
    def config(self) -> Config:
        """Of the first run; the others differ in seeds and folder only."""
        return self.runs[0].config


def seed_text(seeds: tuple[int, int]) -> str:
    """`seed 0`, or `seed 0 (stream 3)` if the stream's is another."""
    return f"seed {seeds[0]}" if seeds[0] == seeds[1] else f"seed {seeds[0]} (stream {seeds[1]})"


def open_run(folder: Path) -> OpenRun:
    """Read a run's config, and see that it is finished.

    Raises:
        ConfigError: if there is no run, or one that has not reached its last round.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{folder} is no run: it has no config.yaml; give the folder of a run, or one that holds runs"
        )
    config = load_config(folder / "config.yaml")
    files = sorted((folder / "rows").glob("round-*.parquet"))
    last = int(files[-1].stem.removeprefix("round-")) if files else None
    if last is None or last < config.rounds:
        reached = "it has no rows" if last is None else f"its rows end at round {last} of {config.rounds}"
        raise ConfigError(f"{folder} is not finished: {reached}; finish it by flsim resume {folder}, or leave it out")
    return OpenRun(folder, config)


def folders_of(given: Given) -> list[Path]:
    """The run folders behind what a caller named, sorted; a folder that holds run folders stands for all of them.

    Raises:
        ConfigError: if there is none.
    """
    if isinstance(given, str) and is_address(given):
        return run_folders(given)
    folder = Path(given) if isinstance(given, str | Path) else given.folder
    if (folder / "config.yaml").is_file():
        return [folder]
    held = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not held:
        what = "has no config.yaml, and no folder in it has one" if folder.is_dir() else "is not there"
        raise ConfigError(f"{folder} {what}; give run folders, or a folder that holds them, such as runs/demo-seed0")
    return held


def open_methods(runs: Sequence[Given], labels: Labels | None = None) -> list[Method]:
    """Open runs and sort them into methods, in the order in which they are given.

    A method is called by its label; without one by its config's `name`, and where several share that, by its first
    folder without the seed at its end. Engine settings make no method: they change the last bits of a float.

    Args:
        runs: folders or finished runs.
        labels: names; runs named only here are opened, too. A label holds for all runs that differ from its run in
            their seeds only and have no label of their own, so that one run of a method is enough; but where it has
            runs with their seeds, they stay a method of their own.

    Raises:
        ConfigError: if a run cannot be opened, or two of a method have the same seeds.
    """
    named = {folder.resolve(): label for label, held in (labels or {}).items() for folder in _folders(held)}
    given = [folder for run in runs for folder in folders_of(run)]
    given += [folder for held in (labels or {}).values() for folder in _folders(held)]
    opened = {folder.resolve(): folder for folder in reversed(given)}  # a folder counts once, where it came first
    order = sorted(opened, key=lambda path: given.index(opened[path]))
    groups: list[tuple[dict[str, object], dict[str | None, list[OpenRun]]]] = []
    for path in order:
        run = open_run(opened[path])
        settings = method_settings(run.config)
        by_label = next((held for same, held in groups if same == settings), None)
        if by_label is None:
            by_label = {}
            groups.append((settings, by_label))
        by_label.setdefault(named.get(path), []).append(run)
    found = [(label, held) for _, by_label in groups for label, held in _drawn(by_label).items()]
    place = {path: number for number, path in enumerate(order)}
    found.sort(key=lambda group: min(place[run.folder.resolve()] for run in group[1]))
    return [_method(text, held) for text, (_, held) in zip(_texts(found), found, strict=True)]


def method_settings(config: Config) -> dict[str, object]:
    """What makes a method: all settings but seeds, names and the engine's."""
    settings = settings_of(config)
    return {
        key: value
        for key, value in settings.items()
        if key not in _NO_METHOD and not key.startswith("engine.") and not OF_WHAT_IS_SAID.fullmatch(key)
    }


def _drawn(by_label: dict[str | None, list[OpenRun]]) -> dict[str | None, list[OpenRun]]:
    """Runs of one config without a label go to the one label there is, unless it has runs with their seeds."""
    bare = by_label.get(None, [])
    named = {label: held for label, held in by_label.items() if label is not None}
    if not bare or len(named) != 1:
        return by_label
    ((label, held),) = named.items()
    if {run.seeds for run in held} & {run.seeds for run in bare}:
        return by_label
    return {label: [*held, *bare]}


def _folders(held: Given | Sequence[Given]) -> list[Path]:
    several = [held] if isinstance(held, str | Path) or hasattr(held, "folder") else list(held)
    return [folder for run in several for folder in folders_of(run)]


def _texts(groups: Sequence[tuple[str | None, list[OpenRun]]]) -> list[str]:
    """What each method is called."""
    names = [label or runs[0].config.name for label, runs in groups]
    by_folder = [re.sub(r"-(s|seed)\d+$", "", runs[0].folder.resolve().name) for _, runs in groups]
    texts = [
        folder if label is None and names.count(name) > 1 else name
        for (label, _), name, folder in zip(groups, names, by_folder, strict=True)
    ]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        same = [str(runs[0].folder) for text, (_, runs) in zip(texts, groups, strict=True) if text == twice]
        raise ConfigError(
            f"{' and '.join(same)} are other methods but would both be called {twice!r}; give them labels"
        )
    return texts


def _method(label: str, runs: list[OpenRun]) -> Method:
    ordered = sorted(runs, key=lambda run: run.seeds)
    for one, other in pairwise(ordered):
        if one.seeds == other.seeds:
            raise ConfigError(
                f"{one.folder} and {other.folder} are both {label!r} with {seed_text(one.seeds)}; "
                f"leave one out, or tell them apart by labels"
            )
    return Method(label, tuple(ordered))
