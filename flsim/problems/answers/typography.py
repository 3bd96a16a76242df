# ruff: noqa: RUF001 (signs that look alike are what this room is about)
r"""One writing for what is written in many: signs and digits of Unicode as LaTeX writes them, in ASCII.

A minus of any kind becomes `-`, `½` becomes ` 1/2`, `20 cm²` becomes `20 cm^{2}`, `2π` becomes `2\pi `, and the spaces
that group digits become `\,`.
"""

import re
import unicodedata

_THIN = "\N{THIN SPACE}\N{HAIR SPACE}\N{NARROW NO-BREAK SPACE}\N{NO-BREAK SPACE}\N{FIGURE SPACE}\N{PUNCTUATION SPACE}"
_NOTHING = "\u200b\u200c\u200d\u2060\ufeff"  # of no width
_DASHES = (
    "\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}\N{SMALL HYPHEN-MINUS}"
    "\N{FULLWIDTH HYPHEN-MINUS}\N{HORIZONTAL BAR}\N{HEAVY MINUS SIGN}"
)
_SIGNS = {
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∙": r"\cdot ",
    "∗": "*",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "∶": ":",
    "°": r"^{\circ}",
    "º": r"^{\circ}",
    "√": r"\sqrt ",
    "±": r"\pm ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∅": r"\emptyset ",
    "⌀": r"\emptyset ",
    "ø": r"\emptyset ",
    "Ø": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "π": r"\pi ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "∣": "|",
    "…": r"\ldots ",
    "⋯": r"\cdots ",
    "′": "'",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "、": ",",
    "。": ".",
    "٫": ".",
    "٬": ",",
}
_GREEK = {
    chr(code): rf"\{unicodedata.name(chr(code)).rpartition(' ')[2].lower()} ".replace("lamda", "lambda")
    for code in range(0x3B1, 0x3CA)
    if chr(code) not in "οπς"
}
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))


def _alike() -> dict[str, str]:
    """Wide and mathematical letters, and digits of all scripts, as the ASCII ones that they mean."""
    marks = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    letters = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0x1D400, 0x1D800)}
    scripts = (chr(code) for code in range(0x80, 0x11000))
    digits = {sign: str(unicodedata.decimal(sign)) for sign in scripts if sign.isdecimal()}
    return marks | {old: new for old, new in letters.items() if new.isascii()} | digits


def _fractions() -> dict[str, str]:
    found = {}
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F), 0x2189):
        top, bottom = unicodedata.normalize("NFKC", chr(code)).split("⁄")
        found[chr(code)] = f" {top}/{bottom} "
    return found


_ONE = str.maketrans(
    _alike()
    | dict.fromkeys(_THIN, r"\,")
    | dict.fromkeys(_NOTHING, "")
    | dict.fromkeys(_DASHES, "-")
    | _SIGNS
    | _GREEK
    | _fractions()
)
_RAISED = re.compile(f"[{''.join(map(re.escape, _SUPERSCRIPTS))}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")


def plain(text: str) -> str:
    """The text with every sign that has one in ASCII or LaTeX written so; other signs stay."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[sign] for sign in run[0]) + "}", text)
    text = _LOWERED.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[sign] for sign in run[0]) + "}", text)
    return text.translate(_ONE)
