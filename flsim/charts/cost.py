"""Charts of what a run costs: bytes, cloud calls and seconds of the whole fleet in every round."""

from flsim.charts.chart import Chart, Line, numbers, phase_marks
from flsim.charts.colours import COLOURS
from flsim.metrics.run_rows import RunRows
from flsim.text import unit_for

_TRANSFER = {"uplink_bytes": ("up", "global"), "downlink_bytes": ("down", "cloud")}
_CALLS = {"cloud_calls": ("granted", "global"), "cloud_refused": ("refused", "random")}
_SECONDS = {"seconds": ("work", "dual")}


def cost_charts(run: RunRows) -> list[Chart]:
    """Adapters sent, requests to the cloud and seconds of work, as sums over all devices of a round."""
    size, unit = unit_for("bytes", _largest(run, *_TRANSFER))
    return [
        *_sums(run, "transfer", "Adapters sent", f"{unit} per round, all devices", _TRANSFER, size, unit),
        *_sums(run, "requests", "Cloud requests while training", "requests per round, all devices", _CALLS),
        *_sums(run, "seconds", "Time", "device-seconds per round", _SECONDS, 1.0, "s"),
    ]


def _largest(run: RunRows, *names: str) -> float:
    """The largest round of these measures."""
    found = (run.trained(name).groupby("round")["total"].sum() for name in names)
    return max((float(sums.max()) for sums in found if len(sums)), default=0.0)


def _sums(
    run: RunRows,
    name: str,
    title: str,
    y_title: str,
    parts: dict[str, tuple[str, str]],
    size: float = 1.0,
    unit: str = "",
) -> list[Chart]:
    """The fleet's sum per round of every part: name of rows -> (what it is called, key of its colour)."""
    lines: list[Line] = []
    for rows, (text, colour) in parts.items():
        sums = run.trained(rows).groupby("round")["total"].sum() / size
        if len(sums):  # the second is dashed, since two lines may lie on one another
            rounds = tuple(map(float, sums.index))
            lines.append(Line(text, rounds, numbers(sums), COLOURS[colour], dashed=bool(lines)))
    if not lines:
        return []
    marks = phase_marks(run.phases, run.last)
    return [Chart(name, "cost", title, "round", y_title, tuple(lines), unit=unit, marks=marks, from_zero=True)]
