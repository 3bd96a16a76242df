"""Clouds that verify drafts and go on with beginnings: to the last bit what they say alone, whoever else is there.

Drafts are made up here; those of devices are in tests/clients/helping/test_verify.py.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from experiments.real.checkpoint import FAMILIES, write_checkpoint
from flsim.cloud import verifying
from flsim.cloud.builtin import Builtin
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.more_help import Beginning, Draft, GoesOn, Verified, Verifies
from flsim.cloud.verifying import rounding_of
from flsim.collaboration.accept import RULES, SHARED
from flsim.models import scoring
from flsim.models.base import BaseModel, one_thread
from flsim.models.decoding import Completions, Prompts, Reading, encode, generate, read
from flsim.models.sampling import uniform
from flsim.models.scoring import Readout
from flsim.problems import families
from flsim.problems.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")

LONGEST = 16


def questions(each: int = 1) -> list[Problem]:
    rng = random.Random(0)
    drawn = [
        families.draw(family, level, "test", rng)
        for family in families.FAMILIES
        for level in family.levels
        for _ in range(each)
    ]
    return list({problem.question: problem for problem in drawn}.values())


@pytest.fixture(scope="module")
def cloud() -> Builtin:
    return Builtin(max_new_tokens=LONGEST)


@pytest.fixture(scope="module")
def asked(cloud: Builtin) -> tuple[list[Problem], list[str]]:
    """Questions of every family at every level, and the cloud's answers, one at a time."""
    problems = questions()
    return problems, [answer.text for answer in Builtin(batch_size=1, max_new_tokens=LONGEST).answer(problems)]


@torch.no_grad()
def sampled(cloud: Builtin, problem: Problem, seed: int, heat: float = 1.0) -> tuple[list[int], list[float]]:
    """What a cloud says alone at a temperature, and the numbers by which it drew."""
    base, longest = cloud.base, cloud.max_new_tokens
    own = [torch.Generator().manual_seed(seed)]
    numbers = uniform((1,), 1, 1, longest, [torch.Generator().manual_seed(seed)])[0].tolist()  # (T,)
    with one_thread():
        said = generate(
            base,
            read(base, encode(base, [[cloud.prompt(problem)]])),
            group_size=1,
            max_new_tokens=longest,
            temperature=heat,
            generators=own,
            may_ask=False,
        )
    return said.tokens[0, 0, 0, : int(said.mask.sum())].tolist(), numbers


Drafter = Callable[[int, list[int]], list[int]]
"""The tokens to draft to a question by its number, after what is settled of it."""


def made_up(most: int, words: int, seed: int = 0) -> Drafter:
    """Random tokens."""
    rng = random.Random(seed)
    return lambda _, said: [rng.randrange(words) for _ in range(most)]


def nearly(right: Sequence[Sequence[int]], most: int, words: int) -> Drafter:
    """The tokens that will be said, but every third is another."""
    rng = random.Random(1)

    def drafted(number: int, said: list[int]) -> list[int]:
        rest = list(right[number][len(said) :][:most])
        return [token if rng.random() < 2 / 3 else rng.randrange(words) for token in rest]

    return drafted


def worked_out(
    cloud: Verifies,
    problems: Sequence[Problem],
    drafter: Drafter,
    rule: str = SHARED,
    numbers: Sequence[Sequence[float]] = (),
    heat: float = 1.0,
    longest: int = LONGEST,
) -> tuple[list[list[int]], list[list[Verified]]]:
    """Draft and verify all questions together until their answers end: the tokens, and what came of each draft."""
    said: list[list[int]] = [[] for _ in problems]
    turns: list[list[Verified]] = [[] for _ in problems]
    going = list(range(len(problems)))
    while going:
        drafts = []
        for number in going:
            tokens = drafter(number, said[number])[: longest - len(said[number]) - 1]
            at = slice(len(said[number]), len(said[number]) + len(tokens) + 1)
            drawn = tuple(numbers[number][at]) if numbers else ()
            drafts.append(Draft(problems[number], tuple(said[number]), tuple(tokens), drawn))
        found = cloud.verify(drafts, rule, heat if numbers else 0.0)
        for number, verified in zip(going, found, strict=True):
            assert verified is not None
            turns[number].append(verified)
            said[number] += verified.tokens
        going = [n for n in going if not turns[n][-1].ended and len(said[n]) < longest]
    return said, turns


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("most", [0, pytest.param(1, marks=pytest.mark.slow), 5])
def test_the_text_is_the_answer_whatever_was_drafted(
    cloud: Builtin, asked: tuple[list[Problem], list[str]], rule: str, most: int
) -> None:
    problems, answers = asked
    said, turns = worked_out(cloud, problems, made_up(most, len(cloud.vocabulary)), rule)
    assert [cloud.said(tokens) for tokens in said] == answers
    assert all(len(one.tokens) - one.accepted == 1 or one.ended for row in turns for one in row)


