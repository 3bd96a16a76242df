r"""Where in a response its final answer stands: in the last `\boxed{}`, on the line of the last `####`, in `<answer>`.

What is thought aloud before an answer, `<think>...</think>`, is not searched, nor is the next question of a prompt that
a model runs on to after its answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_TAG, _TAG_END = "<answer>", "</answer>"
_MARK = "####"
_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning|scratchpad)>|◁/think▷")
# what follows an answer where a model goes on with the examples of its prompt
_ANSWERED = re.compile(r"####\s*[-+$€£\\*(]*\d|\\boxed\s*\{")
_NEXT_QUESTION = re.compile(r"\n[ \t]*(?:\*\*)?(?:Question|Human|User|Q)\s*\d*\s*:")
_TURN_ENDS = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end)\|>")
# `#### Step 2: the sum` is a heading, `#### Final answer` one whose text is the answer
_HEADING = re.compile(r"\W*(?i:step|solution|part|case|explanation|conclusion|reasoning|given|calculat|verif|check)")
_NUMBERED = re.compile(r"\W*\d+\s*[.)]\s+[A-Za-z]")
_ANSWER_HEADING = re.compile(r"\W*(?i:(?:the\s+)?(?:final\s+)?answer(?:\s+is)?)\s*(?::\W*|\*+\s*:?\W*|$)")
# boxes that make one answer: `x=\boxed{2} or x=\boxed{3}`
_SPACE = r"(?:[\s$]|\\q?quad|\\[,; ])*"
_JOIN = re.compile(
    rf"{_SPACE}(?:\\[\])])?{_SPACE}(?:\\text\s*\{{[^{{}}]{{0,25}}\b(?:and|or)\s*\}}|(?:\\text\s*\{{\s*)?[,;]\s*\}}?|(?:,\s*)?\b(?:and|or)\b|)"
    rf"{_SPACE}(?:\\[\[(])?{_SPACE}(?:[A-Za-z](?:_\{{?\w\}}?)?\s*=\s*)?"
)
_LONGEST_JOIN = 60


@dataclass(frozen=True)
class Marked:
    """What a marker holds."""

    text: str
    """Without the marker; "" where a box was cut or is empty."""
    by: Literal["box", "line", "tag"]
    r"""Which marker: `\boxed{}`, which holds the answer alone, `####`, after which words may follow, or `<answer>`."""


def spoken(text: str) -> str:
    """A text without what was thought aloud before it, and without the next question after its answer."""
    if "think" in text or "</" in text:
        ends = [match.end() for match in _THOUGHT_ENDS.finditer(text)]
        if ends and text[ends[-1] :].strip():
            text = text[ends[-1] :]
    if "<|" in text:
        text = next((part for part in _TURN_ENDS.split(text) if part.strip()), text)
    answered = _ANSWERED.search(text)
    following = _NEXT_QUESTION.search(text, answered.end()) if answered else None
    return text[: following.start()] if following else text


def marked(text: str) -> Marked | None:
    r"""What the last marker holds: the contents of `\boxed{...}`, the rest of the line of `####`, or an `<answer>`.

    None: the text has none. An unclosed box holds nothing, `""`: the completion was cut in its answer.
    """
    text = spoken(text)
    boxes = list(_BOX.finditer(text)) if "\\" in text else []
    box, tag = boxes[-1].start() if boxes else -1, text.rfind(_TAG)
    mark, line = next(_lines(text), (-1, ""))
    if max(box, tag, mark) < 0:
        return None
    if mark > max(box, tag):
        return Marked(line, "line")
    if tag > box:
        return Marked(text[tag + len(_TAG) :].split(_TAG_END, 1)[0].strip(), "tag")
    return Marked(_boxed(text, boxes), "box")


def marked_answer(text: str) -> str | None:
    """The text of `marked`; None: there is no marker."""
    found = marked(text)
    return None if found is None else found.text


def last_line(text: str) -> str:
    """The last line that is not blank; `""` if there is none."""
    lines = spoken(text).strip().splitlines()
    return lines[-1].strip() if lines else ""


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Place and text of what stands after each `####`, the last one first, without headings."""
    at = text.rfind(_MARK)
    while at >= 0:
        line, _, rest = text[at + len(_MARK) :].partition("\n")
        line = line.strip().lstrip("#").strip()
        answer = _ANSWER_HEADING.match(line)
        if answer:
            line = line[answer.end() :].strip()
        if not line:
            line = next((later.strip() for later in rest.split("\n", 5)[:5] if later.strip()), "")
        if not line and _MARK in text[:at]:  # `#### 72 ####`
            at, text = text.rfind(_MARK, 0, at), text[:at]
            continue
        if answer or not (_HEADING.match(line) or (_NUMBERED.match(line) and rest.strip())):
            yield at, line
        at = text.rfind(_MARK, 0, at)


def _boxed(text: str, boxes: list[re.Match[str]]) -> str:
    """What the last box holds, with the boxes before it that it makes one answer with."""
    contents, start = [_contents(text, boxes[-1].end())[0]], boxes[-1].start()
    for box in reversed(boxes[:-1]):
        content, end = _contents(text, box.end())
        if not (contents[0] and content) or start - end > _LONGEST_JOIN or not _JOIN.fullmatch(text, end, start):
            break
        start = box.start()
        if content not in contents:
            contents.insert(0, content)
    return ", ".join(contents)


def _contents(text: str, at: int) -> tuple[str, int]:
    r"""What stands in the braces at this place, or as a word, `\boxed 5`; and where it ends."""
    braced = text[at : at + 1] == "{"
    depth, place = 0, at
    while place < len(text):
        character = text[place]
        if character == "\\" and text[place + 1 : place + 2] in ("{", "}", "\\"):
            place += 2
            continue
        depth += (character == "{") - (character == "}")
        if braced and depth == 0:
            return text[at + 1 : place].strip(), place + 1
        if not braced and (depth < 0 or (depth == 0 and (character.isspace() or character == "$"))):
            break
        place += 1
    return ("", len(text)) if braced else (re.sub(r"(?:\\[\])]|[.,;:])+$", "", text[at:place]), place)
