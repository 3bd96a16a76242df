r"""Where in a completion its final answer stands: in the last `\boxed{}`, or on the line of the last `####`."""

_BOXES = ("\\boxed", "\\fbox")
_MARK = "####"


def marked_answer(text: str) -> str | None:
    r"""What the last marker holds: the contents of `\boxed{...}`, or the rest of the line of `####`.

    None: the text has neither. An unclosed box holds nothing, `""`: the completion was cut in its answer.
    """
    box, mark = max(text.rfind(box) for box in _BOXES), text.rfind(_MARK)
    if box < 0 and mark < 0:
        return None
    if mark > box:
        return text[mark + len(_MARK) :].split("\n", 1)[0].strip()
    return _braced(text[text.find("{", box) :]) if "{" in text[box:] else ""


def last_line(text: str) -> str:
    """The last line that is not blank; `""` if there is none."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _braced(text: str) -> str:
    depth = 0
    for at, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[1:at].strip()
    return ""
