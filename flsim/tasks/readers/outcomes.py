r"""Recorded outcomes: real questions, and whether two real models, the device's and the cloud's, answered them right.

{"files": {"all": "mine.csv"}}                                   one's own: columns question, local, cloud, ...
{"local": "rho-math-1b-v0.1", "cloud": "gpt-4o-2024-08-06"}      a pair of models of a known table

Known tables have a line per question and a column per model (`replay_gsm8k`: 58 models, `replay_crux`: 51 on the
output of code, `router_mmlu`: two). They hold test questions only, so all are split by the hash of the question. Where
nobody counted tokens, four characters make one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.problem import split_of
from flsim.problems.recorded import RECORDED, Record
from flsim.tasks.columns import Columns
from flsim.tasks.item import Item, key_of
from flsim.tasks.known_set import Found, KnownSet, Reader
from flsim.tasks.readers.own import ALL, own_files
from flsim.tasks.tables import Row, rows_of_all

VALIDATION, TEST = 0.15, 0.25
"""Default shares of the held-out questions: the tables are small, and measuring needs as many questions as learning."""
_TRUTH = {"1": True, "true": True, "0": False, "false": False}
_NEEDED, _TOKENS = ("question", "local", "cloud"), ("prompt_tokens", "completion_tokens")
_OPTIONAL = ("label", "level", "user", "split")
_CHARACTERS = 4  # of English in a token


def own_outcomes(
    root: Path,
    *,
    files: Mapping[str, str],
    columns: Mapping[str, str] | None = None,
    validation: float = VALIDATION,
    test: float = TEST,
    encoding: str = "utf-8",
) -> list[Item]:
    """Items of one's own tables.

    Args:
        root: folder that the files are relative to.
        files: split (`train`, `validation`, `test`, or `all`) -> file or pattern.
        columns: what is called otherwise: `question`, `local` and `cloud` (1 or 0) and, where the table has them,
            `prompt_tokens`, `completion_tokens`, `label`, `level`, `user` and `split`, each with its column.
        validation: share held out for choosing, of the questions whose split nobody says.
        test: share held out for measuring.
        encoding: of the files that have no byte order mark.

    Raises:
        ConfigError: for a file that is not there, a missing column or a bad row, by its number.
    """
    known, named = (*_NEEDED, *_TOKENS, *_OPTIONAL), dict(columns or {})
    unknown = sorted(named.keys() - set(known))
    if unknown:
        raise ConfigError(f"columns: there is no field {unknown[0]!r}; a recorded outcome has: {', '.join(known)}")
    items = [
        _own_item(row, named, None if split == ALL else split)
        for split, found in own_files(root, files, encoding).items()
        for row in rows_of_all(found)
    ]
    return _split(items, validation, test)


def _own_item(row: Row, named: Mapping[str, str], split: str | None) -> Item:
    there = {field: field for field in (*_TOKENS, *_OPTIONAL) if field in row.values}
    names = {**{field: field for field in _NEEDED}, **there, **named}
    fields = {field: names[field] for field in ("question", *_OPTIONAL) if field in names}
    item = Columns({**fields, "answer": names["local"]}).item(row, split)
    local, cloud = (_truth(row, names[field]) for field in ("local", "cloud"))
    sent, received = (_count(row, names[field]) if field in names else None for field in _TOKENS)
    record = Record(local, cloud, _tokens(len(item.question)) if sent is None else sent, received or 0)
    return replace(item, answer=record.text)


def _gsm8k(found: Found, *, local: str = "rho-math-1b-v0.1", **pair: Any) -> list[Item]:
    """A question's number is its line in GSM8K's test file; the level is the number of steps of the solution."""
    questions = {str(number): row.text("question") for number, row in enumerate(rows_of_all(found["questions"]))}
    return _table(found, questions, lambda row: _count(row, "gold_steps"), local=local, **pair)


def _crux(found: Found, *, local: str = "gemma-2-2b-it", **pair: Any) -> list[Item]:
    """The level is the number of lines of code."""
    questions = {row.text("id"): row.text("question") for row in rows_of_all(found["questions"])}
    lines = {number: text.partition("[PYTHON]\n")[2].count("\n") for number, text in questions.items()}
    return _table(found, questions, lambda row: lines[row.text("id")], local=local, **pair)


def _table(
    found: Found,
    questions: Mapping[str, str],
    level: Callable[[Row], int],
    *,
    local: str,
    cloud: str = "gpt-4o-2024-08-06",
    validation: float = VALIDATION,
    test: float = TEST,
) -> list[Item]:
    """The items of a table with a column per model.

    Args:
        found: the table, and how many characters each answer had.
        questions: by id.
        level: of a line.
        local: whose column says what the device has right.
        cloud: whose says it of the cloud.
        validation: share held out for choosing.
        test: share held out for measuring.
    """
    said = {row.text("id"): _count(row, cloud) for row in rows_of_all(found["characters"])}
    items = []
    for row in rows_of_all(found["right"]):
        number = row.text("id")
        if number not in questions:
            raise row.error(f"the questions have none with the id {number!r}; take the files that belong together")
        if number not in said:
            raise row.error(
                f"the lengths of the answers have none with the id {number!r}; take the files that belong together"
            )
        question, right = questions[number], (_truth(row, local), _truth(row, cloud))
        record = Record(*right, _tokens(len(question)), _tokens(said[number]))
        items.append(Item(question, record.text, level=level(row), where=row.where))
    return _split(items, validation, test)


def _mmlu(
    found: Found,
    *,
    local: str = "mixtral_correct",
    cloud: str = "gpt4_correct",
    validation: float = VALIDATION,
    test: float = TEST,
) -> list[Item]:
    """The label is the subject; an answer is a letter, one token."""
    items = []
    for row in rows_of_all(found["right"]):
        record = Record(_truth(row, local), _truth(row, cloud), _tokens(len(row.text("prompt"))), 1)
        items.append(Item(row.text("prompt"), record.text, label=row.text("subject"), where=row.where))
    return _split(items, validation, test)


def _split(items: Sequence[Item], validation: float, test: float) -> list[Item]:
    if min(validation, test) < 0 or validation + test >= 1:
        raise ConfigError(
            f"validation={validation} and test={test} must be shares of the questions, at least 0, that leave some to "
            f"learn from"
        )
    return [
        item
        if item.split is not None
        else replace(item, split=split_of(key_of(item.question), validation=validation, test=test))
        for item in items
    ]


def _truth(row: Row, column: str) -> bool:
    text = row.text(column).strip().lower()
    if text not in _TRUTH:
        raise row.error(f"column {column!r} is {text!r}; right or wrong is 1 or 0, true or false")
    return _TRUTH[text]


def _count(row: Row, column: str) -> int:
    text = row.text(column).strip()
    if not text.isdecimal():
        raise row.error(f"column {column!r} is {text!r}, which is no whole number of at least 0")
    return int(text)


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS)


REPLAY_GSM8K = KnownSet(
    name="replay_gsm8k",
    files={
        "right": ("correct.csv",),
        "characters": ("output_chars.csv",),
        "questions": ("test.jsonl", "../gsm8k/test.jsonl"),
    },
    read=_gsm8k,
    verifier=RECORDED,
    in_parts=True,
    source="It is a table derived from published outputs (docs/data.md says of which, and what its files hold); "
    "test.jsonl is GSM8K's own.",
    licence="Apache-2.0, MIT",
    columns=("id", "gold_steps"),
)
"""GSM8K questions, with whether a small and a large model answered them right."""
REPLAY_CRUX = KnownSet(
    name="replay_crux",
    files={"right": ("correct.csv",), "characters": ("output_chars.csv",), "questions": ("items.jsonl",)},
    read=_crux,
    verifier=RECORDED,
    in_parts=True,
    source="It is a table derived from published outputs; docs/data.md says of which, and what its files hold.",
    licence="Apache-2.0",
    columns=("id",),
)
"""Output of Python code (CRUXEval), with whether a small and a large model answered right."""
ROUTER_MMLU = KnownSet(
    name="router_mmlu",
    files={"right": ("mmlu_mixtral_gpt4.csv",)},
    read=_mmlu,
    verifier=RECORDED,
    in_parts=True,
    source="Join routellm/evals/mmlu/responses/*.csv of https://github.com/lm-sys/RouteLLM; docs/data.md says how.",
    licence="Apache-2.0",
    columns=("subject", "prompt"),
)
"""MMLU questions, with whether Mixtral-8x7B and GPT-4 answered them right."""
OUTCOMES = Reader(own_outcomes, verifier=RECORDED, files=own_files)
"""Recorded outcomes of one's own: a table of questions and who was right."""
