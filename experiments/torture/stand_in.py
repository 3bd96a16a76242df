"""A stand-in for a cloud, in a process of its own: `python -m experiments.torture.stand_in PORT FILE`.

It answers everything with 7, and puts one byte into FILE for every request, before it answers.
"""

import os
import sys
from pathlib import Path

from experiments.real.server import KnownAnswers


class Counted(KnownAnswers):
    """A server whose count outlives it."""

    def __init__(self, port: int, file: Path) -> None:
        """Take this port, and append to this file."""
        super().__init__({}, port=port, otherwise="7")
        self._file = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def count(self) -> None:
        """One request more."""
        os.write(self._file, b".")


if __name__ == "__main__":
    Counted(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
