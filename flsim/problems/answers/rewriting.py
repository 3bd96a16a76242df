r"""Numbers of a text in one writing: `1{,}234`, `1,00,000`, `\frac{1,000}{2}`, `5 \times 10^{3}`, `0.\overline{3}`.

What is no number by itself though it has digits, such as the 16 of `\sqrt{16}`, gets a sign beside it that says so.
"""

import re
from fractions import Fraction

from flsim.problems.answers.typography import plain

NONE = "\x01"
"""Stands beside a number that is part of something else: of a root, a factor of pi, one of two signs."""
LARGEST_POWER = 999
"""Of ten; larger numbers are no answer to anything, and make exact arithmetic slow."""
_MOST_BITS = 190

# a sign between two terms, "5-3", "5 - 3", "x - 3", and not one of a number, "then -3", "is - 3"
_BETWEEN = re.compile(
    r"(?<=[\w)}%])(?<!\d[eE])-(?=[\d$€£¥₹.\\{(])|(?<=[\d)}%])\s-\s?(?=[\d$€£¥₹.\\{(])|(?<=\b[A-Za-z]) - (?=[\d\\])"
)
_NEGATIVE = re.compile(
    r"(?:^|(?<=[#:=({]\s)|(?<=[#:=({])|(?<=\bis\s)|(?<=\bof\s))(?:minus|negative)\s+(\}?)\s?(?=[$€£¥₹]?\d)",
    re.IGNORECASE,
)
_MONEY = re.compile(
    r"\\?\$|[€£¥₹₽₩₪₫฿¢₱₦₺₴]|\\(?:pounds|euro|yen|textdollar)(?![A-Za-z])|\bRs\.?(?=\s*\d)|\b(?:US|HK)(?=\$)"
)
_SIGNED = r"\s?[-+]?\s?(?:\d+\.?\d*|\.\d+)\s?"
_FRACTION = re.compile(
    rf"\\[dtc]?frac\s?(?:\{{({_SIGNED})\}}|(\d))\s?(?:\{{({_SIGNED})\}}|(\d))|\{{({_SIGNED})\\over({_SIGNED})\}}"
)
REPEATING = re.compile(r"(\d{0,12})\.(\d{0,12})\\(?:overline|bar|dot)\s?\{?(\d{1,12})\}?")
_DRESS = re.compile(
    r"\\(?:(?:text|math)(?:bf|rm|it|tt|sf|normal|cal)?|mbox|textcolor\s?\{\w+\}|color\s?\{\w+\}|operatorname)(?![A-Za-z])"
)
_ORDINAL = re.compile(r"(?<=\d)\s?\^\s?\{?\s?(?:\\[a-z]+\s?\{)?\s?(?:st|nd|rd|th)\b[}\s]{0,3}|\^\s?\{?\s?\\circ\s?\}?")
_PARTS = re.compile(
    r"\\(?:[dtc]?frac|sqrt|pi|pm|mp|ln|log|exp|sin|cos|tan|binom|infty|sum|int|prod|lfloor|lceil|overline|p?mod|bmod)"
    r"(?![A-Za-z])"
)
_UNIT_FRACTION = re.compile(
    r"\\[dtc]?frac\s?\{\{?\s?(?![xyzn]\})[A-Za-z ]{1,12}\}?\}\s?\{\{?\s?[A-Za-z ]{1,12}\}?(?:\^\{?\d\}?)?\}"
)
_SIGN = re.compile(r"\{\s?([-+])\s?\}")
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)")

