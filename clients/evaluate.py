"""Measure a pack of devices on their own test sets, under their own budgets.

Greedy decoding. A device meets its test prompts with the tasks in turn; the requests beyond floor(tau_k N) of its N
prompts are answered by the device alone, with asking disabled, in the order of the prompts (GAPG, arXiv 2509.24050,
intercepts likewise).
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch

from clients.rollout import Problems, answer_alone
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter
from flsim.models.decoding import encode, generate, read
from flsim.models.stacked_lora import ranks_of
from flsim.seeding import generator
from flsim.tasks.problem import Problem, is_right
from flsim.tasks.stream import TaskStream, device_name
from flsim.world import World

MAX_NEW_TOKENS = 12  # the longest answer of the built-in world has 9


@torch.no_grad()
def evaluate_pack(
    world: World,
    devices: Sequence[int],
    adapters: Sequence[Adapter] | None,
    *,
    model: str,
    round_: int,
    taus: Sequence[float] | None = None,
) -> list[list[Row]]:
    """Rows `accuracy`, `local_accuracy`, `cloud_usage` and `cloud_requests` (granted or not) per device and task.

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        adapters: theirs; None means the frozen base.
        model: name of what is measured, for the rows.
        round_: for the rows.
        taus: the share of its prompts that each device may send to the cloud; None is `budget.tau` for all.
    """
    taus = [world.config.budget.tau] * len(devices) if taus is None else taus
    problems = [own_tests(world, device) for device in devices]
    _use(world, devices, adapters)
    reading = read(world.base, encode(world.base, [[problem.question for problem in row] for row in problems]))
    free = generate(world.base, reading, group_size=1, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    asked = [flags[: len(row)] for flags, row in zip(free.asked[..., 0].tolist(), problems, strict=True)]
    alone = _alone(world, problems, asked, [[group[0] for group in row] for row in free.texts])
    rows = []
    for k, device in enumerate(devices):
        wishes = [p for p, wish in enumerate(asked[k]) if wish]
        values = {
            "cloud_requests": [float(wish) for wish in asked[k]],
            **_within_budget(world, problems[k], wishes, alone[k], taus[k]),
        }
        rows.append(_rows(world, problems[k], values, device=device, model=model, round_=round_))
    return rows


def reference_rows(
    world: World, devices: Sequence[int], *, round_: int, taus: Sequence[float] | None = None
) -> list[list[Row]]:
    """Rows of the references: `frozen` SLM, `random` (the frozen SLM asking at random, same budget), and `cloud`.

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        round_: for the rows.
        taus: as for `evaluate_pack`.
    """
    taus = [world.config.budget.tau] * len(devices) if taus is None else taus
    frozen = evaluate_pack(world, devices, None, model="frozen", round_=round_, taus=taus)
    problems = [own_tests(world, device) for device in devices]
    texts = answer_alone(world, problems, MAX_NEW_TOKENS)
    rows = []
    for k, device in enumerate(devices):
        alone = [is_right(problem.answer, text) for problem, text in zip(problems[k], texts[k], strict=True)]
        wishes = generator(world.config.stream.seed, "random asking", device).permutation(len(alone)).tolist()
        at_random = _within_budget(world, problems[k], wishes, alone, taus[k])
        by_cloud = {"accuracy": [float(right) for right in _cloud_right(world, problems[k])]}
        rows.append(
            frozen[k]
            + _rows(world, problems[k], at_random, device=device, model="random", round_=round_)
            + _rows(world, problems[k], by_cloud, device=device, model="cloud", round_=round_)
        )
    return rows


def _use(world: World, devices: Sequence[int], adapters: Sequence[Adapter] | None) -> None:
    """Put the adapters on; devices that hold one and the same are measured with it as one block of rows."""
    if adapters is None:
        world.lora.use(None)
        return
    shared = all(adapter is adapters[0] for adapter in adapters)
    used = adapters[:1] if shared else adapters
    ranks = ranks_of(used)
    world.lora.use(world.lora.stack(used), ranks, world.scales(devices[: len(used)], ranks))


def own_tests(world: World, device: int) -> list[Problem]:
    """The device's test set, its tasks in turn, so that none comes first to the budget."""
    settings = world.config.evaluation
    return list(_tests(world.stream, device_name(device), settings.split, settings.prompts_per_task))


@lru_cache(maxsize=4096)  # devices; drawing a test set takes as long as answering it
def _tests(stream: TaskStream, device: str, split: str, per_task: int) -> tuple[Problem, ...]:
    sets = stream.evaluation_problems(device, split, per_task=per_task)
    return tuple(problem for turn in zip(*sets.values(), strict=True) for problem in turn)


def _alone(world: World, problems: Problems, asked: list[list[bool]], texts: list[list[str]]) -> list[list[bool]]:
    """Whether each device is right with asking disabled; greedy, so only prompts that asked need a second try."""
    wanting = [[p for p, flag in enumerate(row) if flag] for row in asked]
    if any(wanting):
        again = answer_alone(world, [[problems[k][p] for p in row] for k, row in enumerate(wanting)], MAX_NEW_TOKENS)
        for k, row in enumerate(wanting):
            for p, text in zip(row, again[k], strict=True):
                texts[k][p] = text
    return [
        [is_right(problem.answer, text) for problem, text in zip(*pair, strict=True)]
        for pair in zip(problems, texts, strict=True)
    ]


def _within_budget(
    world: World, problems: Sequence[Problem], wishes: Sequence[int], alone: Sequence[bool], tau: float
) -> dict[str, list[float]]:
    """Grant the first floor(tau N) wishes; per prompt, what is right in the end, right alone, and granted."""
    limit = math.floor(tau * len(problems) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    granted = sorted(wishes[:limit])
    right = [float(own) for own in alone]
    for p, helped in zip(granted, _cloud_right(world, [problems[p] for p in granted]), strict=True):
        right[p] = float(helped)
    usage = [float(p in set(granted)) for p in range(len(problems))]
    return {"accuracy": right, "local_accuracy": [float(own) for own in alone], "cloud_usage": usage}


def _cloud_right(world: World, problems: Sequence[Problem]) -> list[bool]:
    answers = world.cloud.answer(problems)
    return [is_right(problem.answer, answer.text) for problem, answer in zip(problems, answers, strict=True)]


def _rows(
    world: World, problems: Sequence[Problem], values: dict[str, list[float]], *, device: int, model: str, round_: int
) -> list[Row]:
    """Sum values per prompt into one row per task and name."""
    split = world.config.evaluation.split

    def total(task: str, of: Iterable[float]) -> float:
        return sum(value for problem, value in zip(problems, of, strict=True) if problem.group == task)

    return [
        Row(round_, device_name(device), task, split, model, name, total(task, of), total(task, [1.0] * len(problems)))
        for task in world.stream.tasks
        for name, of in values.items()
    ]
