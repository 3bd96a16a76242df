r"""Programs that read standard input, as in TACO: their tests as asserts, and a program as a function of its input.

    {"inputs": ["1 2\n"], "outputs": ["3\n"]}        ->    assert run_program('1 2\n').split() == ['3']

So they are judged as all code is. Outputs are compared word by word, as spaces and line ends are not what is asked for.
"""

import json

_FUNCTION = """\
import io, sys
def run_program(text):
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    sys.stdout = io.TextIOWrapper(io.BytesIO(), write_through=True)
    try:
        exec(compile({code!r}, "program", "exec"), {{"__name__": "__main__", "exit": sys.exit, "quit": sys.exit}})
    except SystemExit:
        pass
    return sys.stdout.buffer.getvalue().decode()
"""


def asserts_of(tests: str) -> str | None:
    """The asserts that stand for tests of a program; None for tests of another kind."""
    try:
        found = json.loads(tests)
        pairs = list(zip(found["inputs"], found["outputs"], strict=True))
        return "\n".join(f"assert run_program({given!r}).split() == {said.split()!r}" for given, said in pairs)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def as_function(code: str) -> str:
    """A program as the function that `asserts_of` calls; it is run anew for every input."""
    return _FUNCTION.format(code=code)
