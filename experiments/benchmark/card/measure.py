"""How each thing in the plan of `flsim benchmark gpu` is measured, as figures for the record."""

import gc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import psutil
import torch
from torch import Tensor

from experiments.benchmark.card.case import Case, Seconds, work_of
from experiments.benchmark.card.our_side import Stacked
from experiments.benchmark.card.plan import CEILINGS, CHECK, LIFE, OURS, PEFT, STATIC, TWICE, Measurement

_FEW = 2  # of peft's devices: their times are alike
_BEST_OF = 10


def measure(one: Measurement, asked: dict[str, Any]) -> dict[str, Any]:
    """Figures of a measurement, in seconds, bytes, and numbers a second.

    Args:
        one: what.
        asked: the options of the call.
    """
    case = case_of(one, asked)
    begin(case.place)
    if one.kind == CEILINGS:
        return ceilings(case)
    if one.kind == LIFE:
        return _life(case, one, asked["repeats"])
    if one.kind != CHECK:
        return _steps(case, one, asked["repeats"])
    if one.side == STATIC:
        return static_agree(case, one.devices)
    return twice(case, one.devices) if one.side == TWICE else _rows(case.place, one.devices)


def case_of(one: Measurement, asked: dict[str, Any]) -> Case:
    """The work of a device, as asked for."""
    sizes = {name: asked[name] for name in ("prompts", "group_size", "prompt_tokens", "new_tokens", "micro_batch")}
    dtype = torch.float32 if one.side == STATIC else torch.bfloat16
    return Case(one.shape or asked["shapes"][0], asked["place"], **sizes, dtype=dtype)


def ceilings(case: Case) -> dict[str, float]:
    """What the card can do at best per second: a large square product in bfloat16, and a copy, read and write counted.

    The best of ten.
    """
    width, size = (8192, 2**30) if case.place == "cuda" else (512, 2**25)
    left = torch.randn(width, width, device=case.place).to(case.dtype)
    out = torch.empty_like(left)
    source = torch.randint(256, (size,), dtype=torch.uint8, device=case.place)
    target = torch.empty_like(source)

    def best(work: Callable[[], object]) -> float:
        work()
        return min(case.timed(work)[1] for _ in range(_BEST_OF))

    multiply = best(lambda: torch.mm(left, left, out=out))
    return {"flops": 2 * width**3 / multiply, "bytes": 2 * size / best(lambda: target.copy_(source))}


def _steps(case: Case, one: Measurement, repeats: int) -> dict[str, Any]:
    """Steps of a side after one to warm up, and the most memory that it takes."""
    step, work = _side(case, one), None if one.side != OURS else asdict(work_of(case, one.devices))
    first = step(0)
    seconds = [step(repeat) for repeat in range(repeats)]
    parts = {name: [getattr(each, name) for each in seconds] for name in ("read", "generate", "train")}
    warm_up = sum(vars(first).values())
    return {**parts, "first": warm_up, "tokens": one.devices * case.tokens, "memory": _memory(case.place), "work": work}


def _side(case: Case, one: Measurement) -> Callable[[int], Seconds]:
    """A function that does one step of a side, by the number of the repeat."""
    if one.side == OURS:
        ours = Stacked(case, one.devices, graphs=one.graphs)
        return lambda _: ours.step()
    if one.side == PEFT:
        from experiments.benchmark.card.peft_side import OneAtATime  # it, or TRL, may be missing

        peft = OneAtATime(case)
        return lambda repeat: peft.step(repeat % _FEW)
    from experiments.benchmark.card.trl_side import Trl

    trl = Trl(case)
    return lambda _: trl.step()


def _life(case: Case, one: Measurement, repeats: int) -> dict[str, Any]:
    """Rounds and evaluations after one of each to warm up."""
    from experiments.benchmark.card.round_side import Rounds  # needs Flower, which the other figures do not

    side = Rounds(case, one.devices, graphs=one.graphs)
    side.once()
    rounds, tests = zip(*(side.once() for _ in range(repeats)), strict=True)
    return {"round": list(rounds), "evaluation": list(tests), "devices": one.devices, "memory": _memory(case.place)}


def _rows(place: str, devices: int) -> dict[str, Any]:
    from experiments.benchmark.card.round_side import rows_agree  # likewise

    return asdict(rows_agree(place, devices))


def static_agree(case: Case, devices: int) -> dict[str, Any]:
    """Passes of static shapes against plain ones: tokens, log-probabilities and the gradient of one step."""
    plain, static = (Stacked(case, devices, graphs=graphs) for graphs in (False, True))
    readings = plain.read(), static.read()
    said, other = plain.sample(readings[0]), static.sample(readings[1])
    same = (said.tokens == other.tokens).cumprod(-1).bool()  # (K, P, G, T): up to the first that differs
    apart = (said.logprobs - other.logprobs).abs()[same].max()
    own, found = plain.gradient(readings[0], said), static.gradient(readings[1], said)
    return {
        "equal_tokens": float((said.tokens == other.tokens).float().mean()),
        "logprobs_apart": float(apart),
        "gradient_apart": float((own - found).norm() / own.norm()),
    }


def twice(case: Case, devices: int) -> dict[str, Any]:
    """Whether two steps, done twice from the same start, end at the same adapters in every bit."""
    return {"plain": _same_twice(case, devices, graphs=False), "graphs": _same_twice(case, devices, graphs=True)}


def _same_twice(case: Case, devices: int, *, graphs: bool) -> bool:
    side = Stacked(case, devices, graphs=graphs)
    ends: list[Tensor] = []
    for _ in range(2):
        side.begin()
        side.step()
        side.step()
        ends.append(side.theta.clone())  # (K, n)
    return torch.equal(*ends)


def begin(place: str) -> None:
    """Count memory from here."""
    if place == "cuda":
        torch.cuda.init()  # the first call of a process: until then there is nothing to count
        torch.cuda.reset_peak_memory_stats()


def tidied(place: str) -> bool:
    """Let go of what a side has left; whether the card is in order."""
    gc.collect()
    if place != "cuda":
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:  # what a kernel did wrong is told at every later call
        return False
    return True


def _memory(place: str) -> int:
    """Most bytes that were allocated on the card; on a processor what the process holds now."""
    if place == "cuda":
        return torch.cuda.max_memory_allocated()
    resident: int = psutil.Process().memory_info().rss
    return resident
