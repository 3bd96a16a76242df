"""Measure a pack of devices on their own test sets, under their own budgets.

Greedy decoding. A rule says which prompts a device would send (`clients/asking/`; by default the policy's own help
requests). A device meets its test prompts with the tasks in turn; the wishes beyond floor(tau_k N) of its N prompts are
answered by the device alone, with asking disabled, in the order of the prompts (GAPG, arXiv 2509.24050, intercepts
likewise).

How many prompts a device is tested on says nothing of how much its user counts: a data set may be sampled, and of a
generated task everybody gets the same number. What a user's weight can be taken from is written apart, once
(`user_rows`).
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from clients.asking.alone import texts_alone
from clients.asking.curves import accuracy_curve, asking_auc, wish_rows
from clients.asking.policy import OWN
from clients.asking.rule import (
    AskingRule,
    Choice,
    Examined,
    Flags,
    Scores,
    by_question,
    decide,
    named,
    right_alone,
)
from clients.asking.simple import random_order
from clients.asking.threshold import tie_breaks
from clients.device.answering import Problems, answer_alone
from clients.device.world import World
from clients.helping.helping import ASK
from clients.orders import Help, fulfil, orders_of, silent
from clients.taken import Taken, drawn_by
from clients.task_scores import ClassScores, label_rows, task_scores
from flsim.cloud.journal import Journal
from flsim.cloud.protocol import NOTHING
from flsim.config.schema import EvaluationConfig
from flsim.devices import device_name
from flsim.metrics.rows import USER, Row, Subject
from flsim.models.adapter import Adapter
from flsim.models.stacked_lora import ranks_of
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import set_of_tests


@torch.no_grad()
def evaluate_pack(
    world: World,
    devices: Sequence[int],
    adapters: Sequence[Adapter] | None,
    *,
    model: str,
    round_: int,
    taus: Sequence[float] | None = None,
    asking: AskingRule = OWN,
    biases: Sequence[float] = (),
    journals: Sequence[Journal] = (),
    knobs: Sequence[tuple[float, ...]] = (),
    tag: str = "",
    heard: dict[Hashable, Any] | None = None,
) -> list[list[Row]]:
    """Measure a pack.

    Per device and task: `accuracy`, `alone_accuracy`, `cloud_grants`, `cloud_requests` (granted or not), and
    `kept_accuracy`, of the prompts that were not sent. For the model `global` also what the rule's scores are worth:
    `accuracy_sending_10` to `accuracy_sending_90`, had the device sent that percentage of its prompts, those with the
    highest scores; and for all tasks together `asking_auc`, how well the scores tell the prompts apart that only the
    cloud has right, with the number of prompts as weight, or (0, 0) for a device whose prompts are all alike. Neither
    is measured where the cloud answers granted prompts only (`evaluation.cloud`). What the wish says of being wrong
    alone needs no cloud: `wrong_auc`, and the sums of the reliability curve (`clients.asking.curves.wish_rows`). Where
    the cloud fails, the device's own answer counts. Of a task with score labels also what
    `clients.task_scores.label_rows` says. And what it took: `read_tokens`, `sampled_tokens`, `cut_responses` and
    `cloud_test_tokens`, and in virtual time `question_seconds`, `question_joules`, `within_2s` and `right_within_2s`,
    one for each of `system.deadlines_s` (`clients/taken.py`).

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        adapters: theirs; None means the frozen base.
        model: name of what is measured, for the rows.
        round_: for the rows.
        taus: the share of its prompts that each device may send to the cloud; None is `budget.tau` for all.
        asking: the rule that says which.
        biases: what each device adds to the logit of its help request; empty for no biases.
        journals: of the devices' tests in this round; empty outside of a run.
        knobs: what the run's mode of help has learned on each device; empty for nothing.
        tag: what tells the rule from others that the same devices are measured under in this round.
        heard: what the same devices have said with the same adapters, under other rules or by another name, to be
            shared with them; None shares nothing.
    """
    taus = [world.tau] * len(devices) if taus is None else taus
    problems = [own_tests(world, device, round_) for device in devices]
    worded = world.words_questions or world.works_together
    orders = [] if worded else orders_of(world, problems, journals, model + tag)
    _use(world, devices, adapters)
    pack = Examined(world, devices, problems, taus, biases, {} if heard is None else heard)
    choices = decide(asking, pack)
    drafts = _drafts(pack, choices) if worded or world.hint is not None else []
    called: dict[str, Any] = {"devices": devices, "knobs": knobs}
    orders = orders_of(world, problems, journals, model + tag, drafts, **called) if worded else orders
    grants = [
        _granted(np.flatnonzero(choice.wishes).tolist(), len(tests), tau)
        for choice, tests, tau in zip(choices, problems, taus, strict=True)
    ]  # (N,) each
    fulfil(world, orders, grants, drafts)
    rows = []
    drawn = drawn_by(pack, choices)
    spared = by_question(asking) and not world.words_questions and world.hint is None
    parts = zip(devices, orders, choices, grants, _scores(pack), drawn, strict=True)
    for device, order, choice, granted, scored, own in parts:
        of = Subject(round_, device_name(device), world.split, model)
        labelled = label_rows(order.problems, scored, world.stream.tasks, of)
        taken = Taken.of(order, granted, own, choice.again, spared=spared)
        rows.append(_measured(device, choice, taken, labelled, of))
    return rows


def _scores(pack: Examined) -> list[ClassScores]:
    """`task_scores` of a pack, taken once."""
    key = "scores", named(pack.tests)
    if key not in pack.heard:
        pack.heard[key] = task_scores(pack.world, pack.tests)
    found: list[ClassScores] = pack.heard[key]
    return found


def _measured(device: int, choice: Choice, taken: Taken, labelled: Sequence[Row], of: Subject) -> list[Row]:
    """The rows of one device.

    Args:
        device: its index.
        choice: what its rule decided for N prompts.
        taken: what they took, with what it asked of the cloud and was granted.
        labelled: its rows of tasks with score labels.
        of: what is measured, for the rows.
    """
    order = taken.order
    world, help_ = order.world, order.help(choice.alone)
    wishes = choice.wishes.astype(np.float64)  # (N,)
    values = {"cloud_requests": wishes, **_within_budget(taken.granted, choice.alone, help_), **taken.counts()}
    if world.system is not None:
        values |= taken.costs(world.system, device, values["accuracy"])
    whole = [*_costs(world, help_, of), *labelled]
    if of.model == "global":
        whole += [of.row(name, *pair) for name, pair in wish_rows(choice).items()]
    if of.model == "global" and world.asks_all_tests:
        ties = tie_breaks(world, device, world.split, len(order.problems))  # (N,)
        values |= accuracy_curve(choice, help_.right, ties)
        whole.append(of.row("asking_auc", *asking_auc(choice, help_.right)))
    return _rows(world, order.problems, values, of) + whole


def reference_rows(
    world: World,
    devices: Sequence[int],
    start: Sequence[Adapter] | None = None,
    *,
    bare: bool = False,
    round_: int,
    taus: Sequence[float] | None = None,
    asking: AskingRule = OWN,
    journals: Sequence[Journal] = (),
    tag: str = "",
    heard: dict[Hashable, Any] | None = None,
) -> list[list[Row]]:
    """Rows of the references: `frozen` SLM, `random` (the frozen SLM asking at random, same budget), and `cloud`.

    The frozen SLM is the model that the run starts from; what it has said as the model `global` is not asked again.
    `cloud` is there only if the cloud answers every test prompt.

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        start: the adapters that the run starts from, as these devices get them; None where it starts from the base.
        bare: whether there is `base`, too: what the base alone knows, without an adapter and without the cloud.
        round_: for the rows.
        taus: as for `evaluate_pack`.
        asking: the rule of the frozen SLM.
        journals: as for `evaluate_pack`.
        tag: likewise.
        heard: likewise, of the frozen SLM.
    """
    taus = [world.tau] * len(devices) if taus is None else taus
    heard = {} if heard is None else heard
    parts: dict[str, Any] = {"round_": round_, "taus": taus, "asking": asking, "journals": journals, "tag": tag}
    frozen = evaluate_pack(world, devices, start, model="frozen", heard=heard, **parts)
    problems = [own_tests(world, device, round_) for device in devices]
    texts = texts_alone(Examined(world, devices, problems, taus, heard=heard))
    rows = []
    begun = texts if world.config.model.drafts else silent(problems)
    said = begun if world.works_together else texts
    orders = orders_of(world, problems, journals, "random" + tag, said, devices=devices)
    grants = [
        _granted(random_order(world, device, len(tests)), len(tests), tau)
        for device, tests, tau in zip(devices, problems, taus, strict=True)
    ]  # (N,) each
    fulfil(world, orders, grants, begun)
    every = [right_alone(tests, own) for tests, own in zip(problems, texts, strict=True)]  # (N,) each
    helps = [order.help(alone) for order, alone in zip(orders, every, strict=True)]
    by_cloud = _by_cloud(world, helps, problems, journals, tag)
    for k, (device, granted, help_) in enumerate(zip(devices, grants, helps, strict=True)):
        tests = problems[k]
        at_random = _within_budget(granted, every[k], help_)
        of = Subject(round_, device_name(device), world.split, "random")
        own = _rows(world, tests, at_random, of) + _costs(world, help_, of)
        if by_cloud:
            own += _rows(world, tests, {"accuracy": by_cloud[k]}, replace(of, model="cloud"))
        rows.append(frozen[k] + own)
    if bare:
        for own, more in zip(rows, _base_rows(world, devices, problems, round_), strict=True):
            own += more
    return rows


def _by_cloud(
    world: World, helps: Sequence[Help], problems: Problems, journals: Sequence[Journal], tag: str
) -> list[Scores]:
    """1 where the cloud by itself is right, nan where no answer came, `(N,)` of each device; none if it is not asked.

    It is what helped, unless help is more than its answer; a cloud that gives hints says no answer.
    """
    if not world.cloud_answers_all or world.prices.hint is not None:
        return []
    if world.works_together:
        orders = orders_of(replace(world, helping=ASK), problems, journals, "cloud" + tag)
        helps = [order.help(np.zeros(len(order.problems), dtype=bool)) for order in orders]
    return [np.where(help_.came, help_.by_cloud, np.nan) for help_ in helps]


def _base_rows(world: World, devices: Sequence[int], problems: Problems, round_: int) -> list[list[Row]]:
    """What the base alone gets right of each device's tests; nothing is asked of the cloud for it."""
    world.lora.attach(None)
    texts = answer_alone(world, problems, world.answer_tokens)
    rows = []
    for device, tests, said in zip(devices, problems, texts, strict=True):
        of = Subject(round_, device_name(device), world.split, "base")
        rows.append(_rows(world, tests, {"alone_accuracy": right_alone(tests, said).astype(np.float64)}, of))
    return rows


