r"""Right is the same letter of a multiple choice, A to J.

The letter of a text is the one in its last `\boxed{}`, `<answer>` or after its last `####`; else the last that it
announces (`The answer is (C)`, `Antwort: C`, `I would go with C`) or that stands alone on a line; else the one that it
calls right (`C is correct`), concludes with (`so C.`), or opens with (`C. Paris`); else the only one in brackets.

Two letters (`C or D`) are none: nobody is paid for listing guesses. Nor is a letter that is denied (`not B`, `B is
wrong`), asked about, part of a name (`Vitamin C`), an `A` or `I` that is an English word, or one line of a list of
options. A reference may carry the text of its letter, `C. Paris`, or all options on the lines below the letter; then an
option's text stands for its letter.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from flsim.problems.answers import choosing
from flsim.problems.answers.letters import LISTED, Said, plain, stated, within_mark
from flsim.problems.answers.marked import marked, spoken
from flsim.problems.judging import Judgement

_NEXT_QUESTION = re.compile(r"\n[ \t*]*(?:Question|Q)\s*\d*\s*[:.]")
_STATEMENT = re.compile(
    r"\b(?:answer|choice|option|pick|choose|select|guess|say|go with)\b\s*"
    r"(?:is|was|would be|should be|must be)?\b\s*:?\s*"
)


@dataclass(frozen=True)
class Wanted:
    """A reference."""

    letter: str
    options: tuple[tuple[str, str], ...] = ()
    """Letters with their texts, made bare; () where the reference has none."""


class ChoiceVerifier:
    """Compares letters."""

    instruction = "Answer with the letter of the right choice alone."

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion's letter is its reference's; a reference without a letter makes all wrong."""
        return [
            (wanted := wanted_by(reference)) is not None
            and (said := said_in(completion, wanted.options)) is not None
            and said.letter == wanted.letter
            for reference, completion in pairs
        ]

    def explain(self, reference: str, completion: str) -> Judgement:
        """The verdict, with the letters that were read."""
        wanted = wanted_by(reference)
        said = said_in(completion, wanted.options if wanted else ())
        letter, place = (said.letter, said.place) if said else (None, None)
        return Judgement(
            wanted is not None and letter == wanted.letter, letter, place, wanted.letter if wanted else None
        )

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those without a letter."""
        return [reference for reference in references if wanted_by(reference) is None]


def letter_of(text: str) -> str | None:
    """The letter that a text chooses, upper case; None if it chooses none, or two."""
    said = said_in(text)
    return None if said is None else said.letter


@lru_cache(1024)  # each is asked for once per response of its group
def wanted_by(reference: str) -> Wanted | None:
    """The letter of a reference, `C`, `(C)` or `C. Paris`, and the options on the lines below; None: it has none."""
    lines = reference.strip().splitlines() or [""]
    said = said_in(lines[0]) or said_in(reference)
    if said is None or said.letter is None:
        return None
    listed = [(match[1], bare(line[match.end() :])) for line in lines if (match := LISTED.match(line))]
    return Wanted(said.letter, tuple(dict.fromkeys(option for option in listed if option[1])))


def said_in(text: str, options: tuple[tuple[str, str], ...] = ()) -> Said | None:
    """What a text chooses; None if nothing. Options are letters with their texts, made bare."""
    found = marked(text)
    if found is not None:
        inside = plain(found.text)
        said = within_mark(inside, alone=found.by != "line") or _option(inside, options)
        if said is not None:
            return said
    whole = plain(spoken(text))
    following = _NEXT_QUESTION.search(whole, len(whole) - len(whole.lstrip()) + 1)
    if following is not None:  # the model goes on with a question of its own
        said = stated(whole[: following.start()])
        if said is not None:
            return said
    return stated(whole) or _option(whole, options)


def bare(text: str) -> str:
    """A text without case, markup and points, to be compared."""
    return " ".join(re.sub(r"[^\w\s%:/+-]", " ", plain(text).casefold()).split())


def _option(text: str, options: tuple[tuple[str, str], ...]) -> Said | None:
    """The option whose text is all that is said, or ends or fills the last or first line, `The answer is Paris`."""
    lines = [line for line in text.splitlines() if line.strip()]
    for place in (text, *lines[-1:], *lines[:1]) if options else ():
        whole = bare(place)
        match = _STATEMENT.search(whole)
        denied = match and choosing.DENIALS & set(whole[: match.start()].split())
        said = whole[match.end() :] if match and not denied else whole
        for letter, wanted in options:
            if wanted in (whole, said) or whole.endswith(f" is {wanted}"):
                return Said(letter, place.strip())
    return None
