"""Evaluation under the budget: on models whose wish to ask is known, so that every number follows by hand."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flsim
from clients.asking.alone import Alone, answers_alone
from clients.asking.learned import Cascade
from clients.asking.policy import Own, OwnCalibrated
from clients.asking.rule import AskingRule
from clients.device.answering import Problems, answer_alone
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests, reference_rows
from flsim.cloud.builtin import Oracle
from flsim.cloud.protocol import Answer
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.base import load_base
from flsim.models.forward import Next, Past
from flsim.models.prefix import Prefix
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import generator
from tests.flsim.cloud.answers import answered
from tests.tiny import TinyRun, tiny_world

Values = dict[tuple[str, str], tuple[float, float]]


def world_of(checkpoint: Path, *more: str, help_bias: float | None = None, end_bias: float = 0.0) -> World:
    """A world on the tiny checkpoint; the biases go on the logits of the help token and of the end."""
    shared = ("evaluation.prompts_per_task=10", "stream.phases=[[arithmetic, lists]]")
    world = load_world(tiny_world(checkpoint, *shared, *more))
    if help_bias is not None:
        head = world.base.model.lm_head
        assert isinstance(head, torch.nn.Linear)
        bias = torch.zeros(head.out_features)
        bias[world.base.help_id], bias[world.base.eos_id] = help_bias, end_bias
        head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return world


def adapters(world: World, seeds: Sequence[int]) -> list[Adapter]:
    """One random adapter per seed."""
    like = start_of(world)
    return [
        {name: np.random.default_rng(seed).normal(0, 0.3, t.shape).astype(np.float32) for name, t in like.items()}
        for seed in seeds
    ]


def start_of(world: World) -> Adapter:
    """A fresh adapter: A random, B zero."""
    config = world.config
    return initial_adapter(load_base(config.model.path).model, config.model, config.seed)


def values(rows: Sequence[Row], model: str) -> Values:
    return {(row.task, row.name): (row.total, row.weight) for row in rows if row.model == model}


@pytest.mark.parametrize(("tau", "granted"), [(0.0, 0), (0.04, 0), (0.3, 6), (0.39, 7), (0.7, 14), (1.0, 20)])
def test_exactly_floor_tau_n_requests_are_granted(tiny_checkpoint: Path, tau: float, granted: int) -> None:
    """A device that always asks and, alone, always ends at once; the cloud is perfect.

    Of its N = 20 prompts, floor(20 tau) are answered by the cloud and right, the others are empty and wrong. Its two
    tasks come in turn, arithmetic first, so that arithmetic gets the odd one.
    """
    world = world_of(tiny_checkpoint, f"budget.tau={tau}", help_bias=2e3, end_bias=1e3)
    rows = evaluate_pack(world, [0, 2], adapters(world, [1, 2]), model="global", round_=5)
    shares = {"arithmetic": float((granted + 1) // 2), "lists": float(granted // 2)}
    for own in rows:
        found = values(own, "global")
        for task, share in shares.items():
            assert found[task, "accuracy"] == found[task, "cloud_grants"] == (share, 10.0)
            assert found[task, "alone_accuracy"] == (0.0, 10.0)
            assert found[task, "cloud_requests"] == (10.0, 10.0)
    assert [{(row.round, row.device, row.split) for row in own} for own in rows] == [
        {(5, "device-000", "test")},
        {(5, "device-002", "test")},
    ]


def test_every_device_may_have_a_share_of_its_own(tiny_checkpoint: Path) -> None:
    """Devices that always ask, with shares 0.1 and 0.6 of 20 prompts; the references ask as much."""
    world = world_of(tiny_checkpoint, "budget.tau=0.3", help_bias=2e3, end_bias=1e3)
    pack = {"round_": 0, "taus": [0.1, 0.6]}
    rows = evaluate_pack(world, [0, 2], adapters(world, [1, 2]), model="global", **pack)  # type: ignore[arg-type]
    references = reference_rows(world, [0, 2], **pack)  # type: ignore[arg-type]
    for own, theirs, granted in zip(rows, references, (2.0, 12.0), strict=True):
        for model in ("global", "frozen", "random"):
            found = values([*own, *theirs], model)
            assert sum(found[task, "cloud_grants"][0] for task in ("arithmetic", "lists")) == granted


def test_floor_is_taken_of_the_number_that_was_written(tiny_checkpoint: Path) -> None:
    """0.29 * 100 is 28.999999999999996 in floating point; a budget of 29 in a hundred is 29."""
    more = ("budget.tau=0.29", "evaluation.prompts_per_task=100", "stream.phases=[[arithmetic]]")
    world = world_of(tiny_checkpoint, *more, help_bias=2e3, end_bias=1e3)
    (rows,) = evaluate_pack(world, [0], adapters(world, [1]), model="global", round_=0)
    assert values(rows, "global")["arithmetic", "cloud_grants"] == (29.0, 100.0)


def test_a_device_that_never_asks_uses_no_cloud(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint, "budget.tau=1", help_bias=-1e3)
    found = values(evaluate_pack(world, [0], adapters(world, [1]), model="global", round_=0)[0], "global")
    for task in ("arithmetic", "lists"):
        assert found[task, "cloud_grants"] == (0.0, 10.0)
        assert found[task, "accuracy"] == found[task, "alone_accuracy"]


def test_requests_beyond_the_limit_are_answered_alone() -> None:
    """Always asking, the first 8 of 20 go to a cloud that errs on half of the questions, the other 12 to the device.

    What each of them is worth is found prompt by prompt, by asking the cloud and the device for each alone. The
    device is the built-in SLM, which is right on some.
    """
    world = world_of(Path("builtin:slm"), "budget.tau=0.4", "cloud.oracle_error=0.5", help_bias=2e3)
    fresh = [start_of(world)]
    found = values(evaluate_pack(world, [1], fresh, model="global", round_=0)[0], "global")
    problems = own_tests(world, 1)
    world.lora.attach(world.lora.stack(fresh))
    alone = are_right([(p, answer_alone(world, [[p]], 12)[0][0]) for p in problems])
    cloud = are_right([(p, answered(world.cloud, [p])[0].text) for p in problems])
    final = cloud[:8] + alone[8:]
    for task in ("arithmetic", "lists"):
        mine = [p.task == task for p in problems]
        assert found[task, "accuracy"] == (sum(right for right, own in zip(final, mine, strict=True) if own), 10.0)
        assert found[task, "alone_accuracy"] == (
            sum(right for right, own in zip(alone, mine, strict=True) if own),
            10.0,
        )
    assert 0 < sum(cloud[:8]) < 8  # both kinds occur, else the sums above would show little
    assert 0 < sum(alone[8:]) < 12


def test_with_a_perfect_cloud_asking_never_costs_accuracy(tiny_checkpoint: Path) -> None:
    """A device that asks now and then; a granted request is right, so accuracy can only rise above local accuracy."""
    world = world_of(tiny_checkpoint, "budget.tau=0.5", help_bias=3.0)
    rows = evaluate_pack(world, [0, 1, 2], adapters(world, [1, 2, 3]), model="global", round_=0)
    usage = 0.0
    for own in rows:
        found = values(own, "global")
        for task in ("arithmetic", "lists"):
            assert found[task, "accuracy"][0] >= found[task, "alone_accuracy"][0]
            assert found[task, "accuracy"][0] >= found[task, "cloud_grants"][0]
            usage += found[task, "cloud_grants"][0]
        assert sum(found[task, "cloud_grants"][0] for task in ("arithmetic", "lists")) <= 10
    assert 0 < usage < 30  # it asks, but not always


def test_devices_of_a_pack_are_measured_as_each_alone(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint, help_bias=3.0)
    together = evaluate_pack(world, [0, 1, 2], adapters(world, [1, 2, 3]), model="global", round_=0)
    for device in range(3):
        alone = evaluate_pack(world, [device], adapters(world, [device + 1]), model="global", round_=0)
        assert alone[0] == together[device]
    assert together[0] != together[1]


def test_a_fresh_adapter_measures_as_the_frozen_base(tiny_checkpoint: Path) -> None:
    """B = 0, so B A x = 0 whatever A is."""
    world = world_of(tiny_checkpoint, help_bias=3.0)
    fresh = evaluate_pack(world, [0, 1, 2], [start_of(world)] * 3, model="global", round_=0)
    frozen = reference_rows(world, [0, 1, 2], round_=0)
    for device in range(3):
        measured = values(fresh[device], "global")
        assert values(frozen[device], "frozen").items() <= measured.items()  # curves are the global adapter's only


@pytest.mark.parametrize(("rule", "known"), [(Own(), 0), (OwnCalibrated(6), 2 * 6), (Cascade(6), 2 * 6)])
def test_before_training_no_prompt_is_read_twice(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, rule: AskingRule, known: int
) -> None:
    """Of two devices with 20 tests each and `known` questions to set a threshold on, global, frozen and random.

    What the devices said as one of them is not asked again as another, and all rows are as if it were.
    """
    world = world_of(tiny_checkpoint, help_bias=3.0)
    start = [start_of(world)] * 2
    parts: dict[str, Any] = {"round_": 0, "asking": rule}
    apart = [*evaluate_pack(world, [0, 1], start, model="global", **parts), *reference_rows(world, [0, 1], **parts)]
    read: list[int] = []
    before = world.base.forward.read

    def counted(ids: torch.Tensor, mask: torch.Tensor, prefix: Prefix | None = None) -> tuple[Next, Past]:
        read.append(ids.shape[0] * ids.shape[1])
        return before(ids, mask, prefix)

    monkeypatch.setattr(world.base.forward, "read", counted)
    heard: dict[Hashable, Any] = {}
    together = evaluate_pack(world, [0, 1], start, model="global", heard=heard, **parts)
    assert [*together, *reference_rows(world, [0, 1], start, heard=heard, **parts)] == apart
    assert sum(read) <= 2 * (20 + known)  # of the known ones, equal questions count once


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("strategy", "times"), [("local_only:LocalOnly", 2), ("fedavg:FedAvg", 3)])
def test_who_keeps_its_own_adapter_is_measured_once(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, strategy: str, times: int
) -> None:
    """Before training and after round 1, and only an adapter that is aggregated is another than the device's own.

    Each time the tests are heard, and the questions that the threshold is set on.
    """
    heard: list[Problems] = []

    def counted(world: World, problems: Problems, *, entropies: bool = False) -> list[Alone]:
        heard.append(problems)
        return answers_alone(world, problems, entropies=entropies)

    monkeypatch.setattr("clients.asking.alone.answers_alone", counted)
    rule = ("client.asking.path=clients.asking.policy:OwnCalibrated", "client.asking.calibration=3")
    config = tiny_run("run", "rounds=1", f"strategy.path=strategies.{strategy}", *rule)
    flsim.run(config, progress=False)
    assert len(heard) == 2 * times


@pytest.mark.parametrize(("tau", "granted"), [(0.0, 0), (0.3, 6), (1.0, 20)])
def test_the_random_reference_uses_exactly_its_budget(tiny_checkpoint: Path, tau: float, granted: int) -> None:
    """It asks for floor(20 tau) prompts at random: the first of a fixed permutation of the device's."""
    world = world_of(tiny_checkpoint, f"budget.tau={tau}", "cloud.oracle_error=0.3", help_bias=-1e3)
    for device, rows in enumerate(reference_rows(world, [0, 1, 2], round_=0)):
        found = values(rows, "random")
        problems = own_tests(world, device)
        chosen = set(generator(0, "random asking", device).permutation(20)[:granted].tolist())
        world.lora.attach(None)
        texts = answer_alone(world, [problems], 12)[0]
        cloud = answered(world.cloud, problems)
        final = [cloud[p].text if p in chosen else texts[p] for p in range(20)]
        for task in ("arithmetic", "lists"):
            mine = [p for p in range(20) if problems[p].task == task]
            assert found[task, "cloud_grants"] == (len(chosen.intersection(mine)), 10.0)
            assert found[task, "accuracy"] == (sum(are_right([(problems[p], final[p]) for p in mine])), 10.0)
        assert sum(found[task, "cloud_grants"][0] for task in ("arithmetic", "lists")) == granted


