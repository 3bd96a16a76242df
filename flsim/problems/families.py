"""The built-in world: four tasks, fifteen families of short problems with exact answers, no download.

    task       family    levels                question -> answer (slip of a careless solver)
    arithmetic  add       3, 4, 5, 6 digits     59+63= -> 221 (21, the carry is lost)
    arithmetic  subtract  3, 4, 5, 6            902-514= -> 883 (214, smaller from larger digit)
    arithmetic  multiply  3, 4                  55*5= -> 572 (55, the carry is lost)
    strings     reverse   3 .. 8 letters        'ihbd'[::-1]= -> dbhi (dbh, the last one is lost)
    strings     sort      3 .. 8                sorted('ibfgfjd')= -> bdffgij (bdfgij, duplicates are lost)
    strings     count     5 .. 9                'bacbcaaca'.count('a')= -> 4 (3, the last one is not seen)
    strings     index     3 .. 8                'cihbbfi'[3]= -> b (h, counts from one)
    numbers     modulo    3, 4, 5 digits        366%20= -> 6 (6), 374%4= -> 2 (0, only the last digit is used)
    numbers     halve     3, 4, 5, 6            734//2= -> 367 (312, the remainder is not carried)
    numbers     minimum   4, 6, 8               min(34,33)= -> 33 (34, takes the first)
    numbers     absolute  4, 5, 6               abs(27-45)= -> 81 (22, smaller from larger digit)
    lists       maximum   2 .. 4 items          max([17,9,32])= -> 32 (17, takes the first)
    lists       distinct  4 .. 7                len(set([3,1,3,2]))= -> 3 (4, counts them all)
    lists       item      3 .. 6                [3,9,4][1]= -> 9 (3, counts from one)
    lists       tally     4 .. 7                [3,1,3,2].count(3)= -> 2 (1, the last item is not seen)

The level of a question is visible in it: the digits of both operands together (of the one operand of halve, of the
first of modulo), or the length of the text or list.
Each level has hundreds of questions or more, so that the ones held out can be answered only by a rule.
Answers of add, subtract, multiply and absolute are written least significant digit first, the order in which
columns are added; that is what lets a model of this size learn them in minutes. The slips matter: a model that was
pretrained on exact and careless answers alike holds both procedures, and reinforcement with an exact verifier selects
the exact one, so local accuracy can really rise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from flsim.problems.problem import Problem, split_of

LETTERS = "abcdefghij"
KEYWORDS = (
    "[::-1]",
    "sorted(",
    ".count(",
    "min(",
    "abs(",
    "max([",
    "].count(",
    "len(set([",
    "][",
)

Drawn = tuple[str, str, str]  # question, answer, slip


@dataclass(frozen=True)
class Family:
    """One kind of problem and how to draw it."""

    task: str
    name: str
    levels: tuple[int, ...]
    draw: Callable[[Random, int], Drawn]


def _number(rng: Random, digits: int) -> int:
    """A number of exactly `digits` digits, without a leading zero."""
    return rng.randrange(1, 10) if digits == 1 else rng.randrange(10 ** (digits - 1), 10**digits)


def _reversed(number: int) -> str:
    return str(number)[::-1]


def _by_column(a: int, b: int, column: Callable[[int, int], int]) -> str:
    """Works column by column and forgets to carry or borrow; least significant digit first."""
    top, bottom = _reversed(a), _reversed(b).ljust(len(str(a)), "0")
    digits = "".join(str(column(int(x), int(y)) % 10) for x, y in zip(top, bottom, strict=True))
    return digits.rstrip("0") or "0"


def _word(rng: Random, length: int, alphabet: str = LETTERS) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def _items(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


def _pair(rng: Random, digits: int) -> tuple[int, int]:
    """Two numbers with `digits` digits in all; the first is not the shorter one."""
    return _number(rng, digits - digits // 2), _number(rng, digits // 2)


def _add(rng: Random, digits: int) -> Drawn:
    a, b = _pair(rng, digits)
    return f"{a}+{b}=", _reversed(a + b), _by_column(a, b, lambda x, y: x + y)


def _subtract(rng: Random, digits: int) -> Drawn:
    b, a = sorted(_pair(rng, digits))
    return f"{a}-{b}=", _reversed(a - b), _by_column(a, b, lambda x, y: abs(x - y))


def _multiply(rng: Random, digits: int) -> Drawn:
    a, b = _number(rng, digits - 1), rng.randrange(2, 10)
    return f"{a}*{b}=", _reversed(a * b), "".join(str(int(x) * b % 10) for x in _reversed(a))


def _reverse(rng: Random, length: int) -> Drawn:
    word = _word(rng, length)
    return f"'{word}'[::-1]=", word[::-1], word[::-1][:-1]


def _sort(rng: Random, length: int) -> Drawn:
    word = _word(rng, length)
    return f"sorted('{word}')=", "".join(sorted(word)), "".join(sorted(set(word)))[: length - 1]


def _count(rng: Random, length: int) -> Drawn:
    word, letter = _word(rng, length, "abc"), rng.choice("abc")
    return f"'{word}'.count('{letter}')=", str(word.count(letter)), str(word[:-1].count(letter))


def _index(rng: Random, length: int) -> Drawn:
    word, at = _word(rng, length), rng.randrange(length)
    return f"'{word}'[{at}]=", word[at], word[max(at - 1, 0)]


def _modulo(rng: Random, digits: int) -> Drawn:
    a, b = _number(rng, digits), rng.choice((4, 5, 20))
    return f"{a}%{b}=", str(a % b), str(a % 10 % b)


def _halve(rng: Random, digits: int) -> Drawn:
    a = _number(rng, digits)
    return f"{a}//2=", str(a // 2), "".join(str(int(x) // 2) for x in str(a)).lstrip("0") or "0"


def _minimum(rng: Random, digits: int) -> Drawn:
    a, b = _pair(rng, digits)
    return f"min({a},{b})=", str(min(a, b)), str(a)


def _absolute(rng: Random, digits: int) -> Drawn:
    b, a = _pair(rng, digits)
    return f"abs({a}-{b})=", _reversed(abs(a - b)), _by_column(max(a, b), min(a, b), lambda x, y: abs(x - y))


def _maximum(rng: Random, count: int) -> Drawn:
    numbers = [_number(rng, rng.choice((1, 2, 2))) for _ in range(count)]
    return f"max([{_items(numbers)}])=", str(max(numbers)), str(numbers[0])


def _distinct(rng: Random, count: int) -> Drawn:
    numbers = [rng.randrange(1, 7) for _ in range(count)]
    return f"len(set([{_items(numbers)}]))=", str(len(set(numbers))), str(count)


def _item(rng: Random, count: int) -> Drawn:
    numbers = [rng.randrange(10) for _ in range(count)]
    at = rng.randrange(count)
    return f"[{_items(numbers)}][{at}]=", str(numbers[at]), str(numbers[max(at - 1, 0)])


def _tally(rng: Random, count: int) -> Drawn:
    numbers = [rng.randrange(1, 5) for _ in range(count)]
    what = rng.choice(numbers)
    return f"[{_items(numbers)}].count({what})=", str(numbers.count(what)), str(numbers[:-1].count(what))


FAMILIES: tuple[Family, ...] = (
    Family("arithmetic", "add", (3, 4, 5, 6), _add),
    Family("arithmetic", "subtract", (3, 4, 5, 6), _subtract),
    Family("arithmetic", "multiply", (3, 4), _multiply),
    Family("strings", "reverse", (3, 4, 5, 6, 7, 8), _reverse),
    Family("strings", "sort", (3, 4, 5, 6, 7, 8), _sort),
    Family("strings", "count", (5, 6, 7, 8, 9), _count),
    Family("strings", "index", (3, 4, 5, 6, 7, 8), _index),
    Family("numbers", "modulo", (3, 4, 5), _modulo),
    Family("numbers", "halve", (3, 4, 5, 6), _halve),
    Family("numbers", "minimum", (4, 6, 8), _minimum),
    Family("numbers", "absolute", (4, 5, 6), _absolute),
    Family("lists", "maximum", (2, 3, 4), _maximum),
    Family("lists", "distinct", (4, 5, 6, 7), _distinct),
    Family("lists", "item", (3, 4, 5, 6), _item),
    Family("lists", "tally", (4, 5, 6, 7), _tally),
)

TASKS: tuple[str, ...] = tuple(dict.fromkeys(family.task for family in FAMILIES))


def families_of(task: str) -> tuple[Family, ...]:
    """The families of one task, in the order of the table.

    Raises:
        ValueError: if there is no such task.
    """
    found = tuple(family for family in FAMILIES if family.task == task)
    if not found:
        raise ValueError(f"there is no task {task!r}; the built-in world has: {', '.join(TASKS)}")
    return found


def draw(family: Family, level: int, split: str, rng: Random) -> Problem:
    """Draw one problem of a family and level whose question belongs to `split`, by rejection."""
    while True:
        question, answer, slip = family.draw(rng, level)
        if split_of(question) == split:
            return Problem(family.task, family.name, level, question, answer, slip)


def is_builtin(problem: Problem) -> bool:
    """Whether a problem is of the built-in world and not of a data set, which cannot have a task's name."""
    return problem.task in TASKS


def relative_difficulty(problem: Problem) -> float:
    """0 for the easiest of the problem's family, or of its data set, 1 for the hardest."""
    if problem.difficulty is not None:
        return problem.difficulty
    levels = next(family.levels for family in FAMILIES if family.name == problem.family)
    return levels.index(problem.level) / (len(levels) - 1)
