import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.files import (
    DamagedFileError,
    UnwritableError,
    left_in,
    log_to,
    remove_parts,
    said_in,
    seal,
    unseal,
    write_atomically,
    writing,
)

MEND = "delete it and run the round again"


def test_a_written_file_holds_the_data_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "state.bin"
    for data in (b"first", b"", b"second, longer"):
        write_atomically(path, data)
        assert path.read_bytes() == data
        assert [child.name for child in path.parent.iterdir()] == ["state.bin"]


def limited(path: Path, most: int) -> str:
    """What a process says that may write files of at most so many bytes, and writes 1,000 over an old one."""
    code = (
        "import resource, sys, pathlib, flsim.files as files\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        "try: files.write_atomically(pathlib.Path(sys.argv[1]), b'n' * 1000, what='the checkpoint of round 7')\n"
        "except files.UnwritableError as error: print(error)\n"
    )
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout


def test_a_write_that_fails_says_what_where_and_why_and_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    """The limit on the size of a process's files refuses the second half of the data, as a full disk does."""
    path = tmp_path / "round-00007.npz"
    write_atomically(path, b"old")
    said = limited(path, 512)
    assert said.startswith(f"the checkpoint of round 7 could not be written to {path}: File too large (it takes 1,000 ")
    assert "raise the limit" in said
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"No space left on device \(it takes 12 bytes, and [\d,]+ are free\); make room there"),
        (errno.EDQUOT, r"quota exceeded \(it takes 12 bytes\); make room within the quota"),
        (errno.EROFS, "Read-only file system; mount"),
        (errno.EACCES, "Permission denied; give this user the right"),
        (errno.EIO, "Input/output error; the disk fails"),
        (errno.EBUSY, "Device or resource busy$"),
    ],
)
def test_every_reason_has_its_mend(tmp_path: Path, number: int, said: str) -> None:
    """Of a folder that is not there, too, the disk is known that it would be on."""
    path = tmp_path / "not" / "there"
    with pytest.raises(UnwritableError, match=said) as caught, writing("rows", path, 12):
        raise OSError(number, os.strerror(number))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from a worker to the driver


def test_a_full_device_says_so(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(UnwritableError, match="No space left"), writing("the log", full, 4), full.open("wb") as file:
        file.write(b"line")


def test_a_name_that_is_too_long_says_how_long_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match=r"File name too long \(it has \d+ bytes\); choose a folder"):
        write_atomically(tmp_path / ("n" * 300), b"")


def test_parts_of_processes_that_are_gone_are_tidied_and_those_of_others_are_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "deep").mkdir()
    parts = [tmp_path / f".summary.json.{gone.pid}.part", tmp_path / "deep" / f".x.{gone.pid}.part"]
    own = tmp_path / f".rows.{os.getpid()}.part"
    mine = tmp_path / "notes.part"
    for file in (*parts, own, mine):
        file.write_text("half")
    assert remove_parts(tmp_path) == 2
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([own, mine])


def test_a_log_that_cannot_be_written_says_so_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that is always full takes the log's place; then a folder that is not there."""
    (tmp_path / "run.log").symlink_to("/dev/full")
    for folder, reason in ((tmp_path, "No space left"), (tmp_path / "nowhere", "No such file")):
        log = log_to(folder)
        for line in range(3):
            log.warning("line %d", line)
        said = capsys.readouterr().err
        assert said.startswith(f"warning: the log {folder / 'run.log'} lacks lines from here on: {reason}")
        assert said.count("\n") == 1


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    """A reader that opened the old file goes on reading it whole: the new one takes its name, not its place."""
    path = tmp_path / "state.bin"
    write_atomically(path, b"old" * 1000)
    with path.open("rb") as reader:
        start = reader.read(10)
        write_atomically(path, b"new")
        assert start + reader.read() == b"old" * 1000
    assert path.read_bytes() == b"new"


def test_a_left_over_part_of_a_killed_process_does_no_harm(tmp_path: Path) -> None:
    part = tmp_path / f".state.bin.{os.getpid()}.part"
    part.write_bytes(b"half of something much longer")
    write_atomically(tmp_path / "state.bin", b"whole")
    assert (tmp_path / "state.bin").read_bytes() == b"whole"
    assert not part.exists()


def test_what_is_left_is_told_as_it_is(tmp_path: Path) -> None:
    assert left_in(tmp_path) == "nothing of a run was written"
    (tmp_path / "config.yaml").write_text("seed: 0")
    assert left_in(tmp_path) == f"no round was finished yet; go on with: flsim resume {tmp_path}"
    (tmp_path / "checkpoints").mkdir()
    for name in ("round-00009.npz", "round-00010.npz", ".round-00011.npz.12.part"):
        (tmp_path / "checkpoints" / name).touch()
    assert left_in(tmp_path).startswith("everything up to round 10 is kept; ")


@given(data=st.binary(max_size=200))
def test_what_was_sealed_is_unsealed(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("seal") / "x"
    write_atomically(path, seal(data))
    assert unseal(path, MEND) == data


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:40],
        lambda raw: raw[:10],
        lambda raw: b"",
        lambda raw: raw + b"\0",
        lambda raw: raw[:50] + bytes([raw[50] ^ 1]) + raw[51:],
        lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
    ],
    ids=["last byte lost", "cut", "cut in the digest", "emptied", "byte added", "bit of the data", "bit of the digest"],
)
def test_a_damaged_file_is_named_with_its_mend(tmp_path: Path, damage: type[bytes]) -> None:
    path = tmp_path / "device-003.bin"
    raw = damage(seal(b"the state of a device" * 3))
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError) as caught:
        unseal(path, MEND)
    assert str(path) in str(caught.value)
    assert f"{len(raw)} bytes" in str(caught.value)
    assert MEND in str(caught.value)


def test_a_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unseal(tmp_path / "none", MEND)


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (ValueError("two\n lines"), "ERROR the run failed: ValueError: two lines"),
        (KeyboardInterrupt("SIGTERM"), "INFO stopped (SIGTERM)"),
        (KeyboardInterrupt(), "INFO stopped (Ctrl-C)"),
    ],
)
def test_what_ends_a_run_too_early_stands_in_its_log(tmp_path: Path, end: BaseException, line: str) -> None:
    with pytest.raises(type(end)), said_in(log_to(tmp_path)):
        raise end
    (said,) = (tmp_path / "run.log").read_text().splitlines()
    assert said.endswith(line)


def test_a_run_that_ends_well_has_nothing_to_say_of_it(tmp_path: Path) -> None:
    with said_in(log_to(tmp_path)):
        pass
    assert not (tmp_path / "run.log").exists()
