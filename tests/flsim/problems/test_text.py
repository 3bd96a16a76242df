"""Exact and multiple-choice verifiers, and how one is chosen."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.schema import ConfigError
from flsim.problems.judging import verifier_of
from flsim.problems.maths import too_large
from flsim.problems.text import ChoiceVerifier, ExactVerifier, letter_of


@given(st.text(), st.text())
def test_exact_is_equality(reference: str, completion: str) -> None:
    verdicts = ExactVerifier().verdicts([(reference, completion), (reference, reference)])
    assert verdicts == [reference == completion, True]


@pytest.mark.parametrize("letter", "ABCDEFGHIJ")
def test_a_letter_is_found_wherever_it_is_given(letter: str) -> None:
    texts = ["{}", "({})", "{}.", "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "The answer is ({}).", "Answer: {}"]
    texts += ["**Answer: ({})**", "{}. Paris", "I think of A.\nThe answer is B. No, the answer is {}", "#### {}"]
    assert [letter_of(text.format(letter)) for text in texts] == [letter] * len(texts)
    assert letter_of(f"({letter.lower()})") == letter


@pytest.mark.parametrize(
    "text",
    [
        "A cat sat",
        "Cat",
        "I think so",
        "K",
        "A, B",
        "\\boxed{A and B}",
        "The answer is Cat",
        "answer is A tricky one",
        "",
    ],
)
def test_a_letter_of_a_word_is_no_choice(text: str) -> None:
    assert letter_of(text) is None
    assert ChoiceVerifier().verdicts([("A", text)]) == [False]


@given(st.text(max_size=200))
def test_no_completion_raises(text: str) -> None:
    for name in ("exact", "numeric", "choice"):
        assert len(verifier_of(name).verdicts([(text, text), ("C", text), ("#### 5", text)])) == 3


@pytest.mark.parametrize(
    "unit", [" ", "(", "*", "1 ", "1,", "-", "$", "answer ", "answer: (", "\\boxed{", "{", "\n", "1/ ", "9"]
)
def test_no_completion_takes_long(unit: str) -> None:
    """Patterns that try a run of characters in every way would take minutes."""
    long = unit * (20_000 // len(unit))
    before = time.process_time()
    for text in (long, f"answer{long}", f"\\boxed{{{long}", f"#### {long}", f"1{long}x", f"{long}C"):
        for name in ("numeric", "choice"):
            verifier_of(name).verdicts([("#### 5", text), ("C", text)])
        too_large(text)
    assert time.process_time() - before < 2.0


def test_references_that_cannot_be_met_are_named() -> None:
    assert verifier_of("numeric").unreadable(["#### 5", "five"]) == ["five"]
    assert verifier_of("choice").unreadable(["(B)", "Paris"]) == ["Paris"]


def test_an_unknown_verifier_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'maths_'.*exact, numeric, maths, choice, code"):
        verifier_of("maths_")
