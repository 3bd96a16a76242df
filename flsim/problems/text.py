"""The verifier that compares texts: right is the same text, whatever white space stands around it."""

import unicodedata
from collections.abc import Sequence

from flsim.problems.judging import Judgement


class ExactVerifier:
    """The verifier of the built-in world: the text itself, case and all."""

    instruction = ""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion is its reference's text."""
        return [same_text(reference, completion) for reference, completion in pairs]

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict and the two texts."""
        right = same_text(reference, completion)
        return Judgement(right, plain(completion), taken_from=completion, wanted=plain(reference))

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """None: any text can be said."""
        return []


def same_text(one: str, other: str) -> bool:
    """Whether two texts are one but for white space around them, ends of lines, and how accents are encoded."""
    return one == other or plain(one) == plain(other)


def plain(text: str) -> str:
    """A text in NFC, without white space around it, with the ends of lines of Unix."""
    text = text.strip()
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)
