"""Blocks of code in a text: what stands between fences of backticks or tildes, however carelessly they are set.

Read are fences that are indented, in lists, on the line of the code, never closed, or opened by the prompt already, and
those within a string of the code, which do not end it.
"""

import re
from dataclasses import dataclass

from flsim.sandbox.pieces import BEGINS, Parser

_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning|scratchpad)>|◁/think▷")
_FRAME = re.compile(
    r"^[ \t]*\[/?(?:PYTHON|BEGIN|DONE|CODE|SOLUTION|ANSWER)\]|(?:\[/(?:PYTHON|CODE|SOLUTION|ANSWER)\]|\[DONE\])[ \t]*$"
    r"|^[ \t]*</?(?:code|pre|answer|solution|python)>|</?(?:code|pre|answer|solution|python)>[ \t]*$"
    r"|<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>|</s>[ \t]*$",
    re.MULTILINE,
)
_QUOTE = re.compile(r"^[ \t]*>(?!>) ?", re.MULTILINE)
_QUOTED_FENCE = re.compile(r"^[ \t]*> ?(?:```|~~~)", re.MULTILINE)
_FENCE = re.compile(r"[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(`{3,}|~{3,})[ \t]*(.*?)[ \t]*$")
_INFO = re.compile(r"\{?\.?([\w+#.-]*)\}?(?:[\s:{,].*)?")
_PYTHON = ("", "py", "python", "python3", "py3", "python2", "pycon", "ipython", "ipython3", "sage", "repl")
_LOOKAHEAD = 6  # fences within a string of the code


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    code: str
    info: str
    """What is written after the opening fence."""
    closed: bool = True
    """Whether a fence ends it."""

    @property
    def is_python(self) -> bool:
        """Whether it says so, or does not say."""
        match = _INFO.fullmatch(self.info)
        return match is not None and match[1].lower() in _PYTHON


def cleaned(text: str) -> str:
    """Without what was thought aloud, marks of a text's ends, and carriage returns."""
    ends = [match.end() for match in _THOUGHT_ENDS.finditer(text)]
    if ends and text[ends[-1] :].strip():
        text = text[ends[-1] :]
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff\u200b")
    if _QUOTED_FENCE.search(text):
        text = _QUOTE.sub("", text)
    return _FRAME.sub("\n", text)


def blocks_of(text: str, parser: Parser) -> tuple[list[Block], str]:
    """The blocks of a text, and the text around them."""
    lines = text.split("\n")
    found, around, at = list[Block](), list[str](), 0
    fence = next((place for place, line in enumerate(lines) if "```" in line or "~~~" in line), None)
    if fence is not None and _goes_on_from_prompt(lines, fence, parser):
        found.append(Block("\n".join(lines[:fence]), ""))
        at = fence + 1
    while at < len(lines):
        before, opening, info = _opened(lines[at])
        around.append(before)
        at += 1
        if not opening:
            continue
        one_line = re.fullmatch(rf"(.+?){opening[0]}{{3,}}.*", info)
        if one_line:
            word, _, rest = one_line[1].partition(" ")
            found.append(Block(rest, word) if rest and word.lower() in _PYTHON else Block(one_line[1], ""))
            continue
        first = [info] if BEGINS.match(info) and not _is_language(info) else []
        block, at = _until_closed(lines, at, opening, first, "" if first else info, parser)
        found.append(block)
    return found, "\n".join(around)


def _goes_on_from_prompt(lines: list[str], fence: int, parser: Parser) -> bool:
    """Whether a text begins as code, as after a prompt that ended in an opening fence: its first fence closes."""
    match = _FENCE.match(lines[fence])
    first = next((line for line in lines[:fence] if line.strip()), "")
    bare = match is not None and not match[2]
    return bare and bool(BEGINS.match(first)) and parser.piece("\n".join(lines[:fence])) is not None


def _opened(line: str) -> tuple[str, str, str]:
    """A line as what stands before a fence, the fence, and what stands after it; both "" where there is none."""
    match = _FENCE.match(line)
    if match:
        return "", match[1], match[2]
    before, fence, info = line.partition("```")
    return before, fence, info.strip()


def _until_closed(
    lines: list[str], at: int, opening: str, first: list[str], info: str, parser: Parser
) -> tuple[Block, int]:
    """The block from a line on, and the line after it; the first fence ends it with which it parses."""
    ends = list[tuple[int, list[str]]]()  # line of the fence, and code before the fence on it
    for place in range(at, len(lines)):
        match = _FENCE.match(lines[place])
        line = lines[place].rstrip()
        if match and match[1][0] == opening[0] and len(match[1]) >= len(opening):
            if not ends and match[2] and _is_language(match[2]):
                return Block("\n".join([*first, *lines[at:place]]), info, closed=False), place  # another one begins
            ends.append((place, []))
        elif line.endswith(opening) and not ends:
            ends.append((place, [line.rstrip(opening[0])]))
        if len(ends) > (_LOOKAHEAD if Block("", info).is_python else 0):
            break
    blocks = [(Block("\n".join([*first, *lines[at:end], *last]), info), end + 1) for end, last in ends]
    if not blocks:
        return Block("\n".join([*first, *lines[at:]]), info, closed=False), len(lines)
    return next(((block, after) for block, after in blocks if parser.piece(block.code)), blocks[0])


def _is_language(info: str) -> bool:
    match = _INFO.fullmatch(info)
    return match is not None and "(" not in info and "=" not in match[1]
