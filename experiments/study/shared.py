"""One training for several rules: runs that differ in nothing but the rule by which devices ask are trained once.

Nothing that is learned depends on `client.asking`, which says when devices ask in tests. So devices are tested under
the rule of every run in turn, with the same adapters in the same packs, and each run gets a folder of its own: the rows
of the training, the tests under its rule, and all else that a run leaves. The rows are those of the run alone, bit for
bit. The training lies in ROOT/shared/NAME until then, and goes on there after a kill.
"""

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import flsim
from clients.app import DeviceApp
from flsim.config.load import settings_of, to_yaml
from flsim.config.schema import Config
from flsim.files import write_atomically
from flsim.loop.checkpoints import replace_inventory
from flsim.loop.lock import LOCK, OWNER
from flsim.loop.ready import build_parts
from flsim.metrics.rows import COLUMNS, Row, read_rows, read_rows_file, write_rows
from strategies.base import DeltaStrategy

FOLDER = "shared"
_RULE = "client.asking"
_OF_RUN = ("name", "run_dir")
_LEFT = (
    "rows",
    "config.yaml",
    "summary.json",
    "report.html",
    "plots",
    "adapter",
    "trackers",
    "tensorboard",
    "*.part",
    LOCK,
    OWNER,
)


@dataclass(frozen=True)
class Training:
    """Runs that are trained at once."""

    configs: tuple[Config, ...]
    """One, or several that differ in the rule alone; none of them has begun."""

    @property
    def config(self) -> Config:
        """Of the run that trains: the one run, or the first, in a folder that is shared by all."""
        first = self.configs[0]
        if len(self.configs) == 1:
            return first
        settings = json.dumps([settings_of(config) for config in self.configs], sort_keys=True)
        name = f"{first.folder.name}-{zlib.crc32(settings.encode()):08x}"
        return replace(first, run_dir=str(first.folder.parent / FOLDER / name), track=())  # each run tells of itself

    def run(self) -> None:
        """Train, or go on with it; test under each rule, and finish every run."""
        folder = self.config.folder
        if len(self.configs) > 1:
            flsim.run(self.config, client=self._client(), resume=begun(folder), progress=False)
            self._make_folders(folder)
            shutil.rmtree(folder)
        for config in sorted(self.configs, key=lambda config: begun(config.folder) is None):
            flsim.run(config, resume=begun(config.folder), progress=False)

    def _client(self) -> DeviceApp:
        """The first run's, which tests under the others' rules, too."""
        first, *others = (_app(config) for config in self.configs)
        first.beside = {
            f"@{self._tag(config)}": app.asking for config, app in zip(self.configs[1:], others, strict=True)
        }
        return first

    def _tag(self, config: Config) -> str:
        """What follows `@` in the models of the rows that are tested under a run's rule; empty for the first run."""
        return "" if config == self.configs[0] else config.folder.name

    def _make_folders(self, source: Path) -> None:
        """All under another name at first, so that a kill leaves all runs or, but for a moment, none.

        A run whose rule failed on the way has fewer tests than the others; it is left to be trained alone.
        """
        rows = read_rows(source)
        # rows of accuracy, which every rule has: those of calibration are as many as its claims are different
        tested = (rows["split"] == self.config.evaluation.split) & (rows["name"] == "accuracy")
        tests = rows["model"][tested].str.partition("@")[2].value_counts()
        whole = [config for config in self.configs if tests.get(self._tag(config), 0) == tests.max()]
        made = [(source / f"{config.folder.name}.part", config) for config in whole]
        for part, config in made:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(source, part, ignore=shutil.ignore_patterns(*_LEFT))
            digests = []
            for file in sorted((source / "rows").glob("round-*.parquet")):
                rows = _under(read_rows_file(file), self._tag(config), config)
                own = [Row(*line) for line in rows.itertuples(index=False)]
                digests.append(write_rows(part / "rows" / file.name, own))
            write_atomically(part / "config.yaml", to_yaml(config).encode())
            replace_inventory(part, to_yaml(config), tuple(digests))
        for part, config in made:
            os.rename(part, config.folder)


def trainings_of(configs: Sequence[Config]) -> list[Training]:
    """Runs sorted into trainings, in the order of their first runs.

    Args:
        configs: of runs that are not finished; one that has begun is trained alone, and so is one whose client or
            strategy could learn from its tests.
    """
    found: dict[str, list[Config]] = {}
    for config in configs:
        alone = config.folder.exists() or not _learns_alike(config)
        found.setdefault(str(config.folder) if alone else _learned(config), []).append(config)
    return [Training(tuple(own)) for own in found.values()]


def begun(folder: Path) -> Path | None:
    """A run's folder if there is a run to go on with."""
    return folder if (folder / "config.yaml").is_file() else None


def _learned(config: Config) -> str:
    """All that training depends on, and the folder beside which it lies."""
    own = {key: str(value) for key, value in settings_of(config).items() if not key.startswith(_RULE)}
    return json.dumps([str(config.folder.parent), {k: v for k, v in own.items() if k not in _OF_RUN}], sort_keys=True)


def _learns_alike(config: Config) -> bool:
    """Whether no test changes what is learned: a client of this house, a strategy that does not look at tests."""
    strategy, client, _ = build_parts(config)
    blind = type(strategy).aggregate_evaluate is DeltaStrategy.aggregate_evaluate
    return isinstance(client, DeviceApp) and blind


def _app(config: Config) -> DeviceApp:
    client = build_parts(config)[1]
    assert isinstance(client, DeviceApp)
    return client


def _under(rows: pd.DataFrame, tag: str, config: Config) -> pd.DataFrame:
    """The rows of a round as the run alone would have them: those of training, and those tested under its rule."""
    model, _, rule = (rows["model"].str.partition("@")[part] for part in range(3))
    tested = rows["split"] == config.evaluation.split
    return rows.assign(model=model)[~tested | (rule == tag)][list(COLUMNS)]
