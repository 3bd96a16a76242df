"""Which runs lie under a folder, and which files may be opened."""

import os
from pathlib import Path

from flsim.live.finding import QUEUE, found_under, newest_round, readable, round_of, signature


def run_in(folder: Path) -> Path:
    """A folder that looks like a run's."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("rounds: 3\n")
    (folder / "environment.json").write_text("{}")
    return folder


def test_runs_are_found_at_any_depth_by_name_and_none_within_another(tmp_path: Path) -> None:
    runs = [run_in(tmp_path / place) for place in ("a/b/c/second", "a/first", "z")]
    run_in(tmp_path / "z" / "replays" / "round-00002")  # a part of z
    run_in(tmp_path / ".cache" / "hidden")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").write_text("rounds: 3\n")  # a config alone is no run
    (tmp_path / "a" / QUEUE).write_text("{}")
    found = found_under(tmp_path)
    assert sorted(found.runs) == sorted(runs)
    assert found.queues == (tmp_path / "a" / QUEUE,)


def test_a_folder_that_is_a_run_is_found_itself(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    assert found_under(run).runs == (run,)


def test_what_is_not_there_holds_no_runs(tmp_path: Path) -> None:
    assert found_under(tmp_path / "none").runs == ()


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    outside = run_in(tmp_path / "outside" / "run")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(outside)
    (tmp_path / "runs" / "circle").symlink_to(tmp_path / "runs")
    assert found_under(tmp_path / "runs").runs == ()


def test_files_outside_and_pipes_are_not_opened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    (root / "file").write_text("mine")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "within").symlink_to(root / "file")
    os.mkfifo(root / "pipe")
    allowed = {name: readable(root / name, root) for name in ("file", "within", "out", "pipe", "none")}
    assert allowed == {"file": True, "within": True, "out": False, "pipe": False, "none": False}


def test_the_newest_round_is_that_of_whole_files(tmp_path: Path) -> None:
    assert newest_round(tmp_path) == (None, None)
    rows = tmp_path / "rows"
    rows.mkdir()
    for name in ("round-00000.parquet", "round-00007.parquet", ".round-00008.parquet.12.part", "round-x.parquet"):
        (rows / name).write_text("rows")
    assert newest_round(tmp_path) == (7, signature(rows / "round-00007.parquet"))
    assert [round_of(name) for name in ("round-00012.json", "round-00012.npz", "rounds")] == [12, None, None]


def test_a_file_that_was_replaced_has_another_signature(tmp_path: Path) -> None:
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_text("one")
    before = signature(file)
    new.write_text("two")
    os.utime(new, ns=(0, file.stat().st_mtime_ns))  # as old, and as long
    new.replace(file)
    assert signature(file) != before
    file.unlink()
    assert signature(file) is None
