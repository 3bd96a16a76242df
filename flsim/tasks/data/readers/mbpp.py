"""MBPP: 974 short Python tasks with asserts (Austin et al. 2021, arXiv 2108.07732).

    {"task_id": 11, "text": "Write a function to ...", "test_list": ["assert f(1) == 2", ...], "test_setup_code": ""}

The question shows the asserts, as in the paper, since nothing else gives the function's name. The splits are the
paper's, by task_id: 11 to 510 test, 511 to 600 validation, the others train (1 to 10 are its few-shot examples).
The sanitised set (427) has `prompt` for `text` and `test_imports` for `test_setup_code`.
"""

from typing import Any

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import KnownSet, by_row
from flsim.tasks.data.rows import Row, text_of


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
    except ValueError:
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


def _read(found: dict[str, Any], *, shown_tests: int = 3) -> list[Item]:
    """One file holds all splits, or one file per split."""
    files = {None if part == "all" else part: paths for part, paths in found.items()}
    return by_row(mbpp_item)(files, shown_tests=shown_tests)


MBPP = KnownSet(
    name="mbpp",
    files={"all": ("mbpp.jsonl", "sanitized-mbpp.json", "full/*.parquet", "sanitized/*.parquet")},
    read=_read,
    item=mbpp_item,
    verifier="code",
    source="Get it from https://github.com/google-research/google-research (mbpp) or google-research-datasets/mbpp.",
    licence="CC-BY-4.0",
    columns=("task_id", "text", "test_list"),
)
