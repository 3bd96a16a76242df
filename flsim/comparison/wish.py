"""Whether what asking rules claim of being wrong comes true, method by method, of all seeds and users together."""

from functools import reduce

from matplotlib.figure import Figure

from flsim.comparison.figures import dash, hue, letters, short
from flsim.comparison.result import Compared
from flsim.metrics.measures import MEASURES
from flsim.report.reliability_figure import Claimant, reliability_figure


def claimants(comparison: Compared) -> list[Claimant]:
    """The methods whose rule claims a chance of being wrong, with the sums of all their runs."""
    marks, found = letters(comparison), []
    for result in comparison.results:
        sums = reduce(lambda one, other: one + other, (run.claims for run in result.runs))
        if sums["prompts"].sum() > 0:
            error = MEASURES["ece"].written(result.value("ece"))
            text = f"{marks[result.label]} {short(result.label)}, ECE {error}"
            found.append(Claimant(text, hue(comparison, result), sums, dash(comparison, result)))
    return found


def wish_figure(comparison: Compared) -> Figure:
    """A reliability curve per method that claims anything."""
    return reliability_figure(claimants(comparison))
