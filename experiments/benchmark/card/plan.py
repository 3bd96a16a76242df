"""What `flsim benchmark gpu` measures, in the order of worth: a call that is stopped has done what matters most."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.benchmark.card.record import MEASURED, Record

CEILINGS, STEP, LIFE, CHECK = "ceilings", "step", "round and evaluation", "check"
OURS, PEFT, TRL = "ours", "peft", "TRL"
STATIC, TWICE, ROWS = "static shapes and plain ones", "the same twice", "rows of card and processor"

_GUESSES = {"tiny": 2.0, "smollm2-135m": 15.0, "qwen2.5-0.5b": 25.0}  # seconds, until something has been measured
_OTHER = 15.0  # of what is of no shape
_PATIENCE, _LEAST = 4.0, 60.0  # a measurement may take so many times its guess, and at least so many seconds
_FIRST = 32  # devices: the pack that matters most


@dataclass(frozen=True)
class Measurement:
    """One thing to measure."""

    kind: str
    side: str = ""
    """Who steps; or what is checked."""
    shape: str = ""
    """Of the model; empty where none of them is meant."""
    devices: int = 0
    """K; 0 where it does not matter."""
    graphs: bool = False
    """Whether ours captures its work."""

    @property
    def name(self) -> str:
        """As it is recorded and told."""
        k = f"K = {self.devices}" if self.devices else ""
        return ", ".join(part for part in (self.kind, self.side, self.shape, k, "graphs" * self.graphs) if part)

    @property
    def of(self) -> dict[str, Any]:
        """Its fields, for the record."""
        return asdict(self)


def plan(shapes: Sequence[str], devices: Sequence[int], sides: Sequence[str]) -> list[Measurement]:
    """Everything: the first shape before the others, packs of 32 before small ones, and these before larger ones."""
    first = max((k for k in devices if k <= _FIRST), default=min(devices))
    packs = sorted(set(devices), key=lambda k: (k != first, k > _FIRST, k))
    found = [Measurement(CEILINGS)]
    for shape in shapes:
        ours = [Measurement(STEP, OURS, shape, k, graphs) for k in packs for graphs in (False, True)]
        found += ours[:2]
        if PEFT in sides:
            found.append(Measurement(STEP, PEFT, shape, 1))
        if shape == shapes[0]:
            found += [Measurement(CHECK, STATIC, shape, 2), Measurement(CHECK, TWICE, shape, 2)]
        found += ours[2:4]
        if shape == shapes[0]:
            found.append(Measurement(CHECK, ROWS, devices=4))
        found += ours[4:]
        found += [Measurement(LIFE, OURS, shape, first, graphs) for graphs in (False, True)]
        if TRL in sides:
            found.append(Measurement(STEP, TRL, shape, 1))
    return found


def guess(one: Measurement, record: Record) -> float:
    """Seconds that it may take: as the last of its kind and side did, in proportion to the guesses for their shapes."""
    own = _GUESSES.get(one.shape, _OTHER)
    for entry in reversed(record.entries.values()):
        of = entry["of"]
        if (of["kind"], of["side"]) == (one.kind, one.side) and entry["status"] == MEASURED:
            took: float = entry["took_s"]
            return took * own / _GUESSES.get(of["shape"], _OTHER)
    return own


def limit(one: Measurement, record: Record) -> float:
    """Seconds after which a measurement is stopped that has not ended."""
    return max(_LEAST, _PATIENCE * guess(one, record))