def test_the_cloud_reference_is_the_cloud_on_every_prompt(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint, "cloud.oracle_error=0.3")
    for device, rows in enumerate(reference_rows(world, [0, 1], round_=0)):
        for task in ("arithmetic", "lists"):
            problems = [problem for problem in own_tests(world, device) if problem.task == task]
            right = sum(bool(answer.text) for answer in answered(world.cloud, problems))
            assert values(rows, "cloud")[task, "accuracy"] == (right, 10.0)


def test_the_test_set_of_a_device_never_changes(tiny_checkpoint: Path) -> None:
    """Not with the run's seed, the round or the method: only with the stream's seed."""
    sets = [own_tests(world_of(tiny_checkpoint, *more), 1) for more in ((), ("seed=9",), ("stream.seed=9",))]
    assert sets[0] == sets[1]
    assert sets[0] != sets[2]


def test_a_bias_moves_the_wish_of_its_own_device_only(tiny_checkpoint: Path) -> None:
    """Three devices with one adapter: none wishes to ask far below, all prompts far above, and one is as without."""
    world = world_of(tiny_checkpoint, "budget.tau=1")
    shared = adapters(world, [1]) * 3
    rows = evaluate_pack(world, [0, 1, 2], shared, model="global", round_=0, biases=[-1e4, 1e4, 0.0])
    plain = evaluate_pack(world, [0, 1, 2], shared, model="global", round_=0)
    for task in ("arithmetic", "lists"):
        assert values(rows[0], "global")[task, "cloud_requests"] == (0.0, 10.0)
        assert values(rows[1], "global")[task, "cloud_requests"] == (10.0, 10.0)
    assert rows[2] == plain[2]


