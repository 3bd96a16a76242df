"""math-verify in a process of its own: right verdicts, from any thread, and no hang reaches the worker."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count

import psutil
import pytest

from flsim.problems.maths import MathsVerifier, too_large
from flsim.problems.maths_helper import within
from flsim.sandbox.helper import Helper, HelperEndedError, VerifierError


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathsVerifier]:
    pytest.importorskip("math_verify")
    made = MathsVerifier()
    yield made
    made.close()


EQUAL = [
    ("\\frac{1}{2}", "0.5"),
    ("1/2", "\\frac12"),
    ("$x^2+2x+1$", "(x+1)^2"),
    ("10\\%", "10"),
    ("1,234", "1234"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("[0,1)", "[0,1)"),
    ("5", "x=5"),
    ("\\sqrt{2}", "2^{1/2}"),
    ("We get $\\boxed{\\frac{3}{4}}$.", "\\dfrac{3}{4}"),
    ("12\\text{ cm}", "12"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
]
UNEQUAL = [("3", "4"), ("[0,1)", "(0,1)"), ("x^2", "x^3"), ("\\pi", "3.14"), ("\\frac{1}{2}", "\\frac{2}{1}")]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_expressions(verifier: MathsVerifier, gold: str, answer: str) -> None:
    endings = [f"so \\boxed{{{answer}}}", f"hence\n#### {answer}", f"I find\n${answer}$"]
    assert verifier.verdicts([(gold, ending) for ending in endings]) == [True] * 3


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal_expressions(verifier: MathsVerifier, gold: str, answer: str) -> None:
    assert verifier.verdicts([(gold, f"\\boxed{{{answer}}}")]) == [False]


def test_in_a_thread_as_in_the_main_thread(verifier: MathsVerifier) -> None:
    """Where math-verify itself raises, and everything would be wrong."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.extend(verifier.verdicts([("7/3", "\\boxed{\\frac{7}{3}}")])))
    thread.start()
    thread.join()
    assert found == [True]


def test_what_takes_too_long_is_wrong_and_the_next_is_right() -> None:
    """The integral takes a second; 50 ms are allowed."""
    pytest.importorskip("math_verify")
    verifier = MathsVerifier(wall_s=0.05)
    assert verifier._helper.ask(["1", "1"], 60.0)  # warm
    first = verifier._helper.pid
    assert verifier.verdicts([("1", "\\boxed{\\int_0^1 x^{x^x} dx}")]) == [False]
    assert verifier._helper.pid is None
    assert not psutil.pid_exists(first or 0)
    assert verifier._helper.ask(["1", "1"], 60.0)
    verifier.close()


def test_limits_are_of_processor_time_so_that_a_busy_machine_judges_as_an_idle_one() -> None:
    """Neither a process that is stopped for longer than its limit, nor a comparison that waits, is called wrong."""
    late = pytest.importorskip("math_verify.errors").TimeoutException
    verifier = MathsVerifier(cpu_s=0.3)
    assert verifier._helper.ask(["1", "1"], 60.0)  # warm
    stopped = psutil.Process(verifier._helper.pid)
    stopped.suspend()
    threading.Timer(0.6, stopped.resume).start()
    assert verifier.verdicts([("x^2+2x+1", "\\boxed{(x+1)^2}")]) == [True]
    assert verifier._helper.pid == stopped.pid
    verifier.close()
    within(0.1)(time.sleep)(0.3)
    with pytest.raises(late):
        within(0.1)(lambda: sum(0 for _ in count()))()
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_a_helper_that_holds_the_lock_of_python_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """`10**9**9` is one instruction: no signal handler of its own process would ever run."""
    helper = Helper("timeit", "-n1", "10**9**9")
    before = time.monotonic()
    monkeypatch.setattr("flsim.sandbox.helper._START_S", 1.0)
    with pytest.raises(VerifierError, match="does not start"):
        helper.ask("anything", 1.0)
    assert time.monotonic() - before < 10
    assert helper.pid is None


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        "9^9^9^9",
        "9**9**9**9",
        "2^{10000}",
        "100000!",
        "(3!)!!",
        "(" * 20 + "5" + ")" * 20,
        "1" * 50,
        "x" * 300,
    ],
)
def test_what_is_plainly_too_large_is_not_looked_at(answer: str) -> None:
    assert too_large(answer)


@pytest.mark.parametrize(
    "answer", ["x^2y^2z^2", "2^{100}", "e^{-(x^2+y^2)}", "2^{3^4}", "10!", "(-\\infty, 3] \\cup [5, 7)"]
)
def test_what_is_not_is(answer: str) -> None:
    assert too_large(answer) is None


def test_verdicts_are_kept(verifier: MathsVerifier) -> None:
    """A group shares its answers: the second time nobody is asked."""
    assert verifier.verdicts([("11/13", "\\boxed{\\frac{11}{13}}")]) == [True]
    verifier.close()
    assert verifier.verdicts([("11/13", "\\boxed{\\frac{11}{13}}"), ("11/13", "#### \\frac{11}{13}")]) == [True, True]
    assert verifier._helper.pid is None


def test_references_that_cannot_be_met_are_named(verifier: MathsVerifier) -> None:
    assert verifier.unreadable(["\\frac{1}{2}", "", "9^{9^{9^9}}"]) == ["", "9^{9^{9^9}}"]


def test_without_the_package_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsim.problems.maths.find_spec", lambda name: None)
    with pytest.raises(VerifierError, match=r"math-verify.*pip install 'flsim-continual\[tasks\]'"):
        MathsVerifier()


def test_a_helper_that_dies_says_so() -> None:
    helper = Helper("flsim.problems.maths_helper")
    pytest.importorskip("math_verify")
    assert helper.ask(["1", "1"], 60.0) is True
    psutil.Process(helper.pid).kill()
    with pytest.raises(HelperEndedError, match="died"):
        helper.ask(["1", "1"], 60.0)
    helper.close()


def test_a_worker_that_is_killed_takes_its_helper_along() -> None:
    """Even one that has no time to say goodbye: the helper reads the end of its pipe."""
    pytest.importorskip("math_verify")
    program = (
        "import os, sys\nfrom flsim.sandbox.helper import Helper\nhelper = Helper('flsim.problems.maths_helper')\n"
        "helper.ask(['1', '1'], 60.0)\nprint(helper.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    helper = int(done.stdout)

    def lives() -> bool:
        return psutil.pid_exists(helper) and psutil.Process(helper).status() != psutil.STATUS_ZOMBIE

    deadline = time.monotonic() + 10
    while lives() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not lives()
