"""The English tasks that ship: the same everywhere, split by facts, and answered by a table of a real model."""

import hashlib
from collections import Counter, defaultdict

import pytest

from flsim.cloud.answer_table import SHIPPED, read_table
from flsim.cloud.recorded import Recorded
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.problems.families import TASKS
from flsim.problems.judging import verifier_of
from flsim.tasks.item import key_of
from flsim.tasks.load import load
from flsim.tasks.readers.english import GROUPS, PER_FAMILY
from flsim.tasks.stream import stream_of

ITEMS = load("english")
PINNED = "be39803dfbaf350c72ab09789273ba7ffd355d8e254c1311b0894733626c5481"


def test_questions_answers_and_splits_are_the_same_on_every_python() -> None:
    """A change here is another data set: the table of recorded answers and all results on it are void then."""
    told = "".join(repr((item.question, item.answer, item.label, item.level, item.split)) for item in ITEMS)
    assert hashlib.sha256(told.encode()).hexdigest() == PINNED


def test_families_have_their_questions_each_in_one_split() -> None:
    by_family = Counter(item.label for item in ITEMS)
    assert list(by_family) == [family for families in GROUPS.values() for family in families]
    drawn = [family for group in ("reading", "figures") for family in GROUPS[group]]
    assert {by_family[family] for family in drawn} == {PER_FAMILY}
    assert min(by_family.values()) == by_family["capital"] == 105
    assert len({key_of(item.question).casefold() for item in ITEMS}) == len(ITEMS)
    for family in by_family:
        splits = Counter(item.split for item in ITEMS if item.label == family)
        assert min(splits["train"] - 35, splits["validation"] - 5, splits["test"] - 10) >= 0, family


def test_no_fact_of_a_test_stands_in_training() -> None:
    """Both words of a pair are of one split, and so are sums with their numbers the other way round."""
    splits = defaultdict[object, set[str | None]](set)
    for item in ITEMS:
        if item.label == "opposite":
            word = item.question.split('"')[1]
            splits[frozenset((word, item.answer.split("\n")[0]))].add(item.split)
        if item.label == "add":
            one, other = item.question.removeprefix("What is ").rstrip("?").split(" + ")
            splits[frozenset((one, other))].add(item.split)
    assert len(splits) > 100
    assert all(len(found) == 1 for found in splits.values())


def test_answers_are_right_by_their_own_verifier_and_questions_are_not() -> None:
    judge = verifier_of("words")
    assert judge.unreadable([item.answer for item in ITEMS]) == []
    for said, verdict in (("answer", True), ("question", False)):
        pairs = [(item.answer, getattr(item, said)) for item in ITEMS]
        assert judge.verdicts(pairs) == [verdict] * len(pairs)
    aliased = [item for item in ITEMS if "\n" in item.answer]
    assert all(item.solution == item.answer.split("\n")[0] for item in aliased)
    assert len(aliased) > 50


def test_groups_are_named_unlike_the_built_in_tasks_and_unknown_ones_are_refused() -> None:
    assert not set(GROUPS) & set(TASKS)
    assert {item.label for item in load("english", group="figures", families=["add"])} == {"add"}
    with pytest.raises(ConfigError, match="no group 'words'; it is one of: vocabulary, reading, figures"):
        load("english", group="words")
    with pytest.raises(ConfigError, match="no family 'add' in reading; there are: last_word, second_word, pick"):
        load("english", group="reading", families=["add"])


def test_the_shipped_table_answers_every_question_and_its_verdicts_are_those_of_the_verifier() -> None:
    table = read_table(SHIPPED["builtin:english"])
    assert SHIPPED["builtin:english"].stat().st_size < 2**20
    assert "cc324af070c2" in table.about["note"]
    assert table.about["date"] >= "2026"
    items = {item.question: item for item in ITEMS}
    assert [line.question for line in table.lines] == list(items)
    for line in table.lines:
        item = items[line.question]
        assert (line.family, line.level, line.split) == (item.label, item.level or 0, item.split)
    verdicts = verifier_of("words").verdicts([(items[line.question].answer, line.answer) for line in table.lines])
    assert [line.right for line in table.lines] == verdicts
    assert 0.75 < sum(verdicts) / len(verdicts) < 1.0


def test_a_config_names_the_tasks_and_the_table() -> None:
    config = load_config(
        None,
        [
            "stream.phases=[[vocabulary], [figures]]",
            "fleet.devices=4",
            *(f"data.{group}={{kind: english, settings: {{group: {group}}}}}" for group in ("vocabulary", "figures")),
        ],
    )
    stream = stream_of(config)
    Recorded("builtin:english").check(stream, 1)
    (problem,) = stream.training_problems("device-000", 1, 0, count=1, seed=0)
    assert problem.verifier == "words"
    with pytest.raises(ConfigError, match=r"'builtin:french' does not ship; there is: builtin:english"):
        Recorded("builtin:french")
