"""Multiple choice: MMLU and ARC.

MMLU asks in 57 subjects, 14,042 to test (Hendrycks et al. 2021, arXiv 2009.03300).

    Find the degree for ...,0,4,2,6,B                                         test/abstract_algebra_test.csv, no header
    {"question": "...", "subject": "abstract_algebra", "choices": [...], "answer": 1}               all/test-*.parquet

The five `dev` questions of a subject, meant as few-shot examples, are the train split. To let devices learn a subject,
split the whole by hash (`splits=hash`): 285 questions are no training set.
"""

from collections.abc import Sequence
from typing import Any

from flsim.tasks.data_file import DataFile
from flsim.tasks.item import Item
from flsim.tasks.known_set import Found, KnownSet, item_of
from flsim.tasks.tables import Row, csv_rows, rows_of, rows_of_all

# A multiple-choice question as text: the stem, a line per choice, and the letter of the right one.

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def choice_question(stem: str, choices: Sequence[str]) -> str:
    r"""As in MMLU's own prompt: `Stem\nA. one\nB. two\nAnswer:`."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([stem.strip(), *lines, "Answer:"])


def letter_of(row: Row, answer: object, choices: int) -> str:
    """The letter of the right choice, given as a letter or as an index from 0.

    Raises:
        ConfigError: if it names no choice.
    """
    text = str(answer).strip()
    at = int(text) if text.isdigit() else LETTERS.find(text.upper()) if len(text) == 1 else -1
    if not 0 <= at < choices:
        raise row.error(f"the answer {answer!r} is none of the {choices} choices (a letter, or an index from 0)")
    return LETTERS[at]


_COLUMNS = ("question", "A", "B", "C", "D", "answer")


_ARCHIVE = {"train": "dev", "validation": "val", "test": "test"}


def mmlu_item(row: Row, split: str | None, *, subject: str | None = None) -> Item:
    """One question; `subject` comes from the file's name where the rows do not have it."""
    choices = [str(choice) for choice in (row["choices"] if "choices" in row.values else map(row.__getitem__, "ABCD"))]
    answer = letter_of(row, row["answer"], len(choices))
    return Item(
        choice_question(row.text("question"), choices), answer, label=subject or row.text("subject"), split=split
    )


def _file(file: DataFile, split: str) -> list[Item]:
    if file.format != ".csv":
        return [item_of(mmlu_item, row, split) for row in rows_of(file)]
    subject = file.path.stem.removesuffix(f"_{_ARCHIVE.get(split, split)}")
    return [item_of(mmlu_item, row, split, subject=subject) for row in csv_rows(file, names=_COLUMNS)]


def _read_mmlu(found: Found) -> list[Item]:
    return [item for split, files in found.items() for file in files for item in _file(file, split)]


MMLU = KnownSet(
    name="mmlu",
    files={
        split: (
            f"{archive}/*_{archive}.csv",
            f"data/{archive}/*_{archive}.csv",
            f"all/{'dev' if split == 'train' else split}-*.parquet",
        )
        for split, archive in _ARCHIVE.items()
    },
    optional=("train", "validation"),
    read=_read_mmlu,
    item=mmlu_item,
    verifier="choice",
    source="Get it from https://github.com/hendrycks/test (data.tar) or cais/mmlu (all/*.parquet).",
    licence="MIT",
    columns=("question", "subject", "choices", "answer"),
)
"""MMLU: questions of 57 subjects with four options (Hendrycks et al. 2021, arXiv 2009.03300)."""


# ARC: grade-school science, 5,197 easy and 2,590 challenging questions (Clark et al. 2018, arXiv 1803.05457).
#
#     {"question": {"stem": "...", "choices": [{"text": "dry palms", "label": "A"}, ...]}, "answerKey": "A"}
#     {"question": "...", "choices": {"text": ["dry palms", ...], "label": ["A", ...]}, "answerKey": "A"}
#
# The first is of the archive, the second of its copies. Some rows number their choices 1 to 4; they are lettered here.
# The level is 1 for easy and 2 for challenge.


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


def _read_arc(found: Found) -> list[Item]:
    return [
        item_of(arc_item, row, part.rpartition(" ")[2], challenge=part.startswith("challenge"))
        for part, files in found.items()
        for row in rows_of_all(files)
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
    read=_read_arc,
    item=arc_item,
    verifier="choice",
    source="Get it from https://allenai.org/data/arc or allenai/ai2_arc; either set alone will do.",
    licence="CC-BY-SA-4.0",
    columns=("question", "choices", "answerKey"),
)
"""ARC: science questions of schools, easy and challenging (Clark et al. 2018, arXiv 1803.05457)."""
