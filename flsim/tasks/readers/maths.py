r"""Maths: GSM8K and MATH.

GSM8K is grade-school maths in words, 7,473 to train on, 1,319 to test (Cobbe et al. 2021, arXiv 2110.14168).

{"question": "A robe takes 2 bolts ...?", "answer": "It takes 2/2=<<2/2=1>>1 ... 2+1=<<2+1=3>>3\n#### 3"}
"""

import re

from flsim.tasks.item import Item
from flsim.tasks.known_set import KnownSet, by_row
from flsim.tasks.tables import Row, text_of


def gsm8k_item(row: Row, split: str | None) -> Item:
    """The number after `####` without thousands' commas is the answer; the level is the count of `<<...>>` steps."""
    steps, mark, gold = row.text("answer").rpartition("####")
    if not mark or not gold.strip():
        raise row.error("column 'answer' holds no '#### NUMBER' at its end")
    return Item(row.text("question"), gold.strip().replace(",", ""), level=steps.count("<<"), split=split)


GSM8K = KnownSet(
    name="gsm8k",
    files={
        "train": ("train.jsonl", "main/train-*.parquet"),
        "test": ("test.jsonl", "main/test-*.parquet"),
    },
    read=by_row(gsm8k_item),
    item=gsm8k_item,
    verifier="numeric",
    source="Get it from https://github.com/openai/grade-school-math (grade_school_math/data) or openai/gsm8k.",
    licence="MIT",
    columns=("question", "answer"),
)
"""GSM8K: grade-school maths in words (Cobbe et al. 2021, arXiv 2110.14168)."""


# MATH: competition problems of seven subjects and five levels, 12,500 (Hendrycks et al. 2021, arXiv 2103.03874).
#
#     {"problem": "...", "level": "Level 2", "type": "Algebra", "solution": "... $\\boxed{12}$."}  ->  12, level 2
#
# The archive holds a file per problem; MATH-500 and Hugging Face's copies hold a row per problem.


def boxed(solution: str) -> str | None:
    r"""What the last `\boxed{...}` or `\fbox{...}` of a solution holds, braces matched; None if there is none."""
    start = max(solution.rfind("\\boxed"), solution.rfind("\\fbox"))
    if start < 0:
        return None
    rest = solution[start:].removeprefix("\\boxed").removeprefix("\\fbox")
    if not rest.startswith("{"):  # "\boxed 5" takes one sign or word
        words = rest.split("$")[0].split()
        return words[0] if words else None
    depth = 0
    for at, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:at].strip()
    return None


def maths_item(row: Row, split: str | None) -> Item:
    """The boxed part of the solution is the answer, unless the row has one; a level that is not known is None."""
    answer = text_of(row.values.get("answer")) or boxed(row.text("solution"))
    if not answer:
        raise row.error("column 'solution' has no \\boxed{answer}, and there is no column 'answer'")
    subject = row.text("type") if "type" in row.values else row.text("subject")
    digits = re.search(r"\d+", str(row["level"]))  # a few problems have "Level ?"
    return Item(row.text("problem"), answer, label=subject, level=int(digits[0]) if digits else None, split=split)


MATH = KnownSet(
    name="math",
    files={
        "train": ("train/*/*.json", "train.jsonl", "data/train-*.parquet"),
        "test": ("test/*/*.json", "test.jsonl", "data/test-*.parquet"),
    },
    optional=("train",),
    read=by_row(maths_item),
    item=maths_item,
    verifier="maths",
    source="Get it from https://github.com/hendrycks/math, or HuggingFaceH4/MATH-500 (test only).",
    licence="MIT",
    columns=("problem", "solution", "level", "type"),
)
"""MATH: competition maths with five levels (Hendrycks et al. 2021, arXiv 2103.03874)."""
