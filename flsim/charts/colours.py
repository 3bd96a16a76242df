"""The colours of all figures, those of Okabe and Ito (2008), told apart by people with any common colour vision."""

from types import MappingProxyType

INK = "#333333"
QUIET = "#767676"
COLOURS = MappingProxyType(
    {
        "global": "#0072B2",
        "alone": "#56B4E9",
        "own": "#CC79A7",
        "random": "#D55E00",
        "frozen": "#767676",
        "base": "#B0B0B0",
        "cloud": "#009E73",
        "dual": "#8A5A9E",
    }
)
"""Colour of every model, in every figure."""
GROUP_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Colours of tasks, in the order of the tasks; a ninth task starts again."""