def test_what_the_cloud_says_itself_is_accepted_whole(cloud: Builtin, asked: tuple[list[Problem], list[str]]) -> None:
    """As many tokens as accepted and verifications together, but for an ending that was accepted."""
    problems, answers = asked
    said, _ = worked_out(cloud, problems, made_up(0, 1))
    again, turns = worked_out(cloud, problems, lambda number, begun: said[number][len(begun) :][:4])
    assert again == said
    assert [cloud.said(tokens) for tokens in again] == answers
    for row, tokens in zip(turns, said, strict=True):
        assert all(one.accepted == 4 for one in row[:-1])
        own = sum(len(one.tokens) - one.accepted for one in row)
        assert sum(one.accepted for one in row) + own == len(tokens)
        assert own in (len(row), len(row) - 1)


@pytest.mark.parametrize("heat", [pytest.param(0.7, marks=pytest.mark.slow), 1.5])
def test_with_shared_numbers_the_text_is_what_the_cloud_draws_alone(cloud: Builtin, heat: float) -> None:
    problems = questions()
    alone = [sampled(cloud, problem, seed, heat) for seed, problem in enumerate(problems)]
    tokens, numbers = [said for said, _ in alone], [drawn for _, drawn in alone]
    words = len(cloud.vocabulary)
    for drafter in (made_up(3, words), nearly(tokens, 4, words), lambda number, begun: tokens[number][len(begun) :]):
        said, _ = worked_out(cloud, problems, drafter, numbers=numbers, heat=heat)
        assert said == tokens
    assert any(said != greedy for said, greedy in zip(tokens, worked_out(cloud, problems, drafter)[0], strict=True))


