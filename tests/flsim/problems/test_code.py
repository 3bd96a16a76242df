"""Right code passes, whatever kind of tests it has; wrong code fails and says why; no sandbox means no verdict."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from flsim.problems import code as code_module
from flsim.problems.code import CodeVerifier, NoSandboxError, sandbox_in_use
from flsim.sandbox.helper import VerifierError
from flsim.sandbox.trial import ERROR, FAILED, PASSED, REFUSED


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    try:
        made = CodeVerifier(cpu_s=2, wall_s=5.0)
    except NoSandboxError as error:
        pytest.skip(str(error))
    yield made
    made.close()


# (tests, right code, wrong code)
ITEMS = {
    "equality": ("assert add(2, 3) == 5", "def add(a, b): return a + b", "def add(a, b): return a - b"),
    "a list": ("assert f([3, 1]) == [1, 3]", "def f(x): return sorted(x)", "def f(x): return tuple(sorted(x))"),
    "a set": ("assert set(f('aab')) == {'a', 'b'}", "def f(x): return list(x)", "def f(x): return ['a']"),
    "floats": ("assert math.isclose(f(2.0), 2**0.5)", "def f(x): return x**0.5", "def f(x): return x"),
    "truth": ("assert f(4)\nassert not f(5)", "def f(n): return n % 2 == 0", "def f(n): return True"),
    "nested data": (
        "assert f(2) == {'a': [(1, None), {2.5}], 'b': 'é'}",
        "def f(n): return {'a': [(1, None), {2.5}], 'b': 'é'}",
        "def f(n): return {'a': [[1, None], {2.5}], 'b': 'é'}",
    ),
    "big integers": (
        "assert f(200) == 2**200",
        "def f(n): return 1 << n",
        "def f(n): return float(1 << n) + 1e50",
    ),
    "an exception": (
        "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    assert True\nassert f(4) == 2",
        "def f(n):\n    if n < 0: raise ValueError('negative')\n    return n // 2",
        "def f(n): return n // 2",
    ),
    "a helper and an import": (
        "assert f(5) == 120",
        "from functools import reduce\ndef mul(a, b): return a * b\ndef f(n): return reduce(mul, range(1, n + 1))",
        "def f(n): return undefined(n)",
    ),
    "a class": (
        "stack = Stack()\nstack.push(3)\nstack.push(4)\nassert stack.pop() == 4\nassert len(stack) == 1\nassert stack",
        "class Stack(list):\n    push = list.append",
        "class Stack(list):\n    push = list.append\n    def pop(self): return list.pop(self, 0)",
    ),
    "objects as arguments": (
        "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)\nassert height(root) == 3",
        "class Node:\n    def __init__(self, x): self.x, self.left = x, None\ndef height(n):\n"
        "    return 0 if n is None else 1 + height(n.left)",
        "class Node:\n    def __init__(self, x): self.x, self.left = x, None\ndef height(n): return 1",
    ),
    "a type as argument": (
        "assert f((1, 'a', 2), int) == ['a']",
        "def f(x, t): return [y for y in x if not isinstance(y, t)]",
        "def f(x, t): return list(x)",
    ),
    "a generator": ("assert list(f(3)) == [0, 1, 2]", "def f(n): yield from range(n)", "def f(n): yield n"),
    "a closure": ("assert f(2)(3) == 5", "def f(a): return lambda b: a + b", "def f(a): return lambda b: a"),
    "changed in place": (
        "x = [3, 1, 2]\nf(x)\nassert x == [1, 2, 3]",
        "def f(x): x.sort()",
        "def f(x): return sorted(x)",
    ),
    "a loop": (
        "for n, square in [(1, 1), (2, 4), (3, 9)]:\n    assert f(n) == square",
        "def f(n): return n * n",
        "def f(n): return 2 * n if n == 2 else 1",
    ),
    "HumanEval's form": (
        "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\ncheck(f)",
        "def f(n): return n * n",
        "def f(n): return n + 2",
    ),
    "a function named like a builtin": (
        "assert sum(6, 4) == 2",
        "def sum(a, b): return a - b",
        "def sum(a, b): return 3",
    ),
    "named arguments": ("assert f(a=1, b=[2]) == 3", "def f(a, b): return a + b[0]", "def f(a, b): return a"),
    "prints as it goes": ("assert f(1) == 2", "def f(n):\n    print('x' * 10**6)\n    return n + 1", "print(2)"),
    "a dataclass, a main block": (
        "assert f(2) == 3",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\ndef f(n): return P(n + 1).x\n"
        "if __name__ == '__main__':\n    input()",
        "def f(n): return input()",
    ),
    "the standard library": (
        "assert f('2026-03-01') == 'Sunday'",
        "import datetime\ndef f(s): return datetime.datetime.strptime(s, '%Y-%m-%d').strftime('%A')",
        "def f(s): return 'Monday'",
    ),
    "a module that was not warm": (
        "assert f('<a>1</a>') == '1'",
        "import xml.etree.ElementTree as tree\ndef f(s): return tree.fromstring(s).text",
        "def f(s): return s",
    ),
}


@pytest.mark.parametrize("name", ITEMS)
def test_right_code_passes_and_wrong_code_fails(verifier: CodeVerifier, name: str) -> None:
    tests, right, wrong = ITEMS[name]
    passed, failed = verifier.outcomes([(tests, right), (tests, f"Sure!\n```python\n{wrong}\n```\nDone.")])
    assert (passed.kind, passed.why) == (PASSED, "")
    assert failed.kind == FAILED, failed


def test_outcomes_say_why(verifier: CodeVerifier) -> None:
    tests = "assert f(1) == 1\nassert f(2) == 4"
    codes = ["def f(n): return n", "def g(n): return n", "def f(n: return", "x" * 30_000, "import os\nos._exit(0)"]
    outcomes = verifier.outcomes([(tests, code) for code in codes])
    assert [outcome.kind for outcome in outcomes] == [FAILED, FAILED, ERROR, REFUSED, ERROR]
    assert [outcome.asserts for outcome in outcomes] == [1, 0, 0, 0, 0]
    for outcome, why in zip(
        outcomes, ("assert 2", "no attribute 'f'|'f'", "SyntaxError", "30000", "ended"), strict=True
    ):
        assert any(part in outcome.why for part in why.split("|")), outcome


def test_tests_that_cannot_be_used(verifier: CodeVerifier) -> None:
    bad = ["f(1) == 1", "assert f(", ""]
    assert verifier.unreadable([*bad, "assert f(1) == 1"]) == bad
    assert {outcome.kind for outcome in verifier.outcomes([(tests, "def f(x): return x") for tests in bad])} == {
        REFUSED
    }


def test_trials_share_nothing(verifier: CodeVerifier) -> None:
    """Nor random numbers: each starts from the same, so verdicts do not depend on the order."""
    tests = "assert f() == 1"
    count = "import builtins\nbuiltins.seen = getattr(builtins, 'seen', 0) + 1\ndef f(): return builtins.seen"
    assert verifier.verdicts([(tests, count), (tests, f"{count}\n")]) == [True, True]
    draw = "import random\nvalue = random.random()\ndef f(): return value"
    (first,) = verifier.outcomes([("assert 0 <= f() < 0", draw)])
    draws = [f"{draw}\n#{i}" for i in range(3)]
    guess = "import random\nrandom.seed(0)\n"
    assert first.kind == FAILED
    assert verifier.verdicts([(f"{guess}assert f() == random.random()", code) for code in draws]) == [True] * 3


def test_from_any_thread(verifier: CodeVerifier) -> None:
    found: list[bool] = []
    pairs = [("assert f(1) == 2", "def f(n): return n + 1"), ("assert f(1) == 2", "def f(n): return n")]
    threads = [threading.Thread(target=lambda: found.extend(verifier.verdicts(pairs))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, False] * 4


def test_a_judge_that_died_is_replaced(verifier: CodeVerifier) -> None:
    pair = ("assert f(1) == 2", "def f(n): return n + 1")
    assert verifier.verdicts([pair]) == [True]
    psutil.Process(verifier._judge.pid).kill()
    (outcome,) = verifier.outcomes([pair])
    assert (outcome.kind, "died" in outcome.why) == (ERROR, True)
    assert verifier.verdicts([pair]) == [True]


def test_limits_that_nothing_keeps_are_an_error_and_not_a_verdict() -> None:
    """Here because no reply is as short as two bytes."""
    try:
        sandbox_in_use()
    except NoSandboxError as error:
        pytest.skip(str(error))
    with pytest.raises(VerifierError, match=r"right code is scored 'error'.*reply_bytes=2"):
        CodeVerifier(reply_bytes=2)


def test_a_limit_that_allows_nothing() -> None:
    with pytest.raises(ValueError, match="wall_s=0 allows nothing"):
        CodeVerifier(wall_s=0)


def test_where_no_sandbox_holds_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsim.sandbox.helper.Helper.ask", lambda *_: ["network: connected to another process"])
    code_module._first_that_holds.cache_clear()
    with pytest.raises(NoSandboxError) as refusal:
        sandbox_in_use()
    for part in ("landlock: network: connected", "sandlock:", "bubblewrap:", "pip install 'flsim-continual[tasks]'"):
        assert part in str(refusal.value)


def test_an_unknown_sandbox_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="'chroot' is unknown; there are: landlock, sandlock, bubblewrap"):
        CodeVerifier(sandbox="chroot")


def test_without_landlock_no_file_can_be_opened() -> None:
    """On an older kernel the filter of system calls holds alone."""
    program = (
        "from flsim.sandbox import confine\nimport os\n"
        "confine.limit_resources(5, 512)\nconfine.compute_only(None)\nassert sum(range(10)) == 45\n"
        "for deed in (lambda: open('/etc/passwd'), lambda: open(os.__file__), os.fork, lambda: os.kill(1, 0)):\n"
        "    try: deed()\n    except PermissionError: continue\n    os._exit(3)\nos._exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    if "OSError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 7, done.stderr
