"""A reader and a verifier of one's own, given by path: what they bring, and what is refused."""

from pathlib import Path

import pytest

from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.loop.checks import check
from flsim.problems.judging import SHIPPED, are_right, verifier_of
from flsim.tasks.load import READERS, load, reader_of
from flsim.tasks.stream import stream_of

MINE = """
from flsim.problems.judging import Verifier
from flsim.tasks.item import Item
from flsim.tasks.known_set import Reader


def read(root, count=90):
    return [Item(f"Say {n}.", str(n)) for n in range(count)]


def wrong(root):
    return ["Say 1."]


class Within(Verifier):
    instruction = "Answer with a number."

    def __init__(self, margin=0):
        self.margin = margin

    def verdicts(self, pairs):
        return [said.isdigit() and abs(int(said) - int(right)) <= self.margin for right, said in pairs]


class Silent:
    pass


NAMED = Reader(read, verifier="numeric")
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def config_of(*settings: str) -> Config:
    more = ["rounds=1", "fleet.devices=2", "stream.phases=[[mine]]", "data.mine.partition=evenly"]
    return load_config(None, [*more, *settings])


def test_a_reader_and_a_verifier_of_ones_own_make_a_task_group(mine: Path) -> None:
    config = config_of(
        f"data.mine.reader={mine}:read",
        "data.mine.settings={count: 60}",
        f"data.mine.verifier={mine}:Within",
        "data.mine.verifier_settings={margin: 2}",
    )
    check(config)
    (group,) = stream_of(config).data
    assert len(group.source.items) == 60
    problem = group.problem(group.source.items[7])
    assert problem.prompt == f"Answer with a number.\n\nSay {problem.answer}."
    near, far = str(int(problem.answer) + 2), str(int(problem.answer) + 3)
    assert are_right([(problem, near), (problem, far), (problem, "x")]) == [True, False, False]


def test_a_function_is_judged_exactly_and_a_reader_as_it_says(mine: Path) -> None:
    assert reader_of(f"{mine}:read").verifier == "exact"
    (group,) = stream_of(config_of(f"data.mine.reader={mine}:NAMED")).data
    assert group.source.verifier == "numeric"
    assert group.instruction == verifier_of("numeric").instruction


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.mine.reader={}:read", "data.mine.kind=gsm8k"], r"data\.mine has kind=gsm8k and reader=.*leave one"),
        (["data.mine.root=x"], r"data\.mine\.kind is missing; choose one of: gsm8k.*data\.mine\.reader=my_file\.py"),
        (["data.mine.reader={}:red"], r"has no 'red' .did you mean read..; it defines: read"),
        (["data.mine.reader={}:number"], r"3, which cannot be called"),
        (["data.mine.reader={}:wrong"], r"data\.mine: .*gives 'Say 1\.', which is no item"),
        (["data.mine.reader={}:read", "data.mine.settings={size: 1}"], r"was given size: .*unexpected keyword"),
        (["data.mine.reader={}:read", "data.mine.verifier=numerical"], r"verifier='numerical' is not known; .*numeric"),
        (
            ["data.mine.reader={}:read", "data.mine.verifier={}:Silent"],
            r"is no verifier, as it lacks instruction, verd",
        ),
        (["data.mine.reader={}:read", "data.mine.verifier=gym"], r"does not fit .*leave it out to take exact"),
    ],
)
def test_what_is_no_reader_or_verifier_is_refused(mine: Path, settings: list[str], message: str) -> None:
    config = config_of(*(text.replace("{}", str(mine)) for text in settings))

    def begin() -> None:
        check(config)
        stream_of(config)

    with pytest.raises(ConfigError, match=message):
        begin()


def test_every_short_name_is_there() -> None:
    """And no reader's own verifier is missing."""
    assert {reader_of(name).verifier for name in READERS} <= SHIPPED.keys()
    for name in ("exact", "numeric", "choice", "recorded", "gym"):
        assert isinstance(verifier_of(name).instruction, str)
    with pytest.raises(ConfigError, match=r"there is no kind 'gsm9k'; it is one of: gsm8k"):
        load("gsm9k")
