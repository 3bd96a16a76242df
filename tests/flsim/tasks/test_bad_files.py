"""Files that are not as they should be: the right data come out of them, or one sentence with file, row and mend."""

import gzip
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flsim.config.schema import ConfigError, DataConfig
from flsim.tasks.checks import check_data
from flsim.tasks.item import Item
from flsim.tasks.load import READERS, load

COLUMNS = {"question": "q", "answer": "a"}
ROWS = [{"q": f"Was ist {n} + 1, caf\xe9?", "a": str(n + 1), "who": f"u{n % 2}"} for n in range(4)]
ITEMS = [Item(row["q"], row["a"]) for row in ROWS]
CSV = "q,a,who\n" + "".join(f'"{row["q"]}",{row["a"]},{row["who"]}\n' for row in ROWS)
TEXTS = {
    "a.csv": CSV,
    "a.tsv": CSV.replace('?",', '?"\t').replace(",u", "\tu").replace("q,a,who", "q\ta\twho"),
    "a.jsonl": "\n".join(map(json.dumps, ROWS)),
    "raw.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "a.json": json.dumps(ROWS, ensure_ascii=False),
}
PACKED = gzip.compress(CSV.encode(), mtime=0)  # without the time of day, which the name of a test would hold


def read(
    folder: Path, name: str, content: bytes | str, columns: dict[str, str] | None = None, **more: Any
) -> Sequence[Item]:
    """The items of a file with that content."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load("files", folder, files={"all": name}, columns=columns or COLUMNS, **more)


def error(folder: Path, name: str, content: bytes | str, columns: dict[str, str] | None = None, **more: Any) -> str:
    """What is said of it, without its folder."""
    with pytest.raises(ConfigError) as found:
        read(folder, name, content, columns, **more)
    return str(found.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_mark_says_the_encoding_and_any_line_end_is_one(tmp_path: Path, name: str, encoding: str, end: str) -> None:
    content = TEXTS[name].replace("\n", end).encode(encoding)
    assert read(tmp_path, name, content) == ITEMS
    assert read(tmp_path, f"{name}.gz", gzip.compress(content)) == ITEMS
    if encoding != "utf-8":
        assert read(tmp_path, name, content, encoding="cp1252") == ITEMS


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "raw.jsonl", "a.json"])
def test_another_encoding_is_named_by_row_and_read_by_the_setting(tmp_path: Path, name: str) -> None:
    for encoding in ("cp1252", "latin-1"):
        content = TEXTS[name].encode(encoding)
        said = error(tmp_path, name, content)
        assert said.startswith(f"{name}, {'line' if name == 'a.json' else 'row'} 1: is not in utf-8 (byte 0xe9 after ")
        assert "encoding=cp1252" in said
        assert read(tmp_path, name, content, encoding=encoding) == ITEMS
    unmarked = TEXTS[name].encode("utf-16-le")
    assert "UTF-16" in error(tmp_path, name, unmarked)
    assert read(tmp_path, name, unmarked, encoding="utf-16-le") == ITEMS
    assert "line 1: is not in utf-16" in error(tmp_path, name, unmarked[:-1], encoding="utf-16-le") or name != "a.json"


@pytest.mark.parametrize("name", ["", "utf8x", "hex", "rot13", "undefined", "utf-8\0"])
def test_an_encoding_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.mine\.encoding=.*is no encoding of text that Python knows"):
        check_data({"mine": DataConfig(kind="files", encoding=name)})
    check_data({"mine": DataConfig(kind="files", encoding="CP1252")})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "a.csv: holds no row, it is empty"),
        ("a.csv", "\n\n", "a.csv: holds no row, it is empty"),
        ("a.csv", "q,a,who\n", "a.csv: holds no row, it has a header line only"),
        ("a.jsonl", "\n \n", "a.jsonl: holds no row, it is empty"),
        ("a.json", "", "a.json: holds no row, it is empty"),
        ("a.json", "[]", "a.json: holds no row, it is empty"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "a.jsonl.gz: holds no row, it is empty"),
        ("a.jsonl.gz", b"", "a.jsonl.gz: holds no row, it is empty"),
        ("a.csv", 'q,a,who\n1,2,3\n4,5,"6\n7,8,9\n', "row 2 (begun in line 3): a quotation mark is opened and"),
        ("a.csv", 'q,"a,who\n1,2,3\n', "a.csv, the header (begun in line 1): a quotation mark is opened and never"),
        ("a.csv", 'q,a,who\n1,2,"u"0\n', "a.csv, row 1 (begun in line 2): text follows a closing quotation mark"),
        ("a.csv", 'q,a,who\n1,"2\n3,4,5\n6,7",8,9\n', "has 4 values for the 3 columns q, a, who (lines 2 to 4; is a"),
        ("a.csv", "q,a,who\n1,2,3,\n", "a.csv, row 1: has 4 values for the 3 columns q, a, who (line 2)"),
        ("a.csv", "q,a,a\n1,2,3\n", "a.csv: its header names 'a' twice (columns 2 and 3)"),
        ("a.csv", CSV + "q,a,who\n", "a.csv, row 5 (line 6): is the header line again"),
        ("a.csv", "q\ta\twho\n1\t2\t3\n", "a.csv: its header has no comma but tabs; let its name end in .tsv"),
        ("a.csv", "q;a;who\n1;2;3\n", "a.csv: its header has no comma but semicolons; save it with commas"),
        ("a.csv", "q,a\n1\0,2\n", "a.csv, row 1: holds a NUL character"),
        ("a.csv", b"PK\x03\x04 and more", "a.csv: is no text but a zip archive, such as Excel writes"),
        ("a.csv", PACKED, "a.csv: is no text but compressed by gzip; let its name end in .gz"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd more", "a.jsonl: is no text but compressed by zstd, which is not read"),
        ("a.csv.gz", b"q,a\n1,2\n", "a.csv.gz: cannot be unpacked, it is cut off or no gzip"),
        ("a.csv.gz", PACKED[:-9], "a.csv.gz: cannot be unpacked, it is cut off or no gzip"),
        ("a.jsonl", '{"q": 1, "a": 2}\n{"q": 1, "a"\n', "a.jsonl, row 2: is not JSON"),
        ("a.jsonl", '{"q": 1, "a": 2},\n', "a.jsonl, row 1: is not JSON (Extra data"),
        ("a.jsonl", '{"q": 1, "a": 2,}\n', "a.jsonl, row 1: is not JSON"),
        ("a.jsonl", '{\n"q": 1, "a": 2\n}\n', "a list, or an object over several lines, is .json"),
        ("a.json", '{"q": 1, "a": 2}\n{"q": 1, "a": 2}\n', "an object per line is .jsonl"),
        ("a.json", '{"q": ["x", "y"], "a": ["1", "2"]}', "a.json: holds a list per column, not an object per row"),
        ("a.json", '[{"q": 1, "a": 2}, 3]', "a.json, row 2: is a int, not an object"),
        ("a.jsonl", '{"q": 1, "a": 2, "a": 3}', "a.jsonl, row 1: is not JSON (an object has 'a' twice)"),
        ("a.jsonl", '{"q": 1, "a": Infinity}', "a.jsonl, row 1: is not JSON (Infinity is no number)"),
        ("a.jsonl", '{"q": 1, "a": -1e999}', "is not JSON (-1e999 is too large a number; write it as a text"),
        ("a.jsonl", '{"q": 1, "a": NaN}', "a.jsonl, row 1: the answer ('a') is empty"),
        ("a.jsonl", '{"q": "\\ud83d", "a": 2}', "a.jsonl, row 1: column 'q' holds half a character (a lone surrogate"),
        ("a.json", '[{"q": [{"deep": "\\udc00"}], "a": 2}]', "a.json, row 1: column 'q' holds half a character"),
        ("a.jsonl", '{"q": 1, "\\ud83d": 2}', "a.jsonl, row 1: column '\\ud83d' holds half a character"),
        ("a.json", "[" * 100_000, "a.json: is not JSON (nested too deeply)"),
        ("a.jsonl", '{"q": 1, "a": 1' + "0" * 5000 + "}", "a.jsonl, row 1: is not JSON (Exceeds the limit"),
        ("a.parquet", b"hello", "a.parquet: is no parquet file, or a damaged one"),
        ("a.parquet", b"", "a.parquet: is no parquet file, or a damaged one"),
        ("a.txt", b"x", "a.txt: cannot tell its format by its name"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_in_one_sentence(tmp_path: Path, name: str, content: bytes | str, said: str) -> None:
    assert said in error(tmp_path, name, content)


def test_whole_characters_and_empty_lines_and_unnamed_columns_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, "a.jsonl", '\n{"q": "\\ud83d\\ude00", "a": 1}\n\n') == [Item("\U0001f600", "1")]
    assert read(tmp_path, "a.csv", "\n,q,a,,\n\n0,1,2,,\n") == [Item("1", "2")]
    long = "x" * 300_000
    assert read(tmp_path, "a.csv", f'q,a\n"{long}\n,""{long}",2') == [Item(f'{long}\n,"{long}', "2")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("blank", ["", "  ", None])
def test_a_blank_user_is_nobody_and_named_by_row(tmp_path: Path, name: str, blank: str | None) -> None:
    rows: list[dict[str, Any]] = [{"q": "1", "a": "1", "who": " u1 "}, {"q": "2", "a": "2", "who": blank}]
    lines = [json.dumps(row) if name == "a.jsonl" else f"{row['q']},{row['a']},{row['who'] or ''}" for row in rows]
    content = "\n".join(([] if name == "a.jsonl" else ["q,a,who"]) + lines)
    said = error(tmp_path, name, content, {**COLUMNS, "user": "who"})
    assert said.startswith(
        f"{name}, row 2: the user ('who') is empty; say whose it is, take the row out, or map no user"
    )
    assert [item.user for item in read(tmp_path, name, content)] == [None, None]
    (first, *_) = read(tmp_path, name, "\n".join(content.splitlines()[:-1]), {**COLUMNS, "user": "who"})
    assert first.user == "u1"


def test_a_number_is_one_user_however_it_is_written(tmp_path: Path) -> None:
    content = '{"q": 1, "a": 1, "who": 1}\n{"q": 2, "a": 1, "who": "1"}\n{"q": 3, "a": 1, "who": 1.0}'
    assert {item.user for item in read(tmp_path, "a.jsonl", content, {**COLUMNS, "user": "who"})} == {"1"}


def test_parquet_has_bytes_nests_and_columns_twice(tmp_path: Path) -> None:
    rows = {"q": [b"caf\xc3\xa9", b"x"], "a": [{"b": [1, 2]}, {"b": [3]}], "image": [b"\xff", b"\xfe"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    files = {"all": "a.parquet"}
    items = load("files", tmp_path, files=files, columns={"question": "q", "answer": "{a[b][0]}"})
    assert [(item.question, item.answer) for item in items] == [("caf\xe9", "1"), ("x", "3")]
    with pytest.raises(ConfigError, match=r"a\.parquet, row 1: column 'image' holds bytes that are no text"):
        load("files", tmp_path, files=files, columns={"question": "image", "answer": "q"})
    pq.write_table(pa.table([["1"], ["2"], ["3"]], names=["q", "a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: has the column 'a' twice"):
        load("files", tmp_path, files=files, columns=COLUMNS)
    pd.DataFrame({"q": [], "a": []}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: holds no row"):
        load("files", tmp_path, files=files, columns=COLUMNS)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep.jsonl").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "part[1].jsonl").write_text(json.dumps(ROWS[0]))

    def said(**files: Any) -> str:
        with pytest.raises(ConfigError) as found:
            load("files", tmp_path, files=files, columns=COLUMNS)
        return str(found.value)

    assert "deep.jsonl is a folder, not a file; name the files in it" in said(all="deep.jsonl")
    assert "gone.jsonl is a link to" in said(all="gone.jsonl")
    assert "is a link to" in said(all="loop.jsonl")
    for wrong in ("", None, 3, ["a.jsonl"]):
        assert "is no file and no pattern of files" in said(all=wrong)
    assert "cannot be looked for" in said(all="a**b")
    assert "part[1].jsonl is both of train and of test" in said(train="part[1].jsonl", test="part*.jsonl")
    assert load("files", tmp_path, files={"all": "part[1].jsonl"}, columns=COLUMNS) == ITEMS[:1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"files": "a.csv", "columns": COLUMNS},
            r"settings\.files='a\.csv' of files must be a table of names with values",
        ),
        ({"files": {"all": "a.csv"}, "columns": ["q", "a"]}, r"settings\.columns=.* must be a table of names"),
        (
            {"files": {"all": "a.csv"}, "columns": COLUMNS, "levels": "easy"},
            r"settings\.levels='easy' .* must be a list",
        ),
        (
            {"files": {"all": "a.csv"}, "columns": COLUMNS, "encoding": 8},
            r"encoding=8 is no encoding of text",
        ),
    ],
)
def test_a_setting_of_another_type_is_told(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(ConfigError, match=said):
        load("files", tmp_path, **settings)


# Any bytes as a file: items, or one ConfigError of one line, and nothing else.

NAMES = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.gz", "a.parquet")
PIECES = st.sampled_from(
    [
        *(b'"', b",", b"\t", b"\n", b"\r", b"q", b"a", b"{", b"}", b"[", b"]", b":", b"\\", b"1", b"NaN", b"1e999"),
        *(b'{"q": 1, "a": 2}', b'{"q":"x","a":"y"}\n', b"q,a\n", b"\\ud83d"),
        *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"\xe9"),
    ]
)


def read_or_told(folder: Path, name: str, content: bytes) -> Sequence[Item] | str:
    """The items, or the sentence; any other exception is what these tests look for."""
    try:
        return read(folder, name, content)
    except ConfigError as error:
        return str(error)


def check_that_it_is_read_or_told(folder: Path, name: str, content: bytes) -> None:
    found = read_or_told(folder, name, content)
    if isinstance(found, str):
        assert "\n" not in found
        assert name in found
    else:
        assert found
        for item in found:
            assert item.question.strip()
            assert f"{item.question}{item.answer}".encode()


def damaged(rng: Random, content: bytes) -> bytes:
    """A file with some of its bytes changed, cut out, doubled or put elsewhere."""
    found = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        at, end = sorted(rng.randrange(len(found) + 1) for _ in range(2))
        how = rng.randrange(4)
        if how == 0:
            found[at : at + 1] = rng.randbytes(1)
        elif how == 1:
            del found[at : at + 1 + rng.randrange(8)]
        elif how == 2:
            found[at:at] = found[at:end]
        else:
            del found[end:]
    return bytes(found)


@given(st.sampled_from(NAMES[:4]), st.lists(PIECES | st.binary(max_size=3), max_size=12).map(b"".join))
@example("a.csv", b'q,a\n"')
def test_any_bytes_are_read_or_told(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    check_that_it_is_read_or_told(tmp_path_factory.getbasetemp(), name, content)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("many", [20, pytest.param(3000, marks=pytest.mark.torture)])
def test_a_damaged_file_is_read_or_told(tmp_path: Path, name: str, many: int) -> None:
    rng = Random(name)
    if name == "a.parquet":
        pd.DataFrame(ROWS * 5).to_parquet(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
    else:
        text = TEXTS[name.removesuffix(".gz")].encode()
        whole = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
    for _ in range(many):
        check_that_it_is_read_or_told(tmp_path, name, damaged(rng, whole))


KNOWN: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "1 + 1?", "answer": "<<1+1=2>> #### 2"},
    "math": {"problem": "1?", "solution": "$\\boxed{1}$", "level": "Level 1", "type": "Algebra"},
    "mbpp": {"task_id": 11, "text": "Do.", "test_list": ["assert f()"], "test_setup_code": "", "code": "f = id"},
    "humaneval": {"prompt": "def f():\n", "entry_point": "f", "test": "def check(f): ...", "canonical_solution": " 1"},
    "arc": {"question": {"stem": "?", "choices": [{"text": "x", "label": "A"}]}, "answerKey": "A"},
    "mmlu": {"question": "?", "subject": "s", "choices": ["x", "y"], "answer": 1},
    "taco": {"question": "?", "input_output": '{"inputs": ["1"], "outputs": ["1"]}', "difficulty": "EASY"},
    "outcomes": {"question": "?", "local": 1, "cloud": 0},
    "leaf": {"users": ["u"], "num_samples": [1], "user_data": {"u": {"x": ["1"], "y": ["2"]}}},
}
STRANGE: tuple[Any, ...] = (
    None,
    True,
    3,
    2.5,
    float("inf"),
    "",
    "x",
    "#",
    [],
    [None],
    [[1]],
    {},
    {"a": 1},
    {"stem": 1, "choices": 3},
)


@pytest.mark.parametrize("kind", KNOWN)
def test_other_values_in_the_columns_of_a_known_set_are_read_or_told(tmp_path: Path, kind: str) -> None:
    assert kind in READERS
    part = {"arc": "easy train", "mbpp": "all"}.get(kind, "test")
    ending = "json" if kind == "leaf" else "jsonl"
    for column in [*KNOWN[kind], None]:
        for value in STRANGE:
            row = {key: own for key, own in KNOWN[kind].items() if value is not STRANGE[0] or key != column}
            row |= {} if column is None or value is None else {column: value}
            (tmp_path / f"a.{ending}").write_text(json.dumps(row))
            with suppress(ConfigError):  # and nothing else
                assert load(kind, tmp_path, files={part: f"a.{ending}"})
