"""The verifier of words: what people would take for the same answer, and what only looks like it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.command.__main__ import main
from flsim.config.schema import ConfigError, DataConfig
from flsim.problems.judging import Judgement, verifier_of
from flsim.problems.words import WordsVerifier, bare
from flsim.tasks.checks import check_data
from flsim.tasks.columns import Columns
from flsim.tasks.tables import Row

RIGHT = [
    ("Paris", "Paris"),
    ("Paris", "paris"),
    ("Paris", "PARIS."),
    ("Paris", " Paris!\n"),
    ("Paris", '"Paris"'),
    ("Paris", "\u201cParis.\u201d"),
    ("Paris", "**Paris**"),
    ("Paris", "**Paris.**"),
    ("Paris", "`Paris`"),
    ("Paris", "***Paris***"),
    ("Paris", "*(Paris)*."),
    ("Paris", "$Paris$"),
    ("Paris", r"\boxed{Paris}"),
    ("Paris", r"It lies on the Seine, so \boxed{\text{Paris}}"),
    ("Paris", "<answer> Paris </answer>"),
    ("Paris", "I think of France.\n#### Paris"),
    ("Paris", "<think>Rome? No.</think>Paris"),
    ("Paris", "Paris\nIt is the capital of France."),
    ("Paris", "\n\nParis<|im_end|>"),
    ("Paris", "Answer: Paris"),
    ("Paris", "**Answer:** Paris"),
    ("Paris", "**Answer: Paris**"),
    ("Paris", "The answer is Paris."),
    ("Paris", "The correct answer is: **Paris**"),
    ("Paris", "So, the answer is Paris."),
    ("Paris", "It is Paris."),
    ("Paris", "It\u2019s Paris."),
    ("Paris", "The capital of France is Paris."),
    ("Paris", "The capital city of France is **Paris**."),
    ("cold", 'The opposite of "hot" is "cold".'),
    ("went", "The past tense of the verb go is went."),
    ("bell", "The last word of this list is bell."),
    ("an apple", "The apple"),
    ("apple", "an apple"),
    ("The Hague", "Hague"),
    ("New York", "new  york"),
    ("Port-au-Prince", "Port au Prince"),
    ("caf\u00e9", "cafe\u0301"),
    ("Nuku'alofa", "Nuku\u2019alofa"),
    ("a", "A"),
    ("a", "a."),
    ("the", "The"),
    ("7", "7"),
    ("7", "**7**."),
    ("-5", "-5"),
    ("Kyiv\nKiev", "Kiev."),
    ("Kyiv\nKiev", "Kyiv"),
]
WRONG = [
    ("Paris", "not Paris"),
    ("Paris", "It is not Paris."),
    ("Paris", "The answer is not Paris"),
    ("Paris", "The capital of France is not Paris."),
    ("Paris", "Not the capital of Italy is Paris"),
    ("Paris", "The city that is never the capital of Italy is Paris"),
    ("Paris", "Paris or Rome"),
    ("Paris", "Paris, Rome"),
    ("Paris", "Paris and Rome"),
    ("Paris", "Paris/Rome"),
    ("Paris", "Rome, not Paris"),
    ("Paris", "Rome\nParis"),
    ("Paris", "- Paris\n- Rome"),
    ("Paris", "1. Paris\n2. Rome"),
    ("Paris", "Paris. No, Rome."),
    ("Paris", "Paris?"),
    ("Paris", "Is it Paris"),
    ("Paris", "Paris, France"),
    ("Paris", "Parish"),
    ("Paris", "Pari"),
    ("Paris", "P a r i s"),
    ("Paris", "It depends"),
    ("Paris", "What is the capital of France?"),
    ("Paris", "The capital of France is"),
    ("Paris", "The answer is"),
    ("Paris", ""),
    ("Paris", "   \n"),
    ("Paris", '""'),
    ("Paris", r"\boxed{}"),
    ("Paris", r"Paris \boxed{Rome}"),
    ("Paris", r"\boxed{Paris"),
    ("Paris", "help"),
    ("New York", "York"),
    ("York", "New York"),
    ("New York", "Newyork"),
    ("cat", "cats"),
    ("cats", "cat"),
    ("went", "go"),
    ("went", "The past tense of go is goed."),
    ("cold", 'What is the opposite of "hot"?'),
    ("cold", "hot"),
    ("cold", "The opposite of cold is hot."),
    ("cold", "uncold"),
    ("true", "untrue"),
    ("possible", "impossible"),
    ("b", "a b"),
    ("an", "a"),
    ("7", "7.0"),
    ("7", "seven"),
    ("7", "17"),
    ("7", "-7"),
    ("7", "7, 8"),
    ("7", "3 + 4"),
    ("34", "3*4"),
    ("25", "2**5"),
    ("34", "3 * 4"),
    ("7", "7 apples"),
    ("5", "-5"),
    ("Kyiv\nKiev", "Kyiv Kiev"),
    ("Kyiv\nKiev", "Kyiv or Kiev"),
    ("Bogota", "Bogot\u00e1"),
]


@pytest.mark.parametrize(("reference", "response"), RIGHT)
def test_what_people_take_for_the_answer_is_right(reference: str, response: str) -> None:
    assert WordsVerifier().verdicts([(reference, response)]) == [True]


@pytest.mark.parametrize(("reference", "response"), WRONG)
def test_what_only_looks_like_the_answer_is_wrong(reference: str, response: str) -> None:
    assert WordsVerifier().verdicts([(reference, response)]) == [False]


@given(st.text(), st.text())
def test_a_verdict_is_equality_of_bare_words_and_nothing_is_never_right(reference: str, text: str) -> None:
    judge = WordsVerifier()
    one_line = reference.splitlines()[:1] == [reference]
    if one_line and bare(reference) and "#" not in reference and "\\" not in reference and "<" not in reference:
        assert bare(bare(reference)) == bare(reference)
    assert judge.verdicts([("", text), ("\n", text), (reference, "")]) == [False] * 3
    assert judge.explain(reference, text).right == judge.verdicts([(reference, text)])[0]


@pytest.mark.parametrize("unit", ["the answer is ", "(", "*", '"', "the capital of ", "- ", "a", "# ", "'\""])
def test_no_response_takes_long_or_raises(unit: str) -> None:
    """The line is cut before any pattern sees it."""
    long = unit * (50_000 // len(unit))
    assert WordsVerifier().verdicts([("Paris", long), (long, "Paris"), ("Paris", f"\\boxed{{{long}")]) == [False] * 3


def test_a_reference_without_a_word_in_its_first_line_is_named() -> None:
    assert verifier_of("words").unreadable(["Paris", "...", "\n", "7"]) == ["...", "\n"]


def test_the_reading_is_shown_and_flsim_judge_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = WordsVerifier().explain("Kyiv\nKiev", "It is **Kiev**.\nReally.")
    assert said == Judgement(True, "kiev", "It is **Kiev**.", "Kyiv")
    assert main(["judge", "Paris", "The capital of France is not Paris.", "--verifier", "words"]) == 1
    assert 'wrong: said not paris from "The capital of France is not Paris."; wanted Paris' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "answer"),
    [("Kiev|Kiew", "Kyiv\nKiev\nKiew"), (["Kiev", " Kiew "], "Kyiv\nKiev\nKiew"), (None, "Kyiv"), (" | ", "Kyiv")],
)
def test_aliases_come_from_a_column(given: Any, answer: str) -> None:
    row = Row({"q": "Capital of Ukraine?", "a": "Kyiv", "also": given}, "file, row 1")
    item = Columns({"question": "q", "answer": "a", "aliases": "also"}).item(row, None)
    assert (item.answer, item.solution) == (answer, "Kyiv" if "\n" in answer else None)


def test_aliases_beside_another_verifier_are_refused() -> None:
    settings = {"files": {"all": "mine.csv"}, "columns": {"question": "q", "answer": "a", "aliases": "also"}}
    check_data({"mine": DataConfig(kind="files", settings=settings, verifier="words")})
    with pytest.raises(ConfigError, match=r"aliases is for the verifier words.*data\.mine\.verifier is exact"):
        check_data({"mine": DataConfig(kind="files", settings=settings)})
