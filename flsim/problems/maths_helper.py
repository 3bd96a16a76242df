"""The process in which math-verify runs, in its main thread; started by `flsim.problems.maths`.

math-verify rounds numbers to 6 places after the point, so that 0.0000001 would be 0.0000002 and 0.3333333 a third: what
it finds equal is compared once more, relative to its size. Its limits are seconds on the clock (SIGALRM), by which a
busy machine would call an answer wrong that an idle one calls right: they are put onto processor time (SIGPROF).
"""

import logging
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

from flsim.sandbox.serving import serve

_PARSING_S, _COMPARING_S = 2, 2  # seconds of processor time
_DIGITS, _NEAR = 30, 1e-12  # digits of a comparison; the relative difference that the 15 digits of a float leave


def _begin() -> Callable[[Any], bool]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, grader, parse, parser, verify

    grader.timeout = parser.timeout = within
    logging.disable(logging.CRITICAL)  # a line for each answer that does not parse
    ways = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    grader.sympy_numeric_eq = _also_near(grader.sympy_numeric_eq)

    def equal(pair: list[str]) -> bool:
        try:
            # the reference comes first: math-verify is not symmetric about chains of equations
            gold, answer = (
                [
                    _of_known_symbols(value)
                    for value in parse(f"$\\boxed{{{text}}}$", extraction_config=ways, parsing_timeout=_PARSING_S)
                ]
                for text in pair
            )
            found = verify(gold, answer, timeout_seconds=_COMPARING_S, allow_set_relation_comp=True)
            return bool(gold) and bool(answer) and bool(found)
        except BaseException:  # its TimeoutException is no Exception
            return False

    if not equal(["\\frac{1}{2}", "0.5"]) or equal(["1", "2"]) or equal(["\\frac{1}{3}", "0.3333333"]):
        raise RuntimeError("math-verify does not find 1/2 equal to 0.5; is it installed with its extra antlr4_13_2?")
    return equal


def within(timeout_seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """math-verify's own decorator, but that the seconds are of this process's processor time.

    The decorated function raises its TimeoutException when they are used up.
    """
    from math_verify.errors import TimeoutException

    def late(signum: int, frame: Any) -> None:
        raise TimeoutException("used up its processor time")

    def limited(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            before = signal.signal(signal.SIGPROF, late)
            signal.setitimer(signal.ITIMER_PROF, timeout_seconds)
            try:
                return function(*given, **named)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.signal(signal.SIGPROF, before)

        return call

    return limited


def _of_known_symbols(value: Any) -> Any:
    """With `i` as the imaginary unit; math-verify takes it for a symbol that is now real, now not."""
    from sympy import I, Symbol  # type: ignore[import-untyped]

    symbols = {one for one in getattr(value, "free_symbols", ()) if type(one) is Symbol}
    if not any(one.name == "i" for one in symbols):
        return value
    return value.xreplace({one: I if one.name == "i" else Symbol(one.name, real=True) for one in symbols})


def _also_near(rounded: Callable[..., bool]) -> Callable[..., bool]:
    """math-verify's comparison of numbers, and after it one of their relative difference."""
    from math_verify.grader import get_pct_val

    def equal(first: Any, second: Any, *settings: Any) -> bool:
        if not rounded(first, second, *settings):
            return False
        if not all(getattr(value, "is_number", False) and get_pct_val(value) is None for value in (first, second)):
            return True  # 10% is 10 and 0.1
        left, right = (value.doit().evalf(_DIGITS) for value in (first, second))
        return bool(abs(left - right) <= _NEAR * max(abs(left), abs(right)))

    return equal


if __name__ == "__main__":
    serve(_begin)
