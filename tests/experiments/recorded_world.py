"""Small tables of recorded outcomes in the layout of the real ones, and a reader that is made in seconds."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from experiments.pretrain.reader import READER

SHORT = replace(READER, pieces=400, hidden_size=32, layers=1, heads=2, steps=80, batch_size=16, adamw_lr=1e-2)
_THINGS = ("apples", "boxes", "trains", "litres")


def write_tables(data: Path, count: int = 160) -> None:
    """All three tables; hard questions, which only the cloud has right, say that they are hard."""
    rng = Random(0)
    hard = [rng.random() < 0.4 for _ in range(count)]
    texts = [
        f"{'A hard one' if flag else 'An easy one'}: how many {rng.choice(_THINGS)} are {n} and {rng.randrange(99)}?"
        for n, flag in enumerate(hard)
    ]
    verdicts = [(n, 2 + (n % 3), int(not flag), 1) for n, flag in enumerate(hard)]
    for name, ids in (
        ("replay_gsm8k", [str(n) for n in range(count)]),
        ("replay_crux", [f"c{n}" for n in range(count)]),
    ):
        models = {"replay_gsm8k": "rho-math-1b-v0.1", "replay_crux": "gemma-2-2b-it"}[name]
        head = ["id", "question_chars", "gold_steps", models, "gpt-4o-2024-08-06"]
        _write(data / name / "correct.csv", head, [(i, 30, *row[1:]) for i, row in zip(ids, verdicts, strict=True)])
        _write(data / name / "output_chars.csv", head, [(i, 30, 1, 40, 400) for i in ids])
    questions = [{"question": text, "answer": "#### 1"} for text in texts]
    _lines(data / "replay_gsm8k" / "test.jsonl", questions)
    code = [{"id": f"c{n}", "question": f"[PYTHON]\n{text}\n\n[/PYTHON]"} for n, text in enumerate(texts)]
    _lines(data / "replay_crux" / "items.jsonl", code)
    subjects = [("law" if n % 2 else "art", n, int(not hard[n]), 1, texts[n]) for n in range(count)]
    head = ["subject", "i", "mixtral_correct", "gpt4_correct", "prompt"]
    _write(data / "router_mmlu" / "mmlu_mixtral_gpt4.csv", head, subjects)


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def _lines(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
