"""Small data sets of one's own, in characters that the built-in tokenizer knows, and configs that name them."""

import csv
import json
from pathlib import Path

from flsim.config.load import load_config
from flsim.config.schema import Config

SUMS = [(a, b) for a in range(1, 40) for b in range(1, 11)]  # 390 questions
COLUMNS = "columns: {question: q, answer: a, label: kind, level: digits}"


def write_sums(folder: Path) -> Path:
    """`sums.jsonl`: sums with a label and a level, to be split by hash."""
    rows = [
        {"q": f"{a}+{b}=", "a": str(a + b), "kind": "odd" if a % 2 else "even", "digits": len(str(a))} for a, b in SUMS
    ]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def write_votes(folder: Path, users: int = 6) -> Path:
    """`votes.csv`: users with a yes or no to each of 40 questions, some never with a yes."""
    with (folder / "votes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["who", "ask", "said", "liked"])
        for user in range(users):
            for number in range(40):
                yes = user > 0 and number % 3 == 0
                table.writerow([f"u{user}", f"{number}%{user + 2}=", "b" if yes else "a", int(yes)])
    return folder


def config_of(folder: Path, *more: str, phases: str = "[[sums], [votes, lists]]") -> Config:
    """Two files and a built-in group, three devices."""
    votes = "columns: {question: ask, answer: said, user: who, score_label: liked}"
    (folder / "own.yaml").write_text(
        f"""
rounds: 2
fleet: {{devices: 3}}
stream: {{phases: {phases}}}
data:
  sums:
    kind: files
    root: {folder}
    settings: {{files: {{all: sums.jsonl}}, {COLUMNS}}}
  votes:
    kind: files
    root: {folder}
    partition: user
    settings: {{files: {{all: votes.csv}}, {votes}}}
"""
    )
    return load_config(folder / "own.yaml", list(more))
