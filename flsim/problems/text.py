"""The verifier that compares texts: right is the same text, whatever white space stands around it.

Where the reference is white space itself, such as the letter after `to be`, right is that very white space, or what it
is called, since most clouds cannot say a space: `space`, or " " in quotes.
"""

import unicodedata
from collections.abc import Sequence
from types import MappingProxyType

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
        said, wanted = plain(completion) or completion, plain(reference) or reference
        return Judgement(right, said, taken_from=completion, wanted=wanted)

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """None: any text can be said."""
        return []


_CALLED = MappingProxyType({" ": "space", "\n": "newline", "\t": "tab"})


def same_text(reference: str, completion: str) -> bool:
    """Whether two texts are one but for white space around them, ends of lines, and how accents are encoded."""
    if reference == completion:
        return True
    wanted = plain(reference)
    return plain(completion) == wanted if wanted else _is_blank(reference.replace("\r\n", "\n"), completion)


def _is_blank(reference: str, completion: str) -> bool:
    """Whether a completion is a reference of white space; one that says nothing is none."""
    said = completion.replace("\r\n", "\n")
    if not said.strip():
        return said == reference != ""
    said = said.strip()
    quoted = len(said) > 2 and said[0] == said[-1] and said[0] in "\"'`"
    return said[1:-1] == reference if quoted else said.casefold() == _CALLED.get(reference)


def plain(text: str) -> str:
    """A text in NFC, without white space around it, with the ends of lines of Unix."""
    text = text.strip()
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)
