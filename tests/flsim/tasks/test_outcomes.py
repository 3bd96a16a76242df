"""Recorded outcomes from tables that the test writes, by hand; then the real ones, by what is known of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flsim.config.schema import ConfigError
from flsim.problems.recorded import Record
from flsim.tasks.item import Item
from flsim.tasks.load import load


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def records(items: Sequence[Item]) -> list[Record]:
    return [Record.read(item.answer) for item in items]


def test_gsm8k_joins_questions_verdicts_and_lengths(tmp_path: Path) -> None:
    questions = [json.dumps({"question": text, "answer": "#### 1"}) for text in ("One is how many?", "And two?")]
    write(tmp_path / "gsm8k" / "test.jsonl", *questions)
    root = tmp_path / "replay_gsm8k"
    write(root / "correct.csv", "id,question_chars,gold_steps,small,large", "1,8,3,0,1", "0,16,2,1,1")
    write(root / "output_chars.csv", "id,question_chars,small,large", "0,16,9,10", "1,8,99,101")
    items = load("replay_gsm8k", root, local="small", cloud="large", validation=0.0, test=0.0)
    assert items == [
        Item("And two?", Record(False, True, 2, 26).text, level=3, split="train"),
        Item("One is how many?", Record(True, True, 4, 3).text, level=2, split="train"),
    ]
    with pytest.raises(
        ConfigError, match=r"there is no column 'huge'; the columns are: id, question_chars, small, lar"
    ):
        load("replay_gsm8k", root, cloud="huge")
    write(root / "correct.csv", "id,question_chars,gold_steps,small,large", "2,8,3,0,1")
    with pytest.raises(ConfigError, match=r"row 1: the questions have none with the id '2'"):
        load("replay_gsm8k", root, local="small", cloud="large")


def test_code_output_takes_its_lines_as_level(tmp_path: Path) -> None:
    text = "What is the output?\n[PYTHON]\ndef f(a):\n    return a\nassert f(1) == ??\n[/PYTHON]"
    write(tmp_path / "items.jsonl", json.dumps({"id": "crux-0", "question": text, "answer": "1"}))
    write(tmp_path / "correct.csv", "id,question_chars,small,large", "crux-0,84,0,0")
    write(tmp_path / "output_chars.csv", "id,question_chars,small,large", "crux-0,84,5,6")
    (item,) = load("replay_crux", tmp_path, local="small", cloud="large")
    assert (item.question, item.level, records([item])) == (text, 3, [Record(False, False, 20, 2)])


def test_mmlu_takes_its_subject_as_label(tmp_path: Path) -> None:
    head = "subject,i,mixtral_correct,gpt4_correct,prompt"
    write(tmp_path / "mmlu_mixtral_gpt4.csv", head, 'law,0,1,0,"Which?\nA. One\nAnswer:"')
    (item,) = load("router_mmlu", tmp_path)
    assert (item.label, records([item])) == ("law", [Record(True, False, 6, 1)])


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "q,small,cloud,label,split", "Why?,TRUE,0,a,dev", "How?,0,1,b,test")
    items = load("outcomes", tmp_path, files={"all": "mine.csv"}, columns={"question": "q", "local": "small"})
    assert items == [
        Item("Why?", Record(True, False, 1, 0).text, label="a", split="validation"),
        Item("How?", Record(False, True, 1, 0).text, label="b", split="test"),
    ]
    write(tmp_path / "counted.csv", "question,local,cloud,prompt_tokens,completion_tokens", "Why?,1,1,30,4")
    assert records(load("outcomes", tmp_path, files={"test": "counted.csv"})) == [Record(True, True, 30, 4)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Why?,maybe,1,3", r"mine\.csv, row 1: column 'local' is 'maybe'; right or wrong is 1 or 0"),
        ("Why?,1,,3", r"row 1: column 'cloud' is empty"),
        ("Why?,1,1,-3", r"row 1: column 'prompt_tokens' is '-3', which is no whole number"),
        (" ,1,1,3", r"row 1: the question \('question'\) is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "mine.csv", "question,local,cloud,prompt_tokens", line)
    with pytest.raises(ConfigError, match=message):
        load("outcomes", tmp_path, files={"all": "mine.csv"})


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "question,local,cloud", "Why?,1,1")
    with pytest.raises(ConfigError, match="there is no field 'right'; a recorded outcome has: question, local, cloud"):
        load("outcomes", tmp_path, files={"all": "mine.csv"}, columns={"right": "local"})
    with pytest.raises(ConfigError, match=r"validation=0\.5 and test=0\.5 must be shares"):
        load("outcomes", tmp_path, files={"all": "mine.csv"}, validation=0.5, test=0.5)


def test_held_out_shares_are_those_that_were_asked_for(tmp_path: Path) -> None:
    """Of 2,000 questions 500 and 300 are expected; four standard deviations are 78 and 64."""
    write(tmp_path / "mine.csv", "question,local,cloud", *(f"Question {n}?,1,1" for n in range(2000)))
    splits = [item.split for item in load("outcomes", tmp_path, files={"all": "mine.csv"})]
    assert abs(splits.count("test") - 500) < 78
    assert abs(splits.count("validation") - 300) < 64
    assert len(splits) == 2000


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "local", "cloud", "oracle"),
    [
        ("replay_gsm8k", 0.362, 0.962, 0.964),
        ("replay_crux", 0.215, 0.870, 0.879),
        ("router_mmlu", 0.681, 0.806, 0.859),
    ],
)
def test_the_real_tables(real: Callable[[str], Path], name: str, local: float, cloud: float, oracle: float) -> None:
    """How often the device's model, the cloud's and the better of both are right."""
    found = records(load(name, real(name)))
    assert sum(record.local for record in found) / len(found) == pytest.approx(local, abs=0.0006)
    assert sum(record.cloud for record in found) / len(found) == pytest.approx(cloud, abs=0.0006)
    assert sum(record.local or record.cloud for record in found) / len(found) == pytest.approx(oracle, abs=0.0006)
    assert all(record.prompt_tokens > 0 and record.completion_tokens >= 0 for record in found)
