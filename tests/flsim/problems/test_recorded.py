"""Recorded outcomes: what a device says is its recorded model's answer, what a replaying cloud says is its own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.cloud.builtin import Oracle
from flsim.cloud.protocol import Answer
from flsim.cloud.recorded import Recorded
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.problems.judging import are_right, verifier_of
from flsim.problems.problem import Problem
from flsim.problems.recorded import RECORDED, RIGHT, WRONG, Record
from flsim.tasks.stream import stream_of


def problem(*, local: bool, cloud: bool, question: str = "How many?") -> Problem:
    return Problem("maths", "", 2, question, Record(local, cloud, 71, 88).text, verifier=RECORDED)


@given(st.booleans(), st.booleans(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_record_reads_back(local: bool, cloud: bool, sent: int, received: int) -> None:
    record = Record(local, cloud, sent, received)
    assert Record.read(record.text) == record


def test_a_record_is_written_so_that_people_can_read_it() -> None:
    assert Record(False, True, 71, 88).text == '{"local": 0, "cloud": 1, "prompt_tokens": 71, "completion_tokens": 88}'


@given(st.booleans(), st.booleans(), st.text().filter(lambda text: text not in (RIGHT, WRONG)))
def test_whatever_a_device_says_its_recorded_model_decides(local: bool, cloud: bool, said: str) -> None:
    own = problem(local=local, cloud=cloud)
    assert are_right([(own, said), (own, RIGHT), (own, WRONG)]) == [local, True, False]


def test_the_cloud_that_replays_says_its_own_verdict_and_tokens() -> None:
    """By hand: of four questions the device has the first two right, the cloud the first and third."""
    problems = [problem(local=local, cloud=cloud) for local in (True, False) for cloud in (True, False)]
    cloud = Recorded()
    answers = cloud.answer(problems)
    assert answers == [Answer(text, 71, 88) for text in (RIGHT, WRONG, RIGHT, WRONG)]
    assert are_right([(p, answer.text) for p, answer in zip(problems, answers, strict=True)]) == [1, 0, 1, 0]
    assert are_right([(p, "") for p in problems]) == [1, 1, 0, 0]
    assert cloud.quote(problems[0]).tokens == 159


def test_a_cloud_that_errs_by_chance_errs_on_recorded_questions_too() -> None:
    own = problem(local=True, cloud=True)
    assert are_right([(own, Oracle(1.0).answer([own])[0].text), (own, Oracle(0.0).answer([own])[0].text)]) == [
        False,
        True,
    ]


def test_without_a_table_only_recorded_questions_can_be_replayed() -> None:
    with pytest.raises(ConfigError, match="'arithmetic' has none; give a table"):
        Recorded().answer([Problem("arithmetic", "add", 1, "1+1=", "2")])


def test_a_config_that_replays_without_outcomes_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs cloud\.file, as questions of 'arithmetic' bring no recorded"):
        Recorded().check(stream_of(Config()), 1)
    (tmp_path / "mine.csv").write_text("question,local,cloud\n" + "".join(f"{n}+1=,1,0\n" for n in range(60)))
    own = ["data.mine.kind=outcomes", f"data.mine.root={tmp_path}", "data.mine.settings={files: {all: mine.csv}}"]
    more = ["stream.phases=[[mine]]", "rounds=1", "fleet.devices=1", "data.mine.partition=evenly"]
    recorded = load_config(None, [*more, *own])
    Recorded().check(stream_of(recorded), 1)


def test_references_that_are_no_records_are_named() -> None:
    good, lacking = Record(True, True, 1, 1).text, '{"local": 1}'
    assert verifier_of(RECORDED).unreadable([good, "42", lacking]) == ["42", lacking]
    with pytest.raises(ValueError, match="'42' is no record of outcomes, such as"):
        Record.read("42")
