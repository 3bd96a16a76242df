"""Rules at work: on the built-in SLM, which is right on some questions, and in whole runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import flsim
from clients.app import DeviceApp
from clients.asking.alone import Alone, answers_alone
from clients.asking.learned import Cascade, Classifier
from clients.asking.policy import OWN, Own, OwnCalibrated
from clients.asking.rule import AskingRule, Choice, Examined, Flags, Scores
from clients.asking.scores import Confidence, Entropy
from clients.asking.simple import Always, AtRandom, Never, Oracle
from clients.asking.threshold import Score, by_learned_threshold, calibration_halves
from clients.da_grpo import DaGrpo
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests, reference_rows
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.metrics.calibration import ROWS as CLAIMS
from flsim.metrics.rows import Row, without_timing
from flsim.models.adapter import Adapter
from tests.tiny import TOKEN, TinyRun

TINY = ("rounds=1", "fleet.devices=3", "evaluation.prompts_per_task=5", "engine.pack=2")
RULES: tuple[AskingRule, ...] = (
    Own(),
    Never(),
    Always(),
    AtRandom(),
    AtRandom(0.2),
    Confidence(16),
    Entropy(16),
    Classifier(16),
    Cascade(16),
    OwnCalibrated(16),
    Oracle(),
)
TASKS = ("arithmetic", "lists")
DEVICES = (0, 1, 2)
TAUS = (0.12, 0.3, 0.5)
LIMITS = {device: math.floor(tau * 40 + 1e-9) for device, tau in zip(DEVICES, TAUS, strict=True)}  # 4, 12, 20
named = pytest.mark.parametrize("rule", RULES, ids=str)


@pytest.fixture(scope="module")
def world(one_thread: None) -> World:
    """Three devices with 40 test prompts each, and a cloud that is wrong on 30 in a hundred."""
    more = ["model.rank=2", "fleet.devices=3", "cloud.kind=oracle", "cloud.oracle_error=0.3"]
    more += ["evaluation.prompts_per_task=20", "stream.phases=[[arithmetic, lists]]"]
    return load_world(load_config(None, more))


@pytest.fixture(scope="module")
def adapters(world: World) -> list[Adapter]:
    """Three that differ and still answer."""
    return [
        {n: np.random.default_rng(k).normal(0, 0.05, t.shape).astype(np.float32) for n, t in world.first.items()}
        for k in DEVICES
    ]


@pytest.fixture(scope="module")
def measured(world: World, adapters: list[Adapter]) -> dict[AskingRule, list[list[Row]]]:
    """Every rule's rows by device."""
    return {rule: measure(world, adapters, DEVICES, rule) for rule in RULES}


def measure(world: World, adapters: Sequence[Adapter], devices: Sequence[int], rule: AskingRule) -> list[list[Row]]:
    own, taus = [adapters[device] for device in devices], [TAUS[device] for device in devices]
    return evaluate_pack(world, devices, own, model="global", round_=1, taus=taus, asking=rule)


