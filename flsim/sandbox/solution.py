"""The code of a completion: which of its blocks are the solution, and what they need of the others.

Runs in the judge's process, which may be ended: a parser given hostile text can use up time and stack.

A block is what stands between fences, or between prose. The solution is the last block that defines what the tests ask
for (not a usage example, nor a test, nor a sketch with an empty body), with the definitions of other blocks that it
needs. Where the tests begin with the head of a function, as HumanEval's do, its body alone will do.
"""

import ast
import builtins
import re
import textwrap
from collections.abc import Sequence

from flsim.sandbox.asserts import bound_in, is_sketch
from flsim.sandbox.fences import Block, blocks_of, cleaned
from flsim.sandbox.pieces import BEGINS, DEFINITIONS, Parser, Piece, read_by, source, typed

_READS = re.compile(r"\binput\b|\bstdin\b|\bopen\(0|\bfileinput\b")
_WRITES = re.compile(r"\bprint\(|\bstdout\b")
_ANYTHING = re.compile("")
_LANGUAGE = re.compile(r"\A\s*python3?[ \t]*\n", re.IGNORECASE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_TYPING = re.compile(
    "Any|Callable|ClassVar|DefaultDict|Deque|Dict|Final|FrozenSet|Generator|Iterable|Iterator|List|Literal|Mapping"
    "|NamedTuple|Optional|Sequence|Set|Text|Tuple|Type|TypeVar|Union"
)
"""Names that annotations use and that say nothing about what the code does; prompts often import them."""


def solution_in(text: str, wanted: Sequence[str], head: str = "") -> str:
    """The code of a completion; the text itself where no code is found in it.

    Args:
        text: the completion.
        wanted: names that the tests take from the code; none: it is a program that reads standard input.
        head: code that the completion goes on from, ending in a function without a body; "" where there is none.
    """
    text, parser = cleaned(text), Parser()
    blocks, around = blocks_of(text, parser)
    if not any(block.is_python for block in blocks):
        blocks = [Block(block.code, "", block.closed) for block in blocks]
    blocks = [block for block in blocks if block.is_python]
    pieces = _pieces(blocks, parser) if blocks else _unfenced(text, parser)
    main = _main_of(pieces, wanted)
    if wanted and not main:
        spans = [piece for span in _INLINE.findall(around) if BEGINS.match(span) and (piece := parser.piece(span))]
        pieces = [*spans, *parser.between_prose(around), *pieces]
        main = _main_of(pieces, wanted)
    if head and not any(pieces[at].defines(name) == 2 for at in main for name in wanted):
        return _completed(head, [*(block.code for block in reversed(blocks)), text], parser)
    if head:
        return f"{head}\n\n{_assembled(pieces, main)}"
    if main:
        return _assembled(pieces, main)
    return pieces[-1].code if pieces else blocks[-1].code if blocks else text


def _pieces(blocks: Sequence[Block], parser: Parser) -> list[Piece]:
    """Of blocks; one that was never closed may end in prose, or be cut."""
    found = list[Piece]()
    for block in blocks:
        piece = parser.piece(_LANGUAGE.sub("", block.code))
        found += [piece] if piece else [] if block.closed else parser.between_prose(block.code)
    return found


def _unfenced(text: str, parser: Parser) -> list[Piece]:
    """Of a text without fences."""
    whole = parser.attempt(text)[0] or (parser.attempt(typed(text))[0] if ">>>" in text else None)
    if whole is not None and not whole.is_prose:
        return [whole.without_prose()]
    return parser.between_prose(text)


def _completed(head: str, bodies: Sequence[str], parser: Parser) -> str:
    """The head with the first body that makes a function of it; a body may be indented less than it must be."""
    for body in bodies:
        for form in (body.strip("\n"), textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")):
            code = _grown(head.split("\n"), form.split("\n"), parser)
            if code is not None:
                return code
    return f"{head}\n{bodies[-1]}"


def _grown(head: list[str], body: list[str], parser: Parser) -> str | None:
    """The head with as many lines of a body as parse; None if its function still has none."""
    end = len(body)
    while end > 0:
        code = "\n".join([*head, *body[:end]])
        piece, line = parser.attempt(code)
        if piece is not None:
            asked = [one for one in piece.tree.body if isinstance(one, DEFINITIONS) and one.lineno <= len(head)]
            return code if asked and (asked[-1].end_lineno or 0) > len(head) and not is_sketch(asked[-1]) else None
        end = min(end - 1, line - len(head) - 1)
    return None


def _main_of(pieces: Sequence[Piece], wanted: Sequence[str]) -> list[int]:
    """Places of the pieces that are the solution, in order; [] if none is."""
    if not wanted:
        return _program_of(pieces)
    found = set[int]()
    for name in wanted:
        ranks = [(piece.defines(name), at) for at, piece in enumerate(pieces)]
        rank, at = max(ranks, default=(0, 0))
        if rank:
            found.add(at)
    return sorted(found)


def _program_of(pieces: Sequence[Piece]) -> list[int]:
    """The last piece that reads, else that writes, else that does anything; and the one after it that starts it."""
    for shape in (_READS, _WRITES, _ANYTHING):
        places = [at for at, piece in enumerate(pieces) if shape.search(piece.code) and not piece.is_prose]
        if places:
            last = places[-1]
            if all(isinstance(one, (*DEFINITIONS, ast.Import, ast.ImportFrom)) for one in pieces[last].tree.body):
                names = set(pieces[last].binds())
                later = [at for at in range(last + 1, len(pieces)) if names & read_by(pieces[at].tree)]
                return [last, *later[:1]]
            return [last]
    return []


def _assembled(pieces: Sequence[Piece], main: Sequence[int]) -> str:
    """The main pieces after those statements of the others that bind what they need and do not have."""
    code = "\n\n".join(pieces[at].code for at in main)
    have = {name for at in main for name in bound_in(pieces[at].tree)} | set(vars(builtins))
    need = {name for at in main for name in read_by(pieces[at].tree)} - have
    others = [(at, piece.binds()) for at, piece in enumerate(pieces) if at not in main]
    chosen: dict[tuple[int, int], tuple[int, ast.stmt]] = {}
    while need:
        name = min(need)
        need.discard(name)
        have.add(name)
        found = next(((at, binds[name]) for at, binds in reversed(others) if name in binds), None)
        if found is not None:
            at, statement = found
            chosen[at, statement.lineno] = found
            need |= read_by(statement) - have - bound_in(statement)
        elif _TYPING.fullmatch(name):
            code = f"from typing import {name}\n{code}"
    helpers = [source(pieces[at].code, [statement]) for _, (at, statement) in sorted(chosen.items())]
    return "\n".join([*helpers, code])
