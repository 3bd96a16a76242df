"""Right is code that passes the tests of its reference, tried in a sandbox; where no sandbox holds, none is tried.

Threat model. The code is hostile: it wants to be paid without solving the task, or to do harm. The tests, this package,
Python and the kernel are trusted. Three processes share the work:

    worker      (tests, completion) ->   judge      runs the tests     -> calls ->   cell   holds the code, and
                verdict             <-              and counts asserts <- values <-         nothing else

1.  The code's process never holds the tests, an expected value, a secret or a descriptor but its line to the judge, nor
    do the processes that it is forked from. It can be taken over completely (`gc`, `ctypes`, monkey-patched `assert`s,
    written replies): it can then answer calls as it likes, and answers must be the right ones.
2.  What comes out of the cell is parsed as plain data: no pickle, no object with an `__eq__` of its own, no exception
    that ends a loop in silence, no name of a function of the judge.
3.  A pass is every assert of the tests seen to hold in the judge and counted there, the count the worker's own, and a
    nonce of this request on a pipe that no cell holds. Leaving (`os._exit(0)`), printing, and dying count for nothing.
4.  The cell has no network, no other process, no file but the standard library to read and none to write, and limits on
    processor time, clock time, memory and messages; each limit is probed before a sandbox is used.

Not covered. Weak tests are passed by whatever passes them: a constant, an object that is merely truthy, or one whose
own methods say yes (`assert f(x).issubset(y)`; write `assert set(f(x)) <= y`). The code sees the arguments of calls, so
a test that passes the expected value as an argument gives it away. Holes in the kernel or in Python itself, and timing.
Tests of a dataset are executed in the judge without a sandbox: take datasets you trust.

Which part of a completion is its code is said in `flsim/sandbox/solution.py`; it is found in the judge, as a parser
given hostile text is no safe place. A reference may also be JSON of inputs and outputs, for code that reads standard
input (`flsim/sandbox/program.py`), or begin with the head of the function that is asked for, as HumanEval's prompts do.

Not supported: code that needs a package outside the standard library, a file, a thread (but a program's own) or a
process; tests that catch the code's own exceptions, use its objects in `with`, add plain values to them, read fields of
a named tuple by name, or use `is` on what comes back.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from flsim.problems.judging import Judgement
from flsim.sandbox.asserts import assert_sites, headed, why_unusable
from flsim.sandbox.backends import SANDBOXES
from flsim.sandbox.helper import Helper, HelperEndedError, VerifierError
from flsim.sandbox.program import asserts_of
from flsim.sandbox.trial import ERROR, FAILED, PASSED, REFUSED, TIMED_OUT, Limits, Outcome

_GRACE_S = 5.0  # for the judge itself, above the limit of a trial


_PROBING_S = 120.0


_NAMES = tuple(SANDBOXES)


class NoSandboxError(VerifierError):
    """No sandbox holds on this host, so code is not tried."""


class CodeVerifier:
    """Tries code against asserts."""

    instruction = "Solve the task in Python. Answer with one code block that begins with ```python and ends with ```."

    def __init__(self, *, sandbox: str | None = None, **limits: Any) -> None:
        """Choose the sandbox and the limits.

        Args:
            sandbox: `landlock`, `sandlock` or `bubblewrap`; None takes the first that holds.
            **limits: fields of `Limits`, such as `wall_s=10.0`.

        Raises:
            NoSandboxError: none holds, or the named one does not.
            VerifierError: within these limits not even right code passes.
            ValueError: a limit that is not positive, or an unknown sandbox.
        """
        self.limits = Limits(**limits)
        self.sandbox = _first_that_holds((sandbox,) if sandbox else _NAMES)
        """Name of the sandbox in use."""
        self._judge = Helper("flsim.sandbox.judge", self.sandbox)
        self._check()

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the code in each completion passes the tests that are its reference: asserts, or a program's JSON."""
        return [outcome.kind == PASSED for outcome in self.outcomes(pairs)]

    def outcomes(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        """What came of each trial. Equal pairs of a batch are tried once."""
        tried = {pair: self._outcome(*pair) for pair in dict.fromkeys(pairs)}
        return [tried[pair] for pair in pairs]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Tests that do not parse, have no assert, or call nothing of the code."""
        return [tests for tests in references if why_unusable(asserts_of(tests) or headed(tests)[1])]

    def close(self) -> None:
        """End the judge and what it holds."""
        self._judge.close()

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict, with what came of the trial and the first line of the code that was tried."""
        outcome = self._outcome(reference, completion)
        asserts = asserts_of(reference) or headed(reference)[1]
        said = f"code that {outcome.kind}" if outcome.kind in (PASSED, FAILED, TIMED_OUT) else outcome.kind
        return Judgement(
            outcome.kind == PASSED,
            f"{said}: {outcome.why}" if outcome.why else said,
            next((line.strip() for line in outcome.code.splitlines() if line.strip()), None),
            None if why_unusable(asserts) else "all asserts to hold",
        )

    def _outcome(self, tests: str, completion: str) -> Outcome:
        asserts = asserts_of(tests)
        head, tests = ("", asserts) if asserts is not None else headed(tests)
        if len(completion) > self.limits.text_chars:
            return Outcome(REFUSED, f"{len(completion)} characters; {self.limits.text_chars} are allowed")
        if why := why_unusable(tests):
            return Outcome(REFUSED, why)
        request = {"do": "try", "tests": tests, "head": head, "text": completion, "program": asserts is not None}
        request["limits"] = asdict(self.limits)
        try:
            outcome = Outcome(**self._judge.ask(request, self.limits.wall_s + _GRACE_S))
        except HelperEndedError as error:
            self._check()
            return Outcome(TIMED_OUT if error.late else ERROR, f"the judge {error} over what the code returned")
        if outcome.kind == PASSED and outcome.asserts != assert_sites(tests):
            return Outcome(ERROR, "the judge's count of asserts is not the worker's")
        return outcome

    def _check(self) -> None:
        """A judge that always dies, or limits that nothing keeps, must not be taken for code that is always wrong."""
        request = {
            "do": "try",
            "tests": "assert one() == 1",
            "head": "",
            "text": "def one(): return 1",
            "program": False,
        }
        request["limits"] = asdict(self.limits)
        try:
            outcome = Outcome(**self._judge.ask(request, self.limits.wall_s + _GRACE_S))
        except HelperEndedError as error:
            outcome = Outcome(ERROR, f"the judge {error}")
        if outcome.kind != PASSED:
            raise VerifierError(
                f"right code is scored {outcome.kind!r} ({outcome.why}): the limits are too low for Python itself, or "
                f"this machine is out of memory or time; in use: {self.limits}"
            )


def sandbox_in_use() -> str:
    """Name of the sandbox that code is tried in on this host.

    Raises:
        NoSandboxError: none holds; says which were tried, how each failed, and the mend.
    """
    return _first_that_holds(_NAMES)


@lru_cache
def _first_that_holds(names: tuple[str, ...]) -> str:
    """Probed once per process and list; a failure is not kept, so a host that was mended is probed again."""
    failed = []
    for name in names:
        if name not in _NAMES:
            raise ValueError(f"sandbox={name!r} is unknown; there are: {', '.join(_NAMES)}")
        judge = Helper("flsim.sandbox.judge", name)
        try:
            found = judge.ask({"do": "probe"}, _PROBING_S)
        except (HelperEndedError, VerifierError) as error:
            found = [str(error)]
        finally:
            judge.close()
        if not found:
            return name
        failed.append(f"  {name}: {'; '.join(found)}")
    raise NoSandboxError(
        "code is not tried, as no sandbox holds on this host:\n" + "\n".join(failed) + "\nUse Linux 5.13 or newer with "
        "seccomp (in a container: its default profile, or one that allows Landlock), or `pip install "
        "'flsim-continual[tasks]'` for sandlock, or install bubblewrap where user namespaces are allowed."
    )
