"""Look at this machine: packages, memory, GPUs, sandboxes.

  flsim doctor

`ok` is as it should be, `note` is something that you may do without (it says what for), `wrong` must be mended before
anything runs; then the exit status is 1. It takes some seconds, since torch and Ray are loaded and sandboxes are tried.
"""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from experiments.command.terminal import Parser, bold, green, red, width, wrapped, yellow

DISTRIBUTION = "flsim-continual"
EXTRAS = {
    "tasks": "answers in mathematical notation (verifier maths), and a second sandbox for code",
    "data": "Hugging Face data sets by name",
    "partitioners": "partitioners of flwr-datasets (data.NAME.partition=flwr_datasets.partitioner:NAME)",
    "harness": "task files of lm_eval as data sets (data.NAME.kind=lm_eval)",
    "track": "trackers: TensorBoard, W&B, MLflow, Trackio (track=NAME)",
    "gguf": "models as GGUF files (model.path=FILE.gguf)",
    "gym": "the tasks of reasoning-gym",
    "bench": "benchmarks beside TRL",
    "ecosystem": "the tests of all optional parts",
    "dev": "tests, types and formatting",
}
"""What each extra of setup.cfg is for."""
SCARCE_GIB = 2.0
"""Memory and disk below this are noted: a run of the demo takes about that much of memory."""

OK, NOTE, WRONG = "ok", "note", "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    state: str
    """`ok`, `note` or `wrong`."""
    text: str


def main(arguments: list[str]) -> int:
    """The command line; returns 1 if something essential is missing."""
    Parser("doctor", __doc__).parse_args(arguments)
    states = set()
    for look in (_python, _packages, _extras, _small_model, _machine, _gpus, _ray, _files, _sandboxes):
        for finding in look():
            print(shown(finding), flush=True)  # one by one, since some take seconds
            states.add(finding.state)
    well = WRONG not in states
    print(f"\n{green('Everything that a run needs is there.') if well else red('Mend what is marked as wrong.')}")
    return 0 if well else 1


def shown(finding: Finding) -> str:
    """A finding as lines of the terminal."""
    colour = {OK: green, NOTE: yellow, WRONG: red}[finding.state]
    first, *more = wrapped(finding.text, width() - 20)
    head = f"{colour(finding.state.ljust(6))} {bold(finding.about.ljust(12))} {first}"
    return "\n".join([head, *(" " * 20 + line for line in more)])


def _python() -> Iterator[Finding]:
    asked = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    state = OK if _within(platform.python_version(), asked) else WRONG
    yield Finding("Python", state, f"{platform.python_version()} of {sys.executable}; asked for is {asked}")


def _packages() -> Iterator[Finding]:
    """What setup.cfg requires, by the metadata of the installation."""
    missing, other, every = _compared("")
    if missing:
        yield Finding("packages", WRONG, f"missing: {', '.join(missing)}; pip install {DISTRIBUTION} again")
    if other:
        yield Finding("packages", NOTE, f"of versions that were not tried: {', '.join(other)}")
    if not missing and not other:
        yield Finding("packages", OK, f"all {every} of setup.cfg, in versions that it allows")


def _extras() -> Iterator[Finding]:
    for extra, purpose in EXTRAS.items():
        missing, other, _ = _compared(extra)
        if missing:
            how = f"pip install '{DISTRIBUTION}[{extra}]'"
            yield Finding(extra, NOTE, f"for {purpose}: {', '.join(missing)} missing; {how}")
        elif other:
            yield Finding(extra, NOTE, f"for {purpose}; of versions that were not tried: {', '.join(other)}")
        else:
            yield Finding(extra, OK, f"for {purpose}")


def _small_model() -> Iterator[Finding]:
    """The real language model that comes as a package."""
    from flsim.config.schema import ConfigError
    from flsim.models.gguf import PACKAGE, SMOLLM2, gguf_file

    try:
        yield Finding("SmolLM2", OK, f"model.path={PACKAGE}{SMOLLM2} is {gguf_file(PACKAGE + SMOLLM2)}")
    except ConfigError as missing:
        yield Finding("SmolLM2", NOTE, str(missing))


