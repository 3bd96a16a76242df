"""Each known set from files in its own layout, the answers by hand; then the real ones."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flsim.config.schema import ConfigError
from flsim.tasks.item import Item, key_of
from flsim.tasks.known_set import KnownSet
from flsim.tasks.load import READERS, load, missing, reader_of
from flsim.tasks.readers.maths import boxed


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def error_of(kind: str, root: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as found:
        load(kind, root, **settings)
    return str(found.value)


KNOWN = {name: known for name in READERS if isinstance(known := reader_of(name), KnownSet)}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_set_that_is_not_there_says_what_and_where_from(tmp_path: Path, kind: str) -> None:
    message = error_of(kind, tmp_path)
    assert message.startswith(f"{kind}: ")
    assert any(str(tmp_path / patterns[0]) in message for patterns in KNOWN[kind].files.values())
    assert KNOWN[kind].source in message
    assert missing(tmp_path.parent, {kind: tmp_path.name}) == {kind: message}


def test_gsm8k(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}", "answer": f"a <<1+{n}={n + 1}>> b\nso <<2*2=4>>\n#### 1,{n:03d}"} for n in range(20)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    assert "no file for 'test'; looked for" in error_of("gsm8k", tmp_path)
    (tmp_path / "main").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "main" / "test-00000-of-00001.parquet")
    items = load("gsm8k", tmp_path)
    assert items[7] == Item("Q7", "1007", level=2, split="train")
    assert items[27] == Item("Q7", "1007", level=2, split="test")
    write_jsonl(tmp_path / "test.jsonl", [*rows, {"question": "Q", "answer": "four"}])
    assert "test.jsonl, row 21: column 'answer' holds no '#### NUMBER'" in error_of("gsm8k", tmp_path)
    write_jsonl(tmp_path / "test.jsonl", [{"question": "Q", "gold": "#### 4"}])
    assert "row 1: there is no column 'answer'; the columns are: question, gold" in error_of("gsm8k", tmp_path)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So $x=\boxed{12}$.", "12"),
        (r"$\boxed{1}$, no: $\boxed{\frac{1}{\sqrt{2}}}$", r"\frac{1}{\sqrt{2}}"),
        (r"$\fbox{3}$", "3"),
        (r"$\boxed 5$ apples", "5"),
        (r"$\boxed{1$", None),
        ("none", None),
    ],
)
def test_boxed(solution: str, answer: str | None) -> None:
    assert boxed(solution) == answer


def test_math_from_a_file_per_problem_and_from_math_500(tmp_path: Path) -> None:
    for n in range(20):
        folder = tmp_path / ("train" if n < 10 else "test") / ("algebra" if n % 2 else "geometry")
        folder.mkdir(parents=True, exist_ok=True)
        level = "Level ?" if n == 0 else f"Level {n % 5 + 1}"
        row = {"problem": f"P{n}", "level": level, "type": "Algebra", "solution": f"$\\boxed{{{n}}}$"}
        (folder / f"{n}.json").write_text(json.dumps(row))
    items = {item.question: item for item in load("math", tmp_path)}
    assert len(items) == 20
    assert items["P7"] == Item("P7", "7", label="Algebra", level=3, split="train")
    assert items["P11"] == Item("P11", "11", label="Algebra", level=2, split="test")
    assert items["P0"].level is None
    short: dict[str, Any] = {"problem": "P", "solution": "...", "answer": "x^2", "subject": "Precalculus", "level": 4}
    write_jsonl(tmp_path / "500" / "test.jsonl", [short] * 20)
    assert load("math", tmp_path / "500")[0] == Item("P", "x^2", label="Precalculus", level=4, split="test")
    write_jsonl(tmp_path / "500" / "test.jsonl", [{**short, "answer": None}])
    assert r"row 1: column 'solution' has no \boxed{answer}" in error_of("math", tmp_path / "500")


def test_mbpp_shows_its_asserts_and_has_the_papers_splits(tmp_path: Path) -> None:
    rows = [
        {
            "task_id": n,
            "text": f"Add {n}.",
            "test_list": [f"assert f(1) == {n + 1}", f"assert f(2) == {n + 2}"],
            "test_setup_code": "import math" if n == 20 else "",
        }
        for n in (*range(1, 21), 510, 511, 600, 601)
    ]
    write_jsonl(tmp_path / "mbpp.jsonl", rows)
    items = load("mbpp", tmp_path, shown_tests=1)
    assert items[1] == Item(
        "Add 2.\nYour code should pass these tests:\nassert f(1) == 3",
        "assert f(1) == 3\nassert f(2) == 4",
        label="mbpp",
        split="train",
    )
    assert items[19].answer.startswith("import math\nassert f(1) == 21")
    splits = Counter(item.split for item in items)
    assert splits == {"train": 11, "test": 11, "validation": 2}  # 1-10 and 601; 11-20 and 510; 511 and 600
    write_jsonl(tmp_path / "mbpp.jsonl", [{**rows[0], "test_list": []}])
    assert "row 1: column 'test_list' is no list of asserts" in error_of("mbpp", tmp_path)


def test_humaneval_calls_its_check(tmp_path: Path) -> None:
    row = {"prompt": "def f(a):\n", "entry_point": "f", "test": "\n\ndef check(candidate):\n    assert candidate(1)\n"}
    write_jsonl(tmp_path / "HumanEval.jsonl", [row] * 20)
    tests = "def check(candidate):\n    assert candidate(1)\n\ncheck(f)"
    assert load("humaneval", tmp_path) == [Item("def f(a):\n", tests, label="humaneval", split="test")] * 20
    row = {**row, "canonical_solution": "    return a\n"}
    other = {**row, "prompt": "def f(a):\n  ''' Says so. '''\n"}  # indented otherwise than its solution
    write_jsonl(tmp_path / "HumanEval.jsonl", [row, other, {**row, "canonical_solution": "  )"}])
    solution = "def f(a):\n    return a\n"
    items = load("humaneval", tmp_path)
    assert [item.solution for item in items] == [solution, solution, None]
    assert items[1].answer == f"{other['prompt'].strip()}\n\n{tests}"  # a body alone can be put below its head
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps({"prompt": "def f(a):"}))
    assert "no column 'entry_point'; the columns are: prompt" in error_of("humaneval", tmp_path)


def test_taco_functions_programs_and_tasks_without_tests(tmp_path: Path) -> None:
    program = {"inputs": ["1\n", ["2", "3"]], "outputs": ["2\n", "5"]}
    function = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], 7]}
    method = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}
    huge = '{"fn_name": "add", "inputs": [[1]], "outputs": [' + "9" * 5000 + "]}"
    kinds = [
        ("", json.dumps(program), "EASY"),
        ("def add(a, b):", json.dumps(function), "VERY_HARD"),
        ("class Solution:\n    def add(self, a, b):", json.dumps(method), "UNKNOWN_DIFFICULTY"),
        ("", "", "EASY"),
        ("", huge, "EASY"),
    ]
    rows = [
        {"question": f"T{n}", "starter_code": starter, "input_output": tests, "difficulty": level, "source": "site"}
        for n in range(5)
        for starter, tests, level in kinds
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    items = load("taco", tmp_path)
    assert len(items) == 15  # 25 rows, two in five without a usable test
    assert items[0] == Item(
        "T0",
        '{"inputs": ["1\\n", "2\\n3"], "outputs": ["2\\n", "5"]}',
        label="site",
        level=1,
        split="train",
        tests="stdin",
    )
    asserts = "assert add(*[1, 2]) in [[3], 3]\nassert add(*[3, 4]) in [7]"
    assert items[1] == Item("T0\nStart from:\ndef add(a, b):", asserts, label="site", level=5, split="train")
    assert items[2].answer == "assert Solution().add(*[1, 2]) in [3]"
    assert items[2].level is None
    code = "def add(a, b):\n    return a + b\n" + items[1].answer
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0
    assert load("taco", tmp_path, most_tests=1)[1].answer == "assert add(*[1, 2]) in [[3], 3]"
    write_jsonl(tmp_path / "train.jsonl", [{**rows[0], "solutions": s} for s in ('["print(1)", "2"]', "[]", ["3"])])
    assert [item.solution for item in load("taco", tmp_path)] == ["print(1)", None, "3"]


def test_arc_from_its_archive_and_from_parquet(tmp_path: Path) -> None:
    choices = [{"text": f"word {n}", "label": str(n + 1)} for n in range(4)]
    row = {"id": "M1", "question": {"stem": "Which?", "choices": choices}, "answerKey": "3"}
    write_jsonl(tmp_path / "ARC-Easy" / "ARC-Easy-Train.jsonl", [row] * 20)
    flat = {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
    (tmp_path / "ARC-Challenge").mkdir()
    pd.DataFrame([flat] * 20).to_parquet(tmp_path / "ARC-Challenge" / "test-00000-of-00001.parquet")
    items = load("arc", tmp_path)
    question = "Which?\nA. word 0\nB. word 1\nC. word 2\nD. word 3\nAnswer:"
    assert items[:20] == [Item(question, "C", label="easy", level=1, split="train")] * 20
    hard = Item("Which?\nA. x\nB. y\nAnswer:", "B", label="challenge", level=2, split="test")
    assert items[20:] == [hard] * 20
    write_jsonl(tmp_path / "ARC-Easy" / "ARC-Easy-Train.jsonl", [{**row, "answerKey": "E"}])
    assert "row 1: the answerKey 'E' is none of the choices: 1, 2, 3, 4" in error_of("arc", tmp_path)


def test_mmlu_from_its_archive_and_from_parquet(tmp_path: Path) -> None:
    for folder, subject in (("test", "anatomy"), ("dev", "anatomy"), ("test", "virology")):
        (tmp_path / folder).mkdir(exist_ok=True)
        with (tmp_path / folder / f"{subject}_{folder}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[f"{subject} {n}?", "p", "q", "r", "s", "ABCD"[n % 4]] for n in range(20)])
    items = load("mmlu", tmp_path)
    assert Counter((item.label, item.split) for item in items) == {
        ("anatomy", "train"): 20,
        ("anatomy", "test"): 20,
        ("virology", "test"): 20,
    }
    first = Item("anatomy 2?\nA. p\nB. q\nC. r\nD. s\nAnswer:", "C", label="anatomy", split="train")
    assert items[2] == first
    row = {"question": "anatomy 2?", "subject": "anatomy", "choices": ["p", "q", "r", "s"], "answer": 2}
    (tmp_path / "hub" / "all").mkdir(parents=True)
    pd.DataFrame([row] * 20).to_parquet(tmp_path / "hub" / "all" / "dev-00000-of-00001.parquet")
    pd.DataFrame([{**row, "answer": 3}] * 20).to_parquet(tmp_path / "hub" / "all" / "test-00000-of-00001.parquet")
    assert load("mmlu", tmp_path / "hub")[0] == first
    pd.DataFrame([{**row, "answer": 4}]).to_parquet(tmp_path / "hub" / "all" / "test-00000-of-00001.parquet")
    assert "row 1: the answer 4 is none of the 4 choices" in error_of("mmlu", tmp_path / "hub")


def test_sentiment140_by_user(tmp_path: Path) -> None:
    path = tmp_path / "training.1600000.processed.noemoticon.csv"
    rows = [[("0", "4")[n % 2], n, "Mon", "NO_QUERY", f"user{n % 3}", f"caf\xe9, {n}"] for n in range(20)]
    with path.open("w", newline="", encoding="latin-1") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    items = load("sentiment140", tmp_path)
    assert len(items) == 20
    assert items[5] == Item(
        "Tweet: caf\xe9, 5\nIs its mood positive or negative?",
        "positive",
        user="user2",
        label="positive",
        score_label=1,
    )
    assert items[4].score_label == 0
    path.write_text('"3","1","d","q","u","t"\n')
    assert "row 1: the target '3' is none of: 0 (negative)" in error_of("sentiment140", tmp_path)


@pytest.mark.data
def test_the_real_gsm8k(real: Callable[[str], Path]) -> None:
    """Levels are the steps that a published table of GSM8K results counts, question by question."""
    items = load("gsm8k", real("gsm8k"))
    assert Counter(item.split for item in items) == {"train": 7473, "test": 1319}
    assert all(item.answer.lstrip("-").replace(".", "", 1).isdigit() for item in items)
    table = pd.read_csv(real("replay_gsm8k") / "correct.csv", usecols=["gold_steps", "question_chars"])
    test = [item for item in items if item.split == "test"]
    assert [item.level for item in test] == table["gold_steps"].tolist()
    assert [len(item.question) for item in test] == table["question_chars"].tolist()


@pytest.mark.data
def test_the_real_mbpp(real: Callable[[str], Path]) -> None:
    items = load("mbpp", real("mbpp"))
    assert Counter(item.split for item in items) == {"train": 384, "validation": 90, "test": 500}
    for row, item in zip((real("mbpp") / "mbpp.jsonl").read_text().splitlines()[:25], items, strict=False):
        namespace: dict[str, Any] = {}
        exec(json.loads(row)["code"] + "\n" + item.answer, namespace)  # the authors' own code passes its asserts


@pytest.mark.data
def test_the_real_sanitised_mbpp_has_the_columns_of_humaneval(real: Callable[[str], Path]) -> None:
    items = load("humaneval", real("mbpp"), files={"test": "mbpp_sanitized.jsonl"})
    assert len(items) == 427
    row = json.loads((real("mbpp") / "mbpp_sanitized.jsonl").read_text().splitlines()[0])
    assert items[0].question == row["prompt"]
    head, tests = items[0].answer[: len(row["prompt"])], items[0].answer[len(row["prompt"]) :]
    assert head == row["prompt"]
    exec(head + "    return set(test_tup1) & set(test_tup2)\n" + tests, {})


@pytest.mark.data
def test_real_mmlu_questions_by_subject(real: Callable[[str], Path]) -> None:
    """The table holds prompts and whether GPT-4 was right, not the key: that is what a map may ask for."""
    items = load(
        "files",
        real("router_mmlu"),
        files={"all": "mmlu_mixtral_gpt4.csv"},
        columns={"question": "prompt", "answer": "gpt4_correct", "label": "subject", "score_label": "gpt4_correct"},
    )
    assert len(items) == 14042
    assert len({item.label for item in items}) == 57
    assert len({key_of(item.question) for item in items}) == 13937


@pytest.mark.data
def test_real_leaf_users(real: Callable[[str], Path]) -> None:
    items = load("leaf", real("fedprox_synthetic_1_1"), files={"all": "mytest.json"})
    counts = Counter(item.user for item in items)
    assert len(counts) == 30
    assert sum(counts.values()) == 1084
    assert counts["f_00015"] == 662
    assert {item.answer for item in items} == set(map(str, range(10)))
