r"""GSM8K: grade-school maths in words, 7,473 to train on, 1,319 to test (Cobbe et al. 2021, arXiv 2110.14168).

{"question": "A robe takes 2 bolts ...?", "answer": "It takes 2/2=<<2/2=1>>1 ... 2+1=<<2+1=3>>3\n#### 3"}
"""

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import KnownSet, by_row
from flsim.tasks.data.rows import Row


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
