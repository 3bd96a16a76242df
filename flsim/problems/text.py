"""Verifiers that compare texts: right is the same text, the same number, or the same letter of a multiple choice."""

import re
from collections.abc import Sequence
from fractions import Fraction


class ExactVerifier:
    """The verifier of the built-in world."""

    instruction = ""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion equals its reference."""
        return [reference == completion for reference, completion in pairs]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """None: any text can be equalled."""
        return []


# Where in a completion its final answer stands: in the last `\boxed{}`, or on the line of the last `####`.

_BOXES = ("\\boxed", "\\fbox")


_MARK = "####"


def marked_answer(text: str) -> str | None:
    r"""What the last marker holds: the contents of `\boxed{...}`, or the rest of the line of `####`.

    None: the text has neither. An unclosed box holds nothing, `""`: the completion was cut in its answer.
    """
    box, mark = max(text.rfind(box) for box in _BOXES), text.rfind(_MARK)
    if box < 0 and mark < 0:
        return None
    if mark > box:
        return text[mark + len(_MARK) :].split("\n", 1)[0].strip()
    return _braced(text[text.find("{", box) :]) if "{" in text[box:] else ""


def last_line(text: str) -> str:
    """The last line that is not blank; `""` if there is none."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _braced(text: str) -> str:
    depth = 0
    for at, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[1:at].strip()
    return ""


# Right is the same number, exactly: for answers such as GSM8K's (Cobbe et al. 2021, arXiv:2110.14168), `#### 1,234`.
#
# The number of a text is the one in its last `\boxed{}` or after its last `####`, whichever comes later; without
# either it is the last number of the text. A box with several numbers has none: nobody is paid for listing guesses.
# Signs of money and per cent are read over (`$10`, `10%` and `10` are the same), commas group thousands, and fractions
# are exact: `3/4`, `\frac{3}{4}`, `1 1/2` and `0.75`.

_DIGITS = 60  # more are no answer to anything, and make exact arithmetic slow


_NUMBER = re.compile(
    r"""(?<![\w.])                       # not the tail of a word or of a number
        (?P<sign>[-+]?)\s?\$?\s?(?P<inner>[-+]?)
        (?P<top>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+\.?\d*|\.\d+)
        (?:[eE](?P<ten>[-+]?\d{1,2})(?!\w))?
        (?:\s*/\s*(?P<bottom>\d+)|\s+(?P<half>\d+)\s*/\s*(?P<of>\d+))?""",
    re.VERBOSE,
)


_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")


_READ_OVER = re.compile(r"\\(?:text|mathrm|textbf|mathbf|left|right|!|,|;|:| )|\\?%|\*\*|\{,\}(?=$)")


class NumericVerifier:
    """Compares numbers."""

    instruction = "Solve the problem. End with a line of '#### ' and the number."

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's number is its reference's; a reference without a number makes all wrong."""
        return [
            (gold := number_of(reference)) is not None and gold == number_of(completion)
            for reference, completion in pairs
        ]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those without a number."""
        return [reference for reference in references if number_of(reference) is None]


def number_of(text: str) -> Fraction | None:
    """The number that a text gives as its answer; None if it gives none."""
    marked = marked_answer(text)
    found = _numbers(text if marked is None else marked)
    if not found:
        return None
    if marked is None:
        return found[-1]
    # after #### words may follow, with numbers in them; a box holds the answer alone
    return found[0] if len(found) == 1 or text.rfind("####") > text.rfind("\\boxed") else None


def _numbers(text: str) -> list[Fraction]:
    plain = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",").replace("\\$", "$").replace("\\!", "")
    plain = _READ_OVER.sub(" ", _FRACTION.sub(_as_slash, plain))
    # in "5-3", "5 - 3" and "x-3" the dash is no sign, in "then -3" it is
    plain = re.sub(r"(?<=[\w)])(?<!\d[eE])(?:-|\s-\s)(?=[\d$.])", " ~ ", plain)
    values = [_value(match) for match in _NUMBER.finditer(plain)]
    return [value for value in values if value is not None]


def _as_slash(match: re.Match[str]) -> str:
    top, short_top, bottom, short_bottom = match.groups()
    return f" {top or short_top}/{bottom or short_bottom} "


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _DIGITS:
        return None
    value = Fraction(match["top"].replace(",", "").rstrip("."))
    if match["ten"]:
        value *= Fraction(10) ** int(match["ten"])
    below = match["bottom"] or match["of"]
    if below is not None and int(below) == 0:
        return None
    if match["bottom"]:
        value /= int(match["bottom"])
    elif match["half"]:
        value += Fraction(int(match["half"]), int(match["of"]))
    return -value if "-" in (match["sign"], match["inner"]) else value


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
