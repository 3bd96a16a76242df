"""Reading a text of tests: which asserts it has, which names it takes from the code under test.

Both are decided by the tests alone, so the code under test cannot move them: `set(f(x)) == {1}` means the builtin `set`
whatever the code calls `set`, and a module such as `math` is the real one.
"""

import ast
import builtins
import sys
from typing import TypeGuard

COUNT = "count this assert"  # no program can spell this name


class UnusableTestsError(ValueError):
    """Tests that cannot be used; the message says why."""


def assert_sites(tests: str) -> int:
    """How many asserts must be seen to hold. `assert False`, a guard of what should not be reached, is not among them.

    Raises:
        UnusableTestsError: the text does not parse, or has no assert.
    """
    count = sum(_counts(node) for node in ast.walk(_parsed(tests)))
    if not count:
        raise UnusableTestsError("the tests contain no assert, so nothing could fail")
    return count


def subjects(tests: str) -> list[str]:
    """The names that the tests use and do not define: functions, classes and variables of the code under test.

    A builtin name is one of them only where the tests have no other and call it: `assert sum(10, 15) == 6` about a task
    named `sum`. A module of the standard library is never one, if it is used with a dot.

    Raises:
        UnusableTestsError: nothing, or more than one builtin, could be meant.
    """
    tree = _parsed(tests)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    free = read - bound_in(tree) - set(modules(tests))
    named = sorted(name for name in free if not hasattr(builtins, name))
    if named:
        return named
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    meant = sorted(called & free)
    if len(meant) != 1:
        raise UnusableTestsError(
            f"the tests call no function of the code under test (builtins called: {meant or 'none'})"
        )
    return meant


def headed(tests: str) -> tuple[str, str]:
    """Tests that begin with the head of a function, as HumanEval's prompts do, in head and tests; "" for no head.

    The head ends with the first function that says nothing but a docstring and is used below it. What it imports is
    there for the tests too.
    """
    try:
        tree = _parsed(tests)
    except UnusableTestsError:
        return "", tests
    lines = tests.split("\n")
    for place, statement in enumerate(tree.body):
        below = {node.id for later in tree.body[place + 1 :] for node in ast.walk(later) if isinstance(node, ast.Name)}
        if is_sketch(statement) and statement.name in below:
            imports = [ast.unparse(one) for one in tree.body[:place] if isinstance(one, ast.Import | ast.ImportFrom)]
            return "\n".join(lines[: statement.end_lineno]), "\n".join([*imports, *lines[statement.end_lineno :]])
    return "", tests


def is_sketch(statement: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Whether it is a function whose body says nothing: a docstring, `pass`, `...` or `raise NotImplementedError`."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        or (isinstance(one, ast.Raise) and one.exc is not None and "NotImplemented" in ast.unparse(one.exc))
        for one in statement.body
    )


def why_unusable(tests: str) -> str:
    """Why no code could be tried with these tests; `""` if they are sound."""
    try:
        assert_sites(tests)
        subjects(tests)
    except UnusableTestsError as error:
        return str(error)
    return ""


def modules(tests: str) -> list[str]:
    """Modules of the standard library that the tests use with a dot and import nowhere, such as `math.isclose`."""
    tree = _parsed(tests)
    owners = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    dotted = {owner.id for owner in owners if isinstance(owner, ast.Name)}
    return sorted((dotted & sys.stdlib_module_names) - bound_in(tree))


def counted(tests: str) -> ast.Module:
    """The tests with each assert replaced by a call of `COUNT` with its number and its value."""
    tree = _parsed(tests)
    _Counting().visit(tree)
    return ast.fix_missing_locations(tree)


class _Counting(ast.NodeTransformer):
    def __init__(self) -> None:
        self._sites = 0

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if not _counts(node):
            return node
        number = ast.Constant(self._sites)
        self._sites += 1
        call = ast.Call(ast.Name(COUNT, ast.Load()), [number, node.test], [])
        return ast.copy_location(ast.Expr(call), node)


def _parsed(tests: str) -> ast.Module:
    try:
        return ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnusableTestsError(f"the tests are no Python: {error}") from error


def _counts(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) and not (isinstance(node.test, ast.Constant) and not node.test.value)


def bound_in(tree: ast.AST) -> set[str]:
    """Every name that code binds anywhere."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