def _machine() -> Iterator[Finding]:
    psutil = importlib.import_module("psutil")
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(".")
    yield Finding("processors", OK, f"{len(os.sched_getaffinity(0))} for this process, {platform.machine()}")
    for about, free, total in (("memory", memory.available, memory.total), ("disk", disk.free, disk.total)):
        state = OK if free / 2**30 > SCARCE_GIB else NOTE
        yield Finding(about, state, f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f}")


def _gpus() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken installation raises whatever it likes
        yield Finding("torch", WRONG, f"cannot be imported: {error}")
        return
    yield Finding("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        yield Finding("GPU", NOTE, "none that torch sees; small models run on processors, and engine.gpus stays 0")
    for place in range(torch.cuda.device_count()):
        name, memory = torch.cuda.get_device_name(place), torch.cuda.get_device_properties(place).total_memory
        yield Finding("GPU", OK, f"{name}, {memory / 2**30:.0f} GiB; engine.gpus=1 uses one per worker")


def _ray() -> Iterator[Finding]:
    try:
        ray = importlib.import_module("ray")
    except Exception as error:
        yield Finding("Ray", WRONG, f"cannot be imported: {error}; engine.kind=local does without")
        return
    yield Finding("Ray", OK, str(ray.__version__))


def _files() -> Iterator[Finding]:
    """What must have come with the packages, and where runs go."""
    from flsim.config.shipped import FOLDER, shipped_names
    from flsim.models.folder import CLOUD_DIR, SLM_DIR, SLM_DRAFT_DIR

    missing = [
        str(folder) for folder in (CLOUD_DIR, SLM_DIR, SLM_DRAFT_DIR) if not (folder / "model.safetensors").is_file()
    ]
    missing += [] if shipped_names() else [str(FOLDER)]
    if missing:
        yield Finding("files", WRONG, f"not there: {', '.join(missing)}; install again")
    else:
        yield Finding("files", OK, f"{len(shipped_names())} configs and the built-in models, in {FOLDER.parents[1]}")
    place = next(folder for folder in (Path("runs"), Path()) if folder.is_dir())
    may = os.access(place, os.W_OK)
    yield Finding("runs", OK if may else WRONG, f"{Path('runs').resolve()} {'can' if may else 'cannot'} be written")


def _sandboxes() -> Iterator[Finding]:
    """Code that a model wrote is run only where a sandbox holds."""
    from flsim.sandbox.backends import SANDBOXES
    from flsim.sandbox.probes import failures

    held = {name: _held(start, failures) for name, start in SANDBOXES.items()}
    first = next((name for name, found in held.items() if not found), None)
    for name, found in held.items():
        used = " and is the one used" if name == first else ""
        yield Finding(name, NOTE if found else OK, f"does not hold: {found}" if found else f"holds{used}")
    if first is None:
        yield Finding("sandbox", NOTE, "none holds, so tasks that judge code (mbpp, verifier code) are refused")


def _held(start: Callable[[], object], failures: Callable[..., list[str]]) -> str:
    """Why a sandbox does not hold; empty if it does."""
    try:
        sandbox = start()
    except Exception as error:  # the package or program is not there, or the kernel says no
        return str(error) or type(error).__name__
    try:
        return "; ".join(failures(sandbox))
    finally:
        sandbox.close()  # type: ignore[attr-defined]


def _compared(extra: str) -> tuple[list[str], list[str], int]:
    """What an extra needs (the empty one: a plain installation): missing, of other versions, and how many in all."""
    from packaging.requirements import Requirement

    missing, other, every = [], [], 0
    for text in metadata.requires(DISTRIBUTION) or []:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": extra}):
            continue
        if not needed.marker and extra:
            continue
        every += 1
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            missing.append(needed.name)
            continue
        if not needed.specifier.contains(version, prereleases=True):
            other.append(f"{needed.name} {version} (asked for {needed.specifier})")
    return missing, other, every


def _within(version: str, asked: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(asked).contains(version)
