"""The letter that a text chooses, by what the words around each single letter make of it.

A letter is *announced* (`the answer is C`, alone on a line), *affirmed* (`C is correct`), *concluded* (`so C.`), it
*opens* (`C. Paris`), or stands in *brackets*; or it is nothing: denied, asked about, a word, one of a list of options.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from flsim.problems.answers import choosing

Kind = Literal["announced", "affirmed", "concluded", "opens", "brackets"]

_WORD = "0-9A-Za-z_\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"  # not scripts that are written without spaces
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_LETTER = re.compile(
    rf"(?<![{_WORD}°\\])(?<![{_WORD}]['\u2019.&-])[A-Ja-j]"
    rf"(?![{_WORD}])(?!['\u2019-][{_WORD}])(?!\.[{_WORD}](?![{_WORD}]))(?![+#]|\s=)"
)
_QUOTES = "\"'«»“”„\u2018\u2019\u2039\u203a「」『』【】《》"
_DASHES = "\u2013\u2014→⇒"
_TOKEN = re.compile(
    rf"[^\s!-&(-/:-@\[-`{{-~،؛؟।。、{_QUOTES}{_DASHES}…∴•✅✔✓☑]+(?:['\u2019][^\W\d_]+)?|\S",
)
_OPENING, _CLOSING = "([<\"'«“\u2018「『【", ")]>\"'»”\u2019」』】"
_BETWEEN = frozenset(f"{_OPENING}{_CLOSING}{_DASHES}:=-∴,…>*|#•`?")
_AROUND = _BETWEEN | frozenset(".!;✓✅✔।。I")
_BULLETS = " -*>#•([\"'"
_ENDS = re.compile(
    rf"{choosing.CLOSED}\s*(?:[.,;:!।。、\n{_DASHES}-]|$|\b(?:because|since|as|due|for|weil|da|car|parce|porque|perché)\b)"
)
_OPENS = re.compile(
    rf"{choosing.CLOSED}(?:[)\].:,、]|\s*[{_DASHES}:=>-]|\s+(?:because|since|weil|da|car|parce que|porque|perché)\b)"
)
LISTED = re.compile(rf"(?<![{_WORD}])\(?([A-J])[).:](?=\s|$)")
"""A letter as before an option's text: `(A) `, `A. `."""
_MARKUP = re.compile(
    r"~~[^~\n]*~~|\\(?:(?:text|math)(?:bf|it|rm|sf|tt|normal)?|bf|rm|emph|operatorname|bm|boldsymbol|boxed|fbox|left|right"
    r"|displaystyle|q?quad)(?![A-Za-z])|\\[,;!:()\[\] ]|</?[a-z_]+ ?/?>|[*`${}_\u200b-\u200f\u2060\ufeff]"
)
_SEAM = re.compile(rf"(?<=[{_UNSPACED}])(?=[A-Za-z(])|(?<=[A-Za-z)])(?=[{_UNSPACED}])")
# the letters of Arabic and Bengali options, as simple-evals reads them
_OTHER_LETTERS = re.compile(r"(?<![^\s(:\[*.])[أ\u0627بجدঅবডঢ](?![^\s).:\]*])")
_AS_LATIN = str.maketrans("أ\u0627بجدঅবডঢ", "AABCDABCD")
_WORDLIKE = "AaIieo"
_INITIALS = re.compile(r"[A-Z][a-z]+ [A-Z]\.$")  # `Washington D. C.`
_NUMBER = re.compile(r"\s*(?:question|problem|item|q|no\.?)?\s*\d{1,3}\s*[.):-]", re.IGNORECASE)
_LAST_WORD = re.compile(r"[A-Za-z'\u2019]{2,}(?= $)")
_BEFORE = choosing.FILLERS | choosing.ANSWER | choosing.PICKS | choosing.DENIALS | choosing.GUESSES
_CONTEXT = 110  # characters before a letter that say what it is
_LONGEST_LINE = 100  # of a line that is nothing but a letter and words of choosing
_MOST_LETTERS = 100  # from the beginning of a text, and from its end
_MOST_FREE = 12  # words between `the answer to` and its verb


@dataclass(frozen=True)
class Said:
    """What a text chooses."""

    letter: str | None
    """Upper case; None: two letters at once."""
    place: str
    """Where it stands, with a few words around."""


def plain(text: str) -> str:
    """Without markup, each character in its usual form."""
    if not text.isascii():
        text = _SEAM.sub(" ", unicodedata.normalize("NFKC", text))
        text = _OTHER_LETTERS.sub(lambda match: match[0].translate(_AS_LATIN), text)
    return _MARKUP.sub(lambda match: " " if match[0][0] in "\\_<~" else "", text)


