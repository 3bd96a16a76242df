import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.problems.families import FAMILIES, TASKS, Family, draw, families_of, relative_difficulty
from flsim.problems.judging import are_right
from flsim.problems.problem import SPLITS, Problem, split_of

REVERSED = ("add", "subtract", "multiply", "absolute")  # answers with the least significant digit first
BY_NAME = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def some(family: Family, level: int, count: int) -> list[tuple[str, str, str]]:
    rng = Random(f"{family.name}{level}")
    return [family.draw(rng, level) for _ in range(count)]


def by_python(family: Family, question: str) -> str:
    """What Python itself says to the question, in the notation that the family documents."""
    value = eval(question.removesuffix("="))
    if isinstance(value, list):
        return "".join(value)
    return str(value)[::-1] if family.name in REVERSED else str(value)


def visible_level(family: Family, question: str) -> int:
    """The level read off the question's text: length of its word or list, or digits of its operands."""
    if word := re.search(r"'([a-j]{2,})'", question):
        return len(word[1])
    if items := re.search(r"\[([\d,]+)\]", question):
        return len(items[1].split(","))
    numbers = re.findall(r"\d+", question)
    return len(numbers[0]) if family.name in ("modulo", "halve") else len("".join(numbers))


@BY_NAME
def test_answers_agree_with_python(family: Family) -> None:
    for level in family.levels:
        for question, answer, _ in some(family, level, 200):
            assert question.endswith("=")
            assert answer == by_python(family, question), question


def test_the_documented_examples() -> None:
    """59+63 = 122 and 902-514 = 388 read backwards are 221 and 883; 55*5 = 275 is 572; abs(27-45) = 18 is 81."""
    family = {f.name: f for f in FAMILIES}
    for name, question, answer in (
        ("add", "59+63=", "221"),
        ("subtract", "902-514=", "883"),
        ("multiply", "55*5=", "572"),
        ("absolute", "abs(27-45)=", "81"),
        ("index", "'cihbbfi'[3]=", "b"),
        ("halve", "734//2=", "367"),
    ):
        assert by_python(family[name], question) == answer


@BY_NAME
def test_level_is_visible_in_the_question(family: Family) -> None:
    for level in family.levels:
        assert {visible_level(family, question) for question, _, _ in some(family, level, 100)} == {level}


@BY_NAME
def test_questions_grow_with_the_level(family: Family) -> None:
    lengths = [sum(len(question) for question, _, _ in some(family, level, 100)) / 100 for level in family.levels]
    assert lengths == sorted(set(lengths))
    assert list(family.levels) == sorted(set(family.levels))


@BY_NAME
def test_each_level_has_hundreds_of_questions(family: Family) -> None:
    for level in family.levels:
        assert len({question for question, _, _ in some(family, level, 3000)}) >= 300, level


@BY_NAME
def test_a_slip_is_a_plausible_wrong_answer(family: Family) -> None:
    """Often wrong, else pretraining on slips would teach the exact procedure; never empty."""
    drawn = [d for level in family.levels for d in some(family, level, 200)]
    assert all(slip for _, _, slip in drawn)
    assert sum(slip != answer for _, answer, slip in drawn) > 0.2 * len(drawn)


def columns(question: str) -> list[tuple[int, int]]:
    """The two operands digit by digit, least significant first, the shorter filled up with zeros."""
    a, b = sorted(map(int, re.findall(r"\d+", question)), reverse=True)
    width = len(str(a))
    return [(int(str(a)[-i]), int(str(b).zfill(width)[-i])) for i in range(1, width + 1)]