def total(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """Summed over tasks."""
    found = [row for row in rows if row.name == name]
    return sum(row.total for row in found), sum(row.weight for row in found)


Measured = dict[AskingRule, list[list[Row]]]


@named
def test_no_rule_passes_its_budget_or_the_oracle(measured: Measured, rule: AskingRule) -> None:
    for device in DEVICES:
        rows, best = measured[rule][device], measured[Oracle()][device]
        assert total(rows, "cloud_grants")[0] <= LIMITS[device]
        assert total(rows, "accuracy")[0] <= total(best, "accuracy")[0]
        for share in range(10, 100, 10):
            assert total(rows, f"accuracy_sending_{share}")[0] <= total(best, f"accuracy_sending_{share}")[0]


@named
def test_all_rules_measure_the_same_learner(measured: Measured, rule: AskingRule) -> None:
    """What the device can do alone, and what is right in all, sent and kept."""
    for own, theirs in zip(measured[OWN], measured[rule], strict=True):
        assert total(theirs, "alone_accuracy") == total(own, "alone_accuracy")
        kept, sent = total(theirs, "kept_accuracy"), total(theirs, "cloud_grants")
        assert kept[1] + sent[0] == 40
        assert 0 <= total(theirs, "accuracy")[0] - kept[0] <= sent[0]
        assert {row.task for row in theirs if row.name not in ("asking_auc", "wrong_auc", *CLAIMS)} == set(TASKS)


CLAIMING = (Own(), OwnCalibrated(16), Confidence(16), Classifier(16), Cascade(16))


@named
def test_who_claims_chances_has_rows_of_them_and_others_have_none(measured: Measured, rule: AskingRule) -> None:
    """All 40 prompts lie in some tenth, as many of them wrong as the device is alone; scores tell the wrong apart."""
    for rows in measured[rule]:
        claimed = [row for row in rows if row.name.startswith("claimed_")]
        wrong = [row for row in rows if row.name.startswith("wrong_claimed_")]
        assert sum(row.weight for row in claimed) == sum(row.weight for row in wrong) == 40 * (rule in CLAIMING)
        if rule in CLAIMING:
            assert sum(row.total for row in wrong) == 40 - total(rows, "alone_accuracy")[0]
            assert all(
                int(row.name[8:]) / 100 - 1e-6 <= row.total / row.weight <= int(row.name[8:]) / 100 + 0.1 + 1e-6
                for row in claimed
            )
        (auc,) = (row for row in rows if row.name == "wrong_auc")
        assert auc.weight in (0.0, 40.0)
        assert 0 <= auc.total <= auc.weight
        if rule in (Never(), Always()):
            assert auc.total == auc.weight / 2


def test_a_claim_is_the_scores_own_chance() -> None:
    """exp of the log-chance of asking, or a head's own; 1 minus a token's mean probability; of an entropy none."""
    scores = np.log(np.array([0.2, 0.5, 1.0]))
    said = Alone(("q",) * 3, ("a",) * 3, np.zeros(3), scores, np.zeros(0))
    assert OwnCalibrated().claim(scores, said) == pytest.approx([0.2, 0.5, 1.0])
    assert OwnCalibrated().claim(scores, replace(said, wrong=scores + 2)) == pytest.approx(scores + 2)
    assert Confidence().claim(-scores, said) == pytest.approx([0.8, 0.5, 0.0])
    assert Confidence().claim(np.array([-1e-9]), said) == pytest.approx([0.0], abs=0)
    assert Entropy().claim(scores, said) is None
    assert Cascade().claim(np.array([0.3]), said) == pytest.approx([0.3])


def test_claims_need_no_cloud(world: World, adapters: list[Adapter]) -> None:
    """Where only granted prompts are sent, they are what they are where all are."""
    alone = replace(world, config=replace(world.config, evaluation=replace(world.config.evaluation, cloud="granted")))
    parts = {"model": "global", "round_": 1, "taus": [0.3]}
    one, other = (evaluate_pack(own, [1], adapters[1:2], **parts)[0] for own in (world, alone))  # type: ignore[arg-type]
    assert {row.name for row in one} - {row.name for row in other} >= {"asking_auc"}
    claims = [[row for row in rows if row.name in (*CLAIMS, "wrong_auc")] for rows in (one, other)]
    assert claims[0] == claims[1] != []


def test_never_uses_no_cloud(measured: Measured) -> None:
    for rows in measured[Never()]:
        assert total(rows, "cloud_requests")[0] == total(rows, "cloud_grants")[0] == 0
        assert total(rows, "accuracy") == total(rows, "kept_accuracy") == total(rows, "alone_accuracy")


def test_always_is_the_cloud_under_a_full_budget(world: World, adapters: list[Adapter]) -> None:
    rows = evaluate_pack(world, [1], adapters[:1], model="global", round_=0, taus=[1.0], asking=Always())[0]
    cloud = [row for row in reference_rows(world, [1], round_=0)[0] if row.model == "cloud"]
    assert total(rows, "accuracy") == total(cloud, "accuracy")
    assert total(rows, "kept_accuracy") == (0, 0)
    assert 20 < total(cloud, "accuracy")[0] < 36


def test_the_oracle_adds_what_only_the_cloud_has_right_up_to_the_budget(
    measured: Measured, world: World, adapters: list[Adapter]
) -> None:
    for device, rows in zip(DEVICES, measured[Oracle()], strict=True):
        full = measure_with(world, adapters[device], device, 1.0, Oracle())
        gain = total(full, "cloud_grants")[0]
        alone = total(rows, "alone_accuracy")[0]
        assert total(full, "accuracy")[0] == alone + gain
        assert total(rows, "accuracy")[0] == alone + min(gain, LIMITS[device])
        assert [row.total for row in rows if row.name == "asking_auc"] == [40.0]


def measure_with(world: World, adapter: Adapter, device: int, tau: float, rule: AskingRule) -> list[Row]:
    return evaluate_pack(world, [device], [adapter], model="global", round_=0, taus=[tau], asking=rule)[0]


def test_at_random_on_the_frozen_model_is_the_reference(world: World) -> None:
    references = reference_rows(world, DEVICES, round_=0, taus=TAUS)
    own = evaluate_pack(world, DEVICES, None, model="random", round_=0, taus=TAUS, asking=AtRandom())
    for device in DEVICES:
        expected = [row for row in references[device] if row.model == "random"]
        assert set(expected) <= set(own[device])
        assert len(expected) == 8
        assert total(own[device], "cloud_grants")[0] == LIMITS[device]


def test_a_share_of_ones_own_is_asked_for_whatever_the_budget(measured: Measured) -> None:
    for device, rows in zip(DEVICES, measured[AtRandom(0.2)], strict=True):
        assert total(rows, "cloud_requests")[0] == 8
        assert total(rows, "cloud_grants")[0] == min(8, LIMITS[device])


def test_rules_that_look_do_better_than_chance(measured: Measured) -> None:
    """Over all devices, at sending half of the prompts; the SLM is wrong on about half of them."""
    for rule in (Confidence(16), Entropy(16), Classifier(16), Cascade(16)):
        of = [sum(total(rows, "accuracy_sending_50")[0] for rows in measured[r]) for r in (rule, AtRandom())]
        assert of[0] > of[1] + 2
        usage = sum(total(rows, "cloud_requests")[0] for rows in measured[rule])
        assert 0.5 * sum(LIMITS.values()) < usage < 1.5 * sum(LIMITS.values())


@named
def test_the_order_of_devices_in_a_pack_changes_nothing(
    world: World, adapters: list[Adapter], measured: Measured, rule: AskingRule
) -> None:
    shuffled = measure(world, adapters, (2, 0, 1), rule)
    assert [shuffled[1], shuffled[2], shuffled[0]] == measured[rule]


def test_learners_are_measured_with_the_rule_and_only_the_global_one_with_curves(world: World) -> None:
    rows = evaluate_pack(world, [0], None, model="own", round_=0, asking=Always())[0]
    assert {row.name for row in rows} == {
        "accuracy",
        "alone_accuracy",
        "kept_accuracy",
        "cloud_grants",
        "cloud_requests",
        "read_tokens",
        "sampled_tokens",
        "cut_responses",
        "cloud_test_tokens",
        "cloud_test_trips",
        "cloud_test_bytes",
    }
    frozen = [row for row in reference_rows(world, [0], round_=0, asking=Always())[0] if row.model == "frozen"]
    assert [replace(row, model="own") for row in frozen] == rows


def test_what_one_rule_has_heard_another_hears_again(world: World) -> None:
    """Rules that share it decide as they do alone, and the devices answer each set of questions once."""
    world.lora.attach(None)
    tests = [own_tests(world, device) for device in (0, 1)]
    together = Examined(world, [0, 1], tests, [0.3, 0.5])
    rules: list[AskingRule] = [Confidence(8), OwnCalibrated(8), Confidence(8, pacing=True), Never()]
    shared = [rule.decide(together) for rule in rules]
    for rule, found in zip(rules, shared, strict=True):
        for one, other in zip(rule.decide(Examined(world, [0, 1], tests, [0.3, 0.5])), found, strict=True):
            assert (one.wishes == other.wishes).all()
            assert (one.scores == other.scores).all()
    assert len(together.heard) == 2  # questions to set thresholds on, and tests


def test_sureness_is_that_of_the_plain_model(world: World) -> None:
    """Mean log-probability and mean entropy of the answers, from one pass of the model on question and answer."""
    world.lora.attach(None)
    problems = own_tests(world, 0)[:6]
    (said,) = answers_alone(world, [problems], entropies=True)
    base = world.base
    assert len(set(map(len, said.answers))) > 1  # else padding would not be tested
    for p, problem in enumerate(problems):
        question = base.tokenizer(problem.question)["input_ids"]
        answer = [*base.tokenizer(said.answers[p])["input_ids"], base.eos_id]
        with torch.no_grad():
            logits = base.model(torch.tensor([[*question, *answer]])).logits[0, len(question) - 1 : -1]
        logits[:, base.help_id] = -torch.inf
        logs = torch.log_softmax(logits, -1)
        assert logs.argmax(-1).tolist() == answer
        assert said.logprobs[p] == pytest.approx(float(logs.max(-1).values.mean()), abs=1e-4)
        entropies = torch.distributions.Categorical(logits=logits).probs
        entropies = -(entropies * entropies.clamp(min=1e-30).log()).sum(-1)
        assert said.entropies[p] == pytest.approx(float(entropies.mean()), abs=1e-4)


def test_the_own_score_is_the_chance_of_the_help_token_at_the_first_place(world: World) -> None:
    world.lora.attach(None)
    tests = own_tests(world, 1)
    (choice,) = Own().decide(Examined(world, [1], [tests], [0.3]))
    for problem, score in zip(tests[:8], choice.scores, strict=False):
        ids = torch.tensor([world.base.tokenizer(problem.question)["input_ids"]])
        with torch.no_grad():
            chances = torch.softmax(world.base.model(ids).logits[0, -1], -1)
        assert score == pytest.approx(float(chances[world.base.help_id]), rel=1e-3, abs=1e-7)


def test_a_score_is_learned_on_one_half_and_its_threshold_set_on_the_other(world: World) -> None:
    met: list[tuple[str, ...]] = []

    def score(alone: Alone) -> Scores:
        met.append(alone.questions)
        return np.zeros(len(alone.questions))

    def learn(alone: Alone, right: Flags) -> Score:
        met.append(alone.questions)
        return score

    world.lora.attach(None)
    tests = own_tests(world, 1)
    by_learned_threshold(Examined(world, [1], [tests], [0.3]), learn, 16)
    learned, rest = calibration_halves(world, 1, 16)
    assert met == [tuple(problem.question for problem in part) for part in (learned, rest, tests)]


@dataclass(frozen=True)
class Careless:
    """Forgets the last device."""

    def decide(self, pack: Examined) -> list[Choice]:
        return Never().decide(pack)[:-1]


def test_a_rule_that_forgets_a_device_is_told(world: World) -> None:
    with pytest.raises(
        ValueError, match=r"Careless.decide gave choices for \[40\] prompts; return one Choice for each"
    ):
        evaluate_pack(world, [0, 1], None, model="global", round_=0, asking=Careless())


def outcomes(run: flsim.Run, name: str) -> list[float]:
    rows = run.rows
    found = rows[(rows["split"] == "test") & (rows["name"] == name) & (rows["round"] == 1)]
    return [float(value) for value in found[found["model"].isin(["global", "own"])]["total"]]


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("client", ["clients.da_grpo:DaGrpo", "clients.poisoning:Poisoned"])
def test_a_run_asks_by_the_rule_it_names(tiny_run: TinyRun, client: str) -> None:
    """Global and local of 3 devices with 5 prompts: all of them are wishes, floor(0.5 * 5) are granted."""
    more = (f"client.path={client}", "client.asking.path=clients.asking.simple:Always", "budget.tau=0.5")
    run = flsim.run(tiny_run("always", *more), progress=False)
    assert outcomes(run, "cloud_requests") == [5.0] * 6
    assert outcomes(run, "cloud_grants") == [2.0] * 6


@pytest.mark.usefixtures("no_report")
def test_a_rule_changes_no_row_of_training(tiny_run: TinyRun) -> None:
    def trained(name: str, *more: str) -> list[tuple[object, ...]]:
        rows = without_timing(flsim.run(tiny_run(name, *more), progress=False).rows)
        return list(rows[rows["split"] == "train"].itertuples(index=False, name=None))

    calibrated = ("client.asking.path=clients.asking.learned:Cascade", "client.asking.calibration=4")
    assert trained("cascade", *calibrated) == trained("own")


@pytest.mark.usefixtures("no_report")
def test_the_rule_of_the_page_runs(tiny_run: TinyRun, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "asking.md").read_text()
    file = tmp_path / "my_rule.py"
    file.write_text(page.split("```python\n")[1].split("```")[0])
    more = (f"client.asking.path={file}:LongQuestions", "client.asking.calibration=16", "budget.tau=0.4")
    run = flsim.run(tiny_run("mine", *more), progress=False)
    assert max(outcomes(run, "cloud_grants")) == 2.0
    assert max(outcomes(run, "cloud_requests")) < 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "client.asking=confidence",
            "asking='confidence' is no rule for asking; name one, such as client.asking.path=",
        ),
        ("client.asking.path=clients.asking.scores:Confident", "has no 'Confident'"),
        ("client.asking={path: 'clients.asking.learned:Cascade', calibration: 1}", "calibration=1 must be a whole"),
        ("client.asking={path: 'clients.asking.simple:Never', calibration: 9}", "it takes: no settings"),
    ],
)
def test_bad_settings_are_refused_before_the_run(tiny_run: TinyRun, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flsim.run(tiny_run("refused", setting), progress=False)


def test_the_rule_is_an_object_not_a_class(tiny_run: TinyRun) -> None:
    assert DaGrpo.client_app(tiny_run("plain")).asking == OwnCalibrated(pacing=True)
    assert DaGrpo.client_app(tiny_run("token"), **TOKEN).asking == Own()
    with pytest.raises(ValueError, match="is no rule for asking"):
        DeviceApp(tiny_run("class"), DaGrpo.client_app(tiny_run("class")).algorithm, asking=Never)  # type: ignore[arg-type]
