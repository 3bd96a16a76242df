"""What a diagnosis says: a severity, a sentence, a number against a threshold, the rows it stands on, the mend."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

NOTE, WARNING, FAULT = "note", "warning", "fault"
SEVERITIES = (NOTE, WARNING, FAULT)
"""From the least: what one should know of the run, what makes it worse than it might be, what makes it worthless."""
ABOVE, BELOW = "above", "below"
_NAMED = 3  # devices that a sentence names


@dataclass(frozen=True)
class Query:
    """Rows of a run, named so that anybody can look at them again."""

    names: tuple[str, ...]
    split: str
    model: str
    first: int
    """Round."""
    last: int

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those rows."""
        where = (rows["split"] == self.split) & (rows["model"] == self.model) & rows["name"].isin(self.names)
        found: pd.DataFrame = rows[where & rows["round"].between(self.first, self.last)]
        return found

    def __str__(self) -> str:
        """As `rows.query(...)` of pandas takes it, where `rows` is what `flsim.run(...).rows` holds."""
        names = ", ".join(repr(name) for name in self.names)
        return (
            f"split == {self.split!r} and model == {self.model!r} and name in [{names}] and "
            f"{self.first} <= round <= {self.last}"
        )


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Raises:
        ValueError: for a severity that there is not, or numbers that are not finite.
    """

    severity: str
    """Of `SEVERITIES`."""
    name: str
    """Of `flsim.diagnosis.table.KINDS`."""
    sentence: str
    """What was seen, with number and place."""
    value: float
    """The number."""
    threshold: float
    """What it is held against."""
    side: str
    """On which side of the threshold it lies: `above` or `below`; at it counts, too."""
    rows: tuple[Query, ...]
    """What it stands on."""
    mend: str
    """What to try, in keys of the config."""
    devices: tuple[str, ...] = ()
    """Whom it is about, the worst first; empty if it is about the fleet."""

    def __post_init__(self) -> None:
        """Refuse what no page could show."""
        if self.severity not in SEVERITIES or self.side not in (ABOVE, BELOW):
            raise ValueError(f"finding {self.name!r}: {self.severity!r} {self.side!r} is no severity and side")
        if not (math.isfinite(self.value) and math.isfinite(self.threshold)):
            raise ValueError(f"finding {self.name!r}: {self.value} against {self.threshold} is not finite")

    @property
    def against(self) -> str:
        """`0.0812, above 0.05`."""
        return f"{self.value:.3g}, {self.side} {self.threshold:.3g}"


def at_least(findings: Iterable[Finding], severity: str) -> list[Finding]:
    """The findings of that severity, and worse ones."""
    return [one for one in findings if SEVERITIES.index(one.severity) >= SEVERITIES.index(severity)]


def counted(findings: Sequence[Finding]) -> str:
    """How many there are of each severity, the worst first: `1 fault, 2 warnings`; `nothing found` for none."""
    counts = [(sum(one.severity == kind for one in findings), kind) for kind in reversed(SEVERITIES)]
    return ", ".join(f"{n} {kind}{'s' * (n > 1)}" for n, kind in counts if n) or "nothing found"


def listed(devices: Sequence[str]) -> str:
    """`device-003`, or `device-003, device-007, device-001 and 5 more`."""
    shown, more = list(devices[:_NAMED]), len(devices) - _NAMED
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def rounds_text(first: int, last: int) -> str:
    """`round 3`, or `rounds 3 to 7`."""
    return f"round {first}" if first == last else f"rounds {first} to {last}"
