"""English tasks that ship: short questions in three groups, made from facts and numbers, the same ones everywhere.

    group       family       levels             question -> answer
    vocabulary  opposite                        What is the opposite of "hot"? -> cold (warm and cool do, too)
                past         by kind of verb    What is the past tense of the verb "stop"? -> stopped
                plural       by kind of noun    What is the plural of "box"? -> boxes
                capital                         What is the capital of Kenya? -> Nairobi
                category                        Is "trout" an animal, a fruit, a color, ...? -> animal
    reading     last_word    words, 3 to 6      What is the last word of this list: tree, moon, bell? -> bell
                second_word  words, 3 to 6      What is the second word of this list: tree, moon, bell? -> moon
                pick         words, 2 to 4      Which of these words is a fruit: tiger, plum, bus? -> plum
    figures     add          digits, 2 to 4     What is 27 + 5? -> 32
                largest      numbers, 2 to 4    What is the largest of these numbers: 4, 91, 17? -> 91
                story        1, 2, 3            Ana has 4 pens and buys 9 more. How many pens does Ana have now? -> 13

Splits are a hash of the fact behind a question, not of its words: hot and cold are of one split, 3 + 5 and 5 + 3 too.
So what is asked in a test never stands in training. Where a rule joins the questions, tests measure the rule; of
`opposite`, `capital` and `category` each question is a fact of its own, so that they measure what a model knew before
and how it puts an answer, and no more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType

from flsim.config.schema import ConfigError
from flsim.problems.problem import split_of
from flsim.seeding import seed_for
from flsim.tasks.item import Item
from flsim.tasks.known_set import Reader
from flsim.tasks.readers import english_facts as facts

VALIDATION, TEST = 0.15, 0.25
"""Shares of the facts that are held out."""
PER_FAMILY = 156
"""Questions of a family that is drawn, over all of its levels; those of facts have as many as there are facts. With
more, the first ones of each level stay what they are."""
_SIDES = MappingProxyType({2: ((1, 10), (1, 10)), 3: ((10, 100), (1, 10)), 4: ((10, 100), (10, 100))})
"""Digits of a sum -> from where to below where its two numbers go."""


@dataclass(frozen=True)
class Asked:
    """One question."""

    text: str
    answer: str
    """What is right; aliases in further lines."""
    fact: str
    """What is to be known for it: questions of one fact are of one split."""
    level: int | None = None
    """Difficulty within the family."""


def english(group: str | None = None, families: Sequence[str] = ()) -> list[Item]:
    """Items of one group, or of some families.

    Args:
        group: `vocabulary`, `reading` or `figures`; None takes all.
        families: only these of it; empty takes all.

    Raises:
        ConfigError: if there is no such group or family in it.
    """
    if group is not None and group not in GROUPS:
        raise ConfigError(f"english: there is no group {group!r}; it is one of: {', '.join(GROUPS)}, or null for all")
    known = {name: made for own in ([group] if group else GROUPS) for name, made in GROUPS[own].items()}
    for name in families:
        if name not in known:
            raise ConfigError(f"english: there is no family {name!r} in {group or 'it'}; there are: {', '.join(known)}")
    return [
        Item(
            asked.text,
            asked.answer,
            label=name,
            level=asked.level,
            split=split_of(f"{name}: {asked.fact}", validation=VALIDATION, test=TEST),
            solution=asked.answer.split("\n")[0] if "\n" in asked.answer else None,
        )
        for name in families or known
        for asked in known[name]()
    ]


def opposite() -> Iterator[Asked]:
    """Both words of a pair, which are one fact."""
    for one, other in _pairs(facts.OPPOSITES):
        for asked, answer in ((one, other), (other, one)):
            yield Asked(f'What is the opposite of "{_first(asked)}"?', _lines(answer), _first(one))


def past() -> Iterator[Asked]:
    """Verbs that take -ed, those that also change in writing, those that follow no rule."""
    return _by_level(facts.PAST, 'What is the past tense of the verb "{}"?')


def plural() -> Iterator[Asked]:
    """Nouns that take -s, those that take -es, those that follow no such rule."""
    return _by_level(facts.PLURALS, 'What is the plural of "{}"?')


def capital() -> Iterator[Asked]:
    """Of countries."""
    for country, city in _pairs(facts.CAPITALS):
        yield Asked(f"What is the capital of {country}?", _lines(city), country)


def category() -> Iterator[Asked]:
    """What kind of thing a thing is."""
    *kinds, last = map(_one, facts.KINDS)
    for kind, things in facts.KINDS.items():
        for thing in things.split():
            yield Asked(f'Is "{thing}" {", ".join(kinds)} or {last}?', kind, thing)


def last_word() -> Iterator[Asked]:
    """Of a list of words."""
    return _of_words("last_word", (3, 4, 5, 6), "What is the last word of this list: {}?", lambda words: words[-1])


def second_word() -> Iterator[Asked]:
    """Of a list of words."""
    return _of_words("second_word", (3, 4, 5, 6), "What is the second word of this list: {}?", lambda words: words[1])


def pick() -> Iterator[Asked]:
    """The one word of a list that is of a kind."""
    kinds = {kind: things.split() for kind, things in facts.KINDS.items()}

    def asked(level: int, *names: str | int) -> Asked:
        left = list(kinds)
        drawn = [left.pop(_between(0, len(left), *names, "kind", place)) for place in range(level)]
        words = [kinds[kind][_between(0, len(kinds[kind]), *names, place)] for place, kind in enumerate(drawn)]
        right = _between(0, level, *names, "right")
        text = f"Which of these words is {_one(drawn[right])}: {', '.join(words)}?"
        return Asked(text, words[right], " ".join(words), level)

    return _drawn("pick", (2, 3, 4), asked)


def add() -> Iterator[Asked]:
    """Two numbers."""

    def asked(level: int, *names: str | int) -> Asked:
        one, other = (_between(*side, *names, place) for place, side in enumerate(_SIDES[level]))
        fact = f"{min(one, other)} {max(one, other)}"
        return Asked(f"What is {one} + {other}?", str(one + other), fact, level)

    return _drawn("add", tuple(_SIDES), asked)


def largest() -> Iterator[Asked]:
    """Of some numbers below 100, no two alike."""

    def asked(level: int, *names: str | int) -> Asked | None:
        numbers = [_between(1, 100, *names, place) for place in range(level)]
        if len(set(numbers)) < level:
            return None
        listed = ", ".join(map(str, numbers))
        return Asked(f"What is the largest of these numbers: {listed}?", str(max(numbers)), str(sorted(numbers)), level)

    return _drawn("largest", (2, 3, 4), asked)


def story() -> Iterator[Asked]:
    """Something is added, taken away, or there are several times as many."""
    people, things = facts.NAMES.split(), facts.THINGS.split()

    def asked(level: int, *names: str | int) -> Asked:
        who, what = people[_between(0, len(people), *names, "who")], things[_between(0, len(things), *names, "what")]
        some, more, few = (_between(2, end, *names, end) for end in (14, 15, 10))
        if level == 1:
            text = f"{who} has {some} {what} and buys {more} more. How many {what} does {who} have now?"
            return Asked(text, str(some + more), f"{some} + {more}", level)
        if level == 2:
            text = f"{who} has {some + more} {what} and gives {more} away. How many {what} are left?"
            return Asked(text, str(some), f"{some + more} - {more}", level)
        text = f"{who} has {few} boxes with {more} {what} in each. How many {what} are there?"
        return Asked(text, str(few * more), f"{few} x {more}", level)

    return _drawn("story", (1, 2, 3), asked)


Family = Callable[[], Iterator[Asked]]
_ALL: dict[str, tuple[Family, ...]] = {
    "vocabulary": (opposite, past, plural, capital, category),
    "reading": (last_word, second_word, pick),
    "figures": (add, largest, story),
}
GROUPS = MappingProxyType({group: {made.__name__: made for made in own} for group, own in _ALL.items()})
"""Group -> family -> what makes its questions."""


def _drawn(family: str, levels: Sequence[int], ask: Callable[..., Asked | None]) -> Iterator[Asked]:
    """Equally many questions of each level, no two alike; `ask` takes the level and the names of the draw."""
    each = -(-PER_FAMILY // len(levels))
    for level in levels:
        met = set[str]()
        for number in count():
            asked = ask(level, "english", family, level, number)
            if asked is not None and asked.text not in met:
                met.add(asked.text)
                yield asked
            if len(met) == each:
                break


def _of_words(
    family: str, levels: Sequence[int], text: str, answer: Callable[[Sequence[str]], str | None]
) -> Iterator[Asked]:
    """Questions about lists of different words; the level is how many; None of `answer` draws another list."""
    pool = facts.WORDS.split()

    def asked(level: int, *names: str | int) -> Asked | None:
        words = [pool[_between(0, len(pool), *names, place)] for place in range(level)]
        said = answer(words) if len(set(words)) == level else None
        return None if said is None else Asked(text.format(", ".join(words)), said, " ".join(words), level)

    return _drawn(family, levels, asked)


def _by_level(levels: Sequence[str], text: str) -> Iterator[Asked]:
    for level, pairs in enumerate(levels, 1):
        for asked, answer in _pairs(pairs):
            yield Asked(text.format(asked), _lines(answer), asked, level)


def _between(least: int, end: int, *names: str | int) -> int:
    """A number from `least` to below `end`; no generator of a library, whose draws may change with its version."""
    return least + seed_for(0, *names) % (end - least)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """`New_Zealand/Wellington` as its two sides."""
    for pair in text.split():
        one, other = pair.replace("_", " ").split("/")
        yield one, other


def _one(kind: str) -> str:
    """With its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _first(words: str) -> str:
    return words.split(",")[0]


def _lines(words: str) -> str:
    """An answer and its aliases, a line each, as the verifier `words` takes them."""
    return words.replace(",", "\n")


ENGLISH = Reader(english, verifier="words", rooted=False)
"""English tasks that ship: short questions in three groups."""
