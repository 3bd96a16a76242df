"""How methods are told apart, alike in all figures: by letter and place; colour and dashes only help."""

from flsim.comparison.result import Compared, Result

_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8A5A9E", "#7A4B1E")
_LABEL = 26  # letters of a method's name that a figure shows


def letters(comparison: Compared) -> dict[str, str]:
    """The letter of every method: A, B, ..., Z, AA, AB, ..."""
    names = [chr(ord("A") + number) for number in range(26)]
    names += [first + second for first in names for second in names]
    return {result.label: names[number] for number, result in enumerate(comparison.results)}


def hue(comparison: Compared, result: Result) -> str:
    """The colour of a method; eight in turn."""
    return _HUES[comparison.results.index(result) % len(_HUES)]


def short(label: str) -> str:
    """A method's name as far as a figure has room for it."""
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
