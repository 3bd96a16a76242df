"""What runs inside the sandbox: loads the code under test and performs the calls that the judge asks for.

It holds no test, no expected value, no secret and no descriptor but its line to the judge; the code under test may take
over this whole process and has then won nothing but the right to answer calls.
"""

import builtins
import operator
import os
import random
import sys
import types
from typing import Any

from flsim.sandbox import confine
from flsim.sandbox.wire import SOLUTION, ClosedError, pack, receive, send, unpack

_READS, _WRITES, _RULES = 200, 201, 202  # descriptors, above any that are inherited
_PARTS = ("on", "with", "named")  # of a call: the function, its arguments, its named arguments
_OPERATIONS = {"==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_NAMES = vars(builtins) | _OPERATIONS | {"+": operator.add, "-": operator.sub, "*": operator.mul}


def main(reads: int, writes: int, *, compute_only: bool, rules: int | None = None) -> None:
    """Give up rights, load the code, answer calls, until the judge hangs up.

    Args:
        reads: descriptor on which the judge writes.
        writes: descriptor on which it reads.
        compute_only: confine this process by its own means; False where a wrapper around it does that alone.
        rules: which files it may then read, from `confine.file_rules`; None finds that out.
    """
    silence = os.open(os.devnull, os.O_RDWR)
    lines = (os.dup2(reads, _READS), os.dup2(writes, _WRITES))
    if compute_only:
        rules = confine.file_rules() if rules is None else rules
        rules = None if rules is None else os.dup2(rules, _RULES)
    for standard in (0, 1, 2):
        os.dup2(silence, standard)
    os.closerange(3, _READS)
    os.closerange(_WRITES + 1 if rules is None else _RULES + 1, 4096)
    first = receive(lines[0])
    confine.limit_resources(first["cpu_s"], first["memory_mb"])
    if compute_only:
        confine.compute_only(rules)
    _Objects(*lines).answer_calls(first["code"])


class _Objects:
    """The code's objects that the judge knows by number; 0 is the module itself."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._module = types.ModuleType(SOLUTION)
        self._objects: list[Any] = [self._module]
        self._functions: dict[int, Any] = {}

    def answer_calls(self, code: str) -> None:
        """Load the code, then call after call. Random numbers are the same in every trial."""
        random.seed(0)
        sys.modules[SOLUTION] = self._module
        send(self._writes, self._tried(lambda: exec(compile(code, SOLUTION, "exec"), vars(self._module))))
        while True:
            try:
                call = receive(self._reads)
            except ClosedError:
                os._exit(0)
            send(self._writes, self._tried(lambda call=call: self._perform(call)))

    def _tried(self, deed: Any) -> dict[str, Any]:
        """What came of it. SystemExit and KeyboardInterrupt count as raised, like any other."""
        try:
            result = deed()
            return result if isinstance(result, dict) else {"value": None}
        except BaseException as error:
            return {"raised": type(error).__name__, "text": str(error)[:200]}

    def _perform(self, call: dict[str, Any]) -> dict[str, Any]:
        function, arguments, named = (unpack(call[part], self._resolve, _NAMES) for part in _PARTS)
        before = [self._pack(argument) for argument in arguments]
        value = function(*arguments, **named)
        after = [self._pack(argument) for argument in arguments]
        changed = [[at, new] for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        return {"value": self._pack(value), "changed": changed}

    def _resolve(self, number: int) -> Any:
        """The object of a number; below 0, a function that stands for one of the tests."""
        if number >= 0:
            return self._objects[number]
        if number not in self._functions:
            self._functions[number] = lambda *arguments, **named: self._call_back(number, arguments, named)
        return self._functions[number]

    def _call_back(self, number: int, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a function of the tests, and answer what it asks meanwhile."""
        send(self._writes, {"calls": number, "with": self._pack(list(arguments)), "named": self._pack(named)})
        while True:
            message = receive(self._reads)
            if "raises" in message:
                raise vars(builtins)[message["raises"]](message["text"])
            if "returned" in message:
                return unpack(message["returned"], self._resolve, _NAMES)
            send(self._writes, self._tried(lambda call=message: self._perform(call)))

    def _pack(self, value: Any) -> Any:
        return pack(value, self._refer)

    def _refer(self, value: Any) -> int:
        for number, known in [*self._functions.items(), *enumerate(self._objects)]:
            if known is value:
                return number
        self._objects.append(value)
        return len(self._objects) - 1


def warm_up() -> None:
    """Load what solutions import most, once, before the forks."""
    names = "math re collections itertools functools heapq bisect string random copy typing datetime decimal fractions \
        statistics json time array cmath calendar dataclasses enum textwrap unicodedata queue contextlib io abc numbers"
    for name in names.split():
        __import__(name)