def stated(text: str) -> Said | None:
    """The last letter that a plain text announces; else the one that it affirms, concludes with, opens or brackets."""
    letters = list(_letters(text))
    letters = [*letters[:_MOST_LETTERS], *letters[_MOST_LETTERS:][-_MOST_LETTERS:]]
    joined = {at: other for at in letters if (other := _joined(text, at))}
    out = _listed_options(text, letters) | set(joined.values())
    places: dict[Kind, list[int]] = {"affirmed": [], "concluded": [], "opens": [], "brackets": []}
    for at in reversed(letters):
        kind = None if at in out else _kind(text, at)
        if kind == "announced":
            return Said(None, _around(text, at)) if at in joined else _said(text, at)
        if kind is not None and at not in joined:
            places[kind].append(at)
    for found in (places["affirmed"], places["concluded"][:1], places["opens"], places["brackets"]):
        if len({text[at].upper() for at in found}) == 1:
            return _said(text, found[0])
    return None


def within_mark(text: str, *, alone: bool) -> Said | None:
    """The letter of what a box, a tag or the line of a mark holds; `alone`: it holds the answer and nothing else."""
    letters = list(_letters(text))
    if not letters:
        return None
    first = letters[0]
    if _only_choosing(text):
        return _said(text, first)
    if not text[:first].strip(f" {_OPENING}") and (alone or _OPENS.match(text, first + 1)):
        both = _joined(text, first) or LISTED.search(text, first + 2)
        return Said(None, _around(text, first)) if both else _said(text, first)
    return stated(text)


def _letters(text: str) -> Iterator[int]:
    """Places of single letters that are no words."""
    for match in _LETTER.finditer(text):
        at = match.start()
        if match[0] not in _WORDLIKE or text[:at].endswith("(") or not _is_word(text, at):
            yield at


def _is_word(text: str, at: int) -> bool:
    """Whether an `A` or `I` is an English word: another word follows, but for `A because`; `a` likewise."""
    following = text[at + 1 : at + 24]
    rest = following.lstrip()
    if not following[:1].isspace() or "\n" in following[: len(following) - len(rest)]:
        return False
    match = _TOKEN.match(rest)
    if match is None or not match[0][0].isalpha() or match[0] in choosing.FOLLOW:
        return False
    if match[0] in tuple("BCDEFGHJ"):
        return text[at].islower()
    return not (text[at].isupper() and rest[0].isupper() and text[:at].rstrip().endswith(":"))


def _kind(text: str, at: int) -> Kind | None:
    """What a letter is; None: nothing."""
    if choosing.DENIED.match(text, at + 1) or _denied_with_other(text, at):
        return None
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[start : len(text) if end < 0 else end]
    if len(line) <= _LONGEST_LINE and _only_choosing(line):
        return "announced"
    kind = _announced(text, at)
    if kind is not None:
        return None if kind == "denied" else kind
    capital = text[at].isupper()
    if capital and choosing.AFFIRMED.match(text, at + 1):
        words = [token.lower() for token in _TOKEN.findall(text[max(0, at - _CONTEXT) : at])]
        return None if _supposed(words, len(words)) else "affirmed"
    begins = not text[start:at].strip(_BULLETS) and (capital or text[at + 1 : at + 2] in (")", "."))
    if begins and _OPENS.match(text, at + 1):
        return None if LISTED.search(line, at - start + 2) else "opens"
    before = text[:at].rstrip()
    last = capital and not text[at + 1 :].strip(" .\n!)")
    if last and before[-1:] in (".", "!", "?") and not _INITIALS.search(before):
        return "announced"  # the last sentence
    closed = text[at - 1 : at] in ("(", "[", "「", "【") and text[at + 1 : at + 2] in (")", "]", "」", "】")
    return "brackets" if closed and capital and not text[at - 2 : at - 1].isalnum() else None


def _announced(text: str, at: int) -> Kind | Literal["denied"] | None:
    """Walk back from a letter over words that may stand before it, to one that announces it."""
    left = text[max(0, at - _CONTEXT) : at]
    if not left.isascii() and choosing.UNSPACED.search(left):
        return "announced"
    word = _LAST_WORD.search(left) if left.isascii() else None
    if word and word[0].lower() not in _BEFORE and not word[0].endswith("n't"):
        return None  # as most words do
    tokens = [token if len(token) == 1 else token.lower() for token in _TOKEN.findall(left)]
    verb = denied = corrected = False
    free = 0  # words that say nothing about choosing
    for place in range(len(tokens) - 1, -1, -1):
        token, after = tokens[place], tokens[place + 1 : place + 2]
        if token in choosing.ANSWER or (token == "." and tokens[place - 1 : place] == ["ans"]):
            if corrected or (free and after[0] not in choosing.BRIDGES):
                return None
            return "denied" if denied or _asked(text, at, tokens, place) or _supposed(tokens, place) else "announced"
        if not free and token in choosing.PICKS and not verb:
            return "denied" if denied or choosing.DOUBTS & set(tokens[max(0, place - 4) : place]) else "announced"
        if not free and token in choosing.NAMES and verb:
            return "denied" if denied or _asked(text, at, tokens, place) else "announced"
        if free and token in choosing.BEST:
            return "denied" if denied else None if token in choosing.LOOSE_BEST else "announced"
        if token in choosing.DENIALS or token.endswith("n't") or (token == "no" and after in (["es"], ["é"], ["è"])):
            if corrected:
                return "announced"
            denied |= not {",", ".", ";"} & set(tokens[place:])
        elif token in tuple("ABCDEFGHIJ") and not denied and after and (after[0] in choosing.CORRECTIONS | {","}):
            corrected = True
        elif token in choosing.SO and (not place or tokens[place - 1] in ".,;:!"):
            break
        elif token in choosing.FILLERS or (token == "I" and after and after != [","]):
            if free and token in choosing.VERBS:
                return None
            verb |= token in choosing.VERBS
        elif token in _BETWEEN:
            verb |= token in f":=-{_DASHES}"
        elif verb and free < _MOST_FREE and token not in (".", "!", ";") and token not in choosing.DOUBTS:
            free += 1
        else:
            break
    return "denied" if denied else _concluded(text, at, tokens)


