# ruff: noqa: RUF001 (signs that look alike are what is tested)
"""Texts that no reader was made for: LaTeX that does not close, digits of every script, marks within marks."""

from hypothesis import strategies as st

_PIECES = [
    *"0123456789.,-+*/^_=!|()[]{}<>$%&#~:;'` \n\t\\abeixyzπ½²₃−–×°√∞…１，",
    *[
        "\\boxed{",
        "\\boxed ",
        "####",
        "#### ",
        "\\frac",
        "\\frac{1}{2}",
        "\\sqrt{",
        "\\text{",
        "\\left(",
        "\\right)",
        "\\times 10^{",
    ],
    *[
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "&",
        "\\\\",
        "\\overline{",
        "\\infty",
        "\\cup",
        "\\pm",
        "\\ldots",
        "\\pi",
        "\\log_",
        "\\binom",
    ],
    *[
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "The answer is ",
        "Question:",
        "e10",
        "0x",
        "1e999",
        "9^9^9",
        "99999!",
        "\N{ARABIC-INDIC DIGIT FIVE}",
    ],
]
TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from(_PIECES), max_size=25).map("".join),
    st.lists(st.sampled_from(_PIECES), max_size=12).map(lambda pieces: f"\\boxed{{{''.join(pieces)}}}"),
)