class Watched(Oracle):
    """Always right where it answers; notes what it is asked."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(0.0)
        self.fails = fails
        self.asked: list[str] = []

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:  # type: ignore[override]
        self.asked += [problem.question for problem in problems]
        return [None] * len(problems) if self.fails else [*super().answer(problems)]


def test_where_tests_cost_only_granted_prompts_are_sent_and_what_is_measured_of_them_is_the_same(
    tiny_checkpoint: Path,
) -> None:
    """A device that asks always, 6 of 20 granted: the first six. The references: none of the frozen, 6 at random."""
    found: dict[str, list[list[Row]]] = {}
    for asks in ("all", "granted"):
        more = (f"evaluation.cloud={asks}", "budget.tau=0.3")
        world = replace(world_of(tiny_checkpoint, *more, help_bias=2e3, end_bias=1e3), cloud=Watched())
        assert isinstance(world.cloud, Watched)
        found[asks] = evaluate_pack(world, [1], adapters(world, [1]), model="global", round_=5)
        tests = [problem.question for problem in own_tests(world, 1)]
        assert world.cloud.asked == (tests if asks == "all" else tests[:6])
        world.cloud.asked.clear()
        found[asks] += reference_rows(world, [1], round_=0)
        assert len(world.cloud.asked) == (40 if asks == "all" else 12)
    whole, granted = ({(r.task, r.model, r.name): r for rows in found[asks] for r in rows} for asks in found)
    assert granted.items() <= whole.items()
    left_out = {(model, name) for _, model, name in whole.keys() - granted.keys()}
    curves = {f"accuracy_sending_{share}" for share in range(10, 100, 10)} | {"asking_auc"}
    assert left_out == {("cloud", "accuracy"), *(("global", name) for name in curves)}


def test_where_the_cloud_fails_in_an_evaluation_the_devices_own_answer_counts(tiny_checkpoint: Path) -> None:
    """And the cloud's own accuracy is that of no prompt, which is (0, 0); a grant that was never answered is none."""
    world = replace(world_of(tiny_checkpoint, "budget.tau=1.0"), cloud=Watched(fails=True))
    rows = reference_rows(world, [0], round_=0)[0]
    for task in ("arithmetic", "lists"):
        at_random = values(rows, "random")
        assert at_random[task, "cloud_grants"] == (0.0, 10.0)
        assert at_random[task, "accuracy"] == at_random[task, "alone_accuracy"]
        assert values(rows, "cloud")[task, "accuracy"] == (0.0, 0.0)
