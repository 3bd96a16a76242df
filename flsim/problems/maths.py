r"""Right is an expression that math-verify proves equal to the reference: fractions, roots, sets, intervals, matrices.

math-verify (https://github.com/huggingface/Math-Verify) bounds its own time by SIGALRM, which raises in every thread
but the main one: called inside a worker it would score everything wrong. And some expressions (`9^{9^{9^9}}`) hold
Python's lock, where no alarm helps. So it runs in a process of its own (`flsim.problems.maths_helper`), which is ended
and started anew when an answer takes too long; what is plainly too large is refused before.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec

from flsim.problems.marked import last_line, marked_answer
from flsim.sandbox.helper import Helper, HelperEndedError, VerifierError

_MOST_CHARS = 256
_MOST_DIGITS = 40  # in a row
_MOST_NESTING = 12  # brackets within each other
_MOST_KEPT = 20_000  # verdicts
_DIGIT_RUN = re.compile(rf"\d{{{_MOST_DIGITS + 1}}}")
_LARGE_POWER = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*-?\d{4}")
# three powers, each in the exponent of the one before: 9^{9^{9^9}}, and not x^2y^2z^2
_TOWER = re.compile(r"(?:\^\s*(?:[{(][^{}^]*|\w\s*)|\*\*\s*(?:\([^*]*|\w+\s*)){3}")
_LARGE_FACTORIAL = re.compile(r"\d{3}[)}\s]*!|!\s*!")
_PATIENCE = 5  # times the limit, for a reference: to drop one is to deal all items otherwise
_MEND = "pip install 'flsim-continual[tasks]'"


class MathsVerifier:
    """Compares expressions; keeps verdicts, which the completions of a group often share."""

    instruction = "Solve the problem. Put the final answer into \\boxed{}."

    def __init__(self, *, wall_s: float = 6.0) -> None:
        """Set the limit of one answer, seconds on the clock, after which it is wrong and its process ended.

        Raises:
            VerifierError: math-verify is not installed.
        """
        if find_spec("math_verify") is None:
            raise VerifierError(f"verifier 'maths' needs the package math-verify, which is not installed: {_MEND}")
        self._wall_s = wall_s
        self._helper = Helper("flsim.problems.maths_helper")
        self._known: dict[tuple[str, str], bool] = {}

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's final answer equals its reference's.

        The answer is in the last box or after the last `####`, else it is the last line.
        """
        return [self._equal(_answer(reference, whole=True), _answer(completion)) for reference, completion in pairs]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those that math-verify does not find equal to themselves, given time enough even on a busy machine."""
        answers = [_answer(reference, whole=True) for reference in references]
        self._known |= {
            (answer, answer): not too_large(answer) and self._asked(answer, answer, _PATIENCE * self._wall_s)
            for answer in dict.fromkeys(answers)
        }
        return [text for text, answer in zip(references, answers, strict=True) if not self._known[answer, answer]]

    def close(self) -> None:
        """End the process."""
        self._helper.close()

    def _equal(self, gold: str, answer: str) -> bool:
        if (gold, answer) not in self._known:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            fit = not too_large(gold) and not too_large(answer)
            self._known[gold, answer] = fit and self._asked(gold, answer, self._wall_s)
        return self._known[gold, answer]

    def _asked(self, gold: str, answer: str, wall_s: float) -> bool:
        try:
            return bool(self._helper.ask([gold, answer], wall_s))
        except HelperEndedError:
            return False


def too_large(answer: str) -> str | None:
    """Why an answer is not looked at: empty, long, deeply nested, or of numbers that no paper could hold."""
    if not answer or len(answer) > _MOST_CHARS:
        return f"{len(answer)} characters; 1 to {_MOST_CHARS} are allowed"
    if _DIGIT_RUN.search(answer):
        return f"more than {_MOST_DIGITS} digits in a row"
    if _LARGE_POWER.search(answer) or _TOWER.search(answer):
        return "a power of four digits, or powers of powers of powers"
    if _LARGE_FACTORIAL.search(answer):
        return "a factorial of three digits, or of a factorial"
    return "brackets too deep" if _nesting(answer) > _MOST_NESTING else None


def _answer(text: str, *, whole: bool = False) -> str:
    marked = marked_answer(text)
    if marked is not None:
        return marked
    return (text if whole else last_line(text)).strip().strip("$").strip()


def _nesting(text: str) -> int:
    depth = most = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        most = max(most, depth)
    return most
