"""Code is found in a response however it is set, and looking for it neither raises nor takes long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.sandbox.asserts import headed
from flsim.sandbox.solution import solution_in

STROKES = (
    "```", "```python", "~~~", "\n", "    ", "def f(x):", "return x", '"""', "'''", ">>> ", "... ", "`", "(", "[", "{",
    "}", "]", ")", "if x:", "\x00", "\ud800", "é", "答案", "#", "@a", "class A:", "import os", "x = 1", "\t", "- ",
    "lambda", "\\", "</think>", "[PYTHON]", "<code>", "not " * 30, "\f", "\u2028", "=", ":", "f'{",
)  # fmt: skip


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("def f(): pass", "def f(): pass"),
        ("Here:\n```python\ndef f(): return 0\n```\nUse:\n```python\nprint(f())\n```", "def f(): return 0"),
        ("```\nf = 1\n```\n", "f = 1"),
        ("1. So:\n   ```python\n   f = 1\n   ```\n", "f = 1"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
        ("```py\ndef f(): pass\n```\nor better\n```py\ndef f(): return 1\n```", "def f(): return 1"),
        ("```py\ndef f(: pass\n```", "def f(: pass"),
        ("no code", "no code"),
        (
            "```py\ndef g(): return 1\n\nprint(g())\n```\n```py\ndef f(): return g()\n```",
            "def g(): return 1\ndef f(): return g()",
        ),
    ],
)
def test_the_code_of_a_completion(completion: str, code: str) -> None:
    assert solution_in(completion, ["f"]) == code


def test_a_head_is_what_stands_above_and_in_a_function_without_a_body() -> None:
    head = 'import math\n\ndef half(x):\n    return x / 2\n\ndef f(x):\n    """Says."""'
    tests = "def check(candidate):\n    assert candidate(2) == math.pi\n\ncheck(f)"
    assert headed(f"{head}\n\n{tests}") == (head, f"import math\n\n{tests}")
    assert headed(tests) == ("", tests)
    assert headed("def f(x): pass\nassert g(1)") == ("", "def f(x): pass\nassert g(1)")
    assert headed("def f(") == ("", "def f(")


@given(st.lists(st.sampled_from(STROKES), max_size=60).map("".join) | st.text(), st.booleans(), st.booleans())
def test_no_completion_raises(text: str, program: bool, head: bool) -> None:
    found = solution_in(text, [] if program else ["f"], "def f(x):\n    'says'" if head else "")
    assert isinstance(found, str)


@pytest.mark.parametrize(
    "unit", ["\n", " ", "```\n", "```", "def ", "\t\n", "x = (\n", "@a\n", "~~~\n", "(", "- ```\n"]
)
def test_finding_code_never_takes_long(unit: str) -> None:
    """Patterns and parsers that try a run in every way would take minutes."""
    before = time.process_time()
    solution_in(unit * (50_000 // len(unit)), ["f"])
    assert time.process_time() - before < 4.0


@pytest.mark.torture
@settings(max_examples=1_000)
@given(st.lists(st.sampled_from(STROKES), max_size=200).map("".join))
def test_no_completion_of_many_raises(text: str) -> None:
    for wanted, head in (([], ""), (["f"], ""), (["f"], "def f(x):\n    'says'")):
        solution_in(text, wanted, head)
