"""`flsim list` and `flsim explain`: everything that ships, and every key, as the source has it."""

import importlib

import pytest

from experiments.command.__main__ import main
from experiments.command.explain import explained
from experiments.command.keys import part_keys, readers_of, written
from experiments.command.list import KINDS, Files, Parts
from experiments.command.walk import argument_docs, first_sentence
from flsim.config.load import settings_of
from flsim.config.schema import Config
from flsim.problems.judging import SHIPPED
from flsim.tasks.load import READERS


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_has_a_sentence(kind: str) -> None:
    entries = KINDS[kind].entries()
    assert entries
    for name, text in entries:
        assert len(text) > 5, f"{name} says nothing of itself"
        assert "\n" not in text


@pytest.mark.parametrize("kind", [kind for kind, found in KINDS.items() if isinstance(found, Parts)])
def test_listed_parts_are_there_under_their_paths(kind: str) -> None:
    for path, _ in KINDS[kind].entries():
        module, _, name = path.partition(":")
        assert isinstance(getattr(importlib.import_module(module), name), type)


def test_strategies_are_all_that_can_be_used_and_no_base() -> None:
    names = {path.partition(":")[2] for path, _ in KINDS["strategies"].entries()}
    assert {"FedAvg", "FlexLora", "HetLora", "Median", "LocalOnly"} <= names
    assert not names & {"DeltaStrategy", "MeanStrategy"}


def test_the_list_prints_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "configs"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("configs")
    assert "\n  demo " in out
    assert "flsim run" in out
    assert isinstance(KINDS["configs"], Files)


def test_every_key_of_a_config_can_be_explained() -> None:
    """And says its default, or, of a plug-in, the path that it has by default."""
    for name, value in settings_of(Config()).items():
        told = explained(name)
        assert told is not None, name
        if not name.endswith(".path"):
            assert f"{name} = {written(value)}" in told
    assert explained("data.mine.splits") == explained("data.NAME.splits")


def test_settings_of_parts_are_keys_too() -> None:
    names = {key.name for key in part_keys()}
    assert {"client.lr", "client.dual_gain", "strategy.server_lr", "strategy.weighter.q", "stage.lr"} <= names
    lr = next(key for key in part_keys() if key.name == "client.lr")
    assert (lr.default, lr.setting.owner) == ("0.003", "clients.learner:Learner")
    assert "clients.da_grpo:DaGrpo" in lr.takers


def test_readers_are_the_modules_in_which_a_key_is_read() -> None:
    found = readers_of("budget.tau")
    assert "flsim.budget.fleet" in found
    assert "flsim.config.schema" not in found
    assert readers_of("budget.nobody_reads_this") == []


def test_explain_tells_a_key_a_section_and_what_a_path_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "budget.tau"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("budget.tau = 0.3    float\n  Allowed share of prompts")
    assert "\n  allowed: " in out
    assert "read by" in out
    section = explained("budget.fleet")
    assert section is not None
    assert "budget.fleet.calls_total=null" in section
    assert "budget.tau=" not in section
    assert explained("client.lr") is not None
    path = explained("strategy.path")
    assert path is not None
    assert "strategies.fedavg:FedAvg" in path
    assert explained("data.gsm8k.root") == explained("data.NAME.root")
    assert explained("nothing.at.all") is None


def test_a_first_sentence_ends_where_a_sentence_ends() -> None:
    assert first_sentence("Sums, e.g. of 0.5 parts.\n Then more.") == "Sums, e.g. of 0.5 parts"
    assert first_sentence("One line\nof two\n\nAnd more.") == "One line of two"
    assert first_sentence("") == ""


def test_arguments_are_read_from_their_section() -> None:
    doc = "Do.\n\nArgs:\n    one: first,\n        over two lines.\n    two: second.\n\nReturns:\n    three: no."
    assert argument_docs(doc) == {"one": "first, over two lines.", "two": "second."}


def test_short_names_are_read_from_their_table_and_told_apart() -> None:
    """The lists are those of the code, and no two readers of a file say the same."""
    readers, verifiers = dict(KINDS["readers"].entries()), dict(KINDS["verifiers"].entries())
    assert readers.keys() == READERS.keys()
    assert verifiers.keys() == SHIPPED.keys()
    assert len(set(readers.values())) == len(readers)
    assert readers["gsm8k"].startswith("GSM8K: grade-school maths")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("server.every_rounds", "stage.every_rounds"),
        ("fleet.sharing", "fleet.opt_in"),
        ("cloud.settings.url", "cloud.url"),
        ("cloud.kind", "cloud.path"),
    ],
)
def test_a_key_of_the_release_before_is_explained_by_its_present_name(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", old]) == 0
    assert capsys.readouterr().out.startswith(f"{old} is called {new} now\n\n{new} = ")


def test_resume_asks_for_the_folder_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["resume"])
    assert "required: RUN (" in capsys.readouterr().err
