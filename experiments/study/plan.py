"""The runs of a study: arms over seeds, or every combination of axes; each with a config and a folder of its own."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from experiments.study.axes import METHOD, SEED, read_axes
from experiments.study.methods import Method, config_with, find_method
from experiments.study.running import is_begun, is_finished
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.loop.checks import check
from flsim.loop.ready import build_parts

ONE_PROCESS = "engine.kind=local"
"""Of every run, unless the user says otherwise: several Rays side by side would hinder each other."""


@dataclass(frozen=True)
class Planned:
    """One run."""

    label: str
    """Of its method."""
    config: Config
    choice: Mapping[str, str] = field(default_factory=dict)
    """Of a sweep, what sets it apart, as it was written: the method if there are methods, the axes, the seed."""

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.config.folder


@dataclass(frozen=True)
class Arm:
    """One method under one condition: a line of a study's tables."""

    label: str
    settings: tuple[str, ...] = ()
    """Over the config and the fragments."""
    fragments: tuple[Path, ...] = ()
    """YAML files laid over the config."""
    folder: str = ""
    """Of its runs, to which the seed is added; empty takes the label."""

    def planned(self, config: Path, seed: int, root: Path, more: Sequence[str] = ()) -> Planned:
        """One run.

        Args:
            config: the YAML file that all arms share.
            seed: of the run and of its stream.
            root: folder of the study's runs.
            more: settings over the arm's own.
        """
        folder = root / f"{self.folder or re.sub(r'[^a-z0-9.]+', '-', self.label.lower()).strip('-')}-s{seed}"
        own = [f"seed={seed}", f"stream.seed={seed}", f"run_dir={folder}"]
        return Planned(self.label, config_with(config, [ONE_PROCESS, *self.settings, *more, *own], self.fragments))


def runs_of(
    config: Path, arms: Sequence[Arm], seeds: Sequence[int], root: Path, more: Sequence[str] = ()
) -> list[Planned]:
    """The runs of some arms, seed by seed, so that a study stopped early has whole seeds; see `Arm.planned`."""
    return [arm.planned(config, seed, root, more) for seed in seeds for arm in arms]


def by_label(runs: Sequence[Planned]) -> dict[str, list[Path]]:
    """The folders of each method, in the order of the runs."""
    folders: dict[str, list[Path]] = {}
    for run in runs:
        folders.setdefault(run.label, []).append(run.folder)
    return folders


def plan_of(path: str, arguments: Sequence[str], root: Path | None = None) -> list[Planned]:
    """All runs, seed by seed, so that an interrupted sweep has whole seeds.

    Args:
        path: the config that all share.
        arguments: axes and settings, as `read_axes` takes them.
        root: folder of all runs; None means `runs/sweep-NAME` by the config's name.

    Raises:
        ConfigError: for arguments or settings that cannot be used, naming the run.
    """
    axes, settings = read_axes(arguments)
    keys = {*axes, *(setting.partition("=")[0] for setting in settings)}
    if "run_dir" in keys or "name" in axes:
        raise ConfigError("run_dir and several names cannot be set: a sweep names its runs itself; set --root or name=")
    name = load_config(path, [setting for setting in settings if setting.startswith("name=")]).name
    shared = _Shared(path, name, Path("runs") / f"sweep-{name}" if root is None else root, settings)
    methods = [find_method(text) for text in axes.pop(METHOD, [""])]
    seeds = [_seeded(text, with_stream="stream.seed" not in keys) for text in axes.pop(SEED, [""])]
    runs = []
    for seed in seeds:
        for method in methods:
            for values in product(*axes.values()):
                runs.append(shared.planned(method, dict(sorted(zip(axes, values, strict=True))), seed))
    _refuse_shared_folders(runs)
    return runs


def folder_name(choice: Mapping[str, str]) -> str:
    """`da_grpo-budget.tau=0.5-seed0`: one way to write a choice, whatever the order of the arguments.

    Letters that a file system may not like become `-`.
    """
    return "-".join([*_words(choice), f"seed{_plain(choice[SEED])}"])


def refuse_what_cannot_run(runs: Sequence[Planned]) -> set[Path]:
    """Build what each run needs and look into its folder, before any is started; returns the folders of finished ones.

    Raises:
        ConfigError: naming the run and what is wrong, or what differs from the run in its folder.
    """
    finished = set()
    for run in runs:
        try:
            if is_finished(run.config):
                finished.add(run.folder)
            else:
                build_parts(run.config)
        except ConfigError as error:
            mend = "; a sweep of other settings needs another --root" if is_begun(run.config) else ""
            raise ConfigError(f"run {run.folder.name}: {error}{mend}") from error
    return finished


@dataclass(frozen=True)
class _Shared:
    """What all runs have in common."""

    path: str
    """Of the config."""
    name: str
    """Its own."""
    root: Path
    settings: Sequence[str]

    def planned(self, method: Method, axes: Mapping[str, str], seed: Sequence[str]) -> Planned:
        """One run, by its method, its value on every axis, and the settings of its seed."""
        named = {METHOD: method.name} if method.files else {}
        own = [f"{key}={value}" for key, value in axes.items()]
        words = _words({**named, **axes})
        try:
            config = config_with(self.path, [ONE_PROCESS, *self.settings, *own, *seed], method.files)
            check(config)
        except ConfigError as error:
            raise ConfigError(f"run {'-'.join([*words, *seed[:1]]) or self.name}: {error}") from error
        choice = {**named, **axes, SEED: str(config.seed)}
        folder = self.root / folder_name(choice)
        name = "-".join([self.name, *words])
        return Planned("-".join(words) or name, replace(config, name=name, run_dir=str(folder)), choice)


def _seeded(text: str, *, with_stream: bool) -> list[str]:
    """The settings of one value of `seed=`; none for the config's own."""
    if not text:
        return []
    return [f"seed={text}", *([f"stream.seed={text}"] if with_stream else [])]


def _words(choice: Mapping[str, str]) -> list[str]:
    """The method and every axis but the seed, as parts of a name."""
    words = [_plain(choice[METHOD])] if METHOD in choice else []
    return words + [f"{key}={_plain(choice[key])}" for key in sorted(choice.keys() - {METHOD, SEED})]


def _plain(value: str) -> str:
    """A value as part of a path."""
    other = r"[^A-Za-z0-9._+-]+"
    return re.sub(other, "-", re.sub(f"^{other}|{other}$", "", value))


def _refuse_shared_folders(runs: Sequence[Planned]) -> None:
    (folder, count), *_ = Counter(run.folder for run in runs).most_common(1)
    if count > 1:
        raise ConfigError(
            f"{count} runs would share the folder {folder}, as their values differ only in letters that a folder's "
            f"name cannot hold, or their method files have one name; write or call them differently"
        )
