"""Runs of classes that a notebook's cells define: as objects, as classes and by path; also on Ray, and gone on with."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import flsim
from flsim.config import session
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.metrics.rows import read_rows, without_timing
from tests.tiny import RUN, TinyRun

CELL = """
import threading
from dataclasses import dataclass
from clients.reinforcement import Reinforcement
from flsim.cloud.protocol import Answer, Cloud
from flsim.problems.judging import Verifier
from flsim.tasks.item import Item
from strategies.base import DeltaStrategy

OWN = 0.2  # a name of the notebook that a class of it reads
LOCK = threading.Lock()

@dataclass(frozen=True)
class Plain(Reinforcement):
    price: float = OWN

    def advantage(self, pack, rollout):
        worth = rollout.right - self.price * rollout.asked
        return worth - worth.mean(-1, keepdim=True)

@dataclass(frozen=True)
class Locked(Plain):
    def advantage(self, pack, rollout):
        with LOCK:
            return super().advantage(pack, rollout)

class Half(DeltaStrategy):
    def aggregate(self, adapter, updates):
        moves = [update.delta for update in updates]
        return {n: t + 0.5 * sum(move[n] for move in moves) / len(moves) for n, t in adapter.items()}

class Parrot(Cloud):
    def __init__(self, word="yes"):
        self.word = word

    def quote(self, problem):
        return Answer("", len(problem.prompt), len(self.word))

    def answer(self, problems):
        return [Answer(self.word, len(problem.prompt), len(self.word)) for problem in problems]

    def identity(self):
        return ["parrot", self.word]

class Even(Verifier):
    def verdicts(self, pairs):
        return [len(said) % 2 == 0 for _, said in pairs]

def read(root):
    return [Item(f"{n} + 1 =", str(n + 1), label=str(n % 2)) for n in range(40)]
"""
OWN = (
    "client={path: '__main__:Plain', steps: 1, prompts: 3, max_new_tokens: 4}",
    "strategy.path=__main__:Half",
    "cloud={path: '__main__:Parrot', word: maybe}",
    "data.own.reader=__main__:read",
    "data.own.verifier=__main__:Even",
    "stream.phases=[[own]]",
)
SCRIPT = f"""
import sys
{CELL}
if __name__ == "__main__":
    import flsim
    rounds, folder, kind, settings = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
    if kind == "resume":
        flsim.run(None, resume=folder, progress=False)
    else:
        flsim.run(None, [*settings, "run_dir=" + folder, "engine.kind=" + kind], until=rounds, progress=False)
"""


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> ModuleType:
    """A session in which the cell was run."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(session, "_brought", {})
    exec(CELL, vars(main))
    return main


def rows_of(run: flsim.Run) -> pd.DataFrame:
    return without_timing(run.rows)


def test_a_class_is_its_path_and_an_object_gives_the_same_rows(
    tiny_run: TinyRun, cells: ModuleType, no_report: None
) -> None:
    by_path = flsim.run(tiny_run("path", *OWN), progress=False)
    named = tiny_run("class", *OWN[3:], "client={path: x, steps: 1, prompts: 3, max_new_tokens: 4}", "cloud.word=maybe")
    classes = {"client": cells.Plain, "strategy": cells.Half, "cloud": cells.Parrot}
    by_class = flsim.run(named, progress=False, **classes)
    pd.testing.assert_frame_equal(rows_of(by_path), rows_of(by_class))
    wanted, found = (load_config(run.folder / "config.yaml") for run in (by_path, by_class))
    assert (wanted.client, wanted.strategy, wanted.cloud) == (found.client, found.strategy, found.cloud)
    objects = {"strategy": cells.Half(), "cloud": cells.Parrot("maybe")}
    by_object = flsim.run(tiny_run("object", OWN[0], *OWN[3:]), progress=False, **objects)
    pd.testing.assert_frame_equal(rows_of(by_path), rows_of(by_object))
    assert (rows_of(by_path)["name"] == "accuracy").any()
    assert not (rows_of(by_path)["name"] == "set_aside").any()


def test_a_run_goes_on_where_its_classes_are_and_says_so_elsewhere(
    tiny_run: TinyRun, cells: ModuleType, no_report: None
) -> None:
    whole = flsim.run(tiny_run("whole", *OWN), progress=False)
    part = flsim.run(tiny_run("part", *OWN), until=1, progress=False)
    plain = vars(cells).pop("Plain")
    with pytest.raises(ConfigError, match=r"client.path='__main__:Plain' .* this session has no 'Plain'"):
        flsim.run(None, resume=part.folder, progress=False)
    cells.Plain = plain  # type: ignore[attr-defined]
    gone_on = flsim.run(None, resume=part.folder, client=plain, progress=False)
    pd.testing.assert_frame_equal(rows_of(whole), rows_of(gone_on))
    with pytest.raises(ConfigError, match="another config"):
        flsim.run(None, resume=part.folder, client=cells.Locked, progress=False)


def test_what_cannot_be_sent_to_workers_is_told_before_anything_is_written(
    tiny_run: TinyRun, cells: ModuleType
) -> None:
    config = tiny_run("locked", *OWN, "engine.kind=ray")
    with pytest.raises(ConfigError, match=r"the client cannot be sent to Ray workers: cannot pickle '_thread.lock'"):
        flsim.run(config, client=cells.Locked, progress=False)
    assert not config.folder.exists()


@pytest.mark.slow
def test_sessions_on_ray_give_the_rows_of_one_process(
    tiny_run: TinyRun, tiny_checkpoint: Path, tmp_path: Path, cells: ModuleType, no_report: None
) -> None:
    """The second session goes on with the run of the first; each has a `__main__` of its own, and no file of it."""
    settings = [f"model.path={tiny_checkpoint}", *RUN, *OWN, "engine.workers=2"]
    for kind in ("ray", "resume"):
        given = ["1", str(tmp_path / "ray"), kind, *settings]
        done = subprocess.run([sys.executable, "-", *given], input=SCRIPT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    alone = rows_of(flsim.run(tiny_run("alone", *OWN), progress=False))
    pd.testing.assert_frame_equal(without_timing(read_rows(tmp_path / "ray")), alone)
    assert not (alone["name"] == "set_aside").any()
