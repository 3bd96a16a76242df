"""The process in which math-verify runs, in its main thread; started by `flsim.problems.maths`."""

import logging
from collections.abc import Callable
from typing import Any

from flsim.sandbox.serving import serve

_PARSING_S, _COMPARING_S = 2, 2  # whole seconds, as SIGALRM counts them


def _begin() -> Callable[[Any], bool]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)  # a line for each answer that does not parse
    ways = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def equal(pair: list[str]) -> bool:
        try:
            # the reference comes first: math-verify is not symmetric about intervals and chains of equations
            gold, answer = (
                parse(f"$\\boxed{{{text}}}$", extraction_config=ways, parsing_timeout=_PARSING_S) for text in pair
            )
            return bool(gold) and bool(answer) and bool(verify(gold, answer, timeout_seconds=_COMPARING_S))
        except BaseException:  # its TimeoutException is no Exception
            return False

    if not equal(["\\frac{1}{2}", "0.5"]) or equal(["1", "2"]):
        raise RuntimeError("math-verify does not find 1/2 equal to 0.5; is it installed with its extra antlr4_13_2?")
    return equal


if __name__ == "__main__":
    serve(_begin)
