"""The pictures of devices as systems: which of them a run's rows can fill, and how each is drawn."""

from collections.abc import Callable

from matplotlib.figure import Figure

from flsim.charts.systems import has_day, has_energy, has_work
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import deadlines, has_system
from flsim.report.day_figure import day_figure
from flsim.report.deadline_figure import deadline_figure
from flsim.report.energy_figure import energy_figure
from flsim.report.participation_figure import participation_figure
from flsim.report.round_figure import round_figure, shown_round

SYSTEM_FIGURES = (
    (
        "round.png",
        "A round in virtual time",
        "The round of median length. A bar is a device, from when it was invited: what it waited, received, computed "
        "and sent; bars are sorted by class of device (at the right) and by when they were done. Of more than 40 "
        "devices a bar shows the mean of a class, and each stroke above it a device that is done. Above, the versions"
        " of the server's adapter; the dashed line is the end of the round. Grey: work that did not count.",
    ),
    (
        "joules.png",
        "Where joules go",
        "Mean joules of a device of each class in a round in which it took part, by what they went into; the cloud's "
        "are taken from no battery. Then those of a test question, at the end, where tests say what they take.",
    ),
    (
        "participation.png",
        "Who took part",
        "The busiest part of the fleet (across) and its share of all work whose update counted, in tokens (up); on the "
        "dashed diagonal all do as much. The second dot is what FLASH (TMC 2022) saw on traces of phones. Columns are "
        "each class's share of the fleet and of the work, and how many of its devices took part at all.",
    ),
    (
        "day.png",
        "Day and night",
        "Devices at work at each hour of the virtual day, which begins with the run at 0 h; and of the devices invited "
        "in an hour, the share that was there; the server waited for the others.",
    ),
    (
        "deadlines.png",
        "Right within a deadline",
        "Of the test questions at the end, the share that is answered within a deadline, and that is right and in "
        "time: the mean user of each class of device, with its accuracy without a deadline beside its name.",
    ),
)
"""File in `plots/`, heading and caption, in the order of the page."""


def system_figures(run: RunRows) -> dict[str, Callable[[], Figure]]:
    """How each of `SYSTEM_FIGURES` is drawn, of those that the run has rows for."""
    rows = run.rows
    if not has_system(rows):
        return {}
    found: dict[str, Callable[[], Figure]] = {}
    round_ = shown_round(rows)
    if round_ is not None:
        found["round.png"] = lambda: round_figure(rows, round_)
    if has_energy(run):
        found["joules.png"] = lambda: energy_figure(run)
    if has_work(run):
        found["participation.png"] = lambda: participation_figure(run)
    if has_day(rows):
        found["day.png"] = lambda: day_figure(rows)
    if deadlines(rows):
        found["deadlines.png"] = lambda: deadline_figure(run)
    return found
