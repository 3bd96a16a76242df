r"""Answers that are compared without math-verify, which takes wrong ones for right or cannot read them.

Times and ratios, dates and words, elided sequences, numerals of a base, residues, constants (`exact`).
"""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from flsim.problems.answers.exact import Constant, constant
from flsim.problems.answers.notation import compact

_NAMED = re.compile(r"\s*\\?[A-Za-z](?:_\{?\w+\}?)?\s*=\s*")
_COMMA = re.compile(r"-?\d+,\d+")
_SHAPE = re.compile(r"(\(|\\\{)[^(){}\[\]]*,[^(){}\[\]]*(?:\)|\\\})")
_CLOCK = re.compile(r"(\d+(?::\d+)+)\s*([AaPp]\.?\s?[Mm]\.?)?")
_TO = re.compile(r"^(\d+)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(\d+)$")
_DOTS = re.compile(r",?\s*\\(?:[lc]?dots[bcm]?)(?![A-Za-z])\s*,?|,?\s*\.\.\.\s*,?")
_MOST_TERMS = 100
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_BASED = re.compile(rf"\(?([\dA-Za-z.]+)\)?_\{{?(?:\\text\{{)?\s*(\d+|{'|'.join(_BASES)})\s*\}}{{0,2}}")
_RESIDUE = re.compile(r"(?:.*\\equiv\s*)?(-?\d+)\s*\\pmod\{(\d+)\}")
_NUMERIC_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?/\d\d?/\d{2,4}")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = re.compile(rf"(?i)\b({'|'.join(_MONTHS)})[a-z]*\b\.?")
_WORDS = re.compile(r"[A-Za-z']+(?:[\s,/-]+[A-Za-z']+)*")
_LETTER = re.compile(r"\(?([A-J])\)|([A-J])(?:[.:](?:\s|$)|$)")
_FULL_LETTER = re.compile(r"\(?([A-J])\)?[.:]?")


def decided(wanted: str, said: str) -> bool | None:
    """Whether two answers in one notation are equal, where that is decided here; None: ask math-verify."""
    if compact(wanted) == compact(said):
        return bool(wanted)
    for kind in _KINDS:
        verdict = kind(wanted, said)
        if verdict is not None:
            return verdict
    return None


def _constants(wanted: str, said: str) -> bool | None:
    if len({compact(match[0]) for text in (wanted, said) if (match := _NAMED.match(text))}) > 1:
        return None  # x=5 is not y=5
    left, right = _constant(wanted), _constant(said)
    if left is None and right and _COMMA.fullmatch(wanted):  # 3,5 may be two numbers, or one
        left = _constant(wanted.replace(",", "."))
    if right is None and left and _COMMA.fullmatch(said):
        right = _constant(said.replace(",", "."))
    if left is None or right is None:
        return None
    (first, first_percent), (second, second_percent) = left, right
    if first_percent == second_percent:
        return first.equals(second)
    whole, percent = (second, first) if first_percent else (first, second)
    return percent.equals(whole) or percent.equals(whole * _HUNDRED)


_HUNDRED = Constant(Fraction(100))


@lru_cache(4096)
def _constant(text: str) -> tuple[Constant, bool] | None:
    """The constant after `x =`, and whether it is in per cent."""
    text = _NAMED.sub("", text, count=1)
    value = constant(text.rstrip("% "))
    return None if value is None else (value, text.endswith("%"))


def _clocks(wanted: str, said: str) -> bool | None:
    said = _TO.sub(r"\1:\2", said)
    first, second = _CLOCK.fullmatch(wanted), _CLOCK.fullmatch(said)
    if first is None or (second is None and ":" not in said and not re.fullmatch(r"\d?\d:\d\d.*", wanted)):
        return None  # 2:3 may be said as a fraction, a time may not
    if second is None:
        return False
    left, right = ([int(part) for part in match[1].split(":")] for match in (first, second))
    halves = [re.sub(r"[^ap]", "", (match[2] or "").lower()) for match in (first, second)]
    if all(halves) and halves[0] != halves[1]:
        return False
    proportional = len(left) == len(right) and all(
        one * right[0] == two * left[0] for one, two in zip(left, right, strict=True)
    )
    return left == right or (proportional and not re.search(r":\d\d", f"{wanted} {said}") and not any(halves))


def _brackets(wanted: str, said: str) -> bool | None:
    """A tuple is no set."""
    shapes = [_SHAPE.fullmatch(text.strip()) for text in (wanted, said)]
    return False if all(shapes) and shapes[0][1] != shapes[1][1] else None  # type: ignore[index]