def _concluded(text: str, at: int, tokens: list[str]) -> Kind | None:
    """Whether a letter ends a clause such as `so C` or `it is C`, or takes back what was said before it."""
    if not text[at].isupper() or not _ENDS.match(text, at + 1):
        return None
    last, two = tokens[-1:], tokens[-2:]
    if last in ([","], ["it's"], ["is"], ["."]) and choosing.SECOND_THOUGHTS & set(tokens[-5:]):
        return "announced"
    if tokens[-3:] == ["but", "it", "is"] or two == ["but", "it's"]:
        return "announced"
    so = choosing.SO | {"elimination"}
    concludes = (last and last[0] in so | choosing.GUESSES) or (last == [","] and two[0] in so)
    if concludes or two in (["it", "is"], ["that", "is"], ["this", "is"], ["must", "be"]):
        return "concluded"
    return "brackets" if last and last[0] in choosing.NAMES else None  # `Paris, option C.`


def _asked(text: str, at: int, tokens: list[str], place: int) -> bool:
    """Whether the statement is a question, `could the answer be A?`, or holds on a condition, `would be B if`."""
    following = text[at + 1 : at + 12].lstrip(f"{_CLOSING} ")
    if following.startswith("?"):
        return bool(choosing.QUESTIONS & set(tokens[max(0, place - 4) : place]))
    return "would" in tokens[place:] and re.match(r",?\s*(?:if|unless|had)\b", following) is not None


def _supposed(tokens: list[str], place: int) -> bool:
    """Whether the sentence up to a place only supposes, or tells what others say: `if the answer is B, then`."""
    clause = tokens[:place]
    for end in range(place - 1, -1, -1):
        if clause[end] in choosing.SO | set(".!?;:,") | {"but", "then"}:
            clause = clause[end + 1 :]
            break
    return not choosing.SUPPOSED.isdisjoint(clause)


def _joined(text: str, at: int) -> int | None:
    """Place of a second letter that is chosen with this one; not in `C, I think` nor in `C, A is wrong`."""
    also = choosing.ALSO.match(text, at + 1) or choosing.ALSO_LISTED.match(text, at + 1)
    if also is None:
        return None
    other = also.start("other")
    if text[other] in _WORDLIKE and (_is_word(text, other) or (text[other].islower() and text[at].isupper())):
        return None
    return other if "or" in also["by"] or not choosing.TOLD_OF.match(text, other + 1) else None


def _denied_with_other(text: str, at: int) -> bool:
    """`A and B are wrong` denies both."""
    also = choosing.ALSO.match(text, at + 1)
    if also is None or choosing.TOLD_OF.match(text, also.end()):
        return False
    return choosing.DENIED.match(text, also.end()) is not None


def _only_choosing(line: str) -> bool:
    """Whether a line, such as `So, option (C)`, is nothing but one letter and words of choosing."""
    letters, tokens = 0, _TOKEN.findall(_NUMBER.sub("", line, count=1))
    for token, following in zip_longest(tokens, tokens[1:]):
        low = token.lower()
        if len(token) == 1 and low in "abcdefghij" and following not in ("think", "believe", "guess"):
            letters += 1
            continue
        known = low in choosing.FILLERS or low in choosing.ANSWER or low in choosing.PICKS or token in _AROUND
        if (
            not known
            or low in choosing.DENIALS
            or (low == "no" and following in ("es", "é", "è"))
            or (token == "?" and len(tokens) > 2)
        ):
            return False
    return letters == 1


def _listed_options(text: str, letters: list[int]) -> set[int]:
    """Places of letters that open lines of a list of options: a run from A on, `A. Rome`, `B. Paris`."""
    openers = [
        at for at in letters if text[at].isupper() and not text[text.rfind("\n", 0, at) + 1 : at].strip(_BULLETS)
    ]
    found, run = set[int](), list[int]()
    for at, following in zip_longest(openers, openers[1:]):
        if not run and text[at] != "A":
            continue
        run.append(at)
        if following is None or text[following] <= text[at]:
            found |= set(run) if len(run) > 1 else set()
            run = []
    return found


def _said(text: str, at: int) -> Said:
    return Said(text[at].upper(), _around(text, at))


def _around(text: str, at: int) -> str:
    """The words around a letter, of its own line."""
    start = max(text.rfind("\n", 0, at) + 1, at - 40)
    return " ".join(text[start : at + 24].partition("\n")[0].split())
