"""The file of an offline run of W&B: which rounds it holds, since W&B writes it some seconds late and cannot say.

It is a log of LevelDB: after 7 bytes of W&B's own come blocks of 32 KiB with parts of records, each after 4 bytes of
checksum, 2 of length and 1 of kind: 1 a whole record, 2 its first part, 3 one in the middle, 4 its last. W&B has no
reader in Python; what is in a record is read by W&B's own protobuf. A record that is cut, by a kill, is the end.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OWN, _HEAD, _BLOCK = 7, 7, 2**15
_WHOLE, _LAST = 1, 4


def records_of(file: Path) -> Iterator[Any]:
    """The records of a file, in order; none of a file that is no such log."""
    data, at, held = file.read_bytes(), _OWN, b""
    record_of = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    if not data.startswith(b":W&B"):
        return
    while at + _HEAD <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD:  # filled up with zeros
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        held += data[at + _HEAD : at + _HEAD + length]
        at += _HEAD + length
        if at > len(data):
            return
        if kind in (_WHOLE, _LAST):
            yield record_of.FromString(held)
            held = b""


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The lines of history in a file, in order."""
    lines = []
    for record in records_of(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            lines.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return lines


def last_round(folder: Path, id_: str) -> int | None:
    """The last round in the files of an offline run; -1 if they hold none, None if there are no files.

    Args:
        folder: in which W&B made its own.
        id_: of the run.
    """
    files = sorted((folder / "wandb").glob(f"offline-run-*-{id_}/run-{id_}.wandb"))
    found = [int(line["round"]) for file in files for line in lines_of(file) if "round" in line]
    return max(found, default=-1) if files else None
