"""The exact verifier, what holds of all that read texts, and how one is chosen."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.schema import ConfigError
from flsim.problems.judging import Judgement, verifier_of
from flsim.problems.maths import too_large
from flsim.problems.text import ExactVerifier, plain


@given(st.text(), st.text())
def test_exact_is_equality_of_texts(reference: str, completion: str) -> None:
    verdicts = ExactVerifier().verdicts([(reference, completion), (reference, reference)])
    assert verdicts[1]
    if plain(reference):
        assert verdicts[0] == (plain(reference) == plain(completion))


@pytest.mark.parametrize("said", [" ", "space", "Space\n", '" "', "' '"])
def test_a_space_is_said_as_it_is_or_by_its_name(said: str) -> None:
    """As the letter that comes next; another white space, a letter, or nothing, is another answer."""
    assert ExactVerifier().verdicts([(" ", said), ("\n", said), ("e", said)]) == [True, False, False]


def test_what_is_no_space_is_another_answer() -> None:
    for said in ("", "\n", "  ", "e", '""', "e ", "white space"):
        assert ExactVerifier().verdicts([(" ", said)]) == [False]
    assert ExactVerifier().verdicts([("\n", "\r\n"), ("\n", "newline"), ("\t", "tab")]) == [True] * 3
    assert ExactVerifier().explain(" ", "\n") == Judgement(False, "\n", "\n", " ")


@pytest.mark.parametrize(
    ("reference", "completion", "right"),
    [
        ("yes\r", "yes", True),
        ("yes", " yes\n", True),
        ("yes", "\u00a0yes\u3000", True),
        ("two\r\nlines", "two\nlines\n", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("\u1e9b\u0323", "\u017f\u0323\u0307", True),
        ("yes", "Yes", False),
        ("yes", "yes.", False),
        ("yes sir", "yes  sir", False),
        ("yes sir", "yessir", False),
        ("cafe", "caf\u00e9", False),
        ("2", "\u00b2", False),
        ("C", "\u0421", False),
        ("yes", "", False),
    ],
)
def test_white_space_around_a_text_and_the_encoding_of_accents_change_nothing(
    reference: str, completion: str, right: bool
) -> None:
    assert ExactVerifier().verdicts([(reference, completion), (completion, reference)]) == [right, right]


def test_an_explanation_of_exact_shows_both_texts() -> None:
    assert ExactVerifier().explain("yes", " no\n") == Judgement(False, "no", " no\n", "yes")


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
