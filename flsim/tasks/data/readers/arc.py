"""ARC: grade-school science, 5,197 easy and 2,590 challenging questions (Clark et al. 2018, arXiv 1803.05457).

    {"question": {"stem": "...", "choices": [{"text": "dry palms", "label": "A"}, ...]}, "answerKey": "A"}    archive
    {"question": "...", "choices": {"text": ["dry palms", ...], "label": ["A", ...]}, "answerKey": "A"}       its copies

Some rows number their choices 1 to 4; they are lettered here. The level is 1 for easy and 2 for challenge.
"""

from typing import Any

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import Found, KnownSet
from flsim.tasks.data.readers.choices import choice_question, letter_of
from flsim.tasks.data.rows import Row, rows_of_all


def arc_item(row: Row, split: str | None, *, challenge: bool | None = None) -> Item:
    """One question; `challenge` says of which of the two sets, None if that is not known."""
    question: Any = row["question"]
    stem, choices = (
        (question["stem"], question["choices"]) if isinstance(question, dict) else (question, row["choices"])
    )
    if isinstance(choices, dict):
        texts, labels = list(choices["text"]), list(choices["label"])
    else:
        texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
    key = row.text("answerKey")
    if key not in labels:
        raise row.error(f"the answerKey {key!r} is none of the choices: {', '.join(labels)}")
    letter = letter_of(row, labels.index(key), len(texts))
    label = {None: "arc", False: "easy", True: "challenge"}[challenge]
    level = None if challenge is None else 1 + challenge
    return Item(choice_question(str(stem), texts), letter, label=label, level=level, split=split)


def _read(found: Found) -> list[Item]:
    return [
        arc_item(row, part.rpartition(" ")[2], challenge=part.startswith("challenge"))
        for part, paths in found.items()
        for row in rows_of_all(paths)
    ]


def _layouts(folder: str, split: str, archive: str) -> tuple[str, ...]:
    return (f"{folder}/{folder}-{archive}.jsonl", f"{folder}/{split}-*.parquet")


_SPLITS = {"train": "Train", "validation": "Dev", "test": "Test"}

ARC = KnownSet(
    name="arc",
    files={
        f"{kind} {split}": _layouts(folder, split, archive)
        for kind, folder in {"easy": "ARC-Easy", "challenge": "ARC-Challenge"}.items()
        for split, archive in _SPLITS.items()
    },
    optional=tuple(f"{kind} {split}" for kind in ("easy", "challenge") for split in _SPLITS),
    read=_read,
    item=arc_item,
    verifier="choice",
    source="Get it from https://allenai.org/data/arc or allenai/ai2_arc; either set alone will do.",
    licence="CC-BY-SA-4.0",
    columns=("question", "choices", "answerKey"),
)
