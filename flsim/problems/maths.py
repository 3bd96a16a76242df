r"""Right is an expression that math-verify proves equal to the reference: fractions, roots, sets, intervals, matrices.

math-verify (https://github.com/huggingface/Math-Verify) bounds its own time by a signal, which raises in every thread
but the main one: called inside a worker it would score everything wrong. And some expressions (`9^{9^{9^9}}`) hold
Python's lock, where no signal helps. So it runs in a process of its own (`flsim.problems.maths_helper`), which is ended
and started anew when an answer takes too long; what is plainly too large is refused before. What counts is processor
time, so that a busy machine judges as an idle one does.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec

from flsim.problems.answers.exact import constant
from flsim.problems.answers.kinds import decided
from flsim.problems.answers.marked import last_line, marked, spoken
from flsim.problems.answers.notation import unit_of, written
from flsim.problems.judging import Judgement
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
_LONGEST_END = 2_000  # characters of a completion without a mark in which its answer is looked for
_SAID = re.compile(r"\b(?i:answer)\b[*_\s]{0,4}(?:(?:is|are|was|equals)\b|[:=])[*_\s:]{0,6}")
_DISPLAYED = re.compile(r"(?s:(?:\\\[|\$\$)((?:(?!\\\[|\$\$).){1,600}?)(?:\\\]|\$\$)[\s.]*$)")
_SHOWN = re.compile(r"\\\[|\$\$")
_FORMULA = re.compile(r"(?s:\$\$.{1,600}?\$\$|\$[^$]{1,600}\$|\\\(.{1,600}?\\\)|\\\[.{1,600}?\\\])")
_STATED = re.compile(
    r"\b(?:is|are|equals|becomes|gives|get|have|obtain|(?:it|that)'s)\b:?\s+|\b(?:So|Thus|Hence|Therefore)\b,?\s+"
)
_JOIN = re.compile(r"\s*(?:,|;|and|or|,\s*and|,\s*or)\s*")
_HOPE = re.compile(r"\s*I hope (?:it|this|that) is correct\.?\s*")
_TELLING = re.compile(r"[\d\\]")
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?(?!\w)")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_PROSE = 4  # words
_UNIT_AFTER = re.compile(r"\s?%")
_MEND = "pip install 'flsim-continual[tasks]'"


class MathsVerifier:
    """Compares expressions; keeps verdicts, which the completions of a group often share."""

    instruction = "Solve the problem. Put the final answer into \\boxed{}."

    def __init__(self, *, cpu_s: float = 6.0, wall_s: float = 120.0) -> None:
        """Set the limits of one answer, after which it is wrong and its process ended.

        Args:
            cpu_s: seconds of processor time, which is cut off up to three later.
            wall_s: seconds on the clock, for a process that waits and does not compute; a verdict hangs on the load of
                the machine where it is short.

        Raises:
            VerifierError: math-verify is not installed.
        """
        if find_spec("math_verify") is None:
            raise VerifierError(f"verifier 'maths' needs the package math-verify, which is not installed: {_MEND}")
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._helper = Helper("flsim.problems.maths_helper")
        self._known: dict[tuple[str, str], bool] = {}

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's final answer equals its reference's.

        The answer is in the last box or after the last `####`, else after the last "answer is", else in the last line.
        """
        return [self.explain(reference, completion).right for reference, completion in pairs]

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict, and the two answers in one notation."""
        reference, taken_from = _stated(reference), answer_in(completion)
        wanted, said = written(reference), written(taken_from)
        units = {unit for text in (reference, taken_from) if (unit := unit_of(text))}
        right = len(units) < 2 and self._equal(wanted, said)  # 2 cm are not 2 m, but may be 2
        return Judgement(right, said or None, taken_from or None, wanted or None)

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those without an answer, and those that are too large to be compared with anything."""
        answers = [(reference, written(_stated(reference))) for reference in references]
        return [text for text, answer in answers if too_large(answer) and constant(answer) is None]

    def close(self) -> None:
        """End the process."""
        self._helper.close()

    def _equal(self, wanted: str, said: str) -> bool:
        if not wanted or not said:
            return False
        if (wanted, said) not in self._known:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            verdict = decided(wanted, said)
            if verdict is None:
                fit = not too_large(wanted) and not too_large(said)
                verdict = fit and self._asked(wanted, said)
            self._known[wanted, said] = verdict
        return self._known[wanted, said]

    def _asked(self, gold: str, answer: str) -> bool:
        try:
            return bool(self._helper.ask([gold, answer], self._wall_s, self._cpu_s))
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


def answer_in(text: str) -> str:
    """The stretch of a completion that is its answer."""
    found = marked(text)
    if found is not None and found.by != "tag":
        return found.text
    text = _HOPE.sub("", (spoken(text) if found is None else found.text)[-_LONGEST_END:])
    said = list(_SAID.finditer(text))
    if said:
        line = text[said[-1].end() :].strip()
        return _formula(line if _SHOWN.match(line) else line.split("\n", 1)[0])
    shown = _DISPLAYED.search(text)
    return shown[1].strip() if shown else _formula(last_line(text))


def _formula(line: str) -> str:
    """What follows the last `is` of a line, else its last formulas, with those that `and` or a comma joins to them."""
    formulas = list(_FORMULA.finditer(line))
    after = formulas[-1].end() if formulas else 0
    stated = [line[match.end() :] for match in _STATED.finditer(line, after) if line[match.end() :].strip(" .*")]
    telling = [rest for rest in stated if _TELLING.search(rest[:80])]
    if telling or (stated and not formulas):
        return (telling or stated)[-1]
    if not formulas:
        numbers = _NUMBER.findall(line) if len(_WORD.findall(line)) >= _PROSE else None
        return numbers[-1] if numbers else line
    parts = [formulas[-1][0]]
    for first, second in zip(reversed(formulas[:-1]), reversed(formulas[1:]), strict=True):
        if not _JOIN.fullmatch(line, first.end(), second.start()):
            break
        parts.insert(0, first[0])
    unit = _UNIT_AFTER.match(line, formulas[-1].end())
    inner = [
        part.strip("$").removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]")
        for part in parts
    ]
    return ", ".join(inner) + (unit[0] if unit else "")


def _stated(reference: str) -> str:
    """The answer of a reference, which may be nothing else."""
    found = marked(reference)
    return reference if found is None else found.text


def _nesting(text: str) -> int:
    depth = most = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        most = max(most, depth)
    return most
