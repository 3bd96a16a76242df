r"""An expression in one notation, so that most equal answers are equal texts and math-verify reads the others.

`\dfrac12`, `pi/2`, `exp(2)`, `90°`, `]0, 1[`, `\varnothing`, `14.0 + -1.0i` and `2\mathbf{i}-\mathbf{j}` become the
LaTeX that math-verify knows; units and wrappers go.
"""

import re
from fractions import Fraction
from functools import lru_cache

from flsim.problems.answers.relations import in_intervals
from flsim.problems.answers.rewriting import REPEATING, repeating
from flsim.problems.answers.typography import plain

_BOTH_SIGNS = re.compile(r"\\pm(?![A-Za-z])")
_LONGEST_SIGNED = 100  # characters
_LONGEST = 600  # characters that are looked at

_WRAPPERS = [
    (re.compile(r"\$+(.*?)\$*", re.DOTALL), r"\1"),
    (re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL), r"\1\2"),
    (re.compile(r"(\*{1,3}|`{1,3}|__?)([^*`]*?)\1"), r"\2"),
    (re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm|normal)?|math(?:bf|rm|it)|mbox|displaystyle)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{((?:[^{}\\,;]|\\[a-z]+)*)\}"), r"\1"),
    (re.compile(r"(.*?[^.\s])\s*[.,;:]", re.DOTALL), r"\1"),
]
_NAMES = "pi|theta|alpha|beta|gamma|lambda|mu|sigma|omega|phi"
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|csc|cot|ln|log|gcd|lcm"
_UNITS = (
    "mm|cm|dm|km|kg|mg|ml|mL|ft|in|yd|mi|lb|lbs|oz|hr|hrs|ms|Hz|kHz|Pa|kPa|kW|kWh|eV|mol|min|sec|mph|kph|rpm|day|men|m/s|"
    "sq|USD|EUR|GBP|yen|cal|[A-Za-z]{4,}"
)
_SYMBOLS = (
    "mm|cm|dm|km|m|mg|kg|g|ms|s|min|h|hr|ft|in|yd|mi|lb|oz|hours?|minutes?|seconds?|days?|feet|inches|miles|meters?"
)
_SYMBOL = re.compile(
    rf"\\(?:text|mathrm)\s*\{{\s*({_SYMBOLS})\s*\}}(?:\^\{{?\d\}}?)?[\s.$]*$|\d\s?(mm|cm|dm|km|mg|kg|ft|lb)(?:\^\{{?\d\}}?)?[\s.$]*$"
)
_SHORT = {"hour": "h", "hours": "h", "hr": "h", "minute": "min", "minutes": "min", "second": "s", "seconds": "s"}
_SHORT |= {"feet": "ft", "inches": "in", "miles": "mi", "meter": "m", "meters": "m", "day": "days"}
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DEGREE = r"\^\s?\{?\s?\\circ\s?\}?"
_ENDING = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_REWRITING: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), to)
    for pattern, to in [
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|mathstrut)(?![A-Za-z])\.?", ""),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\{,\}", ","),
        (
            rf"(\\(?:sin|cos|tan|sec|csc|cot)(?:\^\{{?-?\d\}}?)?)\s?[({{]?\s?(\d+(?:\.\d+)?)\s?{_DEGREE}\s?[)}}]?",
            r"\1(\\frac{\2\\pi}{180})",
        ),
        (r"\\text\s*\{\s*([aApP])\.?\s*[mM]\.?\s*\}", r" \1m"),
        (r"\\\{\s*[a-z](?:\s*\\in\s*\\mathbb\s*\{?\s*R\s*\}?)?\s*(?::|\\mid|\|)\s*([^{}]+)\\\}", r"\1"),
        (r"\+\s*\(-\s*(\d+(?:\.\d+)?)\)", r"-\1"),
        (r"(?<=\d)(?:\\,|,?\s?\\!\s?|,\\,)(?=\d{3}(?!\d))", ""),  # 1\,000 and 36,\!936
        (r"(?<!\\)\\[,;:! ]|\\q?quad|\\(?:thinspace|space)(?![A-Za-z])|~", " "),
        (r"\s{2,}", " "),
        (r"\\\$|\$|[€£¥₹]|\\(?:pounds|euro)(?![A-Za-z])", ""),
        (r"\\%", "%"),
        (r"\s*(?:\\text\s*\{)?\s*\b(?:percent|per cent)\b\s*\}?", "%"),
        (r"\^\s*\{?\s*\\circ\s*\}?(?:\s*[CF]\b)?|\\(?:degree|textdegree)(?![A-Za-z])", " "),
        (r"\s*(?:\\(?:text|mathrm)\s*\{)?\s*\b(?:degrees?|radians?)\b\s*\}?", " "),
        (r"\\(?:varnothing|empty)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(?:operatorname|text|mathrm)\*?\s*\{\s*(" + _FUNCTIONS + r")\s*\}", r"\\\1 "),
        (r"\\i(?:math)?(?![A-Za-z])", "i"),
        (r"\\(?:mathrm|text)\s*\{\s*([eidx])\s*\}", r"\1"),
        (r"(?<=[\d)}\s\]])?,?\s*\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}\s*", ","),
        (r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*(-?\d+(?:\.\d+)?)\s*\}", r"\1"),
        (r"\\leq(?:slant)?(?![A-Za-z])|<=|=<|\\leqq(?![A-Za-z])", r"\\le "),
        (r"\\geq(?:slant)?(?![A-Za-z])|>=|\\geqq(?![A-Za-z])", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=|\\ne(?![A-Za-z])", r"\\ne "),
        (r"\\lt(?![A-Za-z])|&lt;", "<"),
        (r"\\gt(?![A-Za-z])|&gt;", ">"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\*\*", "^"),
        (r"\\(?:times|ast)(?![A-Za-z])|\*", r"\\cdot "),
        (r"(?<![\\A-Za-z])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"\+\s*\\infty", r"\\infty"),
        (rf"(?<![\\A-Za-z])({_NAMES})(?![A-Za-z])", r"\\\1 "),
        (rf"(?<![\\A-Za-z{{])({_FUNCTIONS})(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z{])(sec|min|max|det)(?=\s*[\^(\\{])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(\d*)(?:sqrt)(?![A-Za-z])", r"\1\\sqrt"),
        (r"(?<![\\A-Za-z])exp(?![A-Za-z])", r"\\exp"),
        (r"(?<![A-Za-z\d.\\_])(\d+\.?\d*)[eE]([+-]?\d+)(?![A-Za-z\d.])", r"\1 \\cdot 10^{\2}"),
        (r"(?<=[\])])\s*[uU]\s*(?=[\[(])", r"\\cup "),
        (r"(?<=\d)\s*\\cdot\s*i(?![A-Za-z])", "i"),
        (r"\+\s*-\s*(?=[\d.\\a-z(])", "-"),
        (r"(?<![\d.,])(\d+)\.0+(?![\d.])", r"\1"),
        (r"(?<![\d.\w}])1\s*i(?![A-Za-z])", "i"),
        (r"\\sqrt\s*(\d+)", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
        (r"\^\s*(-?\d{2,}|-\d)", r"^{\1}"),
        (r"\\sqrt\s*\[\s*(\d+)\s*\]\s*(\d+)", r"\\sqrt[\1]{\2}"),
        (r"(?<=\d)\s*\\(?:bmod|pmod|mod)(?![A-Za-z])\s*\{?\s*(\d+)\s*\}?", r" \\pmod{\1}"),
        (r"\(\s*\\?(?:text\{)?mod\}?\s*(\d+)\s*\)", r" \\pmod{\1}"),
    ]
]
_CALL = re.compile(r"\\(exp|sqrt)\s*([({])")
_LEADING = re.compile(
    r"\s*(?:\\text\s*\{[^{}]*\}\s*[=:]\s*|(?:[Tt]hus|[Ss]o|[Hh]ence|[Tt]herefore|[Aa]nswer|ANSWER)\b[,:]?\s*|"
    r"\\?[A-Za-z]\s*\\in\s*(?=[\[(\\{\]]))"
)
_UNIT = re.compile(
    rf"(?<=[\d}})])\s*\\(?:text|mathrm|textrm|mbox|rm)\s*\{{(?![^{{}}]*\b(?:or|and|if|not|more|less|mod|when|for)\b)[^{{}}]*\}}{_ENDING}"
    rf"(?:\s*/\s*\\(?:text|mathrm)\s*\{{[^{{}}]*\}}{_ENDING})?\s*\.?$"
)
_BARE_UNIT = re.compile(
    rf"(-?(?:[\d.,]+|[\d.]*\s?\\frac\{{[^{{}}]*\}}\{{[^{{}}]*\}}|\d+\s?/\s?\d+)%?)\s?(?!{_MONTHS})(?:{_UNITS})(?![A-Za-z])"
    rf"(?:{_ENDING}|\s[A-Za-z /]+)$"
)
_THOUSANDS = re.compile(
    r"(-?)\s?([1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|[1-9]\d{0,2}(?:\s\d{3})+)(\.\d+)?(%?)"
)
_OPEN_ENDED = re.compile(r"([\[\]])([^\[\],;]+)[,;]([^\[\],;]+)([\[\]])")
_PIECES = re.compile(r"(?<=[\])\[])\s*(?:,|\bor\b|\band\b)\s*(?=[\[(\]])")
_SEMICOLON = re.compile(r"([\[\](])([^\[\](),;]+(?:,\d+)?);([^\[\](),;]+(?:,\d+)?)([\[\])])")
_COMPONENT = r"([+-]?\s*(?:\d+(?:\.\d+)?|\\frac\{[^{}]*\}\{[^{}]*\}|\\sqrt\{[^{}]*\}|[a-z])?)\s*\\?(?:cdot\s*)?"
_COMPONENTS = re.compile(
    _COMPONENT
    + r"\\(?:mathbf|hat|vec|boldsymbol|bm)\s*\{?\s*(?:\\(?:hat|mathbf)\s*\{?\s*)?\\?([ijk])(?:math)?\s*\}{0,2}\s*"
)
_VECTOR = re.compile(rf"(?:{_COMPONENTS.pattern.replace('(', '(?:').replace('(?:?:', '(?:')}){{1,3}}")
_COLUMN = re.compile(r"\s*\\begin\{[pbvV]?matrix\}([^&]*?)\\end\{[pbvV]?matrix\}\s*")
_INTERVALS = [
    (re.compile(r"(?:all\s+)?(?:the\s+)?real(?:\s+number)?s? except (?:for )?(.+)"), r"(-\\infty,\1)\\cup(\1,\\infty)"),
    (re.compile(r"(?:the )?open interval (?:from )?(.+?) to (.+)"), r"(\1,\2)"),
    (re.compile(r"(?:the )?closed interval (?:from )?(.+?) to (.+)"), r"[\1,\2]"),
    (re.compile(r"(?:all\s+)?(?:the\s+)?real(?:\s+number)?s?|\\mathbb\{?\s*R\s*\}?|\\Re"), r"(-\\infty,\\infty)"),
    (re.compile(r"[Nn]one|[Nn]o\s*(?:real\s+)?solutions?|(?:the\s+)?empty\s*set"), r"\\emptyset"),
    (re.compile(r"(.*?)\b(?:is\s+)?(?:greater than or equal to|at least|no less than)\s+(.+)"), r"\1\\ge \2"),
    (re.compile(r"(.*?)\b(?:is\s+)?(?:less than or equal to|at most|no more than)\s+(.+)"), r"\1\\le \2"),
    (re.compile(r"(.*?)\b(?:is\s+)?(?:strictly\s+)?(?:greater|more|larger) than\s+(.+)"), r"\1>\2"),
    (re.compile(r"(.*?)\b(?:is\s+)?(?:strictly\s+)?(?:less|smaller) than\s+(.+)"), r"\1<\2"),
    (
        re.compile(
            r".*?\bbetween\s+(.+?)\s+and\s+(.+?),?\s*\(?inclusive\)?|from\s+(.+?)\s+to\s+(.+?),?\s*\(?inclusive\)?"
        ),
        r"[\1\3,\2\4]",
    ),
    (re.compile(r".*?\bbetween\s+(.+?)\s+and\s+(.+?)(?:,?\s*\(?exclusive\)?)?"), r"(\1,\2)"),
    (re.compile(r"from (.+?) to (.+)"), r"(\1,\2)"),
    (
        re.compile(
            r"(?:for )?(?:all|any|every) (?:real )?(?:numbers? |values )?(?:such that |with )?([a-z]\s?(?:[<>=]|\\).+)"
        ),
        r"\1",
    ),
]


@lru_cache(20_000)
def written(text: str) -> str:
    """An answer in that notation, with single blanks; "" for one of more than 600 characters."""
    if len(text) > _LONGEST:
        return ""
    text = in_intervals(_unwrapped(" ".join(plain(text).split())))
    text = _from_words(text)
    text = REPEATING.sub(lambda match: as_fraction(repeating(match)), text)
    for pattern, to in _REWRITING:
        text = pattern.sub(to, text)
    text = _called(" ".join(text.split()))
    text = _LEADING.sub("", text, count=1) or text
    text = _units_off(_intervals(_vectors(_both_signs(text))))
    return _unwrapped(" ".join(text.split()))


def as_fraction(value: Fraction) -> str:
    """In LaTeX."""
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _both_signs(text: str) -> str:
    r"""`1\pm x` as `1+x,1-x`."""
    signs = _BOTH_SIGNS.split(text)
    if len(signs) != 2 or len(text) > _LONGEST_SIGNED or "\\{" in text or "\\mp" in text:
        return text
    before, after = signs
    first = not before.strip() or before.rstrip()[-1] in "=(,{"
    return f"{before}{'' if first else '+'}{after.lstrip()},{before}-{after.lstrip()}"


def unit_of(text: str) -> str | None:
    """The symbol of length, mass or time with which an answer ends, without its power; None if it has none."""
    found = _SYMBOL.search(plain(text[-_LONGEST_SIGNED:]))
    return None if found is None else _SHORT.get(found[1] or found[2], found[1] or found[2])


def compact(text: str) -> str:
    """Without blanks and without braces around what needs none, for a comparison of texts."""
    text = re.sub(r"\s+", "", text)
    return re.sub(r"\^\{(\w)\}", r"^\1", text)


def _from_words(text: str) -> str:
    """An interval in words in brackets, or as an inequality of x."""
    worded = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip() if "\\text" in text else text
    worded = " ".join(worded.split())
    for pattern, to in _INTERVALS if re.search(r"[A-Za-z]{3}|mathbb", worded) else ():
        match = pattern.fullmatch(worded)
        if match:
            return re.sub(r"^[A-Za-z ]{4,}(?=[<>]|\\[lg]e)", "x", match.expand(to))
    return text


def _unwrapped(text: str) -> str:
    """Without what stands around all of it: signs of mathematics and emphasis, a full stop."""
    for _ in range(6):
        before = text = text.strip(" *`")
        for pattern, to in _WRAPPERS:
            match = pattern.fullmatch(text)
            if match:
                text = match.expand(to).strip()
        if text == before:
            break
    return text


def _called(text: str) -> str:
    r"""`\exp(x)` as `e^{x}`, `\sqrt(x)` as `\sqrt{x}`."""
    at = 0
    while match := _CALL.search(text, at):
        closing = {"(": ")", "{": "}"}[match[2]]
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += (text[end] == match[2]) - (text[end] == closing)
            end += 1
        at = match.start() + 1
        if depth == 0:
            inside = text[match.end() : end - 1]
            text = text[: match.start()] + ("e^" if match[1] == "exp" else "\\sqrt") + f"{{{inside}}}" + text[end:]
    return text


def _vectors(text: str) -> str:
    r"""`\mathbf{i}-2\mathbf{j}` and columns as `(1,-2)`."""
    if _VECTOR.fullmatch(text):
        parts = {axis: part.replace(" ", "").lstrip("+") for part, axis in _COMPONENTS.findall(text)}
        values = [parts.get(axis, "0") for axis in ("ijk" if "k" in parts else "ij")]
        return "(" + ",".join(value + "1" if value in ("", "-") else value for value in values) + ")"
    column = _COLUMN.fullmatch(text)
    if column and "\\\\" in column[1]:
        return "(" + ",".join(part.strip() for part in column[1].split("\\\\") if part.strip()) + ")"
    return text


def _intervals(text: str) -> str:
    """Open ends as round brackets, `]0;1[` as `(0,1)`."""
    text = _SEMICOLON.sub(
        lambda match: f"{match[1]}{match[2].replace(',', '.')},{match[3].replace(',', '.')}{match[4]}", text
    )
    if "matrix" in text:
        return text
    if "\\infty" in text or "[" in text or "]" in text:
        text = _PIECES.sub(r"\\cup ", text)
    return _OPEN_ENDED.sub(_rounded, text)


def _rounded(interval: re.Match[str]) -> str:
    left, start, end, right = interval.groups()
    return ("[" if left == "[" else "(") + f"{start},{end}" + ("]" if right == "]" else ")")


def _units_off(text: str) -> str:
    for _ in range(3):
        text = _UNIT.sub("", text)
    bare = _BARE_UNIT.fullmatch(text)
    if bare:
        text = bare[1]
    grouped = _THOUSANDS.fullmatch(text)
    return re.sub(r"[,\s]", "", text) if grouped else text
