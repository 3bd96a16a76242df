"""Ids of users: no file of a run holds one, unless that was asked for, and nothing that is computed depends on it."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from random import Random

import pandas as pd
import pytest

import flsim
from flsim.config.schema import Config
from flsim.metrics.rows import STAGE, without_timing
from flsim.report.partition_figure import partition_pieces, read_partitions
from flsim.tasks.heterogeneity import Heterogeneity, counts_table
from flsim.tasks.item import Item
from flsim.tasks.partition import by_user, dirichlet
from flsim.tasks.people import numbered, told_of_users
from flsim.tasks.splits import split_items
from tests.tiny import TinyRun

IDS = ("heimdall77", "brunhilde_x", "MX-4411-Q", "sigrun@example.org")


def test_users_are_numbered_as_the_data_name_them_and_labels_stay() -> None:
    items = [Item(f"{n}", "x", user=user, label="one") for n, user in enumerate(("b", "a", "b", None))]
    assert [item.user for item in numbered(items)] == ["user-000", "user-001", "user-000", None]
    assert {item.label for item in numbered(items)} == {"one"}
    assert list(numbered(numbered(items))) == list(numbered(items))
    labelled = [Item(f"{n}", "x", user=user, label=user) for n, user in enumerate(("b", "a", "b"))]
    assert [item.label for item in numbered(labelled)] == ["user-000", "user-001", "user-000"]
    assert numbered([Item("q", "x", label="b")]) == [Item("q", "x", label="b")]


def test_what_would_still_name_a_user_is_told_without_the_name() -> None:
    (one, other) = told_of_users(
        [Item("1", "x", user="12"), Item("2", "x", user="12.0"), Item("What said heimdall77?", "x", user="heimdall77")]
    )
    assert one.startswith("1 users are there as whole numbers and as the same with .0 behind")
    assert other.startswith("the questions of 1 items hold the id of their user")
    assert "heimdall77" not in one + other


@pytest.mark.parametrize("over", ["user", "label"])
def test_a_table_of_the_partition_names_users_only_if_asked(over: str) -> None:
    items = [Item(f"{n}", "x", user=IDS[n % 4], label=IDS[n % 4]) for n in range(80)]
    splits = split_items(items)
    for deal in (by_user(items, splits, devices=4), dirichlet(items, splits, devices=3, alpha=1.0, over="user")):
        assert not [name for name in IDS if name in counts_table(items, deal, over=over).to_csv()]
    kept = by_user(items, splits, devices=4, keep_user_ids=True)
    assert sorted(kept.names) == sorted(IDS)
    assert set(counts_table(items, kept, over=over, keep_user_ids=True)["label"]) == set(IDS)


def write_people(folder: Path) -> Path:
    """Three sets whose ids strike the eye: votes by user, LEAF, and a table whose label is its user."""
    rng = Random(0)
    rows = [
        {"q": f"{n}+{at}=", "a": str(n + at), "who": name, "part": "train" if n % 3 else "test"}
        for at, name in enumerate(IDS, 1)
        for n in range(24)
    ]
    rng.shuffle(rows)
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {
        name: {"x": [f"{n}-{at}=" for n in range(20)], "y": [str(n) for n in range(20)]} for at, name in enumerate(IDS)
    }
    (folder / "leaf.json").write_text(json.dumps({"users": list(IDS), "user_data": own}))
    return folder


def config_of(tiny_run: TinyRun, folder: Path, name: str, *more: str) -> Config:
    columns = "columns: {question: q, answer: a, user: who"
    return tiny_run(
        name,
        "fleet.devices=3",
        "rounds=1",
        "evaluation.every_rounds=1",
        "fleet.opt_in=1",
        "stream.phases=[[sums,more,leaf]]",
        f"data.sums={{kind: files, root: {folder}, settings: {{files: {{all: sums.jsonl}}, {columns}, label: who}}}}}}",
        f"data.more={{kind: files, root: {folder}, settings: {{files: {{all: sums.jsonl}}, {columns}}}}}}}",
        f"data.leaf={{kind: leaf, root: {folder}, partition: user, settings: {{files: {{all: leaf.json}}}}}}",
        "data.sums.partition=user",
        "data.more.over=user",
        *more,
    )


def contents(path: Path) -> Iterator[bytes]:
    """A file as it is, and what is packed in it."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        yield frame.to_csv().encode() + str(frame.attrs).encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    for start in range(min(len(data), 64)):  # behind a checksum, at most
        with suppress(zlib.error):
            yield zlib.decompressobj(47).decompress(data[start:])


def named_in(folder: Path) -> set[str]:
    """Files under a folder in which a user's id stands, in their names or in what they hold."""
    found = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for name in IDS:
            forms = [name.encode(encoding) for encoding in ("utf-8", "utf-16-le")]
            if name in str(path) or any(form in text for text in contents(path) for form in forms):
                found.add(str(path.relative_to(folder)))
    return found


@pytest.mark.slow
def test_no_file_of_a_run_names_a_user_unless_it_is_asked_to(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = write_people(tmp_path)
    quiet = flsim.run(config_of(tiny_run, folder, "quiet"), progress=False)
    assert {path.suffix for path in quiet.folder.rglob("*") if path.is_file()} >= {".npz", ".parquet", ".html", ".log"}
    assert list(quiet.folder.rglob("*.states"))
    assert named_in(quiet.folder) == set()
    table = pd.read_parquet(quiet.folder / "partitions" / "more" / "partition.parquet")
    assert set(table["label"]) <= {f"user-{n:03d}" for n in range(4)}
    assert set(table["name"]) == {"device-000", "device-001", "device-002"}

    asked = [f"data.{name}.keep_user_ids=true" for name in ("sums", "more", "leaf")]
    named = flsim.run(config_of(tiny_run, folder, "named", *asked), until=0, progress=False)
    assert {f"partitions/{name}/partition.parquet" for name in ("sums", "more", "leaf")} <= named_in(named.folder)
    before = quiet.rows[quiet.rows["round"] == 0]
    pd.testing.assert_frame_equal(without_timing(before), without_timing(named.rows))


@pytest.mark.slow
def test_workers_a_stage_and_a_resume_leave_no_name_either(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = write_people(tmp_path)
    stage = ["path=strategies.stages.distillation:Distillation", "every_rounds=1", "prompts=6", "from_devices=4"]
    stage += ["steps=1", "held_out=4", "users=2", f"cache={tmp_path / 'far' / 'bought'}"]
    more = ["engine.kind=ray", "engine.workers=2", *(f"stage.{setting}" for setting in stage)]
    config = config_of(tiny_run, folder, "far/run", *more)
    flsim.run(config, until=0, progress=False)
    run = flsim.run(resume=tmp_path / "far" / "run", progress=False)
    assert (run.rows["split"] == STAGE).any()
    assert list(run.folder.rglob("*.states"))
    assert named_in(tmp_path / "far") == set()


def test_the_partition_of_a_run_before_is_still_shown(tmp_path: Path) -> None:
    """Of 0.2.0: one sentence, `left_out`, in place of `told`, and names of users in the table."""
    figures = dict.fromkeys((field.name for field in fields(Heterogeneity)), 1)
    figures |= {"over": "user", "rule": "1 user per device", "left_out": "data.x: left out"}  # type: ignore[dict-item]
    (tmp_path / "partitions" / "x").mkdir(parents=True)
    (tmp_path / "partitions" / "x" / "figures.json").write_text(json.dumps(figures))
    assert "data.x: left out" in "".join(partition_pieces(tmp_path, read_partitions(tmp_path)))
