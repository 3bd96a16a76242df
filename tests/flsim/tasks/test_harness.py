"""Tasks of lm_eval where the package is not there, and settings that do not fit; real task files: tests/ecosystem."""

import sys
from pathlib import Path

import pytest

from flsim.config.schema import ConfigError
from flsim.loop.checks import check
from flsim.problems.harness import task_of
from flsim.tasks.item import Item
from flsim.tasks.load import load
from flsim.tasks.readers.harness import as_judged
from tests.flsim.tasks.own_sets import config_of


def test_the_package_is_asked_for_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    task_of.cache_clear()
    with pytest.raises(ConfigError, match=r"lm_eval: the package cannot be imported .*\[harness\]"):
        load("lm_eval", tmp_path, task="arc_easy")


def test_its_judge_is_for_its_own_tasks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.sums\.verifier=lm_eval does not fit files"):
        check(config_of(tmp_path, "data.sums.verifier=lm_eval"))
    with pytest.raises(ConfigError, match="row 1 is a multiple choice; leave the verifier out"):
        as_judged(Item("?", "A", where="lm_eval arc, test, row 1"))


def test_settings_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.task=3 of lm_eval must be a text"):
        load("lm_eval", tmp_path, task=3)
