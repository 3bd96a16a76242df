"""Code: MBPP, HumanEval and TACO.

MBPP is 974 short Python tasks with asserts (Austin et al. 2021, arXiv 2108.07732).

    {"task_id": 11, "text": "Write a function to ...", "test_list": ["assert f(1) == 2", ...], "test_setup_code": ""}

The question shows the asserts, as in the paper, since nothing else gives the function's name. The splits are the
paper's, by task_id: 11 to 510 test, 511 to 600 validation, the others train (1 to 10 are its few-shot examples).
The sanitised set (427) has `prompt` for `text` and `test_imports` for `test_setup_code`.
"""

import ast
import json
from contextlib import suppress
from typing import Any

from flsim.tasks.item import Item
from flsim.tasks.known_set import Found, KnownSet, by_row, item_of
from flsim.tasks.tables import Row, rows_of_all, text_of


def mbpp_split(task_id: int) -> str:
    """The paper's split of a task."""
    if 11 <= task_id <= 510:
        return "test"
    return "validation" if 511 <= task_id <= 600 else "train"


def mbpp_item(row: Row, split: str | None, *, shown_tests: int = 3) -> Item:
    """The task and the first `shown_tests` asserts are the question, set-up code and all asserts the reference."""
    task = row.text("text") if "text" in row.values else row.text("prompt")
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests:
        raise row.error("column 'test_list' is no list of asserts")
    shown = "\n".join(tests[:shown_tests])
    question = f"{task.strip()}\nYour code should pass these tests:\n{shown}" if shown else task.strip()
    try:
        task_id = int(row["task_id"])
    except (TypeError, ValueError):
        raise row.error(f"the task_id {row['task_id']!r} is no whole number, so its split is not known") from None
    return Item(
        question,
        "\n".join([*_set_up(row), *tests]),
        label="mbpp",
        split=split or mbpp_split(task_id),
        solution=text_of(row.values.get("code")),
    )


def _set_up(row: Row) -> list[str]:
    found: Any = row.values.get("test_setup_code") or row.values.get("test_imports") or []
    return [found.replace("\r\n", "\n")] if isinstance(found, str) else list(found)


def _read_mbpp(found: dict[str, Any], *, shown_tests: int = 3) -> list[Item]:
    """One file holds all splits, or one file per split."""
    files = {None if part == "all" else part: paths for part, paths in found.items()}
    return by_row(mbpp_item)(files, shown_tests=shown_tests)


MBPP = KnownSet(
    name="mbpp",
    files={"all": ("mbpp.jsonl", "sanitized-mbpp.json", "full/*.parquet", "sanitized/*.parquet")},
    read=_read_mbpp,
    item=mbpp_item,
    verifier="code",
    source="Get it from https://github.com/google-research/google-research (mbpp) or google-research-datasets/mbpp.",
    licence="CC-BY-4.0",
    columns=("task_id", "text", "test_list"),
)
"""MBPP: short Python tasks with asserts (Austin et al. 2021, arXiv 2108.07732)."""


# HumanEval: 164 Python functions to complete, all of them for testing (Chen et al. 2021, arXiv 2107.03374).
#
#     {"prompt": "def f(a):\n    '''...'''", "entry_point": "f", "test": "def check(candidate): ...",
#      "canonical_solution": "    return a"}
#
# The sanitised MBPP of CodeT has the same columns. Everything is official test; to train on it, split it by hash.


def humaneval_item(row: Row, split: str | None) -> Item:
    """The head of the function is the question; the head and its check, called on the entry point, are the reference.

    So that a body alone can be right. A head that does not parse by itself is left out.
    """
    prompt, entry = row.text("prompt"), row.text("entry_point")
    tests = f"{row.text('test').strip()}\n\ncheck({entry})"
    with suppress(SyntaxError, ValueError):
        ast.parse(prompt)
        tests = f"{prompt.strip()}\n\n{tests}"
    return Item(prompt, tests, label="humaneval", split=split, solution=_humaneval_solution(row, prompt))


def _humaneval_solution(row: Row, prompt: str) -> str | None:
    """The head with its body; without the head's text where that is indented otherwise, as in the sanitised MBPP."""
    body = text_of(row.values.get("canonical_solution"))
    for head in (prompt, prompt.split("'''")[0].rstrip(" ")):
        with suppress(SyntaxError, ValueError):
            if body:
                ast.parse(head + body)
                return head + body
    return None


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
"""HumanEval: Python functions to complete, with tests (Chen et al. 2021, arXiv 2107.03374)."""


# TACO: 26,443 programming tasks with tests, by difficulty and skill (Li et al. 2023, arXiv 2312.14852).
#
#     {"question": ..., "starter_code": "", "difficulty": "EASY", "input_output": "{\"inputs\": ..., \"outputs\": ...}"}
#
# A task with `fn_name` asks for a function: its tests become asserts. All others ask for a program that reads standard
# input: their reference is JSON of `inputs` and `outputs`, and `tests` says `stdin`. Tasks without a usable test are
# left out, as nothing could judge them; so are those with a number of more than 4,300 digits, which Python refuses to
# read.

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
        solution=_taco_solution(row),
    )


def _taco_solution(row: Row) -> str | None:
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


def _read_taco(found: Found, *, most_tests: int | None = None) -> list[Item]:
    items = (
        item_of(taco_item, row, split, most_tests=most_tests)
        for split, files in found.items()
        for row in rows_of_all(files)
    )
    return [item for item in items if item is not None]


TACO = KnownSet(
    name="taco",
    files={
        "train": ("ALL/train-*.parquet", "data/train-*.parquet", "train.jsonl"),
        "test": ("ALL/test-*.parquet", "data/test-*.parquet", "test.jsonl"),
    },
    optional=("test",),
    read=_read_taco,
    verifier="code",
    source="Get it from BAAI/TACO (ALL/*.parquet, 2.4 GB), or likaixin/TACO-verified (train only).",
    licence="Apache-2.0; tasks keep the licences of their sites (CC BY 4.0 and MIT among them)",
    columns=("question", "input_output", "difficulty"),
)
"""TACO: contest problems with inputs and outputs (Li et al. 2023, arXiv 2312.14852)."""
