"""What is told of doubtful items: counts by hand, rows, no word of a user's own, and refusal where it is asked for."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.problems.problem import SPLITS
from flsim.tasks.doubts import doubts
from flsim.tasks.item import Item
from flsim.tasks.splits import DROPPED, split_items
from flsim.tasks.stream import stream_of

TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")


def item(question: str, answer: str, row: int, user: str | None = None) -> Item:
    return Item(question, answer, user=user, where=f"a.csv, row {row}")


def test_two_answers_are_told_with_rows_and_other_users_may_be_of_another_mind() -> None:
    items = [item("1 + 1?", "2", 1), item("2?", "2", 2), item("1  +  1?", "3", 3), item("2?", " 2 ", 4)]
    (said, again) = doubts(items, [TRAIN] * 4)
    assert said.startswith(
        "1 question has two answers of one user, such as a.csv, rows 1 and 3 ('1 + 1?' with '2' and '3')"
    )
    assert again.startswith("1 item is there again with the same user, split and answer, such as a.csv, rows 2 and 4")
    assert doubts(items[:3], [TRAIN] * 3, code=True) == []
    votes = [item("like it?", "yes", 1, "amy"), item("like it?", "no", 2, "ben")]
    assert doubts(votes, [TRAIN] * 2) == []
    (said,) = doubts([*votes, item("like it?", "no", 3, "amy")], [TRAIN] * 3)
    assert said.startswith("1 question has two answers of one user, such as a.csv, rows 1 and 3: whatever")
    assert "amy" not in said
    assert "like it" not in said


def test_copies_across_splits_are_counted_by_the_split_that_keeps_them() -> None:
    items = [Item(f"{n}?", "x", split="train") for n in range(5)] + [Item(" 3? ", "x", split="test", where="b.csv")]
    splits = split_items([*items, Item("v", "x", split="validation")])[:-1].tolist()
    (said,) = doubts(items, splits)
    assert said == "left out 1 item whose question test asks too, such as item 4 and b.csv ('3?' with 'x')"


def test_questions_that_differ_in_capital_letters_only_stay_and_are_told() -> None:
    items = [Item("What is A?", "x"), Item("what is a?", "x"), Item("\uff37hat is a?", "x"), Item("What is b?", "x")]
    (said,) = doubts(items, [TRAIN, TEST, TRAIN, TEST])
    assert said.startswith("1 question is in another split too, but for capital letters or forms of characters")
    assert "of train and test; both stay" in said


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from([None, "train", "test"])), max_size=20))
def test_every_item_that_was_dropped_is_counted(rows: list[tuple[int, int, str | None]]) -> None:
    items = [Item(f"q{question}", str(answer), split=split) for question, answer, split in rows]
    splits = split_items(items).tolist() if items else []
    told = [said for said in doubts(items, splits) if said.startswith("left out")]
    assert sum(int(said.split()[2]) for said in told) == splits.count(DROPPED)


def config_of(folder: Path, *more: str) -> Config:
    rows = [{"q": f"{n % 50} + {n // 50}?", "a": n if n < 110 else 0} for n in range(100)]
    rows += [{"q": "3 + 0?", "a": 4}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "b.jsonl").write_text(json.dumps({"q": "7 + 1?", "a": 8}))
    columns = "columns: {question: q, answer: a}"
    settings = f"settings: {{files: {{all: a.jsonl, test: b.jsonl}}, {columns}}}"
    settings = f"{{kind: files, root: {folder}, partition: evenly, {settings}}}"
    return load_config(None, ["rounds=1", "fleet.devices=2", "stream.phases=[[mine]]", f"data.mine={settings}", *more])


def test_a_run_is_told_or_refuses_what_is_doubtful(tmp_path: Path) -> None:
    (task,) = stream_of(config_of(tmp_path)).data
    assert [said.split("such as")[0] for said in task.told] == [
        "data.mine: 2 questions have two answers of one user, ",
        "data.mine: left out 1 item whose question test asks too, ",
    ]
    assert f"{tmp_path}/a.jsonl, rows 4 and 101" in task.told[0]
    with pytest.raises(ConfigError, match=r"data\.mine: strict: 2 questions have two answers .* \(and 1 more\); mend"):
        stream_of(config_of(tmp_path, "data.mine.strict=true"))
