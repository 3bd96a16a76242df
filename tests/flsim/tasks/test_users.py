"""Sets by user, from small files of their form: Shakespeare and Sentiment140 by LEAF, CelebA's attributes by person."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.problems.judging import are_right
from flsim.tasks.item import Item
from flsim.tasks.load import load
from flsim.tasks.stream import stream_of

LINE = "to be or not to be that is the question whether tis nobler in the mind to suffer the slings and arrows of"


def write_leaf(folder: Path, users: dict[str, list[tuple[Any, Any]]]) -> None:
    """Nine tenths of each user's rows train, as LEAF's scripts deal them."""
    for split, part in (("train", slice(0, 36)), ("test", slice(36, 40))):
        data = {user: {"x": [x for x, _ in own[part]], "y": [y for _, y in own[part]]} for user, own in users.items()}
        content = {"users": list(users), "num_samples": [len(own["x"]) for own in data.values()], "user_data": data}
        (folder / split).mkdir()
        (folder / split / "all_data_0.json").write_text(json.dumps(content))


def test_shakespeares_next_letter_may_be_a_space(tmp_path: Path) -> None:
    """Windows of a line and the letter behind each, by speaker; a space is judged as any letter is."""
    write_leaf(
        tmp_path,
        {
            f"PLAY_{name}": [(f"{name}: {LINE[at : at + 40]}", LINE[at + 40]) for at in range(40)]
            for name in ("HAMLET", "OPHELIA")
        },
    )
    items = load("leaf", tmp_path)
    spaces = [item for item in items if item.answer == " "]
    assert len(items) == 80
    assert len(spaces) == 2 * LINE[40:80].count(" ") > 0
    given = ["stream.phases=[[letters]]", "fleet.devices=2", "rounds=1", "data.letters.kind=leaf"]
    given += ["data.letters.partition=user", f"data.letters.root={tmp_path}"]
    (task,) = stream_of(load_config(None, given)).data
    problem = next(problem for problem in map(task.problem, task.source.items) if problem.answer == " ")
    said = (problem.right_text, "space", "", "e")
    assert are_right([(problem, text) for text in said]) == [True, True, False, False]
    (tmp_path / "hole").mkdir()
    write_leaf(tmp_path / "hole", {"A": [("x", "")] * 40})
    with pytest.raises(ConfigError, match=r"user 1, row 1: the answer \('y'\) is empty"):
        load("leaf", tmp_path / "hole")


def test_sentiment140_as_leaf_writes_it(tmp_path: Path) -> None:
    """An x is a tweet's columns without its target; y is 0 or 1."""
    tweet = ["1467810369", "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "amy", "that's a bummer"]
    write_leaf(tmp_path, {user: [([*tweet[:-1], f"{tweet[-1]} {n}"], n % 2) for n in range(40)] for user in "ab"})
    columns = {"question": "Tweet: {x[4]}\nIs its mood 1 (good) or 0 (bad)?", "answer": "y", "score_label": "y"}
    items = load("leaf", tmp_path, columns=columns)
    assert items[1] == Item(
        "Tweet: that's a bummer 1\nIs its mood 1 (good) or 0 (bad)?", "1", user="a", split="train", score_label=1
    )


NAMES = ["Arched_Eyebrows", "Male", "Smiling", "Young"]
PEOPLE = {f"{n:06}.jpg": n % 7 for n in range(60)}  # 9 photos each of 0 to 3, 8 of 4 to 6


def signs(n: int) -> list[int]:
    return [1 if n >> bit & 1 else -1 for bit in range(4)]


def write_celeba(folder: Path, form: str = ".txt") -> None:
    rows = [[photo, *map(str, signs(n))] for n, photo in enumerate(PEOPLE)]
    if form == ".txt":
        lines = [str(len(rows)), " ".join(NAMES), *("  ".join(row) for row in rows)]
    else:
        lines = [",".join(["image_id", *NAMES]), *(",".join(row) for row in rows)]
    (folder / f"list_attr_celeba{form}").write_text("\n".join(lines) + "\n")
    people = "".join(f"{photo} {person}\n" for photo, person in PEOPLE.items())
    (folder / "identity_CelebA.txt").write_text(people)


@pytest.mark.parametrize("form", [".txt", ".csv"])
def test_celeba_asks_for_one_attribute_by_the_others(tmp_path: Path, form: str) -> None:
    """By hand: photo 5 is of person 5 and has attributes 0 and 2, of which 2, Smiling, is asked for."""
    write_celeba(tmp_path, form)
    items = load("celeba", tmp_path)
    question = "A photo of a person shows:\nArched Eyebrows\nIs Smiling true of it, too? Answer yes or no."
    assert items[5] == Item(question, "yes", user="5", label="yes", score_label=1)
    assert items[9].answer == "no"
    assert len(items) == 60
    assert Counter(item.user for item in load("celeba", tmp_path, least_photos=9)) == dict.fromkeys("0123", 9)
    young = load("celeba", tmp_path, target="Young")
    asked = ["Arched Eyebrows", "Smiling", "Is Young true of it, too? Answer yes or no."]
    assert young[5].question.splitlines()[1:] == asked


def test_what_is_wrong_with_celebas_files_is_named(tmp_path: Path) -> None:
    write_celeba(tmp_path)

    def error(**settings: Any) -> str:
        with pytest.raises(ConfigError) as found:
            load("celeba", tmp_path, **settings)
        return str(found.value)

    assert "no attribute target='Happy'; it is one of: Arched_Eyebrows, Male, Smiling, Young" in error(target="Happy")
    assert "nobody has 20 photos with attributes, of 7 people" in error(least_photos=20)
    with (tmp_path / "list_attr_celeba.txt").open("a") as file:
        file.write("x.jpg 1 1 2 1\n")
    assert "list_attr_celeba.txt, row 63: has 4 values for 4 attributes; each must be 1, or -1" in error()
    (tmp_path / "identity_CelebA.txt").write_text("image_id identity_id\n000001.jpg 3\n000002.jpg\n")
    assert "identity_CelebA.txt, row 3: holds '000002.jpg'" in error()
