"""Which code of a response is tried, and how what it returns is compared: right and wrong ones of every kind."""

from collections.abc import Iterator

import pytest

from flsim.problems.code import CodeVerifier, NoSandboxError
from flsim.problems.judging import Judgement

ADD = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
RIGHT = "def add(a, b):\n    return a + b"
WRONG = "def add(a, b):\n    return a - b"
SUM = '{"inputs": ["1 2\\n", "3 4\\n"], "outputs": ["3\\n", "7\\n"]}'
PROGRAM = "a, b = map(int, input().split())\nprint(a + b)"
HEAD = (
    'from typing import List\nimport math\n\n\ndef add(a: int, b: int) -> int:\n    """Adds.\n'
    '    >>> add(1, 2)\n    3\n    """\n'
)
HEADED = (
    f"{HEAD}\nMETADATA = {{}}\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n"
    f"    assert candidate(-1, 1) == 0\n\ncheck(add)"
)
HOSTILE = "class Yes:\n    def {}(self, other): return {}\ndef f(x): return Yes()"


def wrote(text: str) -> str:
    return f'{{"inputs": ["x"], "outputs": ["{text}"]}}'


# kind: (tests, response, whether it is right)
KINDS = {
    "fences": [
        (ADD, f"```python3\n{RIGHT}\n```", True),
        (ADD, f"```\n{RIGHT}\n```", True),
        (ADD, f'```python title="a.py"\n{RIGHT}\n```', True),
        (ADD, f"````python\n{RIGHT}\n````", True),
        (ADD, f"~~~\n{RIGHT}\n~~~", True),
        (ADD, f"```python\n{RIGHT}", True),
        (ADD, f"```python\n{RIGHT}\n\nThis adds the two.", True),
        (ADD, f"Here: ```python\n{RIGHT}\n```", True),
        (ADD, f"```python\n{RIGHT}```", True),
        (ADD, "```python def add(a, b): return a + b```", True),
        (ADD, "Use `add = lambda a, b: a + b`.", True),
        (ADD, "- ```python\n  def add(a, b):\n      return a + b\n  ```", True),
        (
            ADD,
            "1. First\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n\n2. Then\n\n   ```\n"
            "   add(1, 2)\n   ```",
            True,
        ),
        (ADD, "def add(a, b):\n    '''\n    ```python\n    add(1, 2)\n    ```\n    '''\n    return a + b", True),
        (ADD, f"```python\r\n{RIGHT}\r\n```", True),
        (ADD, f"```text\n{RIGHT}\n```", True),
        (ADD, f"```\npython\n{RIGHT}\n```", True),
        (ADD, f"```{{.python}}\n{RIGHT}\n```", True),
        (ADD, "> ```python\n> def add(a, b):\n>     return a + b\n> ```", True),
        (ADD, "> ```python\n> def add(a, b):\n>     return a - b\n> ```", False),
        (ADD, f"```python\n{WRONG}\n```", False),
        (ADD, "```python\n```", False),
        (ADD, "```python\ndef add(a, b):\n    return a +\n```", False),
        (ADD, "```diff\n+def add(a, b):\n+    return a + b\n```", False),
    ],
    "several blocks": [
        (ADD, f"```python\n{WRONG}\n```\nBetter:\n```python\n{RIGHT}\n```", True),
        (ADD, f"```python\n{RIGHT}\n```\nor\n```python\n{WRONG}\n```", False),
        (ADD, f"```python\n{RIGHT}\n```\n```python\nassert add(1, 2) == 3\n```", True),
        (
            ADD,
            f"```python\n{RIGHT}\n```\n```python\nfrom solution import add\ndef test_add():\n"
            "    assert add(1, 2) == 3\n```",
            True,
        ),
        (ADD, f"```python\n{RIGHT}\n```\n```python\nif __name__ == '__main__':\n    print(add(1, 2))\n```", True),
        (ADD, f"```python\n{RIGHT}\n```\nThe signature:\n```python\ndef add(a, b): pass\n```", True),
        (ADD, f"```python\ndef add(a, b):\n    ...\n```\n```python\n{RIGHT}\n```", True),
        (ADD, f"```javascript\nfunction add(a, b) {{ return a + b; }}\n```\n```python\n{RIGHT}\n```", True),
        (ADD, f"```bash\npip install x\n```\n```python\n{RIGHT}\n```\n```text\n3\n```", True),
        (ADD, "```javascript\nfunction add(a, b) { return a + b; }\n```", False),
        (ADD, f"<think>\n```python\n{WRONG}\n```\n</think>\n```python\n{RIGHT}\n```", True),
        (ADD, f"<think>\n```python\n{RIGHT}\n```\n</think>\n```python\n{WRONG}\n```", False),
        (
            "assert twice(2) == 4",
            "```python\nimport operator\nK = 2\n```\n```python\ndef twice(x):\n    return operator.mul(x, K)\n```",
            True,
        ),
        (
            "assert twice(2) == 4",
            "```python\ndef twice(x):\n    return helper(x)\n```\nwhere\n```python\ndef helper(x):\n"
            "    return 2 * x\n```",
            True,
        ),
        (
            "assert twice(2) == 4",
            "```python\ndef helper(x):\n    return 2 * x\n```\nno:\n```python\ndef helper(x):\n"
            "    return 3 * x\ndef twice(x):\n    return helper(x)\n```",
            False,
        ),
        (
            "assert norm(P(1, 2)) == 3",
            "```python\nclass P:\n    def __init__(self, x, y): self.x, self.y = x, y\n```\n```python\n"
            "def norm(p):\n    return p.x + p.y\n```\n```python\nprint(norm(P(1, 2)))\n```",
            True,
        ),
    ],
    "without fences": [
        (ADD, f"Sure!\n\n{RIGHT}\n\nHope it helps!", True),
        (ADD, "Sure!\n\n    def add(a, b):\n        return a + b\n\nDone.", True),
        (ADD, f"{RIGHT}\n\nDone", True),
        (ADD, f"{RIGHT}\n\nNote: important", True),
        (ADD, f"[PYTHON]\n{RIGHT}\n[/PYTHON]", True),
        (ADD, f"[BEGIN]\n{RIGHT}\n[DONE]", True),
        (ADD, f"<code>\n{RIGHT}\n</code>", True),
        (ADD, f"{RIGHT}<|im_end|>", True),
        (ADD, f"{RIGHT}\n```\nUsage:\n```python\nprint(add(1, 2))\n```", True),
        (ADD, ">>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3", True),
        (ADD, "```pycon\n>>> def add(a, b): return a + b\n>>> add(1, 2)\n3\n```", True),
        (ADD, "I cannot do that.", False),
        (ADD, "", False),
        (ADD, "def add(a, b):\n    return a + b)", False),
        (ADD, f"Sure!\n\n{WRONG}\n\nHope it helps!", False),
    ],
    "what is defined": [
        (ADD, "def addition(a, b):\n    return a + b", False),
        (ADD, "class Solution:\n    def add(self, a, b): return a + b", False),
        (ADD, f"{RIGHT}\nprint(add(1, 2))\nexit()", False),
        (ADD, f"{RIGHT}\nx = int(input())", False),
        (ADD, f"{RIGHT}\nif __name__ == '__main__':\n    while True: pass", True),
        (
            "assert Solution().f([1, 2]) == 3",
            "class Solution:\n    def f(self, x: List[int]) -> int:\n        return sum(x)",
            True,
        ),
        ("assert f(4) == 2", "def f(x): return math.sqrt(x)", False),
    ],
    "a body alone": [
        (HEADED, "    return a + b\n", True),
        (HEADED, "return a + b", True),
        (HEADED, "```python\n    return a + b\n```", True),
        (HEADED, f"```python\n{RIGHT}\n```", True),
        (HEADED, 'def add(a: int, b: int) -> List[int]:\n    """Adds."""\n    return a + b', True),
        (HEADED, "    return a + b\n\n\ndef other():\n    pass\n\nprint(add(1", True),
        (HEADED, "    c = a + b\n    return c\n\nThis function adds.", True),
        (HEADED, "    # add\n    return math.floor(a + b)", True),
        (HEADED, "    return a - b\n", False),
        (HEADED, "    pass", False),
        (HEADED, "", False),
        (HEADED, "I don't know", False),
        (HEADED, WRONG, False),
    ],
    "programs": [
        (SUM, f"```python\n{PROGRAM}\n```\nInput:\n```\n1 2\n```\nOutput:\n```\n3\n```", True),
        (SUM, f"```python\n{PROGRAM}\n```\nTest:\n```python\nprint(1 + 2)\n```", True),
        (
            SUM,
            "```python\ndef solve():\n    a, b = map(int, input().split())\n    print(a + b)\n```\n"
            "```python\nsolve()\n```",
            True,
        ),
        (SUM, f"{PROGRAM}\n```\nThis reads.", True),
        (SUM, f"Here:\n\n{PROGRAM}\n\nIt adds.", True),
        (SUM, "a, b = map(int, open(0).read().split())\nprint(a + b)", True),
        (SUM, f"import sys\ninput = sys.stdin.readline\n{PROGRAM}\nsys.exit(0)", True),
        (SUM, f"{PROGRAM}\nprint()", True),
        (
            SUM,
            "import threading\ndef main():\n    print(sum(map(int, input().split())))\n"
            "t = threading.Thread(target=main)\nt.start()\nt.join()",
            True,
        ),
        (SUM, "a, b = map(int, input().split())\nprint(a + b, end='   ')", True),
        (SUM, "a, b = map(int, input().split())\nprint(float(a + b))", True),
        (SUM, RIGHT, False),
        (SUM, "print(3)", False),
        (SUM, "a, b = map(int, input().split())\nprint('Sum:', a + b)", False),
        (wrote("0.3333333"), "print(1/3)", True),
        (wrote("1 2\\n3"), "print('1 2 3')", True),
        (wrote("0.33"), "print(1/3)", False),
        (wrote("007"), "print(7)", False),
        (wrote("1000000"), "print(1000000.4)", False),
        (wrote("YES"), "print('Yes')", False),
    ],
    "values of the library": [
        (
            "import datetime\nassert f() == datetime.datetime(2020, 1, 2, 3)",
            "import datetime\ndef f(): return datetime.datetime(2020, 1, 2, 3)",
            True,
        ),
        (
            "from datetime import timedelta\nassert f() == timedelta(days=2)",
            "from datetime import timedelta\ndef f(): return timedelta(hours=48)",
            True,
        ),
        ("import datetime\nassert f() == datetime.date(2020, 1, 2)", "def f(): return '2020-01-02'", False),
        (
            "from collections import deque\nassert f() == deque([1])",
            "from collections import deque\ndef f(): return deque([1])",
            True,
        ),
        ("from collections import deque\nassert f() == deque([1])", "def f(): return [1]", False),
        ("assert f('aab').most_common(1) == [('a', 2)]", "from collections import Counter as f", True),
        (
            "from collections import OrderedDict\nassert f() == OrderedDict(b=1, a=2)",
            "from collections import OrderedDict\ndef f(): return OrderedDict(a=2, b=1)",
            False,
        ),
    ],
    "functions of the tests": [
        ("assert f([3, 1], key=lambda x: -x) == [3, 1]", "def f(x, key): return sorted(x, key=key)", True),
        (
            "assert compose(lambda x: x + 1, str.strip and (lambda x: x * 2))(3) == 7",
            "def compose(f, g): return lambda x: f(g(x))",
            True,
        ),
        ("assert compose(str.upper, str.strip)(' a ') == 'A'", "def compose(f, g): return lambda x: f(g(x))", True),
        (
            "def boom(): raise KeyError('x')\nassert safe(boom) == 'no'",
            "def safe(f):\n    try: return f()\n    except KeyError: return 'no'",
            True,
        ),
        ("seen = []\neach([1, 2], seen.append)\nassert seen == [1, 2]", "def each(x, f):\n    for y in x: f(y)", True),
        (
            "def again(g, n): return g(again, n - 1) if n else 0\nassert f(again, 5) == 0",
            "def f(g, n): return g(f, n)",
            True,
        ),
        ("assert f(lambda x: x > 1, [1, 2]) == [2]", "def f(p, x): return x", False),
        (
            "def check(x):\n    assert x == 3\n    return x\nassert f(check) == 3",
            "def f(check):\n    for i in range(9):\n        try: check(i)\n"
            "        except AssertionError: pass\n    return 3",
            False,
        ),
    ],
    "objects of the code": [
        (
            "assert P(1) == P(1)\nassert P(1) != P(2)",
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int",
            True,
        ),
        ("assert P(1) == P(1)", "class P:\n    def __init__(self, x): self.x = x", False),
        (
            "assert repr(P(1) + P(2)) == 'P(3)'\nassert P(1) < P(2)",
            "class P:\n    def __init__(s, x): s.x = x\n    def __add__(s, o): return P(s.x + o.x)\n"
            "    def __lt__(s, o): return s.x < o.x\n    def __repr__(s): return f'P({s.x})'",
            True,
        ),
        ("g = gen()\nassert next(g) == 0\nassert next(g) == 1", "def gen(): yield from range(9)", True),
        ("g = gen()\nassert next(g) == 0\nassert next(g) == 1", "def gen():\n    while True: yield 0", False),
        ("assert abs(f(2) - 0.333333) < 1e-4", HOSTILE.format("__sub__", "0.0"), False),
        ("assert f(2) < 5", HOSTILE.format("__lt__", "True"), False),
        ("assert 5 >= f(2)", HOSTILE.format("__le__", "True"), False),
        ("assert f(2) * 2 == 4", HOSTILE.format("__mul__", "4"), False),
        ("assert 2 in f(2)", HOSTILE.format("__contains__", "True"), False),
        ("assert not f(2) != 2", HOSTILE.format("__ne__", "False"), False),
    ],
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    try:
        made = CodeVerifier(cpu_s=1, wall_s=5.0)
    except NoSandboxError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_that_is_meant_is_tried(verifier: CodeVerifier, kind: str) -> None:
    outcomes = verifier.outcomes([(tests, response) for tests, response, _ in KINDS[kind]])
    wrong = [
        (tests, response, outcome)
        for (tests, response, right), outcome in zip(KINDS[kind], outcomes, strict=True)
        if (outcome.kind == "passed") != right
    ]
    assert wrong == []


def test_calls_without_end_are_ended(verifier: CodeVerifier) -> None:
    (outcome,) = verifier.outcomes([("assert f(lambda x: x) == 3", "def f(g):\n    while True: g(1)")])
    assert outcome.kind == "timed out"


def test_an_explanation_names_the_code_and_what_came_of_it(verifier: CodeVerifier) -> None:
    response = f"Usage first:\n```\nadd(1, 2)\n```\n```python\n{WRONG}\n```"
    assert verifier.explain(ADD, response) == Judgement(
        False, "code that failed: assert 1 does not hold", "def add(a, b):", "all asserts to hold"
    )
    assert verifier.explain(ADD, RIGHT).said == "code that passed"
    assert verifier.explain(SUM, "print(3)").taken_from == "print(3)"
    assert verifier.explain("1 + 1", RIGHT).wanted is None
