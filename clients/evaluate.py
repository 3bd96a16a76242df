"""Measure a pack of devices on their own test sets, under their own budgets.

Greedy decoding. A rule says which prompts a device would send (`clients/asking/`; by default the policy's own help
requests). A device meets its test prompts with the tasks in turn; the wishes beyond floor(tau_k N) of its N prompts are
answered by the device alone, with asking disabled, in the order of the prompts (GAPG, arXiv 2509.24050, intercepts
likewise).

Of a data set with score labels (`task_scores`) it also measures how well a device tells the two answers apart. A film
that a user will like should get a higher score than one that the same user will not, whatever the device would say to
either. The score is how much likelier the answer with label 1 is than the one with label 0, as completions of the
prompt by a device that may not ask; so the AUC needs no threshold, and is measured where an accuracy near the share of
likes would say nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from clients.asking.curves import accuracy_curve, asking_auc
from clients.asking.policy import OWN
from clients.asking.rule import AskingRule, Examined, Flags, Scores, decide, right_alone
from clients.asking.simple import random_order
from clients.asking.threshold import tie_breaks
from clients.device.notes import cloud_facts
from clients.device.rollout import Problems, answer_alone
from clients.device.world import World
from flsim.cloud.protocol import NOTHING, Basket
from flsim.devices import device_name
from flsim.metrics.fairness import auc
from flsim.metrics.rows import Row, Subject
from flsim.models.adapter import Adapter
from flsim.models.base import BaseModel
from flsim.models.decoding import Reading, encode, given, read
from flsim.models.scoring import score
from flsim.models.stacked_lora import ranks_of
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream


@torch.no_grad()
def task_scores(world: World, problems: Problems) -> list[Scores]:
    """Log-odds of the answer with score label 1 against the other, in nats; the adapters in use are the devices'.

    Args:
        world: the worker's.
        problems: of each device; their numbers may differ.

    Returns:
        For each device `(N,)`, nan for a prompt without a score label.
    """
    scored = [[problem for problem in row if problem.score_label is not None] for row in problems]
    found = [np.full(len(row), np.nan) for row in problems]
    if not any(scored):
        return found
    reading = read(world.base, encode(world.base, world.base.prompts(scored)))
    positive, negative = (_logprobs(world.base, reading, scored, label) for label in (1, 0))
    for k, row in enumerate(problems):
        places = [place for place, problem in enumerate(row) if problem.score_label is not None]
        found[k][places] = positive[k] - negative[k]
    return found


def task_auc(problems: Sequence[Problem], scores: Scores) -> tuple[float, float]:
    """AUC of the scores `(N,)` for the problems' labels times N, and N; (0, 0) if all labels are alike."""
    value = auc(scores, [problem.score_label == 1 for problem in problems])
    return (0.0, 0.0) if math.isnan(value) else (value * len(problems), float(len(problems)))


def _logprobs(base: BaseModel, reading: Reading, problems: Problems, label: int) -> list[Scores]:
    """Log-probability of each problem's answer with this label, without the ending token; `(N,)` for each device."""
    words = [[problem.answer if problem.score_label == label else problem.other for problem in row] for row in problems]
    tokens = [[base.tokenizer(word, add_special_tokens=False)["input_ids"] for word in row] for row in words]
    sums = score(base, reading, given(base, tokens), temperature=1.0, may_ask=False)[:, :, 0].double().sum(-1)  # (K, P)
    return [row[: len(own)].cpu().numpy() for row, own in zip(sums, problems, strict=True)]


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
) -> list[list[Row]]:
    """Measure a pack.

    Per device and task: `accuracy`, `alone_accuracy`, `cloud_grants`, `cloud_requests` (granted or not), and
    `kept_accuracy`, of the prompts that were not sent. For the model `global` also what the rule's scores are worth:
    `accuracy_sending_10` to `accuracy_sending_90`, had the device sent that percentage of its prompts, those with the
    highest scores; and for all tasks together `asking_auc`, how well the scores tell the prompts apart that only the
    cloud has right, with the number of prompts as weight, or (0, 0) for a device whose prompts are all alike. Neither
    is measured where the cloud answers granted prompts only (`evaluation.cloud`). Where it fails, the device's own
    answer counts. Of a task with score labels also `task_auc`, with the number of scored
    prompts as weight, or (0, 0) for a device with one label only, and `positives`, those with label 1.

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        adapters: theirs; None means the frozen base.
        model: name of what is measured, for the rows.
        round_: for the rows.
        taus: the share of its prompts that each device may send to the cloud; None is `budget.tau` for all.
        asking: the rule that says which.
        biases: what each device adds to the logit of its help request; empty for no biases.
    """
    taus = [world.tau] * len(devices) if taus is None else taus
    problems = [own_tests(world, device) for device in devices]
    _use(world, devices, adapters)
    choices = decide(asking, Examined(world, devices, problems, taus, biases))
    scores = task_scores(world, problems)
    rows = []
    for device, tests, choice, tau, scored in zip(devices, problems, choices, taus, scores, strict=True):
        granted = _granted(np.flatnonzero(choice.wishes).tolist(), len(tests), tau)  # (N,)
        help_ = ask(world, tests, choice.alone, granted)
        values = {
            "cloud_requests": choice.wishes.astype(np.float64),
            **_within_budget(granted, choice.alone, help_.right),
        }
        of = Subject(round_, device_name(device), world.split, model)
        whole = _costs(world, help_, of) + _scored(world, tests, scored, of)
        if model == "global" and world.asks_all_tests:
            ties = tie_breaks(world, device, world.split, len(tests))  # (N,)
            values |= accuracy_curve(choice, help_.right, ties)
            whole.append(of.row("asking_auc", *asking_auc(choice, help_.right)))
        rows.append(_rows(world, tests, values, of) + whole)
    return rows


