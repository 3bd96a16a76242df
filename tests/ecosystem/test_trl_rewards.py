"""TRL's own reward functions as verifiers, by their paths: the verdicts are their rewards."""

from pathlib import Path

import pytest

from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.problems.judging import verifier_of
from flsim.problems.rewards import RewardVerifier
from flsim.tasks.stream import stream_of

pytestmark = pytest.mark.ecosystem
trl_rewards = pytest.importorskip("trl.rewards", reason="the reward functions are TRL's, which is not installed")


def test_accuracy_reward_by_its_path() -> None:
    """The numbers of its own docstring; a text without a formula is no gold, so that it does not apply."""
    found = verifier_of("trl.rewards:accuracy_reward")
    assert isinstance(found, RewardVerifier)
    assert found.chat
    gold = [r"\frac{1}{3}", r"\frac{1}{3}", "no formula at all"]
    references = [found.reference_of("?", {"solution": solution}) for solution in gold]
    said = [r"My answer is \boxed{\frac{1}{3}}", r"My answer is \boxed{\frac{1}{2}}", r"\boxed{1}"]
    pairs = list(zip(references, said, strict=True))
    chat = [[{"role": "assistant", "content": text}] for text in said]
    assert found.rewards(pairs) == trl_rewards.accuracy_reward(chat, gold) == [1.0, 0.0, None]
    assert found.verdicts(pairs) == [True, False, False]
    assert found.unreadable(references) == references[2:]


def test_think_format_reward_by_its_path() -> None:
    found = verifier_of("trl.rewards:think_format_reward")
    texts = ["<think>\nSo.\n</think>\nYes.", "<think>\nSo.\nYes.", "Yes."]
    assert found.verdicts([("", text) for text in texts]) == [True, False, False]


def test_those_of_tokens_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from trl.rewards import get_repetition_penalty_reward\n\n"
        "reward = get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)\n"
    )
    with pytest.raises(ConfigError, match=r"mine\.py:reward needs completion_ids, which only TRL's trainer has"):
        verifier_of(f"{tmp_path / 'mine.py'}:reward", threshold=-0.1)


def test_a_set_is_judged_by_trl(tmp_path: Path) -> None:
    rows = "\n".join(f'{{"q": "{a}+{b}?", "a": "${a + b}$"}}' for a in range(1, 12) for b in range(1, 12))
    (tmp_path / "sums.jsonl").write_text(rows)
    settings = "{files: {all: sums.jsonl}, columns: {question: q, answer: a}}"
    more = ["data.sums.partition=evenly", "data.sums.verifier=trl.rewards:accuracy_reward"]
    own = ["stream.phases=[[sums]]", "fleet.devices=2", "data.sums.kind=files", f"data.sums.root={tmp_path}"]
    (task,) = stream_of(load_config(None, [*own, f"data.sums.settings={settings}", *more])).data
    problem = task.problem(task.source.items[0])
    assert problem.right_text == "$2$"
    verdicts = verifier_of(task.source.verifier).verdicts
    assert verdicts([(problem.answer, r"\boxed{2}"), (problem.answer, r"\boxed{3}")]) == [True, False]
