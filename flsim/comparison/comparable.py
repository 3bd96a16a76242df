"""What runs must have in common to be compared; what they lack is said, never passed over."""

from collections.abc import Sequence
from pathlib import Path

from flsim.cloud.make import free_settings
from flsim.comparison.runs import Method, OpenRun, seed_text
from flsim.config.load import OF_WHAT_IS_SAID, settings_of
from flsim.config.schema import Config, ConfigError
from flsim.report.partition_figure import read_partitions
from flsim.tasks.stream import TaskStream

_ROOMS = ("stream.", "data.", "budget.", "evaluation.", "cloud.", "system.")
_KEYS = ("rounds", "fleet.devices", "model.path", "system")
_FREE = (
    "stream.seed",
    "budget.fleet.division",
    *(f"budget.fleet.price_{name}" for name in ("init", "lr", "gain", "max")),
)
"""Seeds are paired; how a fleet's budget is shared out is a method, how large it is must agree."""
_FREE_OF_SYSTEM = ("system.end.", "system.samples", "system.overlap", "system.deadlines_s")
"""When a round ends and how a device goes about its work are methods; devices, links and who is there must agree."""
_SHOWN = 6  # runs or differences named in one message


def check_comparable(methods: Sequence[Method], bounds: Sequence[Method] = ()) -> None:
    """Refuse what cannot be compared.

    Args:
        methods: must share stream (apart from its seed), data, budget, evaluation, fleet size, rounds, base model,
            cloud and system (apart from when a round ends), and each must have the same seeds.
        bounds: must be measured on the same test sets, and on those of all seeds.

    Raises:
        ConfigError: naming runs, keys and both values, or the seeds that are missing.
    """
    first = methods[0].runs[0]
    wanted = _compared(first.config)
    wrong = _unlike(wanted, {run.folder: _compared(run.config) for method in methods for run in method.runs})
    if wrong:
        raise ConfigError(
            f"these runs cannot be compared with {first.folder}: {_listed(wrong)}. Runs must share "
            f"stream, data, budget, evaluation, fleet size, rounds, base model, cloud and system (classes, links, "
            f"availability); run them again alike, or give a run that only serves as a bound as one (--bounds)"
        )
    _check_seeds(methods)
    _check_partitions([run for method in (*methods, *bounds) for run in method.runs])
    seeds = {run.seeds[1] for run in methods[0].runs}
    for bound in bounds:
        wanted = _test_sets(first.config)
        wrong = _unlike(wanted, {run.folder: _test_sets(run.config) for run in bound.runs})
        missing = seeds - {run.seeds[1] for run in bound.runs}
        if missing:
            wrong.append(f"it lacks runs with stream.seed {', '.join(map(str, sorted(missing)))}")
        if wrong:
            raise ConfigError(
                f"{bound.label!r} is no bound for {first.folder}, as it is measured on other test sets: "
                f"{_listed(wrong)}"
            )


def varied(methods: Sequence[Method]) -> dict[str, list[str]]:
    """The settings in which methods differ: key -> its value in each of them, a dash where it is not set."""
    settings = [settings_of(method.config) for method in methods]
    keys = sorted({key for own in settings for key in own} - {"name", "run_dir", "seed", "stream.seed"})
    keys = [key for key in keys if not key.startswith("engine.")]
    values = {key: [str(own.get(key, "-")) for own in settings] for key in keys}
    return {key: row for key, row in values.items() if len(set(row)) > 1}


def _compared(config: Config) -> dict[str, object]:
    settings, free = settings_of(config), (*_FREE, *free_settings(config.cloud))
    found = {
        key: value
        for key, value in settings.items()
        if (key in _KEYS or key.startswith(_ROOMS)) and key not in free and not OF_WHAT_IS_SAID.fullmatch(key)
    }
    system = "given" if config.system is not None else None
    return {key: value for key, value in found.items() if not key.startswith(_FREE_OF_SYSTEM)} | {"system": system}


def _test_sets(config: Config) -> dict[str, object]:
    """What the questions of a test set are drawn by, beside the stream's seed."""
    settings = settings_of(config)
    keys = ("stream.alpha", "fleet.devices", "evaluation.split", "evaluation.prompts_per_task", "evaluation.items")
    tasks = list(TaskStream(config.stream, config.rounds).tasks)
    own = {key: value for key, value in settings.items() if key.startswith(tuple(f"data.{task}." for task in tasks))}
    own = {key: value for key, value in own.items() if not OF_WHAT_IS_SAID.fullmatch(key)}
    return {"tasks, in order": tasks, **{key: settings[key] for key in keys}, **own}


def _check_partitions(runs: Sequence[OpenRun]) -> None:
    """Devices are paired by number, so that device 3 must hold the same in all: files may change between two runs."""
    known: dict[tuple[str, int], tuple[str, Path]] = {}
    for run in runs:
        for name, said in read_partitions(run.folder).items():
            found = said["fingerprint"]
            if found is None:  # a run of a release that did not write it
                continue
            first, folder = known.setdefault((name, run.config.stream.seed), (found, run.folder))
            if first != found:
                raise ConfigError(
                    f"{run.folder} cannot be compared with {folder}: the devices of data.{name} hold other items, "
                    f"as its files changed between the two; run one of them again"
                )


def _unlike(wanted: dict[str, object], found: dict[Path, dict[str, object]]) -> list[str]:
    """What differs and in which runs, such as `budget.tau is 0.5 and not 0.3 in runs/b, runs/c`."""
    where: dict[str, list[str]] = {}
    for folder, own in found.items():
        one_has_none = own.get("system") != wanted.get("system")
        for key in wanted | own:
            if own.get(key) != wanted.get(key) and not (one_has_none and key.startswith("system.")):
                where.setdefault(_difference(key, own.get(key), wanted.get(key)), []).append(str(folder))
    return [f"{text} in {_listed(folders, ', ')}" for text, folders in where.items()]


def _difference(key: str, own: object, wanted: object) -> str:
    if key == "system":  # the whole of it is there or not
        return (
            "there is no virtual time (system is not set)" if own is None else "there is virtual time (system is set)"
        )
    return f"{key} is {own} and not {wanted}"


def _check_seeds(methods: Sequence[Method]) -> None:
    seeds = {method.label: {run.seeds for run in method.runs} for method in methods}
    every = set().union(*seeds.values())
    lacking = [
        f"{label!r} lacks {', '.join(seed_text(seed) for seed in sorted(every - own))}"
        for label, own in seeds.items()
        if every - own
    ]
    if lacking:
        raise ConfigError(
            f"runs are paired by seed, so every method needs the same ones: {_listed(lacking)}. "
            f"Run what is missing, or leave out the seeds that not all have"
        )


def _listed(texts: Sequence[str], between: str = "; ") -> str:
    more = f"{between}and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return between.join(texts[:_SHOWN]) + more
