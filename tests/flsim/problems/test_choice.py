"""The letter that a response chooses, of every kind that public reports tell of; never a guess, never two."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.problems.choice import ChoiceVerifier, letter_of
from flsim.problems.judging import Judgement

LINES = (Path(__file__).parent / "choice_responses.jsonl").read_text("utf-8").splitlines()
RESPONSES = [json.loads(line) for line in LINES]
"""Of each the kind, the response and its letter, "" where it chooses none."""
# reference, response, whether it is right
PAIRS = [
    ("C. Paris", "Paris", True),
    ("(C) Paris", "The answer is Paris.", True),
    ("C. Paris", "The capital of France is Paris.", True),
    ("C. Paris", "I would pick Paris.", True),
    ("C. Paris", "I would not pick Paris.", False),
    ("C. Paris", "I would pick Rome, not Paris.", False),
    ("C. 3.5", "3.5", True),
    ("C. Paris", "C", True),
    ("C. Paris", "London", False),
    ("C. Paris", "It is not Paris.", False),
    ("C. Paris", "Paris is wrong", False),
    ("C. Paris", "B. Paris", False),
    ("C", "Paris", False),
    ("C\nA. London\nB. Rome\nC. Paris", "**Paris**", True),
    ("C\nA. London\nB. Rome\nC. Paris", "\\boxed{\\text{Paris}}", True),
    ("C\nA. London\nB. Rome\nC. Paris", "Let me think.\nParis", True),
    ("C\nA. London\nB. Rome\nC. Paris", "The answer is Rome", False),
    ("C\nA. London\nB. Rome\nC. Paris", "B. Rome", False),
    ("C\nA. London\nB. Rome\nC. Paris", "Paris or Rome", False),
    ("C\nA. 1\nB. 2\nC. 3", "E", False),
    ("\\boxed{C}", "c", True),
    ("Answer: C", "The answer is (C).", True),
]


@pytest.mark.parametrize("kind", sorted({said["kind"] for said in RESPONSES}))
def test_the_letter_of_a_response(kind: str) -> None:
    of_kind = [said for said in RESPONSES if said["kind"] == kind]
    wrong = [
        said | {"read": letter} for said in of_kind if (letter := letter_of(said["response"]) or "") != said["letter"]
    ]
    assert wrong == []


@pytest.mark.parametrize("letter", "ABCDEFGHIJ")
def test_a_letter_is_found_wherever_it_is_given(letter: str) -> None:
    texts = ["{}", "({})", "{}.", "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "The answer is ({}).", "Answer: {}"]
    texts += ["**Answer: ({})**", "{}. Paris", "I think of A.\nThe answer is B. No, the answer is {}", "#### {}"]
    texts += ["Antwort: {}", "答案: {}", "Option {}", "I would go with {}.", "{} is correct.", "<answer>{}</answer>"]
    assert [letter_of(text.format(letter)) for text in texts] == [letter] * len(texts)
    assert letter_of(f"({letter.lower()})") == letter


@given(
    st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"), st.sampled_from([" or ", " and ", ", ", "/", " & "])
)
def test_two_letters_are_none(one: str, other: str, between: str) -> None:
    if one != other:
        for text in (
            "{}",
            "Answer: {}",
            "The answer is {}.",
            "\\boxed{{{}}}",
            "I would pick {}",
            "<answer>{}</answer>",
        ):
            assert letter_of(text.format(f"{one}{between}{other}")) is None


@pytest.mark.parametrize(("reference", "response", "right"), PAIRS)
def test_the_text_of_an_option_stands_for_its_letter(reference: str, response: str, right: bool) -> None:
    assert ChoiceVerifier().verdicts([(reference, response)]) == [right]


def test_an_explanation_says_what_was_read_and_where() -> None:
    explain = ChoiceVerifier().explain
    assert explain("C", "Hm.\nThe answer is **(C)**.") == Judgement(True, "C", "The answer is (C).", "C")
    assert explain("C", "Answer: C or D") == Judgement(False, None, "Answer: C or D", "C")
    assert explain("C", "Vitamin C") == Judgement(False, None, None, "C")
    assert explain("Paris", "C").wanted is None


WORDS = [
    "A",
    "B",
    "C",
    "I",
    "a",
    "(C)",
    "answer",
    "is",
    "not",
    "or",
    ",",
    ".",
    "\n",
    "**",
    "\\boxed{",
    "}",
    "####",
    "<answer>",
]
WORDS += [
    "</think>",
    "option",
    "correct",
    "the",
    "it's",
    "but",
    "选",
    "答案",
    "ب",
    "?",
    ":",
    "- ",
    "Question:",
    "x",
    "``` ",
    "n't",
]


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join) | st.text(), st.text(max_size=30))
def test_no_response_raises_and_none_is_right_by_two_letters(text: str, reference: str) -> None:
    right = [letter for letter in "ABCDEFGHIJ" if ChoiceVerifier().verdicts([(letter, text)]) == [True]]
    assert len(right) <= 1
    ChoiceVerifier().explain(reference, text)


@pytest.mark.parametrize(
    "unit", ["A ", "A\n", "A or ", "answer is ", "(A) ", "A is ", "不是A而是", "B, ", "so ", "> ", "'", "a.", "~~"]
)
def test_no_response_takes_long(unit: str) -> None:
    before = time.process_time()
    for text in (long := unit * (20_000 // len(unit)), f"{long}C", f"answer {long}", f"\\boxed{{{long}}}"):
        letter_of(text)
    assert time.process_time() - before < 2.0


@pytest.mark.torture
@settings(max_examples=1_000)
@given(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join))
def test_no_response_of_many_raises(text: str) -> None:
    ChoiceVerifier().explain("C. Paris", text)
