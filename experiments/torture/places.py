"""Runs in places that a disk or a user can come up with: full, read-only, oddly named, no folder at all."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.torture.kills import began
from experiments.torture.processes import Ending
from experiments.torture.trial import LOCAL, LOST, RAY, SKIPPED, Ground, Trial, refused, resume, run
from flsim.seeding import python_random

_ROOM_MB = 64
ODD = (
    *("with spaces", "umläute-日本語-🙂", "a#b", "a #b", "a: b", "100%s", 'quote\'d "twice"', "-dash"),
    *("tab	here", "a=b", "[1]", "null"),
)
"""Names that somebody may give a folder."""


def full(ground: Ground) -> Iterator[Trial]:
    """The disk is full at some point of the run; then there is room, and it goes on."""
    for number in range(ground.times(8)):
        rng = python_random(ground.seed, "torture", "full", number)
        engine, kilobytes = (LOCAL, RAY)[number % 4 == 3], rng.randrange(200, 9000)
        what = f"a disk of {kilobytes} kB, {engine[0]}"
        with _small_disk(ground.root / f"full-{number}", f"size={kilobytes}k") as disk:
            if disk is None:
                yield Trial("a full disk", what, SKIPPED, "only root can mount a small disk")
                return
            ending = run(disk / "run", *engine).finish()
            _mount("-o", f"remount,size={_ROOM_MB}m", str(disk))
            yield _then_goes_on(ground, "a full disk", what, disk / "run", ending)


def read_only(ground: Ground) -> Iterator[Trial]:
    """Nothing can be written any more, from the start or from some moment on; then it can again."""
    for number in range(ground.times(6)):
        rng = python_random(ground.seed, "torture", "read-only", number)
        engine = RAY if number % 3 == 2 else LOCAL
        folder = ground.root / f"read-only-{number}"
        folder.mkdir()
        command = run(folder, *engine) if number else None
        if command is not None:
            began(command, folder)
            time.sleep(rng.uniform(0.0, 2.0))
        what = f"{'in the middle' if number else 'from the start'}, {engine[0]}"
        if not _freeze(folder, "+i"):
            yield Trial("a read-only folder", what, SKIPPED, "only root can freeze a folder, and not on every disk")
            continue
        ending = (run(folder, *engine) if command is None else command).finish()
        _freeze(folder, "-i")
        yield _then_goes_on(ground, "a read-only folder", what, folder, ending)


def _then_goes_on(ground: Ground, family: str, what: str, folder: Path, ending: Ending) -> Trial:
    """It must have been told in a sentence, or have come through, and be what it would have been afterwards."""
    if ending.status != 0:
        trial = refused(family, what, ending)
        if trial.outcome == LOST:
            return trial
    return ground.judged(family, what, folder, resume(folder, *LOCAL).finish())


def odd(ground: Ground) -> Iterator[Trial]:
    """Folders with odd names work, by themselves and through a link; what is no folder is refused."""
    base = ground.root / "odd"
    base.mkdir(exist_ok=True)
    for name in ODD[: ground.times(len(ODD))]:
        folder = base / name
        yield ground.judged("an odd path", repr(name), folder, run(folder, *LOCAL).finish())
    (base / "target").mkdir()
    (base / "link").symlink_to(base / "target")
    yield ground.judged("an odd path", "a link to a folder", base / "link", run(base / "link", *LOCAL).finish())
    (base / "file").write_text("mine")
    (base / "dangling").symlink_to(base / "nowhere" / "at all")
    (base / "loop").symlink_to(base / "loop")
    for path in (base / "file", base / "file" / "below", base / "dangling", base / "loop", base / ("x" * 300)):
        yield refused("an odd path", f"run_dir={path.name[:40]}", run(path, *LOCAL).finish())


@contextmanager
def _small_disk(folder: Path, options: str) -> Iterator[Path | None]:
    """A disk of one's own in memory; None where one may not have one."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder)):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _freeze(folder: Path, flag: str) -> bool:
    """Let nothing in a folder be made, changed or removed (`+i`), or let it again (`-i`)."""
    if shutil.which("chattr") is None:
        return False
    return subprocess.run(["chattr", "-R", flag, str(folder)], check=False, capture_output=True).returncode == 0
