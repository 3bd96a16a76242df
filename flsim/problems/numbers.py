r"""Right is the same number, exactly: for answers such as GSM8K's (Cobbe et al. 2021, arXiv:2110.14168), `#### 1,234`.

The number of a text is the one in its last `\boxed{}` or after its last `####`, whichever comes later; without either
it is the one after its last "answer is", else the last number of the text. A box with several numbers has none: nobody
is paid for listing guesses. A number is read whole or not at all: `\sqrt{16}`, `10-12`, `12:30` and `1.2.3` are none.

Signs of money and units are read over; `50%` is 50 and is 0.5, and `3 million` is 3 and is 3000000, as a reference may
mean either. Commas and thin spaces group thousands, also by the Indian rule (`1,00,000`), a comma before other than
three digits is decimal (`3,5`), and fractions, powers of ten and repeating decimals are exact.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from flsim.problems.answers.marked import Marked, marked, spoken
from flsim.problems.answers.rewriting import LARGEST_POWER, NONE, rewritten
from flsim.problems.judging import Judgement

_LONGEST = 60  # characters; longer ones are no answer to anything, and make exact arithmetic slow
_LONGEST_MARKED = 400  # characters of a line or box that are looked at
_LONGEST_LINE = 2000  # characters at the end of any other line
_PLAIN = re.compile(r"[-+]?\d{1,18}(?:\.\d{1,9})?")
_NUMBER = re.compile(
    rf"""(?<![^\W\d\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?<![\d./])  # not the tail of a word or of a number
        (?P<poison>{NONE}[\s({{\[]*)?
        (?P<sign>[-+]?)[\s({{]{{0,2}}(?P<inner>[-+]?)\s?
        (?P<whole>\d+(?:\.\d*)?|\.\d+)(?:e(?P<ten>[-+]?\d+)(?!\w))?
        (?:\s?/\s?(?P<below>\d+(?:\.\d+)?|\.\d+)|\s(?P<top>\d+)\s?/\s?(?P<bottom>\d+))?
        (?P<more>[./:]?\d[\d./:]*|h\d+|[\s)}}\]]{{0,3}}(?:{NONE}|\^))?
        (?P<tail>[\s{{}}]{{0,3}}(?:%|per\ ?cent\b|thousand\b|million\b|billion\b|trillion\b|hundred\b|dozen\b|k\b))?""",
    re.VERBOSE | re.IGNORECASE,
)
_TAILS = {"%": Fraction(1, 100), "percent": Fraction(1, 100), "k": Fraction(1000), "dozen": Fraction(12)} | {
    name: Fraction(10**power)
    for name, power in (("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12))
}
_SAID = re.compile(
    r"\banswer\b[*_\s]{0,4}(?:(?:is|was|would be|should be|equals)\b|[:=])[\s*_:=$(\[{\\,~]{0,12}?"
    r"(?:(?:approximately|about|exactly|only|just|equal to)\s)?[\s*_$({\\[]{0,6}(?:[A-Za-z]\s?=\s?)?"
    r"(?=[-+$€£¥₹\N{MINUS SIGN}\N{EN DASH}]?\s?[-+.$]{0,2}\d|-?\s?\\[dtc]?frac|[¼-¾⅐-⅞])",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"\b(?:wait|no,|actually|sorry|correction|mistake|instead|hmm)\b|\bno\b[,.]", re.IGNORECASE)
# another number that belongs to the one before: a range, a list or a sum is no single number
_GOES_ON = re.compile(r"[\s)}]{0,3}(?:[-~,;*+|&]|\bor\b|\band\b|\bto\b)\s?[-+~(]?\s?\.?\d", re.IGNORECASE)
_BOUND = re.compile(r"[\s$*]{0,4}(?:[<>≤≥]|\\(?:leq?|geq?|lt|gt)(?![a-zA-Z]))")  # more than 18 is no number
_LISTED = re.compile(r"[^\w.]*\d[\d.]*(?:\s*(?:,\s|;|\bor\b|\band\b)\s*\d[\d.]*)+[^\w]*", re.IGNORECASE)
_EQUAL = re.compile(r"=|\\approx(?![A-Za-z])|≈")
_ASSIGNED = re.compile(r"[^=\d]*[^=A-Za-z]*(?<![<>!])=")


@dataclass(frozen=True)
class Number:
    """A number as a text gives it."""

    value: Fraction
    """As it stands."""
    scale: Fraction
    """What it may have to be multiplied by: 1/100 for `50%`, a million for `3 million`, 1 for a plain number."""
    taken_from: str
    """The stretch of the text that it was read from."""

    def equals(self, other: "Number") -> bool:
        """Whether the values are one, with or without a scale that only one of them has."""
        if self.value * self.scale == other.value * other.scale:
            return True
        return self.value == other.value and (self.scale == other.scale or 1 in (self.scale, other.scale))

    def __str__(self) -> str:
        """Exactly, as a decimal number if it is one of few digits: `3/7`, `0.5`, `50%`."""
        tail = next((name for name, scale in _TAILS.items() if scale == self.scale), "")
        value, bottom = self.value, self.value.denominator
        while bottom % 2 == 0 or bottom % 5 == 0:
            bottom //= 2 if bottom % 2 == 0 else 5
        written = str(value)
        if bottom == 1 and value.denominator < 10**9 and abs(value) < 10**6:
            written = f"{float(value):.9f}".rstrip("0").rstrip(".")
        return written + ("" if tail in ("", "%") else " ") + tail


class NumericVerifier:
    """Compares numbers."""

    instruction = "Solve the problem. End with a line of '#### ' and the number."

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's number is its reference's; a reference without a number makes all wrong."""
        return [
            (wanted := _wanted(reference)) is not None
            and (said := number_in(completion)) is not None
            and wanted.equals(said)
            for reference, completion in pairs
        ]

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict and the two numbers."""
        wanted, said = number_in(reference), number_in(completion)
        return Judgement(
            right=wanted is not None and said is not None and wanted.equals(said),
            said=None if said is None else str(said),
            taken_from=None if said is None else said.taken_from,
            wanted=None if wanted is None else str(wanted),
        )

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those without a number."""
        return [reference for reference in references if number_in(reference) is None]


def number_in(text: str) -> Number | None:
    """The number that a text gives as its answer; None if it gives none."""
    found = marked(text)
    answer = text if found is None else found.text
    if _PLAIN.fullmatch(answer):  # what most answers are, at once
        return Number(Fraction(answer), Fraction(1), answer)
    if found is not None and (_BOUND.search if found.by == "box" else _BOUND.match)(found.text):
        return None
    if found is not None and found.by != "tag":
        return _in_box(found) if found.by == "box" else _first(found.text)
    if found is not None and _LISTED.fullmatch(answer):
        return None
    text = spoken(text) if found is None else found.text
    said = list(_SAID.finditer(text)) if "nswer" in text or "NSWER" in text else []
    if said and not _CORRECTED.search(text, said[-1].end()):
        return _first(text[said[-1].end() :].split("\n", 1)[0])
    for line in reversed(text.splitlines()):
        numbers = [
            number
            for match in _NUMBER.finditer(rewritten(line[-_LONGEST_LINE:]))
            if (number := _number(match, line.strip()))
        ]
        if numbers:
            return numbers[-1]
    return None


_wanted = lru_cache(4096)(number_in)
"""Of a reference, which the completions of a group share."""


def _in_box(box: Marked) -> Number | None:
    """The one number of a box."""
    content = rewritten(_EQUAL.split(box.text[:_LONGEST_MARKED])[-1], boxed=True)
    if NONE in content:
        return None
    numbers = [_number(match, box.text) for match in _NUMBER.finditer(content)]
    first = numbers[0] if numbers else None
    return first if first is not None and all(number == first for number in numbers) else None


def _first(line: str) -> Number | None:
    """The first number of a line that begins with the answer, after `x =` or `9 * 2 =`."""
    content = rewritten(line[:_LONGEST_MARKED], marked=True)
    at = 0
    while assigned := _ASSIGNED.match(content, at):
        at = assigned.end()
    match = _NUMBER.search(content, at) or _NUMBER.search(content)
    if match is None or _GOES_ON.match(content, match.end()):
        return None
    return _number(match, line.strip())


def _number(match: re.Match[str], taken_from: str) -> Number | None:
    """The number of a match; None: it is no whole number of a text."""
    clock = re.fullmatch(r":00(?::00)?", match["more"] or "")
    if len(match[0]) > _LONGEST or match["poison"] or (match["more"] and not clock) or len(match["ten"] or "") > 4:
        return None
    value = Fraction(match["whole"].rstrip("."))
    if match["ten"]:
        if abs(int(match["ten"])) > LARGEST_POWER:
            return None
        value *= Fraction(10) ** int(match["ten"])
    below = match["below"] or match["bottom"]
    if below is not None and Fraction(below) == 0:
        return None
    if match["below"]:
        value /= Fraction(match["below"])
    elif match["bottom"]:
        value += Fraction(int(match["top"]), int(match["bottom"]))
    tail = re.sub(r"[\s{}]", "", match["tail"] or "").lower()
    return Number(
        -value if (match["sign"] == "-") != (match["inner"] == "-") else value,
        _TAILS.get(tail, Fraction(1)),
        taken_from,
    )
