"""The process of `flsim benchmark gpu` that computes: it goes through the plan and records one thing after the other.

    python -m experiments.benchmark.card.worker RECORD.json

What fails is recorded with its reason, and the next is begun. Where the card itself is out of order afterwards, as
after an access to memory that is not there, the process ends and another one goes on. Whatever ends it from outside is
told by the process that started it (`experiments/benchmark/gpu.py`).
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from experiments.benchmark.card import measure as card_measure
from experiments.benchmark.card.plan import Measurement, guess, limit, plan
from experiments.benchmark.card.record import FAILED, MEASURED, SKIPPED, Record

BROKEN = 3
"""Exit status of a process whose card is out of order."""


def main(path: Path) -> int:
    """Measure what is not recorded yet; returns the exit status."""
    record = Record.read(path)
    asked = record.asked
    torch.set_float32_matmul_precision("high" if asked["tf32"] else "highest")
    for one in plan(asked["shapes"], asked["devices"], asked["sides"]):
        if one.name in record.entries:
            continue
        needs, left = guess(one, record), record.until - time.time()
        if needs > left:
            why = f"it takes about {needs:.0f} s, and {max(0.0, left):.0f} s were left"
            record.end(one.name, one.of, SKIPPED, 0.0, why=why)
        elif not attempt(one, record):
            return BROKEN
    return 0


def attempt(one: Measurement, record: Record) -> bool:
    """Measure one thing, and record what comes of it; whether the card is in order afterwards."""
    started = time.time()
    record.begin(one.name, one.of, started, limit(one, record))
    print(f"{one.name} ...", file=sys.stderr, flush=True)
    found: dict[str, Any]
    try:
        status, found = MEASURED, {"figures": card_measure.measure(one, record.asked)}
    except Exception as error:  # of the measurement, a library, or the card: the others are measured all the same
        status, found = FAILED, {"why": reason(error), "trace": traceback.format_exc()}
    record.end(one.name, one.of, status, time.time() - started, **found)
    return card_measure.tidied(record.asked["place"])


def reason(error: Exception) -> str:
    """Why a measurement failed, as a sentence."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the card's memory does not suffice"
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed (pip install -e '.[bench]')"
    first = (str(error).strip().splitlines() or ["no reason was given"])[0]
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {first} ({Path(at.filename).name}:{at.lineno})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
