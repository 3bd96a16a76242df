"""Programs that read standard input, judged as all code is."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.problems.code import CodeVerifier, NoSandboxError
from flsim.sandbox.program import as_function, asserts_of

ADDS = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", " 7 "]})
DEFINED = "def f():\n    print(sum(map(int, input().split())))\n    exit()\nif __name__ == '__main__':\n    f()"
RIGHT = (
    "a, b = map(int, input().split())\nprint(a + b)",
    "import sys\nd = sys.stdin.read().split()\nsys.stdout.write(str(int(d[0]) + int(d[1])))",
    "import sys\nd = sys.stdin.buffer.readline().split()\nsys.stdout.buffer.write(b'%d' % (int(d[0]) + int(d[1])))",
    "for line in __import__('sys').stdin:\n    print(sum(map(int, line.split())), end='')",
    f"```python\n{DEFINED}\n```",
)
WRONG = ("print(3)", "", "import os; os._exit(0)", "def run_program(text): return '3'", "print(3", "input(); input()")


@pytest.fixture(scope="module")
def verifier() -> CodeVerifier:
    try:
        return CodeVerifier()
    except NoSandboxError as error:
        pytest.skip(str(error))


def test_a_program_is_right_by_what_it_writes(verifier: CodeVerifier) -> None:
    """By words: spaces and the end of the line do not matter. A program that keeps state begins anew every time."""
    assert verifier.verdicts([(ADDS, code) for code in RIGHT]) == [True] * len(RIGHT)
    assert verifier.verdicts([(ADDS, code) for code in WRONG]) == [False] * len(WRONG)


def test_tests_without_pairs_of_texts_are_unreadable(verifier: CodeVerifier) -> None:
    bad = ['{"inputs": [1], "outputs": [2]}', '{"inputs": ["1"], "outputs": []}', '{"inputs": [], "outputs": []}', "{}"]
    assert verifier.unreadable([ADDS, *bad]) == bad


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_asserts_hold_for_who_writes_the_outputs_and_for_nobody_else(pairs: list[tuple[str, str]]) -> None:
    asserts = asserts_of(json.dumps({"inputs": [one for one, _ in pairs], "outputs": [other for _, other in pairs]}))
    assert asserts is not None
    known = dict(pairs)
    if all(known[one].split() == other.split() for one, other in pairs):
        exec(asserts, {"run_program": lambda text: known[text]})
    with pytest.raises(AssertionError):
        exec(asserts, {"run_program": lambda text: known[text] + " more"})


def test_code_with_quotes_and_breaks_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("start", "join"):  # a program runs its threads where they stand; put them back here
        monkeypatch.setattr(threading.Thread, name, getattr(threading.Thread, name))
    monkeypatch.setattr(threading, "stack_size", threading.stack_size)
    namespace: dict[str, object] = {}
    code = "text = '''a\n\"b\"\\n{}'''\nimport sys\nsys.stdout.write(text + input())"
    import sys

    kept = sys.stdin, sys.stdout
    try:
        exec(as_function(code), namespace)
        said = namespace["run_program"]("in\n")  # type: ignore[operator]
    finally:
        sys.stdin, sys.stdout = kept
    assert said == 'a\n"b"\n{}in'
