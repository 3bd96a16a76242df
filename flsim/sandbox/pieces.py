"""Stretches of a text that are Python: whole blocks, what was typed at a prompt, and code between prose."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flsim.sandbox.asserts import is_sketch

BEGINS = re.compile(
    r"[ \t]*(?:(?:async[ \t]+)?def[ \t]+\w|class[ \t]+\w|import[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b|@\w|>>>|try:"
    r"|\w+\(|(?:if|for|while|with)\b.*:|\"\"\"|'''|#"
    r"|[A-Za-z_][\w.]*(?:[ \t]*,[ \t]*\w+)*(?:[ \t]*:[ \t]*[\w\[\], .]+)?[ \t]*[-+*/|&]?=(?!=))"
)
"""A line that looks like code; whether it is, the parser says."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_CHARACTERS = 400_000  # of all attempts together: about a second at worst


@dataclass(frozen=True)
class Piece:
    """A stretch of code that parses."""

    code: str
    tree: ast.Module = field(compare=False)

    def binds(self) -> dict[str, ast.stmt]:
        """Names that its statements bind, with the last statement of each."""
        return {name: statement for statement in self.tree.body for name in _bound_by(statement)}

    def defines(self, name: str) -> int:
        """2: the name is a function, class or variable of it; 1: imported, or a function without a body; 0: neither."""
        statement = self.binds().get(name)
        if statement is None:
            return 0
        return 1 if isinstance(statement, ast.Import | ast.ImportFrom) or is_sketch(statement) else 2

    @property
    def is_prose(self) -> bool:
        """Whether it only happens to parse: `Done`."""
        return not any(_does(statement) for statement in self.tree.body)

    def without_prose(self) -> "Piece":
        """Without statements that do nothing: a word between two functions would be a NameError."""
        kept = [statement for statement in self.tree.body if _does(statement)]
        if len(kept) == len(self.tree.body):
            return self
        return Piece(source(self.code, kept), ast.Module(kept, []))


class Parser:
    """Finds pieces in one text, within a bound on what it parses of it."""

    def __init__(self) -> None:
        """Begin with the whole bound."""
        self._left = _CHARACTERS

    def piece(self, code: str) -> Piece | None:
        """A block, which may be indented or typed at a prompt; None if it is no Python."""
        return self.attempt(code)[0] or (self.attempt(typed(code))[0] if ">>>" in code else None)

    def attempt(self, code: str) -> tuple[Piece | None, int]:
        """The code if it is Python; else None, and the line, from 1, at which it is none."""
        code = textwrap.dedent(code)
        self._left -= len(code) + 100
        if self._left < 0:
            return None, 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return Piece(code, ast.parse(code)), 0
            except SyntaxError as error:
                return None, error.lineno or 0
            except (ValueError, RecursionError, MemoryError):
                return None, 0

    def between_prose(self, text: str) -> list[Piece]:
        """From each line that looks like code, as many lines as parse."""
        lines, at, found = text.split("\n"), 0, list[Piece]()
        while at < len(lines) and self._left > 0:
            if not BEGINS.match(lines[at]):
                at += 1
                continue
            end, piece = _end_of_indented(lines, at), None
            while end > at:
                piece, line = self.attempt("\n".join(lines[at:end]))
                if piece is not None:
                    break
                end = min(end - 1, at + max(line, 1) - 1)
            if piece is not None and not piece.is_prose:
                found.append(piece.without_prose())
            at = max(end, at + 1)
        return found


def typed(code: str) -> str:
    """What was typed at Python's prompt, without what it answered."""
    lines = [line for line in textwrap.dedent(code).split("\n") if line.startswith((">>>", "..."))]
    return "\n".join(line[4:] if line[3:4] == " " else line[3:] for line in lines)


def source(code: str, statements: Iterable[ast.stmt]) -> str:
    """The lines of statements, with their decorators."""
    lines, found = code.split("\n"), list[str]()
    for statement in statements:
        start = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", []))])
        found.append("\n".join(lines[start - 1 : statement.end_lineno]))
    return "\n".join(found)


def read_by(tree: ast.AST) -> set[str]:
    """Every name that code reads anywhere."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _end_of_indented(lines: list[str], at: int) -> int:
    """The line after a stretch that is indented at least as its first line."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    less = (place for place in range(at, len(lines)) if lines[place].strip() and lines[place][:indent].strip())
    return next(less, len(lines))


def _does(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return any(isinstance(node, ast.Call | ast.Yield | ast.Await | ast.NamedExpr) for node in ast.walk(statement))
    return not (isinstance(statement, ast.AnnAssign) and statement.value is None)


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement binds in its module."""
    if isinstance(statement, DEFINITIONS):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in statement.names)
    else:
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt):
                yield from _bound_by(child)
            elif isinstance(child, ast.expr):
                yield from (
                    node.id
                    for node in ast.walk(child)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                )
