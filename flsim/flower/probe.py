"""Find the pack size: `engine.pack=auto` rehearses the first round in packs of 1, 2, 4, ... and takes the fastest.

A rehearsal is the client's real round on throw-away states, on all workers at once, since they share caches and memory;
it spends no budget. The choice is written to the run's folder before the first round, so that a resumed run repeats it:
the pack size enters the last bits of a float.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flsim.config.model import AUTO
from flsim.files import DamagedFileError, write_atomically

PACK = "pack.json"
"""Where the choice lies in the run's folder."""
_WORTH = 0.95  # a larger pack must be at least this much faster per device: smaller ones balance the workers better
_LONGEST_S = 60.0  # no rehearsal that is expected to make the probe longer


@dataclass(frozen=True)
class Rehearsal:
    """What a pack of some size took."""

    devices: int
    seconds: float
    """Of the slowest worker."""
    peak_bytes: int
    """Most memory that a worker has had so far: of its GPU if it has one, else resident."""


@dataclass(frozen=True)
class Choice:
    """The pack size and what it was chosen from."""

    pack: int
    tried: tuple[Rehearsal, ...]

    def describe(self) -> str:
        """One line for people."""
        tried = ", ".join(f"{one.devices}: {one.seconds / one.devices:.3f} s" for one in self.tried)
        return f"packs of {self.pack} devices (seconds per device and round in packs of {tried})"


def pack_of(
    wanted: int | str, run_dir: Path, rehearse: Callable[[int], Rehearsal], *, cohort: int, workers: int
) -> int:
    """The run's pack size: the one that is wanted, the one found before, or found now and kept in `pack.json`.

    Args:
        wanted: `engine.pack`; `auto` has it found.
        run_dir: folder of the run.
        rehearse: answers a pack of so many devices on every worker.
        cohort: devices per round.
        workers: how many packs are answered at a time.

    Raises:
        DamagedFileError: if what was found before cannot be read.
    """
    if wanted != AUTO:
        return int(wanted)
    known = kept_pack(run_dir)
    if known is None:
        choice = probe(rehearse, most=math.ceil(cohort / workers), workers=workers)
        what = "the size of packs"
        write_atomically(run_dir / PACK, json.dumps(asdict(choice), indent=1).encode(), what=what)
        known = choice.pack
    return known


def kept_pack(run_dir: Path) -> int | None:
    """The pack size that was found before; None if none was.

    Raises:
        DamagedFileError: if what was found before cannot be read.
    """
    path = run_dir / PACK
    try:
        return int(json.loads(path.read_text())["pack"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f'{path} cannot be read ({error}); write the run\'s pack size into it as {{"pack": 8}}, or start anew'
        ) from error


def probe(rehearse: Callable[[int], Rehearsal], *, most: int, workers: int) -> Choice:
    """Rehearse ever larger packs until none is faster, memory would run short, or the probe would take too long.

    Args:
        rehearse: as for `pack_of`.
        most: largest pack of use: with a larger one some worker would have none.
        workers: how many share the memory.
    """
    started = time.monotonic()
    warm = rehearse(1)  # loads the model
    tried = [rehearse(1)]
    worse = 0
    while tried[-1].devices < most and worse < 2:
        last, size = tried[-1], min(2 * tried[-1].devices, most)
        ahead = last.seconds * size / last.devices
        grown = (last.peak_bytes - warm.peak_bytes) * size / last.devices
        if time.monotonic() - started + ahead > _LONGEST_S or workers * grown > psutil.virtual_memory().available:
            break
        tried.append(rehearse(size))
        best = min(one.seconds / one.devices for one in tried[:-1])
        worse = worse + 1 if tried[-1].seconds / size > _WORTH * best else 0
    chosen = tried[0]
    for one in tried[1:]:
        if one.seconds / one.devices < _WORTH * chosen.seconds / chosen.devices:
            chosen = one
    return Choice(chosen.devices, tuple(tried))
