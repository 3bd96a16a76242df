"""Plain data as JSON between processes that do not trust each other, and frames of it on file descriptors.

Never pickle: what comes out of `unpack` is a builtin value, whoever wrote the bytes. A value that is no plain data
stays where it is, and only a number that stands for it (a reference) travels. Also runs inside the sandbox, hence the
standard library alone.

A list `[1, {2.5}]` travels as `["l", 1, ["s", ["f", "0x1.4p+1"]]]`: tags tell a list from a tuple, and floats keep
each bit.
"""

import builtins
import datetime
import json
import os
import select
import struct
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

SOLUTION = "solution"
"""Module name of the code under test."""
_HEADER = struct.Struct("<I")
_DEPTH = 100  # containers within each other
_SMALL = 2**53  # larger integers travel as hexadecimal digits, which no reader takes for a float
_OF_ITEMS: dict[str, Callable[[list[Any]], Any]] = {"l": list, "t": tuple, "s": set, "z": frozenset, "k": deque}
_OF_PAIRS: dict[str, Callable[[dict[Any, Any]], Any]] = {"d": dict, "C": Counter, "O": OrderedDict}
_OF_FIELDS: dict[str, Callable[..., Any]] = {
    "i": lambda digits: int(digits, 16),
    "f": float.fromhex,
    "c": lambda real, imaginary: complex(float.fromhex(real), float.fromhex(imaginary)),
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
    "q": lambda top, bottom: Fraction(int(top, 16), int(bottom, 16)),
    "m": Decimal,
    "D": datetime.datetime.fromisoformat,
    "y": datetime.date.fromisoformat,
    "T": datetime.time.fromisoformat,
    "e": lambda days, seconds, microseconds: datetime.timedelta(days, seconds, microseconds),
    "r": lambda start, stop, step: range(int(start, 16), int(stop, 16), int(step, 16)),
}


class GarbledError(Exception):
    """The other side wrote something that is no message, or a longer one than is read."""


class SilentError(Exception):
    """The other side wrote nothing before the deadline."""


class ClosedError(Exception):
    """The other side is gone."""


def pack(value: Any, refer: Callable[[Any], int], depth: int = 0) -> Any:
    """A value as JSON.

    Subclasses of containers and numbers (defaultdict, named tuples, IntEnum) travel as what they build on, unless they
    are classes of the code under test with methods of their own; a builtin such as `int` or `len` travels by its name,
    and a time of day with the offset of its zone instead of the zone.

    Args:
        value: any value.
        refer: gives the number that stands for a value which is no plain data.
        depth: containers around it.

    Raises:
        ValueError: more than 100 containers within each other.
    """
    if depth > _DEPTH:
        raise ValueError(f"more than {_DEPTH} containers within each other")
    if value is None or isinstance(value, bool):
        return value
    if type(value).__module__ == SOLUTION and _has_methods(type(value)):
        return ["h", refer(value)]
    for kind, fields in _FIELDS:
        if isinstance(value, kind):
            return fields(value)
    for tag, kind in (("t", tuple), ("l", list), ("s", set), ("z", frozenset), ("k", deque)):
        if isinstance(value, kind):
            return [tag, *(pack(item, refer, depth + 1) for item in value)]
    if isinstance(value, dict):
        tag = "C" if isinstance(value, Counter) else "O" if isinstance(value, OrderedDict) else "d"
        return [tag, *([pack(key, refer, depth + 1), pack(item, refer, depth + 1)] for key, item in value.items())]
    name = getattr(value, "__name__", None)
    if isinstance(name, str) and vars(builtins).get(name) is value:
        return ["n", name]
    return ["h", refer(value)]


def _has_methods(kind: type) -> bool:
    return any(callable(value) and not name.startswith("_") for name, value in vars(kind).items())


_FIELDS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str),
    (int, lambda value: int(value) if -_SMALL < value < _SMALL else ["i", hex(value)]),
    (float, lambda value: ["f", float.hex(value)]),
    (complex, lambda value: ["c", value.real.hex(), value.imag.hex()]),
    (bytes, lambda value: ["b", value.hex()]),
    (bytearray, lambda value: ["B", value.hex()]),
    (Fraction, lambda value: ["q", hex(value.numerator), hex(value.denominator)]),
    (Decimal, lambda value: ["m", str(value)]),
    (datetime.datetime, lambda value: ["D", datetime.datetime.isoformat(value)]),
    (datetime.date, lambda value: ["y", datetime.date.isoformat(value)]),
    (datetime.time, lambda value: ["T", datetime.time.isoformat(value)]),
    (datetime.timedelta, lambda value: ["e", value.days, value.seconds, value.microseconds]),
    (range, lambda value: ["r", hex(value.start), hex(value.stop), hex(value.step)]),
)


def unpack(message: Any, resolve: Callable[[int], Any], names: Mapping[str, Any]) -> Any:
    """The value of `pack`'s JSON.

    Args:
        message: parsed JSON.
        resolve: the value that a number stands for.
        names: which builtins a name may stand for. What comes out of a sandbox must not name `exec`.

    Raises:
        GarbledError: this is nothing that `pack` writes.
    """
    if message is None or type(message) in (bool, int, str):
        return message
    if type(message) is not list or not message or type(message[0]) is not str:
        raise GarbledError(f"no packed value: {str(message)[:80]}")
    tag, *items = message
    try:
        if tag == "h":
            return resolve(*items)
        if tag == "n":
            return names[items[0]]
        if tag in _OF_FIELDS:
            return _OF_FIELDS[tag](*items)
        if tag in _OF_PAIRS:
            return _OF_PAIRS[tag]({unpack(key, resolve, names): unpack(item, resolve, names) for key, item in items})
        return _OF_ITEMS[tag]([unpack(item, resolve, names) for item in items])
    except (TypeError, ValueError, KeyError, ArithmeticError, RecursionError) as error:
        raise GarbledError(f"no packed value: {str(message)[:80]}") from error


def send(fd: int, message: Any) -> None:
    """Write one frame.

    Raises:
        ClosedError: nobody reads.
    """
    data = json.dumps(message).encode()
    rest = memoryview(_HEADER.pack(len(data)) + data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        raise ClosedError(str(error)) from error


def receive(fd: int, deadline: float | None = None, limit: int = 1 << 26) -> Any:
    """Read one frame.

    Args:
        fd: where to read.
        deadline: `time.monotonic()` at which to stop waiting; None waits for ever.
        limit: longest frame, bytes.

    Raises:
        ClosedError: the other side is gone.
        SilentError: the deadline passed.
        GarbledError: too long, or no JSON.
    """
    (length,) = _HEADER.unpack(_read(fd, _HEADER.size, deadline))
    if length > limit:
        raise GarbledError(f"a message of {length} bytes; {limit} are allowed")
    try:
        return json.loads(_read(fd, length, deadline))
    except (ValueError, RecursionError) as error:
        raise GarbledError("no JSON") from error


def _read(fd: int, length: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while length:
        if deadline is not None:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise SilentError("nothing came before the deadline")
        try:
            part = os.read(fd, min(length, 1 << 16))
        except OSError as error:
            raise ClosedError(str(error)) from error
        if not part:
            raise ClosedError("the other side closed")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
