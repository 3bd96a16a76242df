r"""TACO: 26,443 programming tasks with tests, by difficulty and skill (Li et al. 2023, arXiv 2312.14852).

    {"question": "...", "starter_code": "", "difficulty": "EASY", "input_output": "{\"inputs\": ..., \"outputs\": ...}"}

A task with `fn_name` asks for a function: its tests become asserts. All others ask for a program that reads standard
input: their reference is JSON of `inputs` and `outputs`, and `tests` says `stdin`. Tasks without a usable test are left
out, as nothing could judge them; so are those with a number of more than 4,300 digits, which Python refuses to read.
"""

import json
from typing import Any

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import Found, KnownSet
from flsim.tasks.data.rows import Row, rows_of_all

LEVELS = ("EASY", "MEDIUM", "MEDIUM_HARD", "HARD", "VERY_HARD")


def taco_item(row: Row, split: str | None, *, most_tests: int | None = None) -> Item | None:
    """The task and its starter code are the question; None if it has no usable test."""
    tests = _tests(row)
    if tests is None:
        return None
    function, pairs = tests[0], tests[1][:most_tests]
    starter = str(row.values.get("starter_code") or "").strip()
    question = row.text("question").strip() + (f"\nStart from:\n{starter}" if starter else "")
    difficulty = row.values.get("difficulty")
    level = LEVELS.index(difficulty) + 1 if difficulty in LEVELS else None
    if function:
        reference, kind = "\n".join(_assert(function, starter, *pair) for pair in pairs), None
    else:
        inputs, outputs = ([_stream(pair[side]) for pair in pairs] for side in (0, 1))
        reference, kind = json.dumps({"inputs": inputs, "outputs": outputs}), "stdin"
    return Item(
        question,
        reference,
        label=str(row.values.get("source") or "taco"),
        level=level,
        split=split,
        tests=kind,
        solution=_solution(row),
    )


def _solution(row: Row) -> str | None:
    """The first of the task's solutions; None if it has none."""
    raw = row.values.get("solutions")
    try:
        found = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return None
    return str(found[0]) if isinstance(found, list) and found else None


def _tests(row: Row) -> tuple[str | None, list[tuple[Any, Any]]] | None:
    """Function name, or None for a program, and pairs of input and output."""
    raw = row["input_output"]
    try:
        found = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return None
    if not isinstance(found, dict) or not found.get("inputs") or not found.get("outputs"):
        return None
    return found.get("fn_name"), list(zip(found["inputs"], found["outputs"], strict=False))


def _assert(function: str, starter: str, arguments: Any, output: Any) -> str:
    """One assert; some outputs are wrapped in a list of one, so both forms count, as in the authors' own checker."""
    call = f"Solution().{function}" if "class Solution" in starter else function
    allowed = [output, output[0]] if isinstance(output, list) and output else [output]
    return f"assert {call}(*{arguments!r}) in {allowed!r}"


def _stream(value: Any) -> str:
    """Text of standard input or output; some tasks give its lines as a list."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(found: Found, *, most_tests: int | None = None) -> list[Item]:
    items = (
        taco_item(row, split, most_tests=most_tests) for split, paths in found.items() for row in rows_of_all(paths)
    )
    return [item for item in items if item is not None]


TACO = KnownSet(
    name="taco",
    files={
        "train": ("ALL/train-*.parquet", "data/train-*.parquet", "train.jsonl"),
        "test": ("ALL/test-*.parquet", "data/test-*.parquet", "test.jsonl"),
    },
    optional=("test",),
    read=_read,
    verifier="code",
    source="Get it from BAAI/TACO (ALL/*.parquet, 2.4 GB), or likaixin/TACO-verified (train only).",
    licence="Apache-2.0; tasks keep the licences of their sites (CC BY 4.0 and MIT among them)",
    columns=("question", "input_output", "difficulty"),
)
