"""Mathematics as people write it: every kind of answer is a law, with pairs that are right and pairs that are wrong."""

import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.problems.answers.exact import Constant, constant
from flsim.problems.answers.kinds import decided
from flsim.problems.answers.notation import written
from flsim.problems.maths import MathsVerifier, answer_in, too_large
from tests.flsim.problems.pairs import by_law, misjudged
from tests.flsim.problems.texts import TEXTS

KINDS = by_law("maths")


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathsVerifier]:
    pytest.importorskip("math_verify")
    made = MathsVerifier()
    yield made
    made.close()


LONG = ("an answer is the same in whatever dress, and another answer is not", "an answer is the same in whatever words")
"""Laws with many pairs that math-verify takes seconds for."""


@pytest.mark.parametrize("law", [pytest.param(law, marks=pytest.mark.slow if law in LONG else ()) for law in KINDS])
def test_every_kind_of_answer(verifier: MathsVerifier, law: str) -> None:
    pairs = KINDS[law]
    verdicts = verifier.verdicts([(pair["reference"], pair["response"]) for pair in pairs])
    assert misjudged(pairs, verdicts) == []


@pytest.mark.parametrize(
    ("response", "said", "taken_from"),
    [
        ("so \\boxed{20\\text{ cm}^2}", "20", "20\\text{ cm}^2"),
        ("#### ]0;1[", "(0,1)", "]0;1["),
        ("The answer is **pi/2**.", "\\pi /2", "pi/2**."),
        ("", None, None),
    ],
)
def test_a_reading_is_told(verifier: MathsVerifier, response: str, said: str | None, taken_from: str | None) -> None:
    judgement = verifier.explain("20", response)
    assert (judgement.said, judgement.taken_from, judgement.wanted) == (said, taken_from, "20")
    assert judgement.right == (said == "20")


SMALL = st.fractions(-50, 50, max_denominator=20)


def as_latex(value: Fraction) -> str:
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


@given(SMALL, SMALL, st.integers(-4, 4))
def test_constants_are_fractions(first: Fraction, second: Fraction, power: int) -> None:
    """A sum, a product and a power of what Python computes."""
    for text, value in [
        (f"{as_latex(first)} + {as_latex(second)}", first + second),
        (f"{as_latex(first)} \\cdot {as_latex(second)}", first * second),
        (f"-({as_latex(first)} - {as_latex(second)})^{{2}}", -((first - second) ** 2)),
    ]:
        assert constant(text) == Constant(value)
    if first:
        assert constant(f"({as_latex(first)})^{{{power}}}") == Constant(first**power)


@given(st.integers(2, 50), st.integers(1, 10**6), st.integers(2, 5))
def test_a_power_is_the_power_of_its_root_however_large(base: int, exponent: int, root: int) -> None:
    """(b^r)^e = b^{re}, and not b^{re+1}."""
    left, right = constant(f"{base**root}^{{{exponent}}}"), constant(f"{base}^{{{root * exponent}}}")
    assert left is not None
    assert right is not None
    assert left.equals(right)
    above = constant(f"{base}^{{{root * exponent + 1}}}")
    assert above is not None
    assert not left.equals(above)


@given(st.integers(1, 200), st.integers(1, 200))
def test_roots_multiply(first: int, second: int) -> None:
    left, right = constant(f"\\sqrt{{{first}}}\\sqrt{{{second}}}"), constant(f"\\sqrt{{{first * second}}}")
    assert left is not None
    assert right is not None
    assert left.equals(right)


def test_what_is_no_constant_is_none() -> None:
    for text in (
        "x",
        "1 2",
        "",
        "2^",
        "(1",
        "1/0",
        "0^{0}",
        "\\sqrt{-4}",
        "99999!",
        "5!!",
        "9^{9^{9^{9}}}",
        "(" * 300 + "1",
    ):
        assert constant(text) is None


@given(TEXTS)
def test_no_response_raises_and_its_notation_is_kept(text: str) -> None:
    """What is written once stays as it is, and equals itself."""
    said = written(answer_in(text))
    assert decided(said, said) is bool(said)
    assert decided("5", said) in (True, False, None)


@pytest.mark.torture
@settings(max_examples=20_000, deadline=1000)
@given(TEXTS)
def test_no_response_raises_or_hangs_in_many(text: str) -> None:
    said = written(answer_in(text))
    for wanted in ("5", "(1,2)", "\\{1,2\\}", "9:00", "\\text{June 20}", "12_3", said):
        decided(wanted, said)
        decided(said, wanted)


@pytest.mark.torture
@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
def test_math_verify_survives_many(verifier: MathsVerifier, text: str) -> None:
    before = time.monotonic()
    assert verifier.verdicts([("x+1", text)])[0] in (True, False)
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    "unit",
    [
        *[
            " ",
            "(",
            "[",
            "1 ",
            "1,",
            "-",
            "$",
            "answer is ",
            "\\boxed{",
            "{",
            "\n",
            "9",
            "_",
            "=",
            "####",
            "10^",
            "a^{",
            "\\,",
        ],
        *[
            "\\text{",
            "x<1 or ",
            "or ",
            "is ",
            "\\mathbf{i}+",
            "9!",
            "\\sqrt(",
            "exp(",
            "]0,1[",
            "\\\\",
            "\\[",
            "**",
            "½",
            "2*",
        ],
    ],
)
def test_no_response_takes_long_to_be_read(unit: str) -> None:
    before = time.process_time()
    for length in (500, 20_000):
        long = unit * (length // len(unit))
        for text in (long, f"\\boxed{{{long}}}", f"answer is {long}5"):
            said = written(answer_in(text))
            decided("5", said)
            too_large(said)
    assert time.process_time() - before < 3.0


@pytest.mark.parametrize(
    "said", ["9^9^9", "9^{9^{9^9}}", "x^{9^9^9}", "99999!", "((2^{9999})!)!", "\\binom{99999}{500}", "(x+1)^{9999}"]
)
def test_what_would_hang_is_wrong_in_time(verifier: MathsVerifier, said: str) -> None:
    assert verifier.verdicts([("5", f"\\boxed{{{said}}}")]) == [False]
