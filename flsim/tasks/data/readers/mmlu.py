"""MMLU: multiple choice in 57 subjects, 14,042 to test (Hendrycks et al. 2021, arXiv 2009.03300).

    Find the degree for ...,0,4,2,6,B                                         test/abstract_algebra_test.csv, no header
    {"question": "...", "subject": "abstract_algebra", "choices": [...], "answer": 1}               all/test-*.parquet

The five `dev` questions of a subject, meant as few-shot examples, are the train split. To let devices learn a subject,
split the whole by hash (`splits=hash`): 285 questions are no training set.
"""

from pathlib import Path

from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import Found, KnownSet
from flsim.tasks.data.readers.choices import choice_question, letter_of
from flsim.tasks.data.rows import Row, csv_rows, rows_of

_COLUMNS = ("question", "A", "B", "C", "D", "answer")
_ARCHIVE = {"train": "dev", "validation": "val", "test": "test"}


def mmlu_item(row: Row, split: str | None, *, subject: str | None = None) -> Item:
    """One question; `subject` comes from the file's name where the rows do not have it."""
    choices = [str(choice) for choice in (row["choices"] if "choices" in row.values else map(row.__getitem__, "ABCD"))]
    answer = letter_of(row, row["answer"], len(choices))
    return Item(
        choice_question(row.text("question"), choices), answer, label=subject or row.text("subject"), split=split
    )


def _file(path: Path, split: str) -> list[Item]:
    if path.suffix != ".csv":
        return [mmlu_item(row, split) for row in rows_of(path)]
    subject = path.stem.removesuffix(f"_{_ARCHIVE.get(split, split)}")
    return [mmlu_item(row, split, subject=subject) for row in csv_rows(path, names=_COLUMNS)]


def _read(found: Found) -> list[Item]:
    return [item for split, paths in found.items() for path in paths for item in _file(path, split)]


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
    read=_read,
    item=mmlu_item,
    verifier="choice",
    source="Get it from https://github.com/hendrycks/test (data.tar) or cais/mmlu (all/*.parquet).",
    licence="MIT",
    columns=("question", "subject", "choices", "answer"),
)
