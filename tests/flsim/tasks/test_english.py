"""The English tasks that ship: the same everywhere, split by facts."""

import hashlib
from collections import Counter, defaultdict

import pytest

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.problems.families import TASKS
from flsim.problems.judging import verifier_of
from flsim.tasks.item import key_of
from flsim.tasks.load import load
from flsim.tasks.readers.english import GROUPS, PER_FAMILY
from flsim.tasks.stream import stream_of

ITEMS = load("english")
PINNED = "9e7566b4131fb08d7246234c72f8d31cd1fa7ca65185a5f15336a9a177ae50c0"


def test_questions_answers_and_splits_are_the_same_on_every_python() -> None:
    """A change here is another data set: the table of recorded answers and all results on it are void then."""
    told = "".join(repr((item.question, item.answer, item.label, item.level, item.split)) for item in ITEMS)
    assert hashlib.sha256(told.encode()).hexdigest() == PINNED


def test_families_have_their_questions_each_in_one_split() -> None:
    by_family = Counter(item.label for item in ITEMS)
    assert list(by_family) == [family for families in GROUPS.values() for family in families]
    few = {"capital"}  # there are no more countries that most people know
    assert all(count >= PER_FAMILY for family, count in by_family.items() if family not in few)
    assert len({key_of(item.question).casefold() for item in ITEMS}) == len(ITEMS)
    for family in by_family:
        splits = Counter(item.split for item in ITEMS if item.label == family)
        assert min(splits["train"] - 60, splits["validation"] - 15, splits["test"] - 20) >= 0, family


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
    assert len(splits) > 200
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


def test_a_config_names_the_tasks() -> None:
    config = load_config(
        None,
        [
            "stream.phases=[[vocabulary], [figures]]",
            "fleet.devices=4",
            *(f"data.{group}={{kind: english, settings: {{group: {group}}}}}" for group in ("vocabulary", "figures")),
        ],
    )
    stream = stream_of(config)
    (problem,) = stream.training_problems("device-000", 1, 0, count=1, seed=0)
    assert problem.verifier == "words"