def shaken(rounding: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on every logit of a batch is off by so much, one way or the other; the list counts the passes."""
    source, passes = torch.Generator().manual_seed(0), []

    def per_token(base: BaseModel, reading: Reading, completions: Completions, readout: Readout) -> Tensor:
        def off(logits: Tensor, places: Tensor) -> Tensor:
            sign = torch.randint(2, logits.shape, generator=source) * 2 - 1  # (n, V)
            return readout(logits + rounding * sign, places)

        passes.append(1)
        return scoring.per_token(base, reading, completions, off)

    monkeypatch.setattr(verifying, "per_token", per_token)
    return passes


@pytest.mark.parametrize("heat", [0.0, 1.5])
def test_rounding_of_a_batch_turns_no_token(monkeypatch: pytest.MonkeyPatch, heat: float) -> None:
    """Were logits off by as much as is allowed for, the text would stay; off by much more, it would not."""
    problems, own = questions(), Builtin(max_new_tokens=LONGEST)
    alone = [sampled(own, problem, seed, heat or 1.0) for seed, problem in enumerate(problems)]
    numbers = [drawn for _, drawn in alone] if heat else []
    drafter = made_up(3, len(own.vocabulary))
    tokens, turns = worked_out(own, problems, drafter, numbers=numbers, heat=heat)
    few = sum(one.again for row in turns for one in row)
    with monkeypatch.context() as patch:
        shaken(rounding_of(own.sure) * 0.99, patch)
        said, turns = worked_out(own, problems, drafter, numbers=numbers, heat=heat)
    assert said == tokens
    assert few <= sum(one.again for row in turns for one in row) < sum(map(len, tokens)) / 2
    with monkeypatch.context() as patch:
        shaken(3.0, patch)
        assert worked_out(own, problems, drafter, numbers=numbers, heat=heat)[0] != tokens


def test_where_nothing_is_sure_every_place_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsure(Builtin):
        sure = 1 - 1e-9

    problems, own = questions()[:8], Unsure(max_new_tokens=LONGEST)
    passes = shaken(9.0, monkeypatch)  # what the batch says is worth nothing
    said, turns = worked_out(own, problems, made_up(3, 40))
    assert [own.said(tokens) for tokens in said] == [one.text for one in Builtin(batch_size=1).answer(problems)]
    assert sum(one.again for row in turns for one in row) == sum(map(len, said))
    assert len(passes) == max(map(len, turns))


def test_prompts_are_read_once_for_all_verifications(cloud: Builtin, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def reading(base: BaseModel, prompts: Prompts) -> Reading:
        found = read(base, prompts)
        rows.append(found.past.rows)
        return found

    monkeypatch.setattr(verifying, "read", reading)
    own, problems = Builtin(max_new_tokens=LONGEST), questions()
    expected = worked_out(own, problems, made_up(2, 40))
    assert rows == [len(problems)]
    worked_out(own, problems[:3], made_up(2, 40))
    assert rows == [len(problems)]
    monkeypatch.setattr(verifying, "_KEPT", 0)  # nothing but the newest prompts
    small = Builtin(batch_size=3, max_new_tokens=LONGEST)
    assert worked_out(small, problems, made_up(2, 40)) == expected
    assert len(small._verifier._kept) == 1


def test_a_large_call_is_verified_in_parts(cloud: Builtin, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = questions()[:10]
    expected = worked_out(cloud, problems, made_up(3, 40))
    monkeypatch.setattr(verifying, "LOGITS", 3 * len(cloud.vocabulary) * 8)
    passes = shaken(0.0, monkeypatch)
    assert worked_out(cloud, problems, made_up(3, 40)) == expected
    assert len(passes) > max(map(len, expected[1]))


def test_a_question_that_stands_twice_in_a_call(cloud: Builtin) -> None:
    """Each with a draft of its own."""
    problem = questions()[0]
    (said,), _ = worked_out(cloud, [problem], made_up(0, 1))
    found = cloud.verify([Draft(problem, (), tuple(said[:1])), Draft(problem, tuple(said[:1]), ())], SHARED, 0.0)
    assert [one.tokens for one in found] == [tuple(said[:2]), tuple(said[1:2])]


@pytest.mark.parametrize("tokens", [1, 2, 30])
def test_a_cloud_goes_on_where_its_own_answer_was_broken_off(
    cloud: Builtin, asked: tuple[list[Problem], list[str]], tokens: int
) -> None:
    """A character of an answer is a token, here."""
    problems, answers = asked
    cut = [len(answer) // 2 for answer in answers]
    begun = [Beginning(*of) for of in zip(problems, (a[:c] for a, c in zip(answers, cut, strict=True)), strict=True)]
    for problem, answer, place, on in zip(problems, answers, cut, cloud.go_on(begun, tokens), strict=True):
        rest = answer[place:]
        ended = len(rest) < tokens
        assert (on.answer.text, on.ended) == (rest[:tokens], ended)
        assert on.answer.completion_tokens == min(len(rest) + 1, tokens)
        assert on.answer.prompt_tokens == cloud.quote(problem).prompt_tokens + place


def test_a_draft_that_lacks_what_its_rule_looks_at_is_refused(cloud: Builtin) -> None:
    problem = questions()[0]
    with pytest.raises(ValueError, match="a draft of 2 tokens that is verified at temperature 1 needs 3 uniforms, one"):
        cloud.verify([Draft(problem, (), (5, 6), (0.5,))], SHARED, 1.0)
    with pytest.raises(ValueError, match=r"rule='rejection' needs what the drafted tokens were drawn from"):
        cloud.verify([Draft(problem, (), (5,), (0.5, 0.5))], "rejection", 1.0)
    with pytest.raises(ValueError, match="rule='best' is no rule of acceptance"):
        cloud.verify([Draft(problem, (), (5,))], "best", 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family_of_checkpoints_verifies_what_it_says_alone(family: str, tmp_path: Path) -> None:
    """Those that read by their own forward, and those with few heads, biases or windows, greedy and drawn."""
    own = Checkpoint(str(write_checkpoint(tmp_path / family, family)), max_tokens=12)
    problems = [Problem("own", "", 0, text, "2", instruction="Do it.") for text in ("1+1=", "What is 12 + 34?", "abc")]
    assert isinstance(own, Verifies)
    assert isinstance(own, GoesOn)
    words = len(own.vocabulary)
    plain, _ = worked_out(own, problems, made_up(3, words), longest=12)
    assert [own.said(tokens) for tokens in plain] == [answer.text for answer in own.answer(problems)]
    assert worked_out(own, problems, lambda n, begun: plain[n][len(begun) :][:5], longest=12)[0] == plain
    alone = [sampled(own, problem, seed) for seed, problem in enumerate(problems)]
    numbers = [drawn for _, drawn in alone]
    tokens = [said for said, _ in alone]
    assert worked_out(own, problems, nearly(tokens, 3, words), numbers=numbers, longest=12)[0] == tokens
