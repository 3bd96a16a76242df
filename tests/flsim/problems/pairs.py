"""Pairs of reference and response with the verdict that people expect, as files beside this one.

`verifier_pairs.jsonl` comes from public reports; `kinds.jsonl` has our own of the same kinds, each under its law.
"""

import json
from pathlib import Path
from typing import TypedDict


class Pair(TypedDict, total=False):
    """One line of a file."""

    verifier: str
    reference: str
    response: str
    right: bool
    source: str
    """The report, in `verifier_pairs.jsonl`."""
    law: str
    """What holds of all pairs of the kind, in `kinds.jsonl`."""


def read(name: str) -> list[Pair]:
    lines = (Path(__file__).parent / name).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def by_law(verifier: str) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for pair in read("kinds.jsonl"):
        if pair["verifier"] == verifier:
            found.setdefault(pair["law"], []).append(pair)
    return found


def misjudged(pairs: list[Pair], verdicts: list[bool]) -> list[Pair]:
    return [pair for pair, verdict in zip(pairs, verdicts, strict=True) if pair["right"] != verdict]