def _residues(wanted: str, said: str) -> bool | None:
    first, second = _RESIDUE.fullmatch(wanted), _RESIDUE.fullmatch(said)
    if first and second:
        return first[2] == second[2] and (int(first[1]) - int(second[1])) % max(1, int(first[2])) == 0
    alone = said if first else wanted
    with_modulus = first or second
    return compact(alone) == with_modulus[1] if with_modulus else None


def _numerals(wanted: str, said: str) -> bool | None:
    first, second = _BASED.fullmatch(compact(wanted)), _BASED.fullmatch(compact(said))
    if (first is None and second is None) or not (wanted[:1].isalnum() or wanted[:1] == "(") or not said:
        return None
    if first and second:
        return _value(first) == _value(second)
    numeral, alone = (first, said) if first else (second, wanted)
    assert numeral is not None
    return numeral[1].upper() == compact(alone).upper() if numeral[1][0].isdigit() else None


def _value(numeral: re.Match[str]) -> int | str:
    base = _BASES.get(numeral[2]) or int(numeral[2])
    if not re.search(r"\d", numeral[1]) and base != 16:
        return numeral[0]  # A_{12} is a name
    try:
        return int(numeral[1], base)
    except ValueError:  # a digit that the base does not have
        return numeral[0]


def _sequences(wanted: str, said: str) -> bool | None:
    """Of elided sequences only those of whole numbers with one step are written out."""
    if not (_DOTS.search(wanted) or _DOTS.search(said)):
        return None
    left, right = _listed(wanted), _listed(said)
    return left == right


def _listed(text: str) -> str:
    text = compact(_DOTS.sub(",...,", text).replace("\\{", "{").replace("\\}", "}"))
    match = re.fullmatch(r"(\{?)((?:-?\d{1,9},){2,}|(?:-?\d{1,9},))\.\.\.,(-?\d{1,9})(\}?)", text)
    if match is None:
        return text.replace(",...,", "...")
    head = [int(part) for part in match[2].rstrip(",").split(",")]
    step = head[1] - head[0] if len(head) > 1 else 1
    last = int(match[3])
    regular = all(two - one == step for one, two in pairwise(head)) and step
    if not regular or (last - head[-1]) % step or not 0 <= (last - head[0]) // step < _MOST_TERMS:
        return text.replace(",...,", "...")
    return match[1] + ",".join(str(value) for value in range(head[0], last + (1 if step > 0 else -1), step)) + match[4]


def _dates(wanted: str, said: str) -> bool | None:
    if not (_NUMERIC_DATE.fullmatch(wanted) or (_MONTH.search(wanted) and re.search(r"\d", wanted))):
        return None
    return _date(wanted) == _date(said)


def _date(text: str) -> list[str]:
    dashed = re.fullmatch(r"(\d{4})-(\d\d?)-(\d\d?)", text)
    if dashed and 1 <= int(dashed[2]) <= 12:
        return sorted([dashed[1], _MONTHS[int(dashed[2]) - 1], str(int(dashed[3]))])
    text = _MONTH.sub(lambda month: f" {month[1].lower()} ", text)
    text = re.sub(r"(?<=\d)\s*(?:\^\{?)?\s*(?:st|nd|rd|th)\b\}?|\\[a-z]+|\b(?:of|the)\b|[{},.]", " ", text)
    return sorted(text.lower().split())


def _letters(wanted: str, said: str) -> bool | None:
    """Of a multiple choice: `(B)` is `B` and `B) 12`."""
    several = [compact(text).split(",") for text in (wanted, said)]
    if all(len(letters) > 1 and all(re.fullmatch("[A-J]", letter) for letter in letters) for letters in several):
        return sorted(several[0]) == sorted(several[1])
    first = _FULL_LETTER.fullmatch(wanted)
    second = _LETTER.match(re.sub(r"\\text(?:bf|rm)?\s*\{|\}", "", said)) if first else None
    return None if first is None or second is None else first[1] == (second[1] or second[2])


def _words(wanted: str, said: str) -> bool | None:
    """Words are no products of letters: `even` is not `neve`."""
    if not (_WORDS.fullmatch(wanted) and _WORDS.fullmatch(said)) or max(len(wanted), len(said)) < 4:
        return None
    left, right = (re.sub(r"^(?:an?|the)\s|[^a-z]", "", text.lower()) for text in (wanted, said))
    return left == right


_KINDS: list[Callable[[str, str], bool | None]] = [
    _sequences, _brackets, _clocks, _residues, _dates, _letters, _numerals, _words, _constants,
]  # fmt: skip
