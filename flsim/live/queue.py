"""Runs that are still to come: a study says so in a small file beside them, for as long as it is at work.

    runs/sweep-demo/.waiting.json    {"owner": {"host": ..., "pid": ...}, "rounds": {"da_grpo-seed1": 12}}

Nothing but what follows runs reads it, and a study that cannot write it goes on without.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from flsim.files import UnwritableError, write_atomically
from flsim.live.finding import QUEUE
from flsim.live.standing import STOPPED, WAITING, Standing
from flsim.loop.lock import Owner


@contextmanager
def queued(rounds: Mapping[Path, int]) -> Iterator[None]:
    """Within, these runs are known to be to come.

    Args:
        rounds: of each run, by its folder, which need not be there yet.
    """
    files = {folder.parent / QUEUE for folder in rounds}
    owner = asdict(Owner.me())
    for file in files:
        own = {folder.name: count for folder, count in rounds.items() if folder.parent == file.parent}
        with suppress(UnwritableError):
            data = json.dumps({"owner": owner, "rounds": own}).encode()
            write_atomically(file, data, what="which runs are to come", durable=False)
    try:
        yield
    finally:
        for file in files:
            with suppress(OSError):
                file.unlink()


def read_queue(file: Path) -> tuple[Standing, dict[Path, int]]:
    """How runs stand that a study is still to begin, and their rounds by folder.

    Raises:
        ValueError: if the file holds no such thing.
        OSError: if it cannot be read.
    """
    try:
        found = json.loads(file.read_text())
        owner = Owner.said_in(json.dumps(found["owner"]))
        rounds = {file.parent / Path(str(name)).name: int(count) for name, count in found["rounds"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} does not say which runs are to come ({error})") from error
    if owner.is_near and not owner.runs:
        return Standing(STOPPED, "its study ended before it began; the same flsim study goes on"), rounds
    return Standing(WAITING, f"for its turn in the study of process {owner.pid} on {owner.host}"), rounds
