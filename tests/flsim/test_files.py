import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.files import DamagedFileError, seal, unseal, write_atomically

MEND = "delete it and run the round again"


def test_a_written_file_holds_the_data_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "state.bin"
    for data in (b"first", b"", b"second, longer"):
        write_atomically(path, data)
        assert path.read_bytes() == data
        assert [child.name for child in path.parent.iterdir()] == ["state.bin"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A folder in the part file's place stands for a disk that refuses the data."""
    path = tmp_path / "state.bin"
    write_atomically(path, b"old")
    (tmp_path / f".state.bin.{os.getpid()}.part").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


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
