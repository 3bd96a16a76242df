"""Files of a run are cut, overwritten, emptied and deleted, range by range of their bytes, before it goes on."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import flsim
from experiments.torture.trial import LOCAL, LOST, REFUSED, SURVIVED, Ground, Trial, finished, run
from flsim.config.schema import ConfigError
from flsim.files import DamagedFileError
from flsim.metrics.rows import read_rows, without_timing
from flsim.seeding import python_random

Deed = Callable[[bytes, Random], bytes | None]
"""What happens to a file: its bytes -> other bytes, or None for no file at all."""
_UNTIL = 4
_TOUCHED = ("run.log", ".lock", ".owner.json")
"""What even a refusal may write: what it said, and who looked."""
_RANGES = {"checkpoint": 12, "state": 6, "rows": 4, "config.yaml": 6}
"""Into how many ranges of bytes a file of a kind is divided; others into two."""


def files(ground: Ground) -> Iterator[Trial]:
    """Each file that a run needs to go on, in each of its parts."""
    template = ground.root / "damage" / "template"
    finished(run(template, *LOCAL, "--until", str(_UNTIL)))
    place = template.with_name("run")
    for kind, path in _victims(template):
        file, size = path.relative_to(template), path.stat().st_size
        for what, deed in deeds(size, max(1, round(_RANGES.get(kind, 2) * ground.scale))):
            rng = python_random(ground.seed, "torture", "damage", str(file), what)
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(template, place)
            data = deed((place / file).read_bytes(), rng)
            if data is None:
                (place / file).unlink()
            else:
                (place / file).write_bytes(data)
            yield _tried(ground, f"a damaged {kind}", f"{file} {what}", place)


def _victims(run_dir: Path) -> Iterator[tuple[str, Path]]:
    """Kinds and places of what a resume may read."""
    newest, before = sorted(run_dir.glob("checkpoints/*.npz"), reverse=True)
    yield "checkpoint", newest
    yield "older checkpoint", before
    for file in sorted(run_dir.glob("rows/*.parquet")):
        yield "rows", file
    for file in sorted(run_dir.glob("devices/*.states"), reverse=True)[:4]:
        yield "state", file
    for name in ("config.yaml", "environment.json", "run.log"):
        yield name, run_dir / name
    yield "timing", sorted(run_dir.glob("timing/*.json"))[-1]


def deeds(size: int, ranges: int) -> Iterator[tuple[str, Deed]]:
    """What may happen to a file of so many bytes, with words for it."""
    yield "deleted", lambda data, rng: None
    yield "emptied", lambda data, rng: b""
    yield "with bytes behind it", lambda data, rng: data + rng.randbytes(64)
    for part in range(ranges):
        start, end = size * part // ranges, max(size * (part + 1) // ranges, size * part // ranges + 1)
        yield f"cut within bytes {start} to {end}", partial(_cut, start=start, end=end)
        yield f"zeros at bytes {start} to {end}", partial(_blanked, start=start, end=end)
        yield f"one bit of bytes {start} to {end}", partial(_flipped, start=start, end=end)


def _cut(data: bytes, rng: Random, start: int, end: int) -> bytes:
    return data[: rng.randrange(start, end)]


def _blanked(data: bytes, rng: Random, start: int, end: int) -> bytes:
    return data[:start] + bytes(end - start) + data[end:]


def _flipped(data: bytes, rng: Random, start: int, end: int) -> bytes:
    at = rng.randrange(start, end)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _tried(ground: Ground, family: str, what: str, folder: Path) -> Trial:
    """Go on: either the rows are those of a run in peace, or one sentence says what is damaged and nothing changes."""
    before = _traces(folder)
    try:
        flsim.run(None, resume=folder, progress=False)
    except (ConfigError, DamagedFileError) as mistake:
        changed = {name for name, _ in before ^ _traces(folder)}
        note = f"a refusal changed {', '.join(sorted(changed))}" if changed else str(mistake)
        return Trial(family, what, LOST if changed else REFUSED, note)
    except Exception as error:
        return Trial(family, what, LOST, f"{type(error).__name__}: {error}")
    same = without_timing(read_rows(folder)).equals(ground.peace)
    return Trial(family, what, SURVIVED if same else LOST, "" if same else "nobody noticed, and its rows are others")


def _traces(folder: Path) -> set[tuple[str, str]]:
    """What lies there, by name and hash."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in _TOUCHED)
    return {(str(file.relative_to(folder)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files}
