"""A cloud of recorded outcomes: what it answers, what it costs, and tables that cannot be used."""

import pickle
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import Answer
from flsim.cloud.recorded import Recorded
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.problems.families import TASKS
from flsim.tasks.stream import proxy_problems, stream_of

FIRST, SECOND, THIRD, *_ = PROBLEMS = proxy_problems(TASKS, "test", count=6, rng=Random(3))
HEAD = "question,right,prompt_tokens,completion_tokens\n"


def table(folder: Path, *lines: str, head: str = HEAD) -> str:
    file = folder / "outcomes.csv"
    file.write_text(head + "".join(f"{line}\n" for line in lines))
    return str(file)


def line(question: str, *rest: object) -> str:
    return ",".join([f'"{question}"', *map(str, rest)])


def test_outcomes_come_back_and_a_quote_is_exact(tmp_path: Path) -> None:
    file = table(tmp_path, line(FIRST.question, 1, 40, 7), line(SECOND.question, "False", 50, 90))
    cloud = Recorded(file)
    answers = cloud.answer([SECOND, FIRST, SECOND])
    assert answers == [Answer("", 50, 90), Answer(FIRST.answer, 40, 7), Answer("", 50, 90)]
    assert cloud.quote(FIRST).tokens == 47
    named = load_config(None, ["cloud.path=flsim.cloud.recorded:Recorded", f"cloud.file={file}"])
    assert make_cloud(named.cloud).answer([FIRST]) == [answers[1]]


def test_it_travels_to_workers_without_its_table(tmp_path: Path) -> None:
    cloud = Recorded(table(tmp_path, line(FIRST.question, 1, 40, 7)))
    fresh = pickle.dumps(cloud)
    answers = cloud.answer([FIRST])
    assert pickle.dumps(cloud) == fresh
    assert pickle.loads(fresh).answer([FIRST]) == answers


def test_a_question_of_several_lines_stays_what_it_is(tmp_path: Path) -> None:
    long = replace(FIRST, question="First:\n\u2028 1 + 1?\n")
    file = table(tmp_path, line(long.question, 1, 40, 7), head="\ufeff" + HEAD)
    assert Recorded(file).answer([long]) == [Answer(FIRST.answer, 40, 7)]


def test_columns_have_the_names_that_the_settings_give(tmp_path: Path) -> None:
    file = table(tmp_path, line(FIRST.question, "x", 3, 1, 2), head="q,id,sent,ok,got\n")
    cloud = Recorded(file, question="q", right="ok", prompt_tokens="sent", completion_tokens="got")
    assert cloud.answer([FIRST]) == [Answer(FIRST.answer, 3, 2)]


def test_a_question_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    cloud = Recorded(table(tmp_path, line(FIRST.question, 1, 1, 1)))
    with pytest.raises(ConfigError, match="no line for the question") as caught:
        cloud.answer([FIRST, THIRD])
    assert repr(THIRD.question) in str(caught.value)


def test_another_table_is_another_cloud(tmp_path: Path) -> None:
    before = Recorded(table(tmp_path, line(FIRST.question, 1, 1, 1))).identity()
    assert Recorded(table(tmp_path, line(FIRST.question, 1, 1, 1))).identity() == before
    assert Recorded(table(tmp_path, line(FIRST.question, 0, 1, 1))).identity() != before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((line("1+1=", "maybe", 1, 1),), r"row 1: right='maybe' must be 1 or 0"),
        ((line("1+1=", 1, 1, 1), line("1+2=", 1, -3, 1)), r"row 2: prompt_tokens='-3' must be a number of tokens"),
        ((line("1+1=", 1, 1),), r"row 1: has 3 values for the 4 columns"),
        ((line("1+1=", 1, 1, 1), line("1+1=", 0, 1, 1)), r"row 2: the question '1\+1=' is there twice"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recorded(table(tmp_path, *lines)).check(stream_of(Config()), 1)


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no column right, completion_tokens; it has: question, correct, prompt_tokens"
    ):
        Recorded(table(tmp_path, "1,1,1", head="question,correct,prompt_tokens\n")).check(stream_of(Config()), 1)
    with pytest.raises(ConfigError, match=r"cloud\.file='nowhere\.csv' is no file"):
        Recorded("nowhere.csv")