def _drafts(pack: Examined, choices: Sequence[Choice]) -> list[Sequence[str]]:
    """What each device said of its own accord: before it asked, or, under rules that decide after it, its answer.

    Before it goes on with a hint, a device whose model asks before it answers has said nothing.
    """
    if pack.world.hint is not None and not pack.world.config.model.drafts:
        return silent(pack.tests)
    late = [choice.drafts is None for choice in choices]
    alone = texts_alone(pack) if any(late) else [[] for _ in pack.tests]
    return [choice.drafts or own for choice, own in zip(choices, alone, strict=True)]


def _costs(world: World, help_: Help, of: Subject) -> list[Row]:
    """What an evaluation really bought, where that costs anything, and where the cloud failed."""
    if world.cloud.costs == NOTHING:
        return []
    return [of.row(name, value) for name, value in help_.facts.items()]


def _use(world: World, devices: Sequence[int], adapters: Sequence[Adapter] | None) -> None:
    """Put the adapters on; devices that hold one and the same are measured with it as one block of rows."""
    if adapters is None:
        world.lora.attach(None)
        return
    shared = all(adapter is adapters[0] for adapter in adapters)
    used = adapters[:1] if shared else adapters
    ranks = ranks_of(used)
    world.lora.attach(world.lora.stack(used), ranks, world.scales(devices[: len(used)], ranks))


