"""Code that wants to be paid without solving the task scores nothing, and harms nothing."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from flsim.problems.code import CodeVerifier, NoSandboxError
from flsim.sandbox.backends import SANDBOXES
from flsim.sandbox.trial import PASSED, TIMED_OUT
from tests.flsim.sandbox.attacks import ATTACKS, NAIVE, OTHERS

NEEDLE = f"needle-{secrets.token_hex(16)}"
TESTS = f"assert secret(0) == {NEEDLE!r}\nassert sorted(secret(1)) == sorted({NEEDLE!r})"
HONEST = f"def secret(x):\n    return {NEEDLE!r}"


# the first in use is tried always, the others, which start a Python per trial, with the slow tests
CHOICES = [name if name == "landlock" else pytest.param(name, marks=pytest.mark.slow) for name in SANDBOXES]


@pytest.fixture(scope="module", params=CHOICES)
def verifier(request: pytest.FixtureRequest) -> Iterator[CodeVerifier]:
    try:
        made = CodeVerifier(sandbox=request.param, cpu_s=1, wall_s=2.5)
    except NoSandboxError as error:
        pytest.skip(str(error).splitlines()[1])
    yield made
    made.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_scores_nothing(verifier: CodeVerifier, name: str) -> None:
    attack, honest = verifier.outcomes([(TESTS, ATTACKS[name]), (TESTS, HONEST)])
    assert attack.kind != PASSED, attack
    assert honest.kind == PASSED, f"the judge did not survive: {honest}"
    assert not os.path.exists("/tmp/flsim-attack")


@pytest.mark.parametrize("name", OTHERS)
def test_an_attack_on_other_tests_scores_nothing(verifier: CodeVerifier, name: str) -> None:
    (attack,) = verifier.outcomes([OTHERS[name]])
    assert attack.kind != PASSED, attack


@pytest.mark.parametrize("name", NAIVE)
def test_the_attacks_are_real(name: str) -> None:
    """Each of these passes where code and tests share a process and its exit code is the verdict."""
    program = f"{ATTACKS[name]}\n{TESTS.splitlines()[0]}\n"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, timeout=30)
    assert done.returncode == 0


DEAF = "import signal\nfor n in range(1, 64):\n    try: signal.signal(n, signal.SIG_IGN)\n    except Exception: pass\n"
ENDLESS = {
    "computes": "def secret(*_):\n    while True: pass",
    "sleeps": "import time\ndef secret(*_): time.sleep(600)",
    "computes while loading": "while True: pass",
    "prints": "def secret(*_):\n    while True: print('x' * 10_000)",
    "is deaf to signals": f"{DEAF}while True: pass",
    "forks": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "is an endless list": "def numbers():\n    while True: yield 1\ndef secret(*_): return list(numbers())",
}
SLOWER = ("computes while loading", "is deaf to signals", "prints")  # much the same as others


@pytest.mark.parametrize(
    "code", [pytest.param(ENDLESS[name], id=name, marks=[pytest.mark.slow] * (name in SLOWER)) for name in ENDLESS]
)
def test_what_does_not_end_is_ended(verifier: CodeVerifier, code: str) -> None:
    """Within its limit of time (the endless list: of memory), and the next trial does not notice."""
    before = time.monotonic()
    (outcome,) = verifier.outcomes([(TESTS, code)])
    assert outcome.kind == TIMED_OUT or "MemoryError" in outcome.why, outcome
    assert time.monotonic() - before < 12
    assert verifier.verdicts([(TESTS, HONEST)]) == [True]


def test_ten_gigabytes_are_refused(verifier: CodeVerifier) -> None:
    (outcome,) = verifier.outcomes([(TESTS, "def secret(*_): return len(bytearray(10 << 30))")])
    assert outcome.kind != PASSED
    assert "MemoryError" in outcome.why or "ended" in outcome.why, outcome


def test_nothing_is_left_behind(verifier: CodeVerifier) -> None:
    """Between trials the judge has the children it began with; closed, it and they are gone."""
    verifier.verdicts([(TESTS, HONEST)])
    judge = psutil.Process(verifier._judge.pid)
    before = {child.pid for child in judge.children(recursive=True)}
    codes = [
        "import os\nos.fork()\nos.fork()\nimport time\ntime.sleep(60)",
        "import os\nos.setsid()\nos.fork()",
        HONEST,
    ]
    verifier.verdicts([(TESTS, code) for code in codes])
    family = [judge, *judge.children(recursive=True)]
    assert {child.pid for child in family[1:]} == before
    verifier.close()
    assert not psutil.wait_procs(family, timeout=5)[1]
    assert verifier.verdicts([(TESTS, HONEST)]) == [True]  # and it starts anew when asked


def test_a_judge_that_is_killed_takes_its_cells_along(verifier: CodeVerifier) -> None:
    """The helper ends a judge by force when the tests themselves hang; what sleeps in a cell must not sleep on."""
    verifier.verdicts([(TESTS, HONEST)])
    judge = psutil.Process(verifier._judge.pid)
    before = judge.children(recursive=True)
    sleeper = (TESTS, "import time\ntime.sleep(600)")
    trial = threading.Thread(target=verifier.outcomes, args=([sleeper],))
    trial.start()
    while len(judge.children(recursive=True)) <= len(before):
        time.sleep(0.01)
    time.sleep(0.3)
    family = [judge, *judge.children(recursive=True)]
    os.killpg(judge.pid, signal.SIGKILL)
    trial.join()
    assert not psutil.wait_procs(family, timeout=3)[1]
