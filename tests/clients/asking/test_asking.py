"""The parts of asking by rule: thresholds, calibration questions, learned scores, curves; by law and by hand."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.asking.alone import Alone
from clients.asking.curves import SHARES, accuracy_curve, asking_auc, wish_rows
from clients.asking.learned import Cascade, Classifier, learn_wrongness
from clients.asking.rule import Choice
from clients.asking.scores import Confidence, Entropy
from clients.asking.simple import AtRandom
from clients.asking.threshold import Threshold, calibrated, calibration_halves, calibration_questions
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from flsim.config.load import load_config
from flsim.problems.problem import split_of


def flags(text: str) -> np.ndarray:
    """`10` is (True, False)."""
    return np.array([letter == "1" for letter in text])


def test_a_threshold_by_hand() -> None:
    """Two of five may be sent, those with 0.9 and 0.7; so a prompt is sent if it scores above 0.5."""
    threshold = calibrated(np.array([0.1, 0.5, 0.3, 0.9, 0.7]), np.arange(5) / 5, tau=0.4)
    assert threshold == Threshold(0.5, 0.2)
    wishes = threshold.exceeded(np.array([0.4, 0.5, 0.6, 0.55, 0.5]), np.array([0.9, 0.1, 0.0, 0.9, 0.3]))
    assert wishes.tolist() == [False, False, True, True, True]  # the last one by its tie-break


SCORES = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@given(SCORES, st.integers(0, 100))
def test_exactly_floor_tau_n_calibration_questions_lie_above_the_threshold(scores: list[int], percent: int) -> None:
    found, ties = np.array(scores, dtype=float), np.random.default_rng(0).random(len(scores))
    above = calibrated(found, ties, percent / 100).exceeded(found, ties)
    assert above.sum() == percent * len(scores) // 100
    assert not above.any() or above.all() or found[above].min() >= found[~above].max()


@pytest.mark.parametrize("levels", [1, 3, None], ids=["all equal", "three levels", "continuous"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
def test_the_share_that_was_calibrated_is_about_the_share_that_is_sent(levels: int | None, tau: float) -> None:
    """Of 4000 new prompts with scores from the same distribution; the standard error is below 0.012."""
    rng = np.random.default_rng(3)
    drawn = [rng.random(4000) if levels is None else rng.integers(0, levels, 4000).astype(float) for _ in range(2)]
    threshold = calibrated(drawn[0], rng.random(4000), tau)
    assert threshold.exceeded(drawn[1], rng.random(4000)).mean() == pytest.approx(tau, abs=0.04)


@pytest.fixture(scope="module")
def worlds(tiny_checkpoint: Path) -> dict[str, World]:
    """One that is measured on each split, with all four tasks."""
    tiny = (f"model.path={tiny_checkpoint}", "model.rank=2", "cloud.kind=oracle")
    return {
        split: load_world(load_config(None, [*tiny, f"evaluation.split={split}"])) for split in ("test", "validation")
    }


@pytest.mark.parametrize(("measured", "source"), [("test", "validation"), ("validation", "train")])
def test_calibration_and_measurement_share_no_question(worlds: dict[str, World], measured: str, source: str) -> None:
    world = worlds[measured]
    for device in range(8):
        known = calibration_questions(world, device, 32)
        questions = {problem.question for problem in known}
        assert 100 < len(known) == len(questions) <= 4 * 32
        assert {split_of(question) for question in questions} == {source}
        assert not questions & {problem.question for other in range(8) for problem in own_tests(world, other)}
        assert {problem.task for problem in known} == set(world.stream.tasks)


def test_what_is_learned_from_sets_no_threshold(worlds: dict[str, World]) -> None:
    world = worlds["test"]
    learned, rest = calibration_halves(world, 1, 32)
    assert sorted(p.question for p in learned + rest) == sorted(p.question for p in calibration_questions(world, 1, 32))
    assert not {p.question for p in learned} & {p.question for p in rest}
    for task in world.stream.tasks:
        sizes = [sum(problem.task == task for problem in half) for half in (learned, rest)]
        assert sizes[1] - sizes[0] in (0, 1)


def test_calibration_does_not_repeat_the_training_draw(worlds: dict[str, World]) -> None:
    """Both are of the split `train` while settings are chosen; questions may coincide, the draws do not."""
    world = worlds["validation"]
    known = {problem.question for problem in calibration_questions(world, 0, 32)}
    for round_, step in product(range(1, 4), range(3)):
        met = world.stream.training_problems("device-000", round_, step, count=64, seed=0)
        assert len(known & {problem.question for problem in met}) < 0.2 * len(known)


def said(*pairs: tuple[str, str], logprobs: float = -0.1) -> Alone:
    """What a device said, always equally sure."""
    questions, answers = zip(*pairs, strict=True)
    return Alone(questions, answers, np.full(len(pairs), logprobs), np.zeros(len(pairs)), np.zeros(0))


LESSON = said(*((f"{a}+{b}=", "1") for a, b in product(range(10), range(2))), *((f"max({a})", "2") for a in range(20)))
FRESH = said(("5+9=", "1"), ("max(77)", "2"))


def test_the_classifier_learns_which_questions_are_hard() -> None:
    """All sums were wrong, all maxima right."""
    wrong = np.arange(40) < 20
    sum_, maximum = Classifier().learn(LESSON, ~wrong)(FRESH)
    assert sum_ > 0.6 > 0.4 > maximum  # shrunk by the penalty


def test_only_the_cascade_sees_the_answer() -> None:
    """The same questions with two answers each, of which `no` is always wrong."""
    lesson = said(*((f"{a}=", answer) for a in range(20) for answer in ("yes", "no")))
    right, fresh = np.arange(40) % 2 == 0, said(("7=", "yes"), ("7=", "no"))
    by_question = Classifier().learn(lesson, right)(fresh)
    assert by_question[0] == by_question[1]
    by_both = Cascade().learn(lesson, right)(fresh)
    assert by_both[0] < 0.3 < 0.7 < by_both[1]


def test_only_the_cascade_sees_how_sure_the_device_was() -> None:
    """All questions and answers alike; it is wrong whenever it was unsure."""
    sure = np.tile([-0.01, -0.9], 20)
    lesson = Alone(("q",) * 40, ("a",) * 40, sure, np.zeros(40), np.zeros(0))
    fresh = Alone(("q",) * 2, ("a",) * 2, np.array([-0.1, -0.8]), np.zeros(2), np.zeros(0))
    assert np.ptp(Classifier().learn(lesson, sure > -0.5)(fresh)) == 0
    assert np.diff(Cascade().learn(lesson, sure > -0.5)(fresh)) > 0.5


@pytest.mark.parametrize(("right", "chance"), [(True, 0.0), (False, 1.0)])
def test_labels_all_alike_give_their_share(right: bool, chance: float) -> None:
    for rule in (Classifier(), Cascade()):
        assert rule.learn(LESSON, np.full(40, right))(FRESH).tolist() == [chance] * 2
    nothing = learn_wrongness([], np.zeros((0, 1)), np.zeros(0, dtype=bool), c=1.0)
    assert nothing(["q"], np.zeros((1, 1))).tolist() == [0.0]


def test_a_curve_by_hand() -> None:
    """Ten prompts, of which the device has four right. By score: two that the cloud wins, one that it
    loses, two that it wins.

    Sending 10, 20, 30, 40, 50 percent leaves 5, 6, 5, 6, 7 right; then come two that both have wrong, and three of the
    device's own that the cloud has right, too.
    """
    alone, helped = flags("0010000111"), flags("1101100111")
    choice = Choice(alone, flags("0" * 10), np.arange(10, 0, -1.0))
    curve = accuracy_curve(choice, helped, np.zeros(10))
    assert list(curve) == [f"accuracy_sending_{share}" for share in SHARES]
    assert [values.sum() for values in curve.values()] == [5, 6, 5, 6, 7, 7, 7, 7, 7]
    # help is needed at 1101100000; of the 4 * 6 pairs two are out of order, those of the third with 4th and 5th
    assert asking_auc(choice, helped) == pytest.approx((10 * (24 - 2) / 24, 10.0))


def test_a_curve_breaks_ties_by_the_devices_own_order() -> None:
    """All scores are equal and the highest tie-break goes first."""
    choice = Choice(flags("0000000000"), flags("0" * 10), np.zeros(10))
    curve = accuracy_curve(choice, flags("1" * 10), np.arange(10.0))
    assert np.flatnonzero(curve["accuracy_sending_30"]).tolist() == [7, 8, 9]


def test_prompts_all_alike_have_no_auc() -> None:
    choice = Choice(flags("11"), flags("00"), np.array([0.1, 0.2]))
    assert asking_auc(choice, flags("11")) == (0.0, 0.0)
    assert asking_auc(Choice(flags("00"), flags("00"), np.array([0.1, 0.2])), flags("11")) == (0.0, 0.0)


def test_what_a_wish_says_of_being_wrong_by_hand() -> None:
    """Of four prompts the first two are wrong; one of them scores above both others, the other above one: 3 / 4."""
    choice = Choice(
        flags("0011"), flags("0000"), np.array([0.9, 0.4, 0.5, 0.1]), claims=np.array([0.9, 0.42, 0.48, 0.1])
    )
    assert wish_rows(choice) == {
        "wrong_auc": pytest.approx((3.0, 4.0)),
        "claimed_10": (0.1, 1.0),
        "wrong_claimed_10": (0.0, 1.0),
        "claimed_40": pytest.approx((0.9, 2.0)),
        "wrong_claimed_40": (1.0, 2.0),
        "claimed_90": (0.9, 1.0),
        "wrong_claimed_90": (1.0, 1.0),
    }
    assert wish_rows(Choice(flags("11"), flags("00"), np.zeros(2))) == {"wrong_auc": (0.0, 0.0)}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Confidence(0), "calibration=0 must be a whole number of at least 1"),
        (
            lambda: Entropy(2.5),  # type: ignore[arg-type]
            "calibration=2.5 must be a whole number",
        ),
        (lambda: Classifier(1), "calibration=1 must be a whole number of at least 2: .* half of them are learned from"),
        (lambda: Cascade(True), "calibration=True must be a whole number"),
        (lambda: Classifier(c=0), "c=0 must be above 0 and finite: the smaller, the stronger"),
        (
            lambda: Cascade(c="much"),  # type: ignore[arg-type]
            "c='much' must be above 0",
        ),
        (lambda: AtRandom(1.5), "share=1.5 must be in .0, 1.: it is a share of the prompts; leave it out"),
        (lambda: Choice(flags("10"), flags("1"), np.zeros(2)), "must have one entry per test prompt"),
        (lambda: Choice(flags("10"), flags("11"), np.array([0, np.nan])), "scores must be finite; 1 of them"),
        (
            lambda: Choice(flags("10"), flags("11"), np.zeros(2), claims=np.array([0.5, 1.1])),
            "claims must be chances in .0, 1",
        ),
        (
            lambda: Choice(flags("10"), flags("11"), np.zeros(2), claims=np.array([0.5, np.nan])),
            "claims must be chances",
        ),
        (lambda: Choice(flags("10"), flags("11"), np.zeros(2), claims=np.zeros(1)), "one per test prompt"),
    ],
)
def test_what_cannot_work_is_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