def reference_rows(
    world: World,
    devices: Sequence[int],
    *,
    round_: int,
    taus: Sequence[float] | None = None,
    asking: AskingRule = OWN,
) -> list[list[Row]]:
    """Rows of the references: `frozen` SLM, `random` (the frozen SLM asking at random, same budget), and `cloud`.

    The last only if the cloud answers every test prompt.

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        round_: for the rows.
        taus: as for `evaluate_pack`.
        asking: the rule of the frozen SLM.
    """
    taus = [world.tau] * len(devices) if taus is None else taus
    frozen = evaluate_pack(world, devices, None, model="frozen", round_=round_, taus=taus, asking=asking)
    problems = [own_tests(world, device) for device in devices]
    texts = answer_alone(world, problems, world.answer_tokens)
    rows = []
    for k, (device, tests) in enumerate(zip(devices, problems, strict=True)):
        alone = right_alone(tests, texts[k])  # (N,)
        granted = _granted(random_order(world, device, len(tests)), len(tests), taus[k])  # (N,)
        help_ = ask(world, tests, alone, granted)
        at_random = _within_budget(granted, alone, help_.right)
        of = Subject(round_, device_name(device), world.split, "random")
        own = _rows(world, tests, at_random, of) + _costs(world, help_, of)
        if world.asks_all_tests:
            by_cloud = {"accuracy": np.where(help_.came, help_.right, np.nan)}
            own += _rows(world, tests, by_cloud, replace(of, model="cloud"))
        rows.append(frozen[k] + own)
    return rows


@dataclass(frozen=True)
class Help:
    """What the cloud does for the N test prompts of a device."""

    right: Flags
    """Whether the final answer is right if the prompt is sent, `(N,)`; the device's own where no answer came."""
    came: Flags
    """Whether an answer came, `(N,)`: the prompt was sent, and the cloud did not fail."""
    basket: Basket
    """What it cost; no ledger pays for an evaluation."""


def ask(world: World, problems: Sequence[Problem], alone: Flags, granted: Flags) -> Help:
    """Send all prompts to the cloud, or only those that are granted (`evaluation.cloud`).

    Args:
        world: the worker's.
        problems: N of them.
        alone: whether the device alone is right, `(N,)`.
        granted: what its budget grants, `(N,)`.
    """
    sent = np.flatnonzero(np.ones_like(granted) if world.asks_all_tests else granted).tolist()
    help_ = Help(alone.copy(), np.zeros_like(granted), Basket())
    came = {}
    for place, answer in zip(sent, world.cloud.answer([problems[place] for place in sent]), strict=True):
        help_.basket.add(answer, world.prices)
        if answer is not None:
            came[place] = answer
    help_.came[list(came)] = True
    help_.right[list(came)] = are_right([(problems[place], answer.text) for place, answer in came.items()])
    return help_


def _scored(world: World, problems: Sequence[Problem], scores: Scores, of: Subject) -> list[Row]:
    """How well the scores `(N,)` tell the labels apart, for each task that has labels."""
    rows = []
    for task in world.stream.tasks:
        own = [p for p, problem in enumerate(problems) if problem.task == task and problem.score_label is not None]
        if own:
            chosen = [problems[place] for place in own]
            positives = float(sum(problem.score_label == 1 for problem in chosen))
            rows.append(of.row("task_auc", *task_auc(chosen, scores[own]), task=task))
            rows.append(of.row("positives", positives, float(len(own)), task=task))
    return rows


def _costs(world: World, help_: Help, of: Subject) -> list[Row]:
    """What an evaluation really bought, where that costs anything, and where the cloud failed."""
    if world.cloud.costs == NOTHING:
        return []
    return [of.row(name, value) for name, value in cloud_facts(help_.basket).items()]


def _use(world: World, devices: Sequence[int], adapters: Sequence[Adapter] | None) -> None:
    """Put the adapters on; devices that hold one and the same are measured with it as one block of rows."""
    if adapters is None:
        world.lora.attach(None)
        return
    shared = all(adapter is adapters[0] for adapter in adapters)
    used = adapters[:1] if shared else adapters
    ranks = ranks_of(used)
    world.lora.attach(world.lora.stack(used), ranks, world.scales(devices[: len(used)], ranks))


def own_tests(world: World, device: int) -> list[Problem]:
    """The device's test set, its tasks in turn, so that none comes first to the budget."""
    settings = world.config.evaluation
    return list(_tests(world.stream, device_name(device), settings.split, settings.prompts_per_task))


@lru_cache(maxsize=4096)  # devices; drawing a test set takes as long as answering it
def _tests(stream: TaskStream, device: str, split: str, per_task: int) -> tuple[Problem, ...]:
    sets = stream.evaluation_problems(device, split, per_task=per_task)
    return tuple(problem for turn in zip(*sets.values(), strict=True) for problem in turn)


def _granted(wishes: Sequence[int], count: int, tau: float) -> Flags:
    """The first floor(tau N) wishes among `count` prompts, `(N,)`."""
    limit = math.floor(tau * count + 1e-9)  # 0.29 * 100 is 28.999999999999996
    granted = np.zeros(count, dtype=bool)
    granted[list(wishes[:limit])] = True
    return granted


def _within_budget(granted: Flags, alone: Flags, helped: Flags) -> dict[str, Scores]:
    """Per prompt `(N,)`, what is right in the end, alone, if kept, and granted."""
    return {
        "accuracy": np.where(granted, helped, alone).astype(np.float64),
        "alone_accuracy": alone.astype(np.float64),
        "kept_accuracy": np.where(granted, np.nan, alone),
        "cloud_grants": granted.astype(np.float64),
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
