"""Data sets that stream through Hugging Face's `datasets`: no more rows than asked for, the same ones every time."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.tasks.load import load
from flsim.tasks.stream import stream_of

pytestmark = pytest.mark.ecosystem
datasets = pytest.importorskip("datasets", reason="streaming is that of Hugging Face's datasets, an extra")

COLUMNS = {"question": "q", "answer": "a"}
ROWS = 5_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of parquet files; from row 3,001 on their rows are no items."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        rows = [{"q": f"{split} {n}?" if n < 3_000 else "", "a": str(n)} for n in range(ROWS)]
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, tmp_path / "set" / f"{split}.parquet", row_group_size=100)
    return tmp_path / "set"


def streamed(folder: Path, **more: Any) -> list[str]:
    given = {"first": 40, "buffer": 100, **more}
    return [item.question for item in load("datasets", name=str(folder), columns=COLUMNS, streaming=True, **given)]


def test_only_the_first_rows_are_taken(folder: Path, tmp_path: Path) -> None:
    """In their order without a buffer; nothing is copied, and rows far behind are never read: they would be refused."""
    wanted = [f"{split} {n}?" for split in ("train", "test") for n in range(40)]
    assert streamed(folder, buffer=0) == wanted
    assert not list(tmp_path.glob("cache/**/*.arrow"))
    with pytest.raises(ConfigError, match=r"split train, row 3001: the question .* is empty"):
        streamed(folder, buffer=0, first=4_000)


def test_a_buffer_shuffles_by_the_seed(folder: Path) -> None:
    """Law: what is drawn out of a buffer of 100 stands within the first 140 rows; equal seeds draw alike."""
    one = streamed(folder)
    assert one == streamed(folder)
    assert one != streamed(folder, seed=1)
    train = [int(question.split()[1].rstrip("?")) for question in one if question.startswith("train")]
    assert len(set(train)) == 40
    assert max(train) < 140
    assert train != sorted(train)


def test_files_of_a_format_stream(folder: Path) -> None:
    parquet = load(
        "datasets",
        name="parquet",
        data_files={"train": str(folder / "train.parquet")},
        columns=COLUMNS,
        streaming=True,
        first=3,
        buffer=0,
    )
    assert [item.question for item in parquet] == ["train 0?", "train 1?", "train 2?"]


def test_a_web_data_set_streams(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "part.tar", "w") as tar:
        for n in range(5):
            data = json.dumps({"q": f"{n} + 1?", "a": n + 1}).encode()
            entry = tarfile.TarInfo(f"{n:03d}.json")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    items = load(
        "datasets",
        name="webdataset",
        data_files={"train": str(tmp_path / "part.tar")},
        columns={"question": "{json[q]}", "answer": "{json[a]}"},
        streaming=True,
        first=2,
        buffer=0,
    )
    assert [(item.question, item.answer) for item in items] == [("0 + 1?", "1"), ("1 + 1?", "2")]


def test_a_config_streams(folder: Path) -> None:
    settings = (
        f"{{name: {folder}, columns: {{question: q, answer: a}}, streaming: true, first: 200, buffer: 500, seed: 3}}"
    )
    more = ["fleet.devices=3", "stream.phases=[[far]]", "data.far.kind=datasets", "data.far.partition=evenly"]
    (task,) = stream_of(load_config(None, [*more, f"data.far.settings={settings}"])).data
    assert len(task.source.items) == 400
    assert all(task.source.size(device, "train") > 50 for device in range(3))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"first": None}, "streaming needs first, how many rows"),
        ({"first": 0}, "was given first=0"),
        ({"buffer": -1}, "buffer=-1"),
        (
            {"splits": {"train": "train[:10]"}},
            r"the split 'train\[:10\]' is a part of one.*name 'train', and say first",
        ),
        ({"splits": {"train": "dev"}}, "cannot load split 'dev'"),
        ({"streaming": False}, r"first=40 is for streaming: set streaming=true, or .*train\[:40\]"),
    ],
)
def test_refusals(folder: Path, more: dict[str, Any], message: str) -> None:
    given = {"streaming": True, "first": 40, "columns": COLUMNS, **more}
    with pytest.raises(ConfigError, match=message):
        load("datasets", name=str(folder), **given)
