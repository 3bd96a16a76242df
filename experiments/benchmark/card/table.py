"""The page of `flsim benchmark gpu`: a table per shape, what was checked, and what is not there and why."""

from collections.abc import Sequence
from typing import Any

from experiments.benchmark.card.plan import CEILINGS, CHECK, LIFE, OURS, PEFT, ROWS, STATIC, STEP, TRL, TWICE
from experiments.benchmark.card.record import MEASURED, Record
from experiments.benchmark.measuring import Spread, spread
from flsim.text import markdown_table as table

Figures = dict[str, Any]
_NONE = "-"


def page_of(record: Record) -> str:
    """All of it, as Markdown."""
    asked, ceilings = record.asked, _figures(record, CEILINGS)
    work = (
        f"{asked['prompts']} prompts of {asked['prompt_tokens']} tokens x {asked['group_size']} completions of "
        f"{asked['new_tokens']}, TF32 {'on' if asked['tf32'] else 'off'}, median (min..max) of {asked['repeats']}"
    )
    parts = [f"{record.conditions}, {work}"]
    if ceilings is not None:
        flops, copied = ceilings["flops"] / 1e12, ceilings["bytes"] / 1e9
        parts.append(f"Ceilings: {flops:.3g} TFLOP/s (bfloat16 product), {copied:.4g} GB/s (copy).")
    parts += [part for shape in asked["shapes"] for part in _shape(record, shape, ceilings)]
    parts += [part for part in (_checks(record), _absent(record)) if part]
    return "\n\n".join(parts) + "\n"


def _figures(record: Record, kind: str, *of: Any) -> Figures | None:
    """Of the measurement whose fields begin so; None where it was not measured."""
    for entry in record.entries.values():
        if tuple(entry["of"].values())[: 1 + len(of)] == (kind, *of) and entry["status"] == MEASURED:
            found: Figures = entry["figures"]
            return found
    return None


def _shape(record: Record, shape: str, ceilings: Figures | None) -> list[str]:
    """The tables of a shape: tokens per second, and seconds of a step; those of rounds, if there are any."""
    peft, trl = (_figures(record, STEP, side, shape) for side in (PEFT, TRL))
    of_ceilings = ("decode, of the copy", "sample, of the product", "train, of the product")
    speeds = [["K", *(f"{part}{how}" for part in ("sample", "train") for how in _HOW), *of_ceilings]]
    steps = [["K", "plain", "graphs", "peft", "TRL", "peft / best", "TRL / best", "GiB, plain", "GiB, graphs"]]
    for k in sorted(set(record.asked["devices"])):
        ways = [_figures(record, STEP, OURS, shape, k, graphs) for graphs in (False, True)]
        shares = _shares(_best(ways), ceilings)
        speeds.append([str(k), *_speeds(ways, peft, train=False), *_speeds(ways, peft, train=True), *shares])
        steps.append([str(k), *_steps(ways, peft, trl, k)])
    told = [f"## {shape}", "Tokens per second; at the end of the faster way, with its share of the ceiling:"]
    told += [table(speeds), "Seconds of a step per device, and the most memory:", table(steps)]
    rounds = _rounds(record, shape)
    return [*told, "Seconds per device of a round and of an evaluation:", rounds] if rounds else told


_HOW = (", plain", ", graphs", ", peft", ", best / peft")


def _seconds(found: Figures, *, train: bool) -> list[float]:
    """Of sampling, or of what follows, step by step."""
    if train:
        return list(found["train"])
    return [read + generate for read, generate in zip(found["read"], found["generate"], strict=True)]


def _whole(found: Figures | None, share: int = 1) -> Spread | None:
    """Of a step, per device; None of what was not measured."""
    if found is None:
        return None
    parts = zip(found["read"], found["generate"], found["train"], strict=True)
    return spread([sum(part) / share for part in parts])


def _speed(found: Figures | None, *, train: bool) -> Spread | None:
    if found is None:
        return None
    return spread([found["tokens"] / seconds for seconds in _seconds(found, train=train)])


