"""Reasoning-gym as a data set; without the package only what it says of itself."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.tasks.item import Item
from flsim.tasks.load import load
from flsim.tasks.readers.gym import SPACING, UNFIT, reference_of, verdict
from flsim.tasks.splits import split_items
from flsim.tasks.stream import stream_of


def test_the_package_is_asked_for_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=r"reasoning_gym: the package cannot be imported .*\[gym\]"):
        load("reasoning_gym", tasks=["gcd"], users=2, items_per_user=3)
    with pytest.raises(ConfigError, match="cannot be imported"):
        verdict(Item("?", "1", tests='{"task": "gcd", "settings": {}, "seed": 0, "size": 1, "at": 0}'), "1")


def test_users_share_no_question_and_seeds_lie_apart() -> None:
    pytest.importorskip("reasoning_gym")
    items = load("reasoning_gym", tasks=["gcd", "spell_backward"], users=3, items_per_user=25)
    assert Counter((item.user, item.label) for item in items) == {
        (f"user-00{user}", task): 25 for user in range(3) for task in ("gcd", "spell_backward")
    }
    assert len({item.question for item in items}) == 150
    assert {json.loads(item.tests or "")["seed"] for item in items} == {number * SPACING for number in range(6)}
    assert items == load("reasoning_gym", tasks=["gcd", "spell_backward"], users=3, items_per_user=25)
    assert (split_items(items) >= 0).all()


def test_only_the_full_score_is_a_verdict() -> None:
    """The package's own score for a text that merely holds the answer is above 0."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    tasks = ["chain_sum", "spell_backward", "prime_factorization", "gsm_symbolic", "acre"]
    for item in load("reasoning_gym", tasks=tasks, users=1, items_per_user=5):
        assert verdict(item, item.answer)
        assert not verdict(item, "banana")
        if item.label != "gsm_symbolic":  # whose judge reads the last number of a text
            assert not verdict(item, f"the answer is {item.answer}")
    data = reasoning_gym.create_dataset("chain_sum", seed=0, size=1)
    assert 0 < data.score_answer(f"the answer is {data[0]['answer']}", data[0]) < 1


def test_a_reference_holds_all_that_its_judge_needs() -> None:
    pytest.importorskip("reasoning_gym")
    items = load("reasoning_gym", tasks=["chain_sum", "spell_backward"], users=1, items_per_user=3)
    said = [(Problem("own", "", 0, "?", reference_of(item), verifier="gym"), item.answer) for item in items]
    assert are_right(said) == [True] * 6
    assert are_right([(problem, f"{text}!") for problem, text in said]) == [False] * 6


def test_a_stream_of_reasoning_gym(tmp_path: Path) -> None:
    """Every device has its own user; what the oracle says is right."""
    pytest.importorskip("reasoning_gym")
    settings = "{tasks: [chain_sum], users: 2, items_per_user: 40}"
    more = ["rounds=1", "fleet.devices=2", "stream.phases=[[own]]", "data.own.kind=reasoning_gym"]
    stream = stream_of(load_config(None, [*more, "data.own.partition=user", f"data.own.settings={settings}"]))
    sets = [stream.evaluation_problems(f"device-00{d}", "train", per_task=10)["own"] for d in (0, 1)]
    assert not {problem.question for problem in sets[0]} & {problem.question for problem in sets[1]}
    assert all(are_right([(problem, problem.right_text) for own in sets for problem in own]))


def test_another_question_at_the_recipe_is_an_error() -> None:
    pytest.importorskip("reasoning_gym")
    recipe = '{"task": "gcd", "settings": {}, "seed": 0, "size": 1, "at": 0}'
    with pytest.raises(ConfigError, match="makes another question here"):
        verdict(Item("What is the gcd of 2 and 4?", "2", tests=recipe), "2")


@pytest.mark.parametrize("task", UNFIT)
def test_unfit_tasks_are_refused_with_the_reason(task: str) -> None:
    with pytest.raises(ConfigError, match=f"the task '{task}' cannot be used: {UNFIT[task]}"):
        load("reasoning_gym", tasks=[task], users=1, items_per_user=1)


def test_small_and_wrong_settings_are_refused() -> None:
    pytest.importorskip("reasoning_gym")
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}  # 10 x 10 x 2 questions
    with pytest.raises(ConfigError, match="has too few different questions: user 2 found"):
        load("reasoning_gym", tasks={"chain_sum": small}, users=3, items_per_user=100)
    with pytest.raises(ConfigError, match=r"cannot make 'gcd' with \{'digits': 3\}"):
        load("reasoning_gym", tasks={"gcd": {"digits": 3}}, users=1, items_per_user=1)
    with pytest.raises(ConfigError, match="users=0"):
        load("reasoning_gym", tasks=["gcd"], users=0, items_per_user=1)
