"""Measure a pack of devices on their own test sets, under their own budgets.

Greedy decoding. A device answers its test prompts task by task; the requests of a task beyond floor(tau N) are answered
by the device alone, with asking disabled, in the order of the prompts (GAPG, arXiv 2509.24050, intercepts likewise).
"""

import math
from collections.abc import Sequence

from torch import Tensor

from clients.rollout import Problems, answer_alone
from flsim.metrics.rows import Row
from flsim.models.decoding import encode, generate
from flsim.seeding import generator
from flsim.tasks.problem import Problem, is_right
from flsim.tasks.stream import device_name
from flsim.world import World

MAX_NEW_TOKENS = 16


def evaluate_pack(
    world: World, devices: Sequence[int], theta: Tensor | None, *, model: str, round_: int
) -> list[list[Row]]:
    """Rows `accuracy`, `local_accuracy` and `cloud_usage` per device and task.

    Args:
        world: the worker's.
        devices: indices of the pack's devices.
        theta: their adapters `(K, n)`; None means the frozen base.
        model: name of what is measured, for the rows.
        round_: for the rows.
    """
    tests = [test_sets(world, device) for device in devices]
    problems = [[problem for task in sets.values() for problem in task] for sets in tests]
    world.lora.use(theta)
    prompts = encode(world.base, [[problem.question for problem in row] for row in problems])
    free = generate(world.base, prompts, group_size=1, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    asked = [[bool(free.asked[k, p, 0]) for p in range(len(row))] for k, row in enumerate(problems)]
    alone = _alone(world, problems, asked, [[group[0] for group in row] for row in free.texts])
    return [
        _rows(world, sets, asked[k], alone[k], device=device, model=model, round_=round_)
        for k, (device, sets) in enumerate(zip(devices, tests, strict=True))
    ]


def reference_rows(world: World, devices: Sequence[int], *, round_: int) -> list[list[Row]]:
    """Rows of the references: `frozen` SLM, `random` (the frozen SLM asking at random, same budget), and `cloud`."""
    frozen = evaluate_pack(world, devices, None, model="frozen", round_=round_)
    tests = [test_sets(world, device) for device in devices]
    problems = [[problem for task in sets.values() for problem in task] for sets in tests]
    world.lora.use(None)
    texts = answer_alone(world, problems, MAX_NEW_TOKENS)
    rows = []
    for k, (device, sets) in enumerate(zip(devices, tests, strict=True)):
        right = [is_right(problem.answer, text) for problem, text in zip(problems[k], texts[k], strict=True)]
        wishes = generator(world.config.stream.seed, "random asking", device).permutation(len(right))
        order = [int(place) for place in wishes]
        at_random = _rows(
            world, sets, [True] * len(right), right, device=device, model="random", round_=round_, order=order
        )
        rows.append(frozen[k] + at_random + _cloud_rows(world, sets, device, round_))
    return rows


def test_sets(world: World, device: int) -> dict[str, list[Problem]]:
    """The device's test problems per task."""
    settings = world.config.evaluation
    return world.stream.evaluation_problems(device_name(device), settings.split, per_task=settings.prompts_per_task)


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


def _rows(
    world: World,
    sets: dict[str, list[Problem]],
    asked: Sequence[bool],
    alone: Sequence[bool],
    *,
    device: int,
    model: str,
    round_: int,
    order: Sequence[int] | None = None,
) -> list[Row]:
    """Grant the first floor(tau N) requests of each task, in `order` (None means the order of the prompts)."""
    rows, start = [], 0
    rank = list(range(len(asked))) if order is None else list(order)
    for task, problems in sets.items():
        end = start + len(problems)
        wishes = sorted((p for p in range(start, end) if asked[p]), key=rank.__getitem__)
        limit = math.floor(world.config.budget.tau * len(problems) + 1e-9)  # 0.29 * 100 is 28.999999999999996
        granted = set(wishes[:limit])
        answers = world.cloud.answer([problems[p - start] for p in sorted(granted)])
        helped = {
            p
            for p, answer in zip(sorted(granted), answers, strict=True)
            if is_right(problems[p - start].answer, answer.text)
        }
        right = sum(p in helped if p in granted else alone[p] for p in range(start, end))
        values = (("accuracy", right), ("local_accuracy", sum(alone[start:end])), ("cloud_usage", len(granted)))
        split = world.config.evaluation.split
        rows += [
            Row(round_, device_name(device), task, split, model, name, float(v), float(len(problems)))
            for name, v in values
        ]
        start = end
    return rows


def _cloud_rows(world: World, sets: dict[str, list[Problem]], device: int, round_: int) -> list[Row]:
    rows = []
    for task, problems in sets.items():
        answers = world.cloud.answer(problems)
        right = sum(is_right(problem.answer, answer.text) for problem, answer in zip(problems, answers, strict=True))
        split = world.config.evaluation.split
        rows.append(
            Row(round_, device_name(device), task, split, "cloud", "accuracy", float(right), float(len(problems)))
        )
    return rows
