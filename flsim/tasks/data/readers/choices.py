"""A multiple-choice question as text: the stem, a line per choice, and the letter of the right one."""

from collections.abc import Sequence

from flsim.tasks.data.rows import Row

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def choice_question(stem: str, choices: Sequence[str]) -> str:
    r"""As in MMLU's own prompt: `Stem\nA. one\nB. two\nAnswer:`."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([stem.strip(), *lines, "Answer:"])


def letter_of(row: Row, answer: object, choices: int) -> str:
    """The letter of the right choice, given as a letter or as an index from 0.

    Raises:
        ConfigError: if it names no choice.
    """
    text = str(answer).strip()
    at = int(text) if text.isdigit() else LETTERS.find(text.upper()) if len(text) == 1 else -1
    if not 0 <= at < choices:
        raise row.error(f"the answer {answer!r} is none of the {choices} choices (a letter, or an index from 0)")
    return LETTERS[at]