def own_tests(world: World, device: int, round_: int = 0) -> list[Problem]:
    """The device's test set in a round (`flsim.tasks.testing.set_of_tests`)."""
    return list(set_of_tests(world.stream, world.config.evaluation, device_name(device), round_))


def user_rows(
    stream: TaskStream, evaluation: EvaluationConfig, devices: Sequence[int], traffic: Sequence[int], *, round_: int
) -> list[list[Row]]:
    """What users weigh, whatever model is measured.

    Per task `test_items`: how many items of the measured split the user has, and as weight how many of them it is
    tested on; of a generated task, which has no end, they are the same. Over all tasks `traffic`: the prompts that its
    stream brings in the run, if it takes part in every round, and as weight the rounds.

    Args:
        stream: of the fleet.
        evaluation: how it is tested.
        devices: indices of the pack's devices.
        traffic: of each, the prompts that its stream brings in a round.
        round_: for the rows.
    """
    rounds, rows = stream.rounds, item_rows(stream, evaluation, devices, round_=round_)
    for device, brought, own in zip(devices, traffic, rows, strict=True):
        of = Subject(round_, device_name(device), USER, USER)
        own.append(of.row("traffic", float(brought * rounds), float(rounds)))
    return rows


def item_rows(
    stream: TaskStream, evaluation: EvaluationConfig, devices: Sequence[int], *, round_: int
) -> list[list[Row]]:
    """The rows `test_items` of a round; a round with a smaller test than before training has its own."""
    rows = []
    for device in devices:
        of = Subject(round_, device_name(device), USER, USER)
        held = stream.items_held(of.device, evaluation.split)
        whole, tested = (
            Counter(problem.task for problem in set_of_tests(stream, evaluation, of.device, at)) for at in (0, round_)
        )
        rows.append([of.row("test_items", float(held.get(t, whole[t])), float(n), task=t) for t, n in tested.items()])
    return rows


