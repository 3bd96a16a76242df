"""Numbers as people write them: every kind of writing is a law, with pairs that are right and pairs that are wrong."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.problems.judging import explain, verifier_of
from flsim.problems.numbers import NumericVerifier, number_in
from tests.flsim.problems.pairs import by_law, misjudged
from tests.flsim.problems.texts import TEXTS

KINDS = by_law("numeric")

NUMBERS = st.fractions(max_denominator=1000).filter(lambda value: abs(value) < 10**9)


def value_of(text: str) -> Fraction | None:
    number = number_in(text)
    return None if number is None else number.value


@pytest.mark.parametrize("law", KINDS)
def test_every_kind_of_writing(law: str) -> None:
    pairs = KINDS[law]
    verdicts = NumericVerifier().verdicts([(pair["reference"], pair["response"]) for pair in pairs])
    assert misjudged(pairs, verdicts) == []


@given(NUMBERS, NUMBERS)
def test_a_number_equals_itself_however_it_is_written(value: Fraction, other: Fraction) -> None:
    top, bottom = value.numerator, value.denominator
    written = [
        f"#### {value}",
        f"so it is \\boxed{{{value}}}.",
        f"\\boxed{{\\frac{{{top}}}{{{bottom}}}}}",
        f"We try 17, then {value}",
        f"first \\boxed{{{other}}}, no: #### {value}",
        f"#### {other}\nno: $\\boxed{{{value}}}$",
        f"<think>#### {other}</think>The answer is {value}. It took 2 steps.",
    ]
    assert [value_of(text) for text in written] == [value] * len(written)
    assert NumericVerifier().verdicts([(f"#### {value}", f"#### {other}")]) == [value == other]


@given(st.integers(-(10**12), 10**12), st.integers(0, 99))
def test_commas_money_and_cents_change_nothing(whole: int, cents: int) -> None:
    value = Fraction(whole) + (1 if whole >= 0 else -1) * Fraction(cents, 100)
    for text in (
        f"{whole:,}.{cents:02}",
        f"${whole:,}.{cents:02}",
        f"{whole}.{cents:02}%",
        f"\\${whole:,}.{cents:02}.",
        f"#### {whole:,}.{cents:02}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        f"\\boxed{{{whole:,}.{cents:02}}}".replace("-", "\N{MINUS SIGN}").replace(",", "\\,"),
    ):
        assert value_of(text) == value


@given(st.integers(1, 10**6), st.integers(-30, 30))
def test_a_power_of_ten_is_exact(whole: int, power: int) -> None:
    value = whole * Fraction(10) ** power
    for text in (f"\\boxed{{{whole} \\times 10^{{{power}}}}}", f"#### {whole}e{power}", f"so {whole}*10**{power}"):
        assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 18 dollars for 3 days", 18),
        ("It costs -$7.", -7),
        ("5-3=2", 2),
        ("5 - 12", 12),
        ("\\frac34", Fraction(3, 4)),
        ("\\boxed{41 42 43}", None),
        ("\\boxed{", None),
        ("\\boxed", None),
        ("1/0", None),
        ("v2", None),
        ("", None),
        ("7" * 100, None),
    ],
)
def test_numbers_found_by_hand(text: str, value: Fraction | None) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("response", "said", "taken_from"),
    [
        ("so \\boxed{20\\text{ cm}^2}", "20", "20\\text{ cm}^2"),
        ("#### 3 million", "3 million", "3 million"),
        ("It is 3/7, or 12.5%", "12.5%", "It is 3/7, or 12.5%"),
        ("\\boxed{\\frac{3}{7}}", "3/7", "\\frac{3}{7}"),
        ("I do not know", None, None),
    ],
)
def test_a_reading_is_told(response: str, said: str | None, taken_from: str | None) -> None:
    judgement = explain("numeric", "#### 20", response)
    assert (judgement.said, judgement.taken_from, judgement.wanted) == (said, taken_from, "20")
    assert judgement.right == (said == "20")


@given(TEXTS)
def test_no_response_raises_and_every_reading_has_its_verdict(text: str) -> None:
    verdicts = NumericVerifier().verdicts([("#### 5", text), (text, text)])
    assert verdicts == [explain("numeric", "#### 5", text).right, number_in(text) is not None]


@pytest.mark.torture
@settings(max_examples=20_000, deadline=None)
@given(TEXTS)
def test_no_response_raises_in_many(text: str) -> None:
    NumericVerifier().verdicts([("#### 5", text), (text, text)])


@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "(",
        "*",
        "1 ",
        "1,",
        "1.",
        "-",
        "$",
        "answer ",
        "answer: (",
        "\\boxed{",
        "{",
        "\n",
        "1/ ",
        "9",
        "a ",
        "_",
        "=",
        "1=",
        "####",
        "\\boxed 1 or ",
        "10^",
        "a^{",
        "\\,",
        "1\\,",
        "#### Step\n",
        "</think>",
        "½",
    ],
)
def test_no_response_takes_long(unit: str) -> None:
    """Patterns that try a run of characters in every way would take minutes."""
    long = unit * (20_000 // len(unit))
    before = time.process_time()
    for text in (
        long,
        f"answer{long}",
        f"\\boxed{{{long}",
        f"\\boxed{{{long}}}",
        f"#### {long}",
        f"1{long}x",
        f"{long}5",
    ):
        NumericVerifier().verdicts([("#### 5", text)])
    assert time.process_time() - before < 2.0


def test_references_that_cannot_be_met_are_named() -> None:
    assert verifier_of("numeric").unreadable(["#### 5", "five"]) == ["five"]
