r"""Programs that read standard input, as in TACO: their tests as asserts, and a program as a function of its input.

    {"inputs": ["1 2\n"], "outputs": ["3\n"]}        ->    assert same_words(run_program('1 2\n'), ['3'])

So they are judged as all code is. Outputs are compared word by word, as spaces and line ends are not what is asked for;
two words are also the same if both are decimals of one value, `0.5` and `0.500000`, up to a millionth of what is wanted
where that has a point.
"""

import json

PROGRAM = "run_program"
"""The function that stands for a program."""

_SAME_WORDS = r"""
def same_words(said, wanted):
    import re
    if type(said) is not str:
        return False
    decimal = re.compile(r"[-+]?\d{1,300}\.?\d{0,300}(?:[eE][-+]?\d{1,2})?")
    def same(one, other):
        if one == other:
            return True
        if "." not in one + other or not (decimal.fullmatch(one) and decimal.fullmatch(other)):
            return False
        exact = "." not in other
        return abs(float(one) - float(other)) <= (0 if exact else 1e-6 * max(1, abs(float(other))))
    words = said.split()
    return len(words) == len(wanted) and all(map(same, words, wanted))
"""

# a program in a thread of its own has one for its larger stack; here none can start, so it is run where it stands
_FUNCTION = """\
import io, sys
def run_program(text):
    import builtins, io, sys, threading
    threading.Thread.start, threading.Thread.join = threading.Thread.run, lambda *_, **__: None
    threading.stack_size = lambda *_: 0
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    sys.stdout = io.TextIOWrapper(io.BytesIO(), write_through=True)
    def opened(file, *how, **named):
        return sys.stdin if file == 0 else builtins.open(file, *how, **named)
    names = {{"__name__": "__main__", "exit": sys.exit, "quit": sys.exit, "open": opened}}
    try:
        exec(compile({code!r}, "program", "exec"), names)
    except SystemExit:
        pass
    return sys.stdout.buffer.getvalue().decode()
"""


def asserts_of(tests: str) -> str | None:
    """The asserts that stand for tests of a program; None for tests of another kind."""
    try:
        found = json.loads(tests)
        pairs = list(zip(found["inputs"], found["outputs"], strict=True))
        held = [f"assert same_words({PROGRAM}({given!r}), {said.split()!r})" for given, said in pairs]
        return "\n".join([_SAME_WORDS, *held])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def as_function(code: str) -> str:
    """A program as the function that `asserts_of` calls; it is run anew for every input."""
    return _FUNCTION.format(code=code)
