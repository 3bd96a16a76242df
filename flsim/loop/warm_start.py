"""Where warm-ups are kept: in the run's folder, in peft's form, and by all that it depends on in the cache of all runs.

A warm-up is there once its `warmup.json` is, which is written last; whatever a kill leaves before that is made again,
with the same bits, and what was bought is not bought again.
"""

import hashlib
import importlib.metadata
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flsim.cloud.make import cache_of
from flsim.config.schema import Config, ConfigError
from flsim.config.warmup import CLOUD
from flsim.files import DamagedFileError, UnwritableError, digest_of, seal, unseal, write_atomically
from flsim.loop.warmup import Warmed, Warmup
from flsim.metrics.rows import WARMUP
from flsim.models.adapter import Adapter, load_adapter, lora_of, mismatch, save_adapter
from flsim.models.folder import sketch

FACTS = "warmup.json"
"""Beside the files of the adapter."""
_FORM = 1  # raised when another version would compute other bits of the same settings
_log = logging.getLogger("flsim.run")


def warmed(plan: Warmup, folder: Path, books: Path, *, progress: bool) -> Warmed:
    """A warm-up: what its folder has, else what the cache has, else a new one.

    Args:
        plan: what it is to be.
        folder: where it lies afterwards, in the form that `model.adapter` takes.
        books: the run's folder, below which the server writes down what it buys.
        progress: whether to show bars.

    Raises:
        ConfigError: if there is nothing to teach.
        DamagedFileError: if what is kept cannot be read, with the mend.
        UnwritableError: if it cannot be written to the run's folder.
    """
    found = _kept(folder, plan)
    if found is not None:
        return found
    shelf, key = _shelf(plan.config), key_of(plan)
    file = None if shelf is None else shelf / f"{key}.warmup"
    found = None if file is None else _cached(file, plan.start)
    if found is None:
        found = plan.learn(books, progress=progress)
        if file is not None:
            _cache(file, found)
    else:
        _log.info("the warm-up is the one that lay in %s", file)
    _keep(folder, plan.config, key, found)
    return found


def refuse_another(plan: Warmup, folder: Path) -> None:
    """Refuse a folder that holds an adapter which is not the warm-up that is to be.

    Raises:
        ConfigError: with the mend.
    """
    if not (folder / "adapter_config.json").exists():
        return
    try:
        same = json.loads((folder / FACTS).read_text())["key"] == key_of(plan)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ConfigError(f"{folder} holds another adapter, and nothing is overwritten; name another folder")


def _keep(folder: Path, config: Config, key: str, found: Warmed) -> None:
    """Write a warm-up, `warmup.json` last."""
    save_adapter(folder, found.adapter, config.model)
    said = {"key": key, "adapter": digest(found.adapter), "facts": dict(found.facts)}
    write_atomically(folder / FACTS, json.dumps(said, indent=1).encode(), what="what the warm-up took")


def adapter_in(folder: Path) -> Path:
    """Where a run's warm-up has its adapter, as `model.adapter` takes it."""
    return folder.resolve() / WARMUP


def digest(adapter: Adapter) -> str:
    """The SHA-256 of an adapter's tensors."""
    return digest_of(save(adapter)).hex()


def key_of(plan: Warmup) -> str:
    """The SHA-256 of all that a warm-up depends on."""
    config, own = plan.config, plan.config.warmup
    model = {name: value for name, value in asdict(config.model).items() if name != "adapter"}
    fleet = config.budget.fleet
    caps = [fleet.calls_total, fleet.tokens_total, fleet.money_total]
    said: dict[str, Any] = {
        "versions": [_FORM, importlib.metadata.version("flsim-continual"), torch.__version__],
        "processor": torch.backends.cpu.get_cpu_capability(),
        "model": [sketch(config.model.path), model],
        "start": digest(lora_of(plan.start)),
        "data": {group.name: group.source.fingerprint for group in plan.stream.data if group.name in plan.tasks},
        "sets": {name: asdict(one) for name, one in config.data.items() if name in plan.tasks},
        "warmup": {**asdict(own), "tasks": plan.tasks, "request_share": plan.request_share},
        "may_ask": plan.may_ask,
        "seed": config.seed,
        "cloud": [list(plan.cloud.for_server().identity()), caps] if own.source == CLOUD else None,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _kept(place: Path, plan: Warmup) -> Warmed | None:
    """What a folder has; None if it has none yet."""
    mend = f"delete {place}, and the warm-up is made again"
    try:
        said = json.loads((place / FACTS).read_text())
        adapter = load_adapter(place, like=plan.start, config=plan.config.model)
        right = digest(adapter) == said["adapter"]
        facts = {str(name): float(value) for name, value in said["facts"].items()}
    except FileNotFoundError as error:
        if not (place / FACTS).exists():
            return None
        raise DamagedFileError(f"the warm-up in {place} is not whole ({error}); {mend}") from error
    except (ConfigError, SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"the warm-up in {place} cannot be read ({error}); {mend}") from error
    if not right:
        raise DamagedFileError(f"the adapter in {place} is not the one that the warm-up left there; {mend}")
    return Warmed(adapter, facts)


def _shelf(config: Config) -> Path | None:
    """The folder of all runs' warm-ups, beside what the cloud has answered; None where nothing is kept."""
    cache = cache_of(config.cloud.cache)
    return None if cache is None else cache.path.parent / WARMUP


def _cached(file: Path, start: Adapter) -> Warmed | None:
    """A warm-up of an earlier run: LoRA's tensors and the facts."""
    mend = "delete it, and the warm-up is made again"
    if not file.is_file():
        return None
    data = unseal(file, mend)
    length = int.from_bytes(data[:8], "big")
    facts, learned = json.loads(data[8 : 8 + length]), load(data[8 + length :])
    wrong = mismatch(learned, lora_of(start))
    if wrong is not None:
        raise DamagedFileError(f"{file} holds another adapter than its name says: {wrong}; {mend}")
    return Warmed(start | learned, facts)


def _cache(file: Path, found: Warmed) -> None:
    """Keep it for other runs, if that can be."""
    facts = json.dumps(dict(found.facts)).encode()
    data = len(facts).to_bytes(8, "big") + facts + save(lora_of(found.adapter))
    try:
        write_atomically(file, seal(data), what="the warm-up")
    except UnwritableError as error:
        _log.warning("the warm-up is kept for no other run: %s", error)