def _best(ways: Sequence[Figures | None]) -> Figures | None:
    """The way whose steps take the least time."""
    there = [way for way in ways if way is not None]
    return min(there, key=lambda way: _median(_whole(way)), default=None)


def _median(found: Spread | None) -> float:
    return float("nan") if found is None else found.median


def _text(found: Spread | None, digits: int) -> str:
    return _NONE if found is None else found.text(digits)


def _speeds(ways: Sequence[Figures | None], peft: Figures | None, *, train: bool) -> list[str]:
    own, other = [_speed(way, train=train) for way in ways], _speed(peft, train=train)
    best = max((way.median for way in own if way is not None), default=None)
    ratio = _NONE if best is None or other is None else f"{best / other.median:.2f}"
    return [*(_text(way, 0) for way in own), _text(other, 0), ratio]


def _steps(ways: Sequence[Figures | None], peft: Figures | None, trl: Figures | None, k: int) -> list[str]:
    own, others = [_whole(way, k) for way in ways], [_whole(peft), _whole(trl)]
    best = min((way.median for way in own if way is not None), default=None)
    ratios = [_NONE if best is None or other is None else f"{other.median / best:.2f}" for other in others]
    memory = [_NONE if way is None else f"{way['memory'] / 2**30:.1f}" for way in ways]
    return [*(_text(found, 4) for found in (*own, *others)), *ratios, *memory]


def _shares(found: Figures | None, ceilings: Figures | None) -> list[str]:
    """What is achieved in decoding, sampling and training, with its share of the ceiling."""
    if found is None or ceilings is None:
        return [_NONE] * 3
    work = found["work"]
    decode = work["decode_bytes"] / spread(found["generate"]).median
    sample = work["sample_flops"] / spread(_seconds(found, train=False)).median
    train = work["train_flops"] / spread(found["train"]).median
    flops = [f"{value / 1e12:.3g} TFLOP/s ({value / ceilings['flops']:.1%})" for value in (sample, train)]
    return [f"{decode / 1e9:.4g} GB/s ({decode / ceilings['bytes']:.1%})", *flops]


def _rounds(record: Record, shape: str) -> str:
    rows = [["K", "way", "a round", "an evaluation"]]
    for k in sorted(set(record.asked["devices"])):
        for graphs in (False, True):
            found = _figures(record, LIFE, OURS, shape, k, graphs)
            if found is not None:
                parts = (spread([value / k for value in found[name]]) for name in ("round", "evaluation"))
                rows.append([str(k), "graphs" if graphs else "plain", *(part.text(4) for part in parts)])
    return table(rows) if len(rows) > 1 else ""


def _checks(record: Record) -> str:
    """A line for everything that was checked."""
    lines = []
    static, twice, rows = (_figures(record, CHECK, side) for side in (STATIC, TWICE, ROWS))
    if static is not None:
        lines.append(
            f"Passes of static shapes, in float32: {static['equal_tokens']:.2%} of the tokens are those of plain ones; "
            f"log-probabilities differ by up to {static['logprobs_apart']:.2g}, the gradient by "
            f"{static['gradient_apart']:.2g} of its length."
        )
    if twice is not None:
        said = {True: "the same bits", False: "OTHER BITS"}
        lines.append(f"Two steps, done twice: {said[twice['plain']]} plain, {said[twice['graphs']]} with graphs.")
    if rows is not None:
        where = f", of {rows['where']}" if rows["largest"] else ""
        all_ = "" if rows["alike"] else " (each has rows that the other LACKS)"
        lines.append(
            f"A small round of the demo on the card and on a processor: {rows['equal']} of {rows['rows']} rows are "
            f"equal{all_}; the largest difference is {rows['largest']:.2g} of a number{where}."
        )
    return "\n".join(["## Checked", "", *(f"- {line}" for line in lines)]) if lines else ""


def _absent(record: Record) -> str:
    """What was not measured, and why."""
    lines = [f"- {name}: {e['status']}, {e['why']}." for name, e in record.entries.items() if e["status"] != MEASURED]
    return "\n".join(["## Not measured", "", *lines]) if lines else ""
