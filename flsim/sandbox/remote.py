"""The judge's side of the line: objects of the code under test, as the tests see them.

Plain data comes over as itself. Anything else (a function, an object of a class of the code) stays where it is and is
seen through a `Remote`, which asks there for each call, attribute and item. A function that the tests pass to the code
stays here, and the code's calls of it come over as messages.
"""

import builtins
import time
from collections.abc import Callable
from typing import Any

from flsim.sandbox.backends import Cell
from flsim.sandbox.wire import ClosedError, GarbledError, SilentError, pack, receive, send, unpack

# what a name from the sandbox may stand for: nothing that does anything but make plain data
_TYPES = {kind.__name__: kind for kind in (int, float, bool, str, bytes, list, tuple, set, frozenset, dict, complex)}
# an exception that ends a loop in silence would let code skip the tests in it: all(map(f, cases))
_SILENT_ENDS = (StopIteration, StopAsyncIteration)


class CandidateError(Exception):
    """The code under test raised something that is no builtin exception."""


class EndedError(BaseException):
    """The line to the code under test is broken; not an `Exception`, so that no test takes it for one of the code's."""

    def __init__(self, why: str, *, left: bool = False, late: bool = False) -> None:
        """Say why; `left`: its process ended by itself; `late`: the time was over."""
        super().__init__(why)
        self.left, self.late = left, late


