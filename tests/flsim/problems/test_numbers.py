# ruff: noqa: RUF001 (signs that look alike are what is tested)
"""Numbers as people write them: every kind of writing is a law, with pairs that are right and pairs that are wrong."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.problems.judging import explain, verifier_of
from flsim.problems.numbers import NumericVerifier, number_in
from tests.flsim.problems.texts import TEXTS

NUMBERS = st.fractions(max_denominator=1000).filter(lambda value: abs(value) < 10**9)
KINDS: dict[str, list[tuple[str, str, bool]]] = {
    "digits in groups are one number, whatever groups them": [
        ("1000", "\\boxed{1\\,000}", True),
        ("12500", "\\boxed{12\\ 500}", True),
        ("12500", "\\boxed{12 500}", True),
        ("12500", "#### 12 500", True),
        ("12500", "The total is 12,500.", True),
        ("1234567", "#### 12,34,567", True),
        ("1234567", "\\boxed{1{,}234{,}567}", True),
        ("1234567", "\\boxed{1,234,567.00}", True),
        ("1234567", "#### 1.234.567", True),
        ("1234567", "#### 1'234'567", True),
        ("1234567", "#### 1_234_567", True),
        ("1234.5", "#### 1.234,50", True),
        ("1234", "#### 1.234", False),
        ("3.5", "#### 3,5", True),
        ("35", "#### 3,5", False),
        ("1", "#### 1,000", False),
        ("12", "#### 12,500", False),
        ("100000", "#### 1,00,00", False),
    ],
    "a sign belongs to its number, however it is written, and a dash between two terms to none": [
        ("-5", "#### - 5", True),
        ("-5", "\\boxed{- 5}", True),
        ("-5", "The answer is - 5.", True),
        ("-5", "so it is -5", True),
        ("-5", "\\boxed{(-5)}", True),
        ("-5", "\\boxed{-\\,5}", True),
        ("5", "\\boxed{-5}", False),
        ("-5", "\\boxed{5}", False),
        ("-0.75", "\\boxed{-\\frac{3}{4}}", True),
        ("-0.75", "\\boxed{\\frac{-3}{4}}", True),
        ("-0.75", "\\boxed{\\frac{3}{-4}}", True),
        ("5", "x = 8 - 3 = 5", True),
        ("3", "x - 3", True),
        ("-5", "-$5.00", True),
        ("-5", "#### -£5", True),
        ("-5", "#### (–5)", True),
    ],
    "a power of ten is multiplied out": [
        ("300000", "\\boxed{3 \\times 10^{5}}", True),
        ("300000", "\\boxed{3\\times10^5}", True),
        ("300000", "#### 3 x 10^5", True),
        ("300000", "#### 3e5", True),
        ("300000", "#### 3.0E+5", True),
        ("300000", "#### 3×10⁵", True),
        ("300000", "\\boxed{3 \\cdot {10}^{5}}", True),
        ("0.00003", "\\boxed{3\\times 10^{-5}}", True),
        ("100000", "\\boxed{10^5}", True),
        ("1e100", "#### 1e100", True),
        ("1", "#### 1e100", False),
        ("3", "\\boxed{3 \\times 10^{5}}", False),
        ("1024", "\\boxed{2^{10}}", True),
        ("2", "\\boxed{2^{10}}", False),
        ("300000", "#### 3*10**5", True),
        ("1", "#### 1e1000", False),
    ],
    "a unit is read over, and so is its power": [
        ("20", "\\boxed{20\\text{ cm}^2}", True),
        ("20", "\\boxed{20\\,\\text{m}^{-1}}", True),
        ("20", "\\boxed{20~\\mathrm{kg\\cdot m^2}}", True),
        ("20", "#### 20 m³", True),
        ("20", "#### 20m2", True),
        ("20", "\\boxed{20 \\text{ m/s}^2}", True),
        ("2", "\\boxed{20\\text{ cm}^2}", False),
        ("400", "\\boxed{20\\text{ cm}^2}", False),
        ("50", "\\boxed{50 \\text{ miles per hour}}", True),
        ("50", "#### $50/hour", True),
        ("90", "\\boxed{90^\\circ}", True),
        ("90", "#### 90°", True),
        ("25", "\\boxed{25^\\circ\\text{C}}", True),
        ("5", "\\boxed{5^{\\text{th}}}", True),
        ("5", "#### 5th", True),
        ("3", "#### 3 PM", True),
        ("18", "\\boxed{18\\ \\text{eggs}}", True),
    ],
    "a box holds one number and nothing else": [
        ("5", "So it is \\boxed 5", True),
        ("5", "So it is \\boxed 5.", True),
        ("15", "So it is $\\boxed 15$", True),
        ("0.5", "so \\boxed \\frac{1}{2}", True),
        ("0.5", "so $\\boxed\\frac12$", True),
        ("5", "\\boxed{\\boxed{5}}", True),
        ("7", "\\boxed{5} no, \\boxed{7}", True),
        ("5", "\\boxed{5} no, \\boxed{7}", False),
        ("5", "\\boxed{ 5 }.", True),
        ("5", "\\boxed{}", False),
        ("5", "\\boxed{5} then \\boxed{", False),
        ("5", "\\fbox{5}", True),
        ("5", "\\boxed{\\text{The answer is } 5}", True),
        ("5", "\\boxed{x=5}", True),
        ("5", "\\boxed{\\mathbf{5}}", True),
        ("5", "\\boxed{5\\% }", True),
        ("5", "\\boxed{4,5,6}", False),
        ("5", "\\boxed{5 \\text{ or } 6}", False),
        ("5", "\\boxed{5} or \\boxed{6}", False),
        ("5", "\\boxed{\\sqrt{5}}", False),
        ("5", "\\boxed{5\\pi}", False),
        ("5", "\\boxed{5x}", False),
        ("5", "\\boxed{5!}", False),
        ("5", "\\boxed{\\pm 5}", False),
        ("2", "\\boxed{\\frac{x}{2}}", False),
        ("18", "\\boxed{9 \\times 2 = 18}", True),
    ],
    "what is thought aloud does not count against the answer after it": [
        ("7", "<think>\\boxed{5}</think> The answer is 7.", True),
        ("5", "<think>\\boxed{5}</think> The answer is 7.", False),
        ("7", "maybe #### 5</think>\n\n#### 7", True),
        ("5", "maybe #### 5</think>\n\n#### 7", False),
        ("7", "<think>a\n#### 5\n</think>7", True),
        ("5", "<think>\\boxed{5}</think> I do not know.", False),
        ("18", "<think>5</think><answer>18</answer>", True),
        ("18", "<answer>\\boxed{18}</answer>", True),
        ("18", "<answer>There are 3 bags, so 18</answer>", True),
    ],
    "fractions are exact": [
        ("0.5", "#### ½", True),
        ("1.5", "#### 1½", True),
        ("1.5", "#### 1 ½", True),
        ("1.5", "#### 1 1/2", True),
        ("1.5", "\\boxed{1\\frac{1}{2}}", True),
        ("1.5", "\\boxed{1 \\dfrac12}", True),
        ("0.75", "¾", True),
        ("0.333", "#### ⅓", False),
        ("1/3", "#### ⅓", True),
        ("1/3", "\\boxed{0.\\overline{3}}", True),
        ("1/6", "\\boxed{0.1\\overline{6}}", True),
        ("1", "#### ½", False),
        ("2", "#### ½", False),
        ("500", "\\boxed{\\frac{1{,}000}{2}}", True),
        ("0.5", "\\boxed{\\frac{0.5}{1}}", True),
        ("0.5", "\\boxed{{1 \\over 2}}", True),
        ("2/3", "#### 2/3 of a mile", True),
        ("2", "#### 2/3", False),
        ("0.5", "#### 1 / 2", True),
        ("1.5", "#### 1.5", True),
        ("11.5", "\\boxed{11\\tfrac{1}{2}}", True),
    ],
    "emphasis is read over": [
        ("18", "**18**", True),
        ("18", "The answer is **18**.", True),
        ("18", "#### __18__", True),
        ("18", "#### _18_", True),
        ("18", "#### ***18***", True),
        ("18", "#### `18`", True),
        ("18", "**Answer:** 18", True),
        ("18", "**Answer: $18**", True),
        ("18", "\\boxed{**18**}", True),
        ("18", "\\boxed{\\textbf{18}}", True),
        ("18", "#### \\textbf{18}", True),
        ("18", "*Answer*: **1**8", False),
    ],
    "a numeral of another base is the number that it means": [
        ("31", "#### 0x1F", True),
        ("0", "#### 0x1F", False),
        ("1", "#### 0b101", False),
        ("5", "#### 0b101", True),
        ("0", "#### 0x10000000000000000000", False),
        ("12", "\\boxed{12_3}", False),
        ("5", "\\boxed{12_3}", True),
        ("12", "\\boxed{12_{4}}", False),
        ("1010", "\\boxed{1010_2}", False),
    ],
    "signs of money are read over; per cent and millions count or not, as the reference does": [
        ("50", "#### €50", True),
        ("50", "#### 50€", True),
        ("50", "#### ₹50", True),
        ("50", "#### USD 50", True),
        ("50", "#### Rs. 50", True),
        ("50", "#### US$50", True),
        ("50", "\\boxed{\\$50.00}", True),
        ("50", "#### 50 dollars", True),
        ("0.5", "#### 50%", True),
        ("50", "#### 50 percent", True),
        ("50%", "0.5", True),
        ("50%", "50\\%", True),
        ("50%", "0.5%", False),
        ("5", "#### 50%", False),
        ("1500000", "#### 1.5 million", True),
        ("1.5", "#### 1.5 million", True),
        ("3000000", "#### 3 thousand", False),
        ("5000", "#### 5k", True),
        ("3 million", "3 thousand", False),
        ("36", "#### 3 dozen", True),
    ],
    "a range, a list, a time, a date and a version are no number": [
        ("10", "#### 10-12", False),
        ("12", "#### 10-12", False),
        ("10", "#### 10–12", False),
        ("10", "#### 10 to 12", False),
        ("12", "#### 12 or 13", False),
        ("12", "#### 12, 13", False),
        ("9", "#### 9:30", False),
        ("30", "#### 9:30", False),
        ("2", "\\boxed{2:3}", False),
        ("9", "#### 9:00", True),
        ("2024", "#### 2024-05-06", False),
        ("5", "#### 5/6/2024", False),
        ("1", "#### 1.2.3", False),
        ("1.2", "#### 1.2.3", False),
    ],
    'without a mark the number after "answer is" counts, else the last one': [
        ("18", "The answer is 18. I hope this helps: it took 3 steps.", True),
        ("18", "The answer is 18 dollars for 3 days.", True),
        ("3", "The answer is 18 dollars for 3 days.", False),
        ("18", "The answer is 17. Wait, no: it is 18", True),
        ("7", "The answer is the sum of 3 and 4, which is 7.", True),
        ("18", "Total = 9 * 2 = 18", True),
        ("18", "The answer is 9 * 2 = 18.", True),
        ("18", "Final answer: \\(18\\)", True),
        ("18", "The final answer is $\\boxed{18}$. I hope it is correct.", True),
        ("72", "The total is 72 clips, altogether.", True),
        ("18", "So the total is 18!", True),
        ("29", "the total cost of Rory's delivery order is $29.00.", True),
        ("0.132", "The final value is 13.20%", True),
        ("13.2", "The final value is 13.20%", True),
        ("18", "答案是18", True),
        ("18", "答案：18个苹果", True),
    ],
    "the line of the last #### begins with the answer": [
        ("18", "#### Final Answer: 18", True),
        ("18", "#### Final Answer\n18", True),
        ("18", "#### Step 3: add 5\nSo the total is 18", True),
        ("5", "#### Step 5: add\nSo the total is 18", False),
        ("18", "####18", True),
        ("18", "####\n18", True),
        ("18", "##### 18", True),
        ("18", "#### x = 18", True),
        ("18", "#### 9 * 2 = 18 apples", True),
        ("42", "#### 42\n\nQuestion: How many?\nAnswer: 5\n#### 5", True),
        ("5", "#### 42\n\nQuestion: How many?\nAnswer: 5\n#### 5", False),
        ("42", "#### 42 #### 42", True),
        ("42", "#### 42 and the above confirms 3 steps.", True),
        ("42", "#### 42.", True),
        ("42", "#### 42,", True),
        ("42", "#### 42.0000", True),
        ("42", "#### 42.5", False),
    ],
}
"""Law: reference, response, and whether people would call it right."""


def value_of(text: str) -> Fraction | None:
    number = number_in(text)
    return None if number is None else number.value


@pytest.mark.parametrize("law", KINDS)
def test_every_kind_of_writing(law: str) -> None:
    verdicts = NumericVerifier().verdicts([(reference, response) for reference, response, _ in KINDS[law]])
    assert [pair for pair, verdict in zip(KINDS[law], verdicts, strict=True) if pair[2] != verdict] == []


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


@pytest.mark.slow
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