def _granted(wishes: Sequence[int], count: int, tau: float) -> Flags:
    """The first floor(tau N) wishes among `count` prompts, `(N,)`."""
    limit = math.floor(tau * count + 1e-9)  # 0.29 * 100 is 28.999999999999996
    granted = np.zeros(count, dtype=bool)
    granted[list(wishes[:limit])] = True
    return granted


def _within_budget(granted: Flags, alone: Flags, help_: Help) -> dict[str, Scores]:
    """Per prompt `(N,)`: right in the end, alone, if kept, and granted; a grant without an answer is given back."""
    return {
        "accuracy": np.where(granted, help_.right, alone).astype(np.float64),
        "alone_accuracy": alone.astype(np.float64),
        "kept_accuracy": np.where(granted, np.nan, alone),
        "cloud_grants": (granted & help_.came).astype(np.float64),
    }


def _rows(world: World, problems: Sequence[Problem], values: Mapping[str, Scores], of: Subject) -> list[Row]:
    """Sum values per prompt `(N,)` into one row per task and name; a prompt that is nan does not count."""
    tasks = np.array([problem.task for problem in problems])  # (N,)
    rows = []
    for task in world.stream.tasks:
        for name, each in values.items():
            counted = each[(tasks == task) & ~np.isnan(each)]
            rows.append(of.row(name, float(counted.sum()), float(len(counted)), task=task))
    return rows
