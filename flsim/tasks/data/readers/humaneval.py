r"""HumanEval: 164 Python functions to complete, all of them for testing (Chen et al. 2021, arXiv 2107.03374).

    {"prompt": "def f(a):\n    '''...'''", "entry_point": "f", "test": "def check(candidate): ...",
     "canonical_solution": "    return a"}

The sanitised MBPP of CodeT has the same columns. Everything is official test; to train on it, split it by hash.
"""

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import KnownSet, by_row
from flsim.tasks.data.rows import Row, text_of


def humaneval_item(row: Row, split: str | None) -> Item:
    """The head of the function is the question; its check, called on the entry point, is the reference."""
    prompt, entry = row.text("prompt"), row.text("entry_point")
    tests = f"{row.text('test').strip()}\n\ncheck({entry})"
    body = text_of(row.values.get("canonical_solution"))
    solution = f"{prompt}{body}" if body else None
    return Item(prompt, tests, label="humaneval", split=split, solution=solution)


HUMANEVAL = KnownSet(
    name="humaneval",
    files={"test": ("HumanEval.jsonl", "HumanEval.jsonl.gz", "data/HumanEval.jsonl.gz", "openai_humaneval/*.parquet")},
    read=by_row(humaneval_item),
    item=humaneval_item,
    verifier="code",
    source="Get it from https://github.com/openai/human-eval (data/HumanEval.jsonl.gz) or openai/openai_humaneval.",
    licence="MIT",
    columns=("prompt", "entry_point", "test"),
)
