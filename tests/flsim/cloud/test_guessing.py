"""What a model says does not depend on what was guessed, and where the guess is right nothing is decoded."""

from collections.abc import Callable, Sequence
from random import Random

import pytest

import flsim.cloud.guessing as guessing
from flsim.cloud.builtin import Builtin
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, given
from flsim.models.forward import Forward
from flsim.problems.families import FAMILIES, draw
from flsim.problems.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")
Guess = Callable[[Problem], str]
GUESSES: dict[str, Guess] = {
    "right": lambda problem: problem.right_text,
    "slip": lambda problem: problem.slip,
    "nothing": lambda problem: "",
    "too short": lambda problem: problem.right_text[:1],
    "backwards": lambda problem: problem.right_text[::-1] + "9",
    "far too long": lambda problem: problem.right_text + "abc" * 9,
    "an end within": lambda problem: problem.right_text[:1] + "<eos>" + problem.right_text[1:],
}


@pytest.fixture(scope="module")
def cloud() -> Builtin:
    return Builtin()


def problems(count: int) -> list[Problem]:
    """Different questions of all families and levels."""
    rng, found = Random(3), dict[str, Problem]()
    while len(found) < count:
        family = rng.choice(FAMILIES)
        problem = draw(family, rng.choice(family.levels), "train", rng)
        found[problem.question] = problem
    return list(found.values())


def guessed(cloud: Builtin, asked: list[Problem], guess: Guess, longest: int) -> list[list[int] | None]:
    """What comes of such guesses at every third question, and of right ones at the others."""
    texts = [problem.right_text if number % 3 else guess(problem) for number, problem in enumerate(asked)]
    spelt = cloud.base.tokenizer(texts)["input_ids"]
    reading = cloud._read([cloud.prompt(problem) for problem in asked])
    return guessing.by_guesses(cloud.base, reading, spelt, longest)


@pytest.mark.parametrize("longest", [16, 3, 1])
def test_answers_are_those_that_are_decoded_whatever_is_guessed(cloud: Builtin, longest: int) -> None:
    asked = problems(40)
    decoder = Builtin(max_new_tokens=longest)
    decoder.__dict__["base"] = cloud.base
    _, decoded = decoder._generate([cloud.prompt(problem) for problem in asked])
    rows = zip(decoded.tokens[0, :, 0], decoded.mask[0, :, 0], strict=True)
    expected = [tokens[mask].tolist() for tokens, mask in rows]
    for name, guess in GUESSES.items():
        found = guessed(cloud, asked, guess, longest)
        pairs = [(said, tokens) for said, tokens in zip(found, expected, strict=True) if said is not None]
        assert all(said == tokens for said, tokens in pairs), name
        assert len(pairs) > 20, name


def test_it_errs_as_it_does_by_itself_and_not_as_the_guess_would_have_it(cloud: Builtin) -> None:
    asked = problems(300)
    alone, _ = cloud._generate([cloud.prompt(problem) for problem in asked])
    answers = Builtin().answer(asked)
    assert answers == alone
    wrong = [answer.text != problem.right_text for answer, problem in zip(answers, asked, strict=True)]
    assert 0 < sum(wrong) < 30


class Counting:
    """Passes that count how often something is decoded."""

    def __init__(self, through: Forward) -> None:
        self._through, self.decoded = through, 0

    def __getattr__(self, name: str) -> object:
        self.decoded += name == "decoder"
        return getattr(self._through, name)


def counting(monkeypatch: pytest.MonkeyPatch) -> tuple[Builtin, Counting]:
    cloud = Builtin()
    count = Counting(cloud.base.forward)
    monkeypatch.setitem(cloud.base.__dict__, "forward", count)
    return cloud, count


def test_where_most_guesses_are_wrong_it_stops_to_guess(cloud: Builtin, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problems(20)
    reading = cloud._read([cloud.prompt(problem) for problem in asked])
    read = list[int]()

    def counted(base: BaseModel, tokens: Sequence[Sequence[Sequence[int]]]) -> Completions:
        read.append(len(tokens[0]))
        return given(base, tokens)

    monkeypatch.setattr(guessing, "given", counted)
    assert guessing.by_guesses(cloud.base, reading, [[]] * 20, 16) == [None] * 20
    assert read == [20]


def test_a_right_guess_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, count = counting(monkeypatch)
    (answer,) = cloud.answer([Problem("arithmetic", "add", 2, "12+34=", "64")])
    assert (answer.text, answer.completion_tokens, count.decoded) == ("64", 3, 0)


def test_where_two_tokens_are_close_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, count = counting(monkeypatch)
    asked = problems(20)
    expected = Builtin().answer(asked)
    monkeypatch.setattr(guessing, "CLEAR", 1e3)
    assert guessed(cloud, asked, GUESSES["right"], 16) == [None] * 20
    assert cloud.answer(asked) == expected
    assert count.decoded == 1


def test_a_question_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Builtin()
    asked = problems(3)
    first = cloud.answer([*asked, asked[0]])
    monkeypatch.setattr(cloud, "_ask", None)
    assert cloud.answer([asked[2], asked[0]]) == [first[2], first[0]] == [first[2], first[3]]
