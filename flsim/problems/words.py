r"""Right is the same word or the same few words, said as people say them: for answers such as `Paris` or `went`.

The answer of a text is what its last `\boxed{}`, `####` or `<answer>` holds, else its first line. Read over are case,
an article in front, quotes, brackets and emphasis around it, a full stop behind it, and a lead that says no more than
that the answer follows: `Answer: Paris`, `It is Paris`, `The capital of France is Paris`.

All of what is left must be the answer: `not Paris`, `Paris or Rome`, `Paris, France`, `York` for `New York`, `cats` for
`cat` and `Paris?` are wrong. Numbers are words here: `7` is right for `7`, `seven` and `7.0` are not.

The first line of a reference is the answer, each further line is another one that is as good: `Kyiv` with `Kiev` below.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from flsim.problems.answers.marked import marked, spoken
from flsim.problems.judging import Judgement

_LONGEST = 200  # characters of a line; longer ones are no such answer
_SIGNS = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2010": "-", "\u2011": "-"})
_PAIRS = (
    *(('"', '"'), ("'", "'"), ("$", "$"), ("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")),
    *(("\u00ab", "\u00bb"), (r"\(", r"\)"), (r"\text{", "}")),
)
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|__?|`)(?=[^\s*])(.+?)(?<=[^\s*])\1(?!\w)")
_POINTS = ".,;:!"
_ARTICLE = re.compile(r"(?:an?|the) (?=\w\w)")  # `a b` may be two letters
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=[^\W\d])")  # of a word, not the sign of a number
_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence),? )?(?:"
    r"(?:(?:the|my) )?(?:(?:right|correct|final|short) )?answer(?: is| would be|(?= ?:))|"
    r"it is|it's|that is|that's|this is)(?: ?:)?(?=[\s\"'(])\s*"
)
_SENTENCE = re.compile(r"the (?:[a-z]+ ){1,3}(?:of|for|in) (?P<what>[^.;:?!]{1,80}?) (?:is|are):? (?=\S)")
_DENIED = re.compile(r"\b(?:not|never|neither|nor|no|wrong|false|incorrect)\b|n't\b")


class WordsVerifier:
    """Compares words, whatever case, article, quotes or full stop they come with."""

    instruction = "Answer with the word or number only."

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's words are its reference's, or one of its aliases."""
        return [said_in(completion)[0] in wanted_by(reference) for reference, completion in pairs]

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict, the words that were read, and the first line of the reference."""
        (said, place), wanted = said_in(completion), wanted_by(reference)
        first = reference.strip().split("\n", 1)[0].strip()
        return Judgement(said in wanted, said or None, place or None, first)

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those without a word in their first line."""
        return [reference for reference in references if not bare(reference.strip().split("\n", 1)[0])]


@lru_cache(4096)  # each is asked for once per response of its group
def wanted_by(reference: str) -> frozenset[str]:
    """The answers that a reference takes, made bare: one a line."""
    return frozenset(words for line in reference.splitlines() if (words := bare(line)))


def said_in(text: str) -> tuple[str, str]:
    """The words that a text gives as its answer, made bare, and the line they were read from; "" where there are none.

    A word that stands for nothing is never wanted, so that "" is wrong for every reference.
    """
    found = marked(text)
    lines = (spoken(text) if found is None else found.text).strip().splitlines()
    line = lines[0].strip() if lines else ""
    if len(line) > _LONGEST:
        return "", line[:_LONGEST]
    plain = _peeled(_plain(line))
    for lead in (_LEAD, _SENTENCE):
        match = lead.match(plain)
        if match and not (lead is _SENTENCE and _DENIED.search(match["what"])):
            return bare(plain[match.end() :]), line
    return bare(plain), line


def bare(text: str) -> str:
    """Words in small letters with single spaces, without what may stand around them and the article before them."""
    words = _peeled(_plain(text))
    words = _peeled(_ARTICLE.sub("", words, count=1)) if _ARTICLE.match(words) else words
    return _HYPHEN.sub(" ", words)


def _plain(text: str) -> str:
    """A text in one writing: NFC, straight quotes, single spaces, no emphasis, no difference of case."""
    return _EMPHASIS.sub(r"\2", " ".join(unicodedata.normalize("NFC", text).translate(_SIGNS).casefold().split()))


def _peeled(text: str) -> str:
    """Without quotes and brackets around all of it, and points at its end, however they are nested."""
    while True:
        before = text
        text = text.rstrip(_POINTS + " ").lstrip()
        for opening, closing in _PAIRS:
            inner = text[len(opening) : len(text) - len(closing)]
            whole = text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing)
            if whole and opening[-1] not in inner and closing not in inner:
                text = inner.strip()
        if text == before:
            return text
