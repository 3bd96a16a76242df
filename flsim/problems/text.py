"""Verifiers that compare texts: right is the same text, or the same letter of a multiple choice."""

import re
from collections.abc import Sequence

from flsim.problems.marked import last_line, marked_answer


class ExactVerifier:
    """The verifier of the built-in world."""

    instruction = ""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion equals its reference."""
        return [reference == completion for reference, completion in pairs]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """None: any text can be equalled."""
        return []


# Right is the same letter of a multiple choice, A to J.
#
# The letter of a text is the one in its last `\boxed{}` or after its last `####`; else the one of its last `answer is
# (C)` or `answer: C`; else the one with which its last line stands alone, `(C)`, or opens, `C. Paris`. A letter inside
# a word, and an `A` or `I` that is an English word, are none.

_DRESSED = re.compile(r"[\s*_$()\[\]{}.:]*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?[\s(*]*([A-Ja-j])[\s*_$()\[\]{}.:]*")


_MOST_DRESSED = 40  # characters around a letter that stands alone


_SAID = re.compile(
    r"\b[Aa]nswer\b(?:\s+is)?(?:\s+option)?\s*:?\s*\**\s*"
    r"(?:\(([A-Ja-j])\)|([B-HJ])(?![\w'-])|([AI])(?![\w'-])(?!\s+[a-z]))"
)


_OPENS = re.compile(r"[\s*]*(?:\(([A-J])\)|([A-J])[.):](?=\s|\*|$))(?!\s*[A-J]\s*[.)])")


class ChoiceVerifier:
    """Compares letters."""

    instruction = "Answer with the letter of the right choice alone."

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's letter is its reference's; a reference without a letter makes all wrong."""
        return [
            (gold := letter_of(reference)) is not None and gold == letter_of(completion)
            for reference, completion in pairs
        ]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those without a letter."""
        return [reference for reference in references if letter_of(reference) is None]


def letter_of(text: str) -> str | None:
    """The letter that a text chooses, upper case; None if it chooses none."""
    marked = marked_answer(text)
    if marked is not None:
        return _alone(marked) or _first(_OPENS.match(marked))
    said = list(_SAID.finditer(" ".join(text.split())))  # single blanks: no run of them to try in every way
    if said:
        return _first(said[-1])
    line = last_line(text)
    return _alone(line) or _first(_OPENS.match(line))


def _alone(text: str) -> str | None:
    return _first(_DRESSED.fullmatch(text)) if len(text) <= _MOST_DRESSED else None


def _first(match: re.Match[str] | None) -> str | None:
    return None if match is None else next(group for group in match.groups() if group).upper()