class Line:
    """Asks the code under test."""

    def __init__(self, cell: Cell, deadline: float, reply_bytes: int) -> None:
        """Use a cell until `deadline` (`time.monotonic()`); longer replies than `reply_bytes` end it."""
        self._cell, self._deadline, self._limit = cell, deadline, reply_bytes
        self.broken: EndedError | None = None
        self.refuted: AssertionError | None = None
        """An assert that did not hold while the code called a function of the tests, whatever it made of that."""
        self._functions: list[Callable[..., Any]] = []

    def load(self, code: str, *, cpu_s: int, memory_mb: int) -> None:
        """Hand over the code, which is executed.

        Raises:
            EndedError: it broke the line.
            Exception: what the code raised.
        """
        self._value(self._asked({"code": code, "cpu_s": cpu_s, "memory_mb": memory_mb}))

    def subject(self, name: str) -> Any:
        """A global of the code: plain data, or a `Remote`."""
        return self.call("getattr", Remote(self, 0), name)

    def call(self, function: "str | Remote", *arguments: Any, **named: Any) -> Any:
        """Call a builtin (by name) or an object over there; what it does to a list, dict or set it does here too."""
        on = ["n", function] if isinstance(function, str) else ["h", number_of(function)]
        reply = self._asked({"on": on, "with": self._packed(list(arguments)), "named": self._packed(named)})
        value = self._value(reply)
        for at, new in reply.get("changed", ()):
            _replace(arguments[at], self._unpacked(new))
        return value

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.broken is not None:
            raise self.broken
        try:
            send(self._cell.writes, message)
            while True:
                reply = receive(self._cell.reads, self._deadline, self._limit)
                if not isinstance(reply, dict):
                    raise GarbledError("no reply")
                if "calls" not in reply:
                    return reply
                if time.monotonic() > self._deadline:
                    raise SilentError("calls without end")
                send(self._cell.writes, self._called(reply))
        except ClosedError:
            self.broken = EndedError("the process of the code ended", left=True)
        except SilentError:
            self.broken = EndedError("the code took too long", late=True)
        except GarbledError as error:
            self.broken = EndedError(f"the code wrote to the judge: {error}")
        raise self.broken

    def _called(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a function of the tests makes of a call from over there."""
        function = self._resolve(message["calls"])
        arguments, named = self._unpacked(message.get("with")), self._unpacked(message.get("named"))
        if isinstance(function, Remote) or type(arguments) is not list or type(named) is not dict:
            raise GarbledError("no call")
        try:
            return {"returned": self._packed(function(*arguments, **named))}
        except Exception as error:
            if isinstance(error, AssertionError):
                self.refuted = error
            known = [kind.__name__ for kind in type(error).__mro__ if vars(builtins).get(kind.__name__) is kind]
            return {"raises": known[0], "text": str(error)[:200]}

    def _value(self, reply: dict[str, Any]) -> Any:
        if "raised" in reply:
            raise _exception(str(reply["raised"]), str(reply.get("text", "")))
        return self._unpacked(reply.get("value"))

    def _packed(self, value: Any) -> Any:
        return pack(value, self._refer)

    def _refer(self, value: Any) -> int:
        """The number of a `Remote`; of a function of the tests, one below 0."""
        if isinstance(value, Remote) or not callable(value):
            return number_of(value)
        for place, known in enumerate(self._functions):
            if known is value:
                return -1 - place
        self._functions.append(value)
        return -len(self._functions)

    def _resolve(self, number: Any) -> Any:
        if type(number) is not int or number < -len(self._functions):
            raise GarbledError(f"no reference: {str(number)[:80]}")
        return Remote(self, number) if number >= 0 else self._functions[-1 - number]

    def _unpacked(self, message: Any) -> Any:
        try:
            return unpack(message, self._resolve, _TYPES)
        except GarbledError as error:
            self.broken = EndedError(f"the code wrote to the judge: {error}")
            raise self.broken from error


class Remote:
    """An object of the code under test. No plain value equals it; of two, the code says how they compare and add up.

    That gives nothing away: both are the code's, which could have made them one. Before a plain value the code has no
    say: an object that equals everything, or whose difference from a number is 0, would pass any test.
    """

    __slots__ = ("_flsim_line", "_flsim_number")

    def __init__(self, line: Line, number: int) -> None:
        """Stand for the object of that number."""
        if type(number) is not int:
            raise GarbledError(f"no reference: {str(number)[:80]}")
        object.__setattr__(self, "_flsim_line", line)
        object.__setattr__(self, "_flsim_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it over there."""
        return self._flsim_line.call(self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._flsim_line.call("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._flsim_line.call("setattr", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._flsim_line.call("getattr", self, "__getitem__")(key)

    def __iter__(self) -> Any:
        return iter(self._flsim_line.call("list", self))

    def __len__(self) -> int:
        return int(self._flsim_line.call("len", self))

    def __bool__(self) -> bool:
        return bool(self._flsim_line.call("bool", self))

    def __str__(self) -> str:
        return str(self._flsim_line.call("str", self))

    def __repr__(self) -> str:
        return str(self._flsim_line.call("repr", self))

    def __next__(self) -> Any:
        return self._flsim_line.call("next", self)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._flsim_line.call("getattr", self, "__setitem__")(key, value)

    def __eq__(self, other: object) -> bool:
        return self._with("==", other) is True

    def __lt__(self, other: object) -> Any:
        return self._with("<", other)

    def __le__(self, other: object) -> Any:
        return self._with("<=", other)

    def __gt__(self, other: object) -> Any:
        return self._with(">", other)

    def __ge__(self, other: object) -> Any:
        return self._with(">=", other)

    def __add__(self, other: object) -> Any:
        return self._with("+", other)

    def __sub__(self, other: object) -> Any:
        return self._with("-", other)

    def __mul__(self, other: object) -> Any:
        return self._with("*", other)

    def __hash__(self) -> int:
        return hash(self._flsim_line.call("hash", self))

    def _with(self, operation: str, other: object) -> Any:
        """What the code makes of two of its objects; a plain value is none of its business."""
        return self._flsim_line.call(operation, self, other) if isinstance(other, Remote) else NotImplemented


def number_of(value: Any) -> int:
    """The number of a `Remote`.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, Remote):
        raise TypeError(f"the tests give the code a {type(value).__name__}, which cannot be sent; plain data can")
    number: int = object.__getattribute__(value, "_flsim_number")
    return number


def _replace(old: Any, new: Any) -> None:
    """Let a container that the code changed over there look so here."""
    if isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif (isinstance(old, dict) and isinstance(new, dict)) or (isinstance(old, set) and isinstance(new, set)):
        old.clear()
        old.update(new)


def _exception(name: str, text: str) -> Exception:
    kind = vars(builtins).get(name)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _SILENT_ENDS):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and its like take more
            pass
    return CandidateError(f"{name}: {text}")


def deadline_in(seconds: float) -> float:
    """The `time.monotonic()` of that many seconds from now."""
    return time.monotonic() + seconds