def exact_by_carelessness(name: str, question: str) -> bool:
    """Whether a solver with the family's documented carelessness happens to be right."""
    if name == "add":  # nothing to carry
        return all(x + y < 10 for x, y in columns(question))
    if name in ("subtract", "absolute"):  # nothing to borrow
        return all(x >= y for x, y in columns(question))
    if name == "multiply":
        a, b = question.removesuffix("=").split("*")
        return all(int(digit) * int(b) < 10 for digit in a)
    if name == "halve":  # only the last digit's remainder may be dropped
        return not any(int(digit) % 2 for digit in question.partition("//")[0][:-1])
    if name in ("maximum", "minimum"):
        numbers = [int(number) for number in re.findall(r"\d+", question)]
        return numbers[0] == (max(numbers) if name == "maximum" else min(numbers))
    if name == "distinct":
        items = re.findall(r"\d", question)
        return len(set(items)) == len(items)
    word, letter = question.split(".count(")
    return [c for c in word if c.isalnum()][-1] != letter[1 if name == "count" else 0]


@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "absolute", "halve", "maximum", "minimum", "distinct", "count", "tally"]
)
def test_a_slip_is_right_exactly_where_care_is_not_needed(name: str) -> None:
    """For example 11+22 needs no carry, so the careless 33 is right; 59+63 does, so it is not."""
    family = next(f for f in FAMILIES if f.name == name)
    drawn = [d for level in family.levels for d in some(family, level, 300)]
    for question, answer, slip in drawn:
        assert (slip == answer) == exact_by_carelessness(name, question), (question, answer, slip)
    assert len({slip == answer for _, answer, slip in drawn}) == 2


@given(st.text(max_size=30))
def test_every_text_belongs_to_one_split(question: str) -> None:
    assert split_of(question) in SPLITS
    assert split_of(question) == split_of(question)


def test_held_out_questions_stay_held_out() -> None:
    """Literals: were the hash or the shares to change, the shipped checkpoints would have been trained on test data."""
    literals = {"7+5=": "test", "[3,1,4].index(4)=": "validation", "59+6=": "train", "min(34,33)=": "test"}
    assert {question: split_of(question) for question in literals} == literals


def test_shares_of_the_splits() -> None:
    """12 % each are held out. With 20,000 questions the standard error is 0.23 points; the bound is 2 points."""
    rng = Random(0)
    questions = {f.draw(rng, rng.choice(f.levels))[0] for f in FAMILIES for _ in range(2000)}
    assert len(questions) > 20_000
    share = {split: sum(split_of(q) == split for q in questions) / len(questions) for split in SPLITS}
    assert share["validation"] == pytest.approx(0.12, abs=0.02)
    assert share["test"] == pytest.approx(0.12, abs=0.02)
    assert sum(share.values()) == pytest.approx(1.0)


@BY_NAME
def test_every_level_has_questions_in_every_split_and_none_in_two(family: Family) -> None:
    for level in family.levels:
        rng = Random(1)
        drawn = {split: {draw(family, level, split, rng).question for _ in range(30)} for split in SPLITS}
        assert all(len(questions) >= 10 for questions in drawn.values())
        assert len(set.union(*drawn.values())) == sum(map(len, drawn.values()))
        assert all(split_of(question) == split for split, questions in drawn.items() for question in questions)


def test_a_drawn_problem_says_what_it_is() -> None:
    for family in FAMILIES:
        problem = draw(family, family.levels[-1], "train", Random(0))
        assert (problem.task, problem.family, problem.level) == (family.task, family.name, family.levels[-1])
        assert problem.answer == by_python(family, problem.question)


@BY_NAME
def test_relative_difficulty_spans_zero_to_one(family: Family) -> None:
    values = [relative_difficulty(Problem(family.task, family.name, level, "", "", "")) for level in family.levels]
    assert values[0] == 0.0
    assert values[-1] == 1.0
    assert values == sorted(set(values))


def test_verifier_wants_the_whole_answer() -> None:
    problem = Problem("arithmetic", "add", 2, "102+119=", "221")
    said = ("22", "221", "2211", "122", "", "2 21", "?")
    assert are_right([(problem, text) for text in said]) == [text == "221" for text in said]


def test_every_family_is_in_one_group() -> None:
    assert [f for group in TASKS for f in families_of(group)] == list(FAMILIES)
    assert len({f.name for f in FAMILIES}) == len(FAMILIES)


def test_an_unknown_group_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'geometry'.*arithmetic, strings, numbers, lists"):
        families_of("geometry")
