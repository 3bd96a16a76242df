"""Right is what was recorded: nobody answers anew, and the reference says whose answer was right.

{"local": 0, "cloud": 1, "prompt_tokens": 71, "completion_tokens": 88}

Whatever a device says itself stands for the answer of its recorded model. A cloud that replays what was recorded says
one of two reserved texts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

RECORDED = "recorded"
"""Name of the verifier."""
RIGHT, WRONG = "recorded: right", "recorded: wrong"
"""What a cloud says whose own verdict was recorded."""


@dataclass(frozen=True)
class Record:
    """What two models once made of one question."""

    local: bool
    """Whether the device's model was right."""
    cloud: bool
    """Whether the cloud was."""
    prompt_tokens: int = 0
    """Sent to the cloud."""
    completion_tokens: int = 0
    """Received from it."""

    @property
    def text(self) -> str:
        """As a reference."""
        return json.dumps({name: int(value) for name, value in asdict(self).items()})

    @staticmethod
    @lru_cache(maxsize=100_000)
    def read(text: str) -> "Record":
        """The inverse of `text`.

        Raises:
            ValueError: if the reference is no record.
        """
        try:
            values = json.loads(text)
            return Record(
                bool(values["local"]), bool(values["cloud"]), values["prompt_tokens"], values["completion_tokens"]
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{text!r} is no record of outcomes, such as {Record(False, True, 71, 88).text}"
            ) from error


class RecordedVerifier:
    """Looks the verdict up."""

    instruction = ""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Of a cloud's reserved text what it says; of any other, whether the device's own model was right."""
        return [
            completion == RIGHT if completion in (RIGHT, WRONG) else Record.read(reference).local
            for reference, completion in pairs
        ]

    def unreadable(self, references: Sequence[str]) -> list[str]:
        """Those that are no record."""
        return [reference for reference in references if not _is_record(reference)]


def _is_record(text: str) -> bool:
    try:
        Record.read(text)
    except ValueError:
        return False
    return True
