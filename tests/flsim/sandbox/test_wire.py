"""Plain data crosses unchanged, hostile bytes come out as an error, and tests are read as they are meant."""

import contextlib
import datetime
import math
import os
import time
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.sandbox.asserts import assert_sites, modules, subjects, why_unusable
from flsim.sandbox.wire import ClosedError, GarbledError, SilentError, pack, receive, send, unpack

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=4) | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=12,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def no_reference(value: Any) -> int:
    raise AssertionError(f"{value!r} is plain data")


def across(value: Any) -> Any:
    return unpack(pack(value, no_reference), int, {"int": int})


@given(VALUES)
def test_plain_data_crosses_unchanged(value: Any) -> None:
    found = across(value)
    assert found == value
    assert repr(found) == repr(value) or isinstance(
        value, set | frozenset | dict | list | tuple
    )  # 1, 1.0 and True differ


def test_values_that_are_not_equal_to_themselves() -> None:
    assert math.isnan(across(math.nan))
    assert str(across(-0.0)) == "-0.0"


def test_subclasses_arrive_as_what_they_build_on() -> None:
    pair = namedtuple("pair", "a b")
    colour = IntEnum("colour", "RED")
    for value, plain in (
        (pair(1, 2), (1, 2)),
        (Counter("aab"), Counter("aab")),
        (OrderedDict(a=1), OrderedDict(a=1)),
        (deque([1, 2], 2), deque([1, 2])),
        (colour(1), 1),
        (range(3), range(3)),
        (int, int),
        (Fraction(1, 3), Fraction(1, 3)),
        (Decimal("1.10"), Decimal("1.10")),
    ):
        assert across(value) == plain
        assert type(across(value)) is type(plain)


def test_what_is_no_plain_data_becomes_a_number() -> None:
    thing = object()
    assert pack([1, thing], lambda value: 7 if value is thing else 0) == ["l", 1, ["h", 7]]
    assert unpack(["l", 1, ["h", 7]], lambda number: f"remote {number}", {}) == [1, "remote 7"]


@given(JSON)
def test_hostile_messages_are_an_error_or_plain_data(message: Any) -> None:
    value = None
    with contextlib.suppress(GarbledError):
        value = unpack(message, lambda *_: "remote", {})
    assert type(value).__module__ in ("builtins", "fractions", "decimal", "collections", "datetime")


@pytest.mark.parametrize("name", ["exec", "open", "__import__", "getattr"])
def test_names_stand_only_for_what_the_reader_allows(name: str) -> None:
    with pytest.raises(GarbledError):
        unpack(["n", name], int, {"int": int})


def test_frames() -> None:
    reads, writes = os.pipe()
    send(writes, {"a": [1, "\ud800"]})
    assert receive(reads, time.monotonic() + 1) == {"a": [1, "\ud800"]}
    with pytest.raises(SilentError):
        receive(reads, time.monotonic() + 0.01)
    send(writes, "x" * 100)
    with pytest.raises(GarbledError, match="102 bytes; 50 are allowed"):
        receive(reads, time.monotonic() + 1, 50)
    os.close(writes)
    os.read(reads, 1000)
    with pytest.raises(ClosedError):
        receive(reads, time.monotonic() + 1)
    os.close(reads)


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        ("assert f(1) == 2", ["f"]),
        ("assert set(f(1)) == set((1, 2))", ["f"]),
        ("assert sum(10, 15) == 6", ["sum"]),
        ("import math\nassert math.isclose(area(1), 2)", ["area"]),
        ("assert math.isclose(area(1), 2)", ["area"]),
        ("root = Node(1)\nroot.left = Node(2)\nassert height(root) == 2", ["Node", "height"]),
        ("def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", ["f"]),
        ("assert all(f(x) == y for x, y in [(1, 2)])", ["f"]),
    ],
)
def test_the_names_that_tests_take_from_the_code(tests: str, names: list[str]) -> None:
    assert subjects(tests) == names


def test_modules_that_tests_use() -> None:
    assert modules("assert math.isclose(f(1), 2) and sys.getsizeof(1)") == ["math", "sys"]
    assert modules("import math\nassert math.isclose(f(1), 2)") == []


@pytest.mark.parametrize(
    ("tests", "why"),
    [("f(1) == 2", "no assert"), ("assert f(", "no Python"), ("assert max(1) == min(1)", "call no function")],
)
def test_unusable_tests_say_why(tests: str, why: str) -> None:
    assert why in why_unusable(tests)


def test_a_guard_of_what_should_not_be_reached_is_not_counted() -> None:
    assert assert_sites("try:\n    f(-1)\n    assert False\nexcept ValueError:\n    assert True\nassert f(1)") == 2