_GROUPED = re.compile(
    r"(?<![\d.,])(?:([1-9]\d{0,2}(?:(?:[,'_]|\\,)\d{3})+(?!\d)(?:\.\d+)?)"  # 1,234.5
    r"|(\d{1,2}(?:(?:,|\\,)\d{2})+(?:,|\\,)\d{3}(?:\.\d+)?)"  # 12,34,567.8
    r"|(\d{1,3}(?:\.\d{3}){2,})"  # 1.234.567
    r"|(\d{1,3}(?:(?:\.|\\,|\s)\d{3})+,\d{1,2}|\d+,(?:\d{1,2}|\d{4,})|0,\d{3}))(?!,?\.?\d)"  # 1.234,5 and 3,5
)
_SPACED_PROSE = re.compile(r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?:(?: \d{3}){0,3} 000|(?: \d{3}){2,4})(?! ?[\d/])")
_SPACED = re.compile(r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?: \d{3})+(?! ?[\d/])")
_EXPONENT = r"\s?(?:\^\s?|\*\*)(?:\{\s?|\(\s?)?([-+]?\s?\d{1,5})(?![\w.])\s?[})]?"
_TEN = re.compile(rf"(\d\.?)\s?(?:\*|[xX])\s?\{{?10\}}?{_EXPONENT}")
_POWER = re.compile(rf"(?<![\w.^}}])\{{?(\d{{1,4}})\}}?{_EXPONENT}")
_UNIT_POWER = re.compile(r"([A-Za-z]\s?\}{0,2})\s?(?:\^\s?|\*\*)(?:\{[^{}]{0,9}\}|-?\w)")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9}_])_{1,3}(?=[-+$\d.])|(?<=[\d.%])_{1,3}(?![\w{])")
_BASED = re.compile(
    r"(?<![\w.])(?:0[xX]([\da-fA-F]{1,50})|0[bB]([01]{1,50})|0[oO]([0-7]{1,50})|(\d[\da-fA-F]{0,50})_\{?(\d{1,2})\}?)(?!\w)"
)
# in a box: 3x, 3i, 3/n, 3!, x + 3 and 9 * 2
_TERMS = re.compile(r"(?<=\d)\s?/?\s?(?:[xyzni](?![A-Za-z])|!)|(?<=[\w)}])(?<!\de)\s?[~+]|(?<=[\d)}])\s?\*\s?(?=[\w(])")


def rewritten(text: str, *, marked: bool = False, boxed: bool = False) -> str:
    """A text with its numbers as `-1234.5e6`, `3/4` or `1 3/4`, and single blanks.

    Args:
        text: any.
        marked: it begins with an answer, in which blanks may group digits: `12 500`.
        boxed: it is nothing but an answer, in which letters and signs are those of a term: `3x`.
    """
    text = " ".join(plain(text).replace("{,}", ",").replace("~", " ").split())
    text = _NEGATIVE.sub(r"-\1", text)
    text = _BETWEEN.sub(" ~ ", _ORDINAL.sub(" ", text) if "^" in text else text)
    latex = "\\" in text
    if latex:
        text = text.replace("\\!", "").replace("\\%", "%")
    text = _GROUPED.sub(_ungrouped, _MONEY.sub(" ", text))
    if latex:
        text = _without_latex(text)
    spaced = _SPACED if marked or boxed else _SPACED_PROSE
    text = spaced.sub(lambda match: match[0].replace(" ", ""), text)
    if "^" in text or "**" in text:
        text = _POWER.sub(_power, _TEN.sub(lambda ten: f"{ten[1]}e{ten[2].replace(' ', '')}", text))
        text = _UNIT_POWER.sub(r"\1 ", text).replace("**", " ")
    if "_" in text or "0" in text:
        text = _BASED.sub(_in_ten, _EMPHASIS.sub(" ", text))
    return _TERMS.sub(NONE, text) if boxed else text


def _without_latex(text: str) -> str:
    text = REPEATING.sub(lambda match: f" {repeating(match)} ", text.replace("\\times", "*").replace("\\cdot", "*"))
    text = _DRESS.sub("", _FRACTION.sub(_as_slash, text))
    text = _SIGN.sub(r"\1", _UNIT_FRACTION.sub(" ", text))
    return " ".join(_COMMAND.sub(" ", _PARTS.sub(NONE, text)).split())


def _ungrouped(match: re.Match[str]) -> str:
    thousands, indian, _, decimal = match.groups()
    if decimal:
        whole, part = decimal.rsplit(",", 1)
        return f"{re.sub(r'[^0-9]', '', whole)}.{part}"
    return re.sub(r"[^0-9.]" if thousands or indian else r"[^0-9]", "", match[0])


def _as_slash(match: re.Match[str]) -> str:
    top, bottom = (part.replace(" ", "") for part in match.groups() if part)
    if bottom[0] in "+-":
        top = top.lstrip("-+") if (top[0] == "-") == (bottom[0] == "-") else "-" + top.lstrip("-+")
        bottom = bottom[1:]
    return f" {top}/{bottom} "


def repeating(match: re.Match[str]) -> Fraction:
    """Of digits before the point, those that come once, and those that come again."""
    whole, once, again = match.groups()
    value = Fraction(int((whole + once) or "0"), 10 ** len(once))
    return value + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once))


def _power(match: re.Match[str]) -> str:
    base, exponent = int(match[1]), int(match[2].replace(" ", ""))
    if base == 10:
        return f"1e{exponent}"
    if abs(exponent) * base.bit_length() > _MOST_BITS or (base == 0 and exponent <= 0):
        return NONE
    return str(base**exponent) if exponent >= 0 else f"1/{base**-exponent}"


def _in_ten(match: re.Match[str]) -> str:
    *digits, numeral, base = match.groups()
    try:
        for written, known in zip(digits, (16, 2, 8), strict=True):
            if written:
                return str(int(written, known))
        return str(int(numeral, int(base)))
    except ValueError:  # a digit that the base does not have
        return NONE + match[0]
