"""A threshold that moves with what is left of the budget: laws, numbers by hand, and rules that pace at work."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.asking.learned import Cascade, Classifier
from clients.asking.pacing import paced, ranked
from clients.asking.policy import OwnCalibrated
from clients.asking.rule import Scores
from clients.asking.scores import Confidence, Entropy
from clients.asking.threshold import Learned, Scored, affordable, calibrated
from clients.device.world import load_world
from clients.evaluate import evaluate_pack
from experiments.study.methods import find_method
from flsim.config.load import load_config
from flsim.metrics.rows import Row

LEVELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@given(LEVELS, LEVELS, st.integers(0, 100))
def test_all_of_the_budget_is_used_and_no_more(scores: list[int], known: list[int], percent: int) -> None:
    """With tau = 1 every prompt is sent and with tau = 0 none, whatever the scores are."""
    ties = np.random.default_rng(0).random(len(scores))
    ranks = ranked(np.array(scores, dtype=float), ties, np.array(known, dtype=float))
    assert ((ranks > 0) & (ranks <= 1)).all()
    assert paced(ranks, affordable(percent / 100, len(scores))).sum() == percent * len(scores) // 100


def test_pacing_by_hand() -> None:
    """Two of four: 0.6 > 2/4 is kept, 0.4 <= 2/3 and 0.3 <= 1/2 are sent, and nothing is left for the last."""
    assert paced(np.array([0.6, 0.4, 0.3, 0.1]), 2).tolist() == [False, True, True, False]
    assert paced(np.array([0.9, 0.9, 0.9]), 1).tolist() == [False, False, True]  # one left for one: it is sent


def test_a_rank_by_hand() -> None:
    """One of four is above 0.5 and two are equal: (1 + 0.25 * 3) / 5; below all it is 1 with tie 0."""
    known = np.array([0.5, 0.9, 0.2, 0.5])
    ranks = ranked(np.array([0.5, 0.1, 1.0]), np.array([0.75, 0.0, 0.5]), known)
    assert ranks == pytest.approx([0.35, 1.0, 0.1])


@pytest.mark.parametrize("levels", [1, 3, None], ids=["all equal", "three levels", "continuous"])
def test_a_prompt_is_among_the_highest_q_with_chance_q(levels: int | None) -> None:
    """Even of seven known scores: 20,000 draws, the standard error is below 0.0036."""
    rng = np.random.default_rng(5)
    drawn = [draw(rng, levels, 8) for _ in range(20_000)]
    ranks = np.array([ranked(row[:1], rng.random(1), row[1:])[0] for row in drawn])
    assert [float((ranks <= q).mean()) for q in (0.05, 0.3, 0.8)] == pytest.approx([0.05, 0.3, 0.8], abs=0.015)


def draw(rng: np.random.Generator, levels: int | None, count: int) -> Scores:
    found: Scores = rng.random(count) if levels is None else rng.integers(0, levels, count).astype(float)
    return found


@pytest.mark.parametrize("levels", [1, 3, None], ids=["all equal", "three levels", "continuous"])
@pytest.mark.parametrize("tau", [0.1, 0.3, 0.7])
def test_a_paced_threshold_sends_more_need_than_a_fixed_one_of_the_same_scores(levels: int | None, tau: float) -> None:
    """64 known scores and 40 prompts from one distribution, 2,000 times: what was sent, summed, cut at the budget."""
    rng, gains = np.random.default_rng(7), []
    for _ in range(2000):
        known, scores, ties, order = draw(rng, levels, 64), draw(rng, levels, 40), rng.random(40), rng.random(64)
        limit = affordable(tau, 40)
        fixed = np.flatnonzero(calibrated(known, order, tau).exceeded(scores, ties))[:limit]
        moving = paced(ranked(scores, ties, known), limit)
        gains.append((scores[moving] + 1).sum() - (scores[fixed] + 1).sum())  # + 1: sending is never worth nothing
    assert np.mean(gains) > 2 * np.std(gains) / math.sqrt(len(gains))


RULES: list[Scored | Learned] = [
    rule(8, pacing=True) for rule in (Confidence, Entropy, Classifier, Cascade, OwnCalibrated)
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_with_a_threshold_paces(rule: Scored | Learned, one_thread: None) -> None:
    """All of the budget, of 20 prompts each, and the same in a pack as alone."""
    more = ["model.rank=2", "fleet.devices=3", "evaluation.prompts_per_task=10", "stream.phases=[[arithmetic, lists]]"]
    world = load_world(load_config(None, more))
    taus = {0: 0.0, 1: 0.3, 2: 1.0}

    def sent(*devices: int) -> list[list[Row]]:
        parts = {"model": "global", "round_": 0, "taus": [taus[k] for k in devices], "asking": rule}
        found = evaluate_pack(world, devices, None, **parts)  # type: ignore[arg-type]
        return [[row for row in own if row.name in ("cloud_requests", "cloud_grants", "accuracy")] for own in found]

    together = sent(0, 1, 2)
    assert together == [sent(k)[0] for k in taus]
    wanted = [sum(row.total for row in own if row.name == "cloud_requests") for own in together]
    assert wanted == [0, 6, 20]


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="pacing='often' must be true or false"):
        Confidence(pacing="often")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pacing=1 must be true or false"):
        Cascade(pacing=1)  # type: ignore[arg-type]


def test_the_method_is_added_to_any_rule_with_a_threshold() -> None:
    files = find_method("grpo+cascade+paced").files
    assert [Path(file).stem for file in files] == ["grpo", "cascade", "paced"]
