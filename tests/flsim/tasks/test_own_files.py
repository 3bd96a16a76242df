"""JSONL, CSV, parquet, LEAF and `datasets` by a column map, and what each says of a bad file."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flsim.config.schema import ConfigError
from flsim.tasks.columns import Columns
from flsim.tasks.item import Item
from flsim.tasks.load import load
from flsim.tasks.tables import Row, text_of

COLUMNS = {"question": "prompt", "answer": "gold", "user": "uid", "label": "subject", "level": "difficulty"}
ROWS = [
    {"prompt": f"What is {n} + 1?", "gold": n + 1, "uid": f"u{n % 4}", "subject": "ab"[n % 2], "difficulty": n % 3}
    for n in range(24)
]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def expected(split: str | None) -> list[Item]:
    return [
        Item(f"What is {n} + 1?", str(n + 1), user=f"u{n % 4}", label="ab"[n % 2], level=n % 3, split=split)
        for n in range(24)
    ]


def test_every_format_gives_the_same_items(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    write_csv(tmp_path / "a.csv", ROWS)
    pd.DataFrame(ROWS).to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    pd.DataFrame(ROWS).to_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.tsv", "a.parquet"):
        assert load("files", tmp_path, files={"all": name}, columns=COLUMNS) == expected(None), name
    assert load("files", tmp_path, files={"test": "a.csv"}, columns=COLUMNS) == expected("test")
    absolute = load("files", "elsewhere", files={"test": str(tmp_path / "a.csv")}, columns=COLUMNS)
    assert absolute == expected("test")


def test_a_pattern_takes_all_parts_in_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "part-1.jsonl", ROWS[:10])
    write_jsonl(tmp_path / "part-2.jsonl", ROWS[10:])
    assert load("files", tmp_path, files={"train": "part-*.jsonl"}, columns=COLUMNS) == expected("train")


def test_templates_split_column_and_score_label(tmp_path: Path) -> None:
    rows = [
        {"history": "Heat: like", "title": f"film {n}", "liked": n % 2, "part": ("dev", "train")[n % 2], "v": [n, 0.5]}
        for n in range(20)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    columns = {
        "question": "{history}\nWill they like {title}? {v} {v[0]}",
        "answer": "{liked}",
        "score_label": "liked",
        "split": "part",
    }
    items = load("files", tmp_path, files={"all": "a.jsonl"}, columns=columns)
    assert items[3] == Item("Heat: like\nWill they like film 3? 3 0.5 3", "1", split="train", score_label=1)
    assert items[4].split == "validation"
    assert items[4].score_label == 0


def test_words_of_difficulty_become_numbers() -> None:
    columns = Columns({"question": "q", "answer": "a", "level": "d"}, levels=("easy", "hard"))
    assert columns.item(Row({"q": "x", "a": "y", "d": "hard"}, "here"), None).level == 2
    with pytest.raises(ConfigError, match="here: the level 'mid' is none of levels: easy, hard"):
        columns.item(Row({"q": "x", "a": "y", "d": "mid"}, "here"), None)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.5, "0.5"), (None, None), (float("nan"), None), (["a", 2.0], "a\n2"), ({"a": 1}, '{"a": 1}')],
)
def test_values_as_text(value: Any, text: str | None) -> None:
    assert text_of(value) == text


def test_a_csv_keeps_its_text(tmp_path: Path) -> None:
    """Readers that guess types would make 7 of 007 and a missing value of NA."""
    write_csv(tmp_path / "a.csv", [{"q": f"code {n}", "a": ("007", "NA", '1,"2"\n3')[n % 3]} for n in range(21)])
    items = load("files", tmp_path, files={"all": "a.csv"}, columns={"question": "q", "answer": "a"})
    assert [item.answer for item in items[:3]] == ["007", "NA", '1,"2"\n3']


def test_a_csv_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    text = "q,a\n" + "caf\xe9,\u4e2d\n" * 20
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a.csv").write_text(text, encoding=encoding)
        items = load("files", tmp_path, files={"all": "a.csv"}, columns={"question": "q", "answer": "a"})
        assert items == [Item("caf\xe9", "\u4e2d")] * 20


def broken(number: int, **values: Any) -> list[dict[str, Any]]:
    """The rows with other values in one of them, counted from 1."""
    return [{**row, **(values if n == number else {})} for n, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (ROWS, {**COLUMNS, "answer": "goal"}, r"row 1: .*no column 'goal'; the columns are: prompt, gold, uid"),
        (ROWS, {"question": "{prompt} {hint}", "answer": "gold"}, "row 1: there is no column 'hint'"),
        (ROWS, {"question": "{prompt", "answer": "gold"}, "row 1: cannot fill the template"),
        (ROWS, {"question": "prompt"}, "does not say which column is the answer"),
        (ROWS, {**COLUMNS, "colour": "red"}, "no field 'colour'; an item has: question, answer"),
        (broken(17, gold=None), COLUMNS, r"row 17: the answer \('gold'\) is empty"),
        (broken(5, prompt="  "), COLUMNS, r"row 5: the question \('prompt'\) is empty"),
        (broken(9, difficulty="hard"), COLUMNS, "row 9: the level 'hard' is no whole number; name the words"),
        (broken(7, uid="later"), {**COLUMNS, "split": "uid"}, "the split 'u0' is none of: dev, val"),
        (
            broken(2, gold="7.5"),
            {**COLUMNS, "score_label": "gold"},
            "row 2: the score_label '7.5' is no class: give 1 or",
        ),
    ],
)
def test_a_bad_map_or_row_is_named(tmp_path: Path, rows: list[Any], columns: dict[str, str], message: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match=message):
        load("files", tmp_path, files={"all": "a.jsonl"}, columns=columns)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    def error(files: dict[str, str]) -> str:
        with pytest.raises(ConfigError) as found:
            load("files", tmp_path, files=files, columns=COLUMNS)
        return str(found.value)

    assert error({"train": "x.jsonl"}) == f"files: the train file is not there; looked for {tmp_path}/x.jsonl"
    assert "there is no split 'dev'" in error({"dev": "x.jsonl"})
    assert "names no file" in error({})
    (tmp_path / "a.txt").write_text("x")
    assert "must end in one of: .jsonl, .json, .csv, .tsv, .parquet, all but the last also with .gz" in error(
        {"all": "a.txt"}
    )
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:20]) + "{oh\n")
    assert "a.jsonl, row 21: is not JSON" in error({"all": "a.jsonl"})
    (tmp_path / "b.jsonl").write_text("[1]\n")
    assert "b.jsonl, row 1: is a list, not an object" in error({"all": "b.jsonl"})
    (tmp_path / "a.csv").write_text(",".join(ROWS[0]) + "\n" + "x,1,u,a,2\n" * 20 + "x,1\n")
    assert "a.csv, row 21: has 2 values for the 5 columns prompt, gold, uid" in error({"all": "a.csv"})


def test_unknown_kinds_and_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no kind 'gsm9k'; it is one of: gsm8k, math"):
        load("gsm9k", tmp_path)
    with pytest.raises(ConfigError, match=r"files was given file: .*'file'"):
        load("files", tmp_path, file="a.jsonl")


LEAF = {
    "users": ["amy", "ben"],
    "num_samples": [12, 10],
    "user_data": {
        "amy": {"x": [[n, 0.25, -1.5] for n in range(12)], "y": [float(n % 3) for n in range(12)]},
        "ben": {"x": [[n, 0.5, 2.0] for n in range(10)], "y": [1] * 10},
    },
}


def test_leaf_keeps_its_users(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "all.json").write_text(json.dumps(LEAF))
    items = load("leaf", tmp_path)
    assert len(items) == 44
    assert items[2] == Item("2 0.25 -1.5", "2", user="amy", split="train")
    assert items[-1] == Item("9 0.5 2", "1", user="ben", split="test")
    labelled = load(
        "leaf",
        tmp_path,
        files={"all": "test/*.json"},
        columns={"question": "first: {x[0]}", "answer": "y", "label": "y"},
    )
    assert labelled[2] == Item("first: 2", "2", user="amy", label="2")


def test_leaf_says_what_is_missing(tmp_path: Path) -> None:
    def error(document: object) -> str:
        (tmp_path / "a.json").write_text(json.dumps(document))
        with pytest.raises(ConfigError) as found:
            load("leaf", tmp_path, files={"all": "a.json"})
        return str(found.value)

    assert "is no LEAF file; it has no user_data and no users" in error({"num_samples": []})
    assert "user 2: is listed in 'users' and has no 'user_data'" in error({**LEAF, "users": ["amy", "cid"]})
    uneven = {**LEAF, "user_data": {**LEAF["user_data"], "ben": {"x": [1], "y": []}}}  # type: ignore[dict-item]
    assert "user 2: needs lists 'x' and 'y' of equal length" in error(uneven)
    with pytest.raises(ConfigError, match=r"the train file is not there; looked for .*train/"):
        load("leaf", tmp_path)


def test_datasets_reads_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    write_jsonl(tmp_path / "set" / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "set" / "test.jsonl", ROWS[:20])
    items = load("datasets", name=str(tmp_path / "set"), columns=COLUMNS, splits={"train": "train", "test": "test[:5]"})
    assert items == expected("train") + expected("test")[:5]
    assert load("datasets", name=str(tmp_path / "set"), columns=COLUMNS) == expected("train") + expected("test")[:20]
    gold = [{"question": f"{n} + 1?", "answer": f"<<{n}+1={n + 1}>>\n#### {n + 1}"} for n in range(20)]
    write_jsonl(tmp_path / "gold" / "train.jsonl", gold)
    known = load("gsm8k", hub=str(tmp_path / "gold"))
    assert known[3] == Item("3 + 1?", "4", level=1, split="train")
    with pytest.raises(ConfigError, match="cannot load split 'dev' of configuration None"):
        load("datasets", name=str(tmp_path / "set"), columns=COLUMNS, splits={"test": "dev"})
    with pytest.raises(ConfigError, match="give either columns or item"):
        load("datasets", name=str(tmp_path / "set"))


def test_datasets_is_asked_for_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"openai/gsm8k: needs the package datasets; pip install .*\[data\]"):
        load("datasets", name="openai/gsm8k", columns=COLUMNS)
