"""What a notebook's cells define is found by `__main__:Name`, in its newest form, and said to be missing elsewhere."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from flsim.config import session
from flsim.config.load import load_config
from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem

CELL = """
from flsim.problems.judging import Verifier

class Says(Verifier):
    def __init__(self, word="yes"):
        self.word = word

    def verdicts(self, pairs):
        return [self.word in said for _, said in pairs]
"""


def run_cell(code: str) -> None:
    """As a kernel does."""
    exec(code, vars(sys.modules["__main__"]))


@pytest.fixture(autouse=True)
def _clean_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `__main__` of its own, and a process that no worker's parts were brought to."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    monkeypatch.setattr(session, "_brought", {})


def test_a_name_of_the_session_is_found_by_its_path() -> None:
    run_cell(CELL)
    assert resolve("data.x.verifier", "__main__:Says") is vars(sys.modules["__main__"])["Says"]


def test_a_cell_that_is_run_again_counts() -> None:
    problem = Problem("own", "own", 0, "q", "yes", verifier="__main__:Says")
    with_settings = Problem("own", "own", 0, "q", "yes", verifier='__main__:Says {"word": "no"}')
    run_cell(CELL)
    assert are_right([(problem, "oh yes"), (with_settings, "oh yes")]) == [True, False]
    run_cell(CELL.replace("in said", "not in said"))
    assert are_right([(problem, "oh yes"), (with_settings, "oh yes")]) == [False, True]


def test_what_the_session_lacks_is_one_sentence_with_the_mend() -> None:
    run_cell(CELL)
    with pytest.raises(ConfigError) as told:
        resolve("data.x.verifier", "__main__:Say")
    assert str(told.value) == (
        "data.x.verifier='__main__:Say' is of a notebook or a script, and this session has no 'Say' (did you mean "
        "Says?); run the cell that defines it first, and a run that was begun with it goes on there by "
        "flsim.run(resume=...); for a new run, my_file.py:Say is found from everywhere"
    )


def test_workers_get_what_the_config_names_and_nothing_else() -> None:
    run_cell(CELL + "\nclass Other:\n    pass\n")
    given = ["data.own.verifier=__main__:Says", "data.own.kind=files", "client.path=__main__:Gone", "name=main"]
    assert list(session.taken_along(load_config(None, given))) == ["Says"]


def test_what_was_brought_stands_before_the_workers_own_names() -> None:
    run_cell("Says = 1")
    session.bring({"Says": 2})
    assert resolve("cloud.path", "__main__:Says") == 2


def test_a_class_at_the_top_of_a_cell_or_module_has_a_path_and_no_other() -> None:
    run_cell(CELL)
    first = vars(sys.modules["__main__"])["Says"]
    assert session.path_of("client", first) == "__main__:Says"
    assert session.path_of("client", Path) == f"{Path.__module__}:Path"
    run_cell(CELL)
    with pytest.raises(ConfigError, match=r"client=__main__.Says cannot be named .* defined again"):
        session.path_of("client", first)

    class Within:
        pass

    with pytest.raises(ConfigError, match="give an object"):
        session.path_of("strategy", Within)
