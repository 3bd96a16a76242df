"""A table of what a cloud once answered: a line of JSON that says who was asked and how, then one for every question.

    {"recorded": "answers", "model": "...", "settings": {...}, "date": "2026-11-28", ..., "sha256": "..."}
    {"question": "What is 7 + 5?", "answer": "12", "prompt_tokens": 38, "completion_tokens": 3, "seconds": 0.8, ...}

`flsim record` writes one, and the cloud `flsim.cloud.recorded:Recorded` answers from it.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flsim.config.schema import ConfigError
from flsim.files import write_atomically
from flsim.tasks.data_file import DataFile

SHIPPED = MappingProxyType({"builtin:english": Path(__file__).parent / "tables" / "english.jsonl.gz"})
"""Tables that come with the package, by the names that `cloud.file` takes."""
_MARK = "answers"


@dataclass(frozen=True)
class Line:
    """What the cloud made of one question."""

    question: str
    """Without its instruction, which the head of the table names; by it the line is found."""
    answer: str
    """What was said."""
    prompt_tokens: int
    """Sent, as billed."""
    completion_tokens: int
    """Received, as billed."""
    seconds: float | None = None
    """Of the request that brought it; None where nobody measured it, as of an answer that lay in a cache."""
    task: str = ""
    """The data set that it belongs to."""
    family: str = ""
    """Its label there."""
    level: int = 0
    """Its level there; 0 where it has none."""
    split: str = ""
    """`train`, `validation` or `test`."""
    right: bool | None = None
    """The verdict of the data set's verifier when it was recorded; a run judges anew."""

    def __post_init__(self) -> None:
        """Check the types, as a line may come from anywhere.

        Raises:
            TypeError: if a value is of another type.
            ValueError: if a number of tokens is negative.
        """
        if not isinstance(self.question, str) or not isinstance(self.answer, str):
            raise TypeError("question and answer must be texts")
        counts = (self.prompt_tokens, self.completion_tokens)
        if any(not isinstance(count, int) or isinstance(count, bool) for count in counts):
            raise TypeError("prompt_tokens and completion_tokens must be whole numbers")
        if min(counts) < 0:
            raise ValueError("prompt_tokens and completion_tokens must not be negative")


@dataclass(frozen=True)
class AnswerTable:
    """A table that was read."""

    about: Mapping[str, Any]
    """Its first line: who was asked, when and how."""
    lines: tuple[Line, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of its lines, as the first one names it."""
        return str(self.about["sha256"])


def is_answer_table(file: str) -> bool:
    """Whether a `cloud.file` names a table of answers: one that ships, or a file of JSON lines."""
    return file.startswith("builtin:") or DataFile(Path(file)).format == ".jsonl"


def path_of(file: str) -> Path:
    """Where a table lies that `cloud.file` names.

    Raises:
        ConfigError: if none of that name ships, or there is no such file.
    """
    if file.startswith("builtin:"):
        if file not in SHIPPED:
            raise ConfigError(f"cloud.file={file!r} does not ship; there is: {', '.join(SHIPPED)}, or give a file")
        return SHIPPED[file]
    if not Path(file).is_file():
        raise ConfigError(
            f"cloud.file={file!r} is no file; give the path of a table, such as flsim record writes or CSV, or "
            f"leave it out where the data record the outcomes"
        )
    return Path(file)


def write_table(path: Path, about: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """Write a table; one whose name ends in `.gz` is packed, to the same bytes each time.

    Args:
        path: of the file, which is replaced.
        about: what is to be said of the whole; `recorded`, `questions` and `sha256` are added.
        lines: one for every question.

    Raises:
        UnwritableError: if that fails.
    """
    body = "".join(_text(asdict(line)) for line in lines).encode()
    head = {"recorded": _MARK, **about, "questions": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    data = _text(head).encode() + body
    packed = gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data
    write_atomically(path, packed, what="the table of answers")


def read_table(path: Path) -> AnswerTable:
    """Read a table.

    Raises:
        ConfigError: if it is none, a line cannot be used, a question is there twice, or its lines are not those that
            were written.
    """
    texts = _lines_of(DataFile(path))
    about = next(texts, (0, None, b""))[1]
    if not isinstance(about, dict) or about.get("recorded") != _MARK:
        raise ConfigError(
            f"{path} is no table of answers, as its first line does not say "
            f'{{"recorded": "{_MARK}", ...}}; make one with flsim record'
        )
    found, digest = dict[str, Line](), hashlib.sha256()
    for number, row, text in texts:
        digest.update(text)
        line = _line(path, number, row)
        if found.setdefault(line.question, line) is not line:
            raise ConfigError(f"{path}, line {number}: the question {line.question!r} is there twice; keep one")
    if about.get("sha256") != digest.hexdigest():
        raise ConfigError(
            f"{path} is not as it was written: the SHA-256 of its lines is {digest.hexdigest()}, and the first line "
            f"says {about.get('sha256')!r}; get it anew, or write the new one there if you changed answers on purpose"
        )
    return AnswerTable(about, tuple(found.values()))


def _lines_of(file: DataFile) -> Iterator[tuple[int, Any, bytes]]:
    """Number, value and bytes of each line."""
    with file.text(newline="\n") as text:
        for number, line in enumerate(text, 1):
            try:
                yield number, json.loads(line), line.encode("utf-8", "surrogateescape")
            except ValueError as error:
                raise ConfigError(f"{file}, line {number}: no JSON ({error}); is the file cut off?") from error


def _line(path: Path, number: int, row: Any) -> Line:
    try:
        return Line(**row)
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in fields(Line))
        raise ConfigError(f"{path}, line {number}: {error}; a line has {known}") from error


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
