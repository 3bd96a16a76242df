"""A data file: its path, how its bytes become text, and a sentence for whatever keeps them from being read.

A byte order mark says what a file is in (UTF-8, UTF-16 or UTF-32), whatever the settings say. Bytes that are no text in
the file's encoding come out as lone surrogates (PEP 383), so that whoever reads rows can name the row: `undecoded`.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from flsim.config.schema import ConfigError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = MappingProxyType(
    {
        b"PK\x03\x04": "a zip archive, such as Excel writes; save it as CSV in UTF-8",
        b"PAR1": "parquet; let its name end in .parquet",
        b"\x1f\x8b": "compressed by gzip; let its name end in .gz",
        b"\x28\xb5\x2f\xfd": "compressed by zstd, which is not read; unpack it, or compress it by gzip",
    }
)
"""First bytes of files that are no text, and what they are."""


@dataclass(frozen=True, order=True)
class DataFile:
    """One file of a data set."""

    path: Path
    encoding: str = "utf-8"
    """What its text is in where no byte order mark says so."""

    def __str__(self) -> str:
        """Its path, for messages."""
        return str(self.path)

    @property
    def format(self) -> str:
        """Its ending in small letters, without a `.gz` behind it, such as `.jsonl`."""
        return Path(self.path.name.lower().removesuffix(".gz")).suffix

    @contextmanager
    def text(self, *, newline: str | None = None, encoding: str | None = None) -> Iterator[IO[str]]:
        """The file as text, unpacked and without its mark; undecodable bytes become lone surrogates.

        Args:
            newline: as `open` takes it.
            encoding: in place of the file's own.

        Raises:
            ConfigError: if it cannot be opened, unpacked or decoded, also while it is being read.
        """
        encoding = self.encoding if encoding is None else encoding
        try:
            with self._bytes() as raw:
                head = raw.read(4)
                raw.seek(0)
                for first, what in _NO_TEXT.items():
                    if head.startswith(first):
                        raise ConfigError(f"{self}: is no text but {what}")
                encoding = next((name for mark, name in _MARKS if head.startswith(mark)), encoding)
                yield io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline=newline)
        except UnicodeError as error:
            where = f", line {self._line_of(error)}" if isinstance(error, UnicodeDecodeError) else ""
            raise ConfigError(f"{self}{where}: {_not_in(encoding, str(error))}") from error
        except (OSError, EOFError, zlib.error) as error:
            raise self.unreadable(error) from error

    def raw(self) -> bytes:
        """All of its bytes, unpacked.

        Raises:
            ConfigError: if it cannot be opened or unpacked.
        """
        try:
            with self._bytes() as opened:
                found: bytes = opened.read()
        except (OSError, EOFError, zlib.error) as error:
            raise self.unreadable(error) from error
        return found

    def unreadable(self, error: Exception) -> ConfigError:
        """What is to be said of a file that cannot be opened or unpacked."""
        if isinstance(error, IsADirectoryError) or self.path.is_dir():
            return ConfigError(f"{self}: is a folder, not a file; name the files in it, such as {self.path}/*.jsonl")
        if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
            return ConfigError(f"{self}: cannot be unpacked, it is cut off or no gzip ({error}); get it anew")
        said = getattr(error, "strerror", None) or str(error)
        return ConfigError(f"{self}: cannot be read ({said}); see that it is there and may be read")

    def undecoded(self, text: str, where: str, encoding: str | None = None) -> None:
        """Refuse text with bytes that the encoding does not have, or with a NUL.

        Args:
            text: of a row, as `text` gives it.
            where: the row, for the message.
            encoding: that it was read in, if not the file's own.

        Raises:
            ConfigError: naming the row, the byte, and the mend.
        """
        if "\0" in text:
            raise ConfigError(
                f"{where}: holds a NUL character; is the file in UTF-16? Say so by the data set's encoding, such as "
                f"encoding=utf-16-le, or save the file as UTF-8"
            )
        if text.isascii():
            return
        try:
            text.encode()
        except UnicodeEncodeError as error:
            byte, before = ord(text[error.start]) - 0xDC00, text[max(0, error.start - 20) : error.start]
            said = f"byte 0x{byte:02x} after {before!r}" if 0 <= byte < 256 else "half a character"
            raise ConfigError(f"{where}: {_not_in(encoding or self.encoding, said)}") from None

    def _bytes(self) -> Any:
        return gzip.open(self.path, "rb") if self.path.suffix.lower() == ".gz" else self.path.open("rb")

    def _line_of(self, error: UnicodeDecodeError) -> int:
        """The line of the first bytes that are no text, counted anew, since text is decoded in blocks."""
        with self._bytes() as raw:
            found: bytes = raw.read()
        try:
            found.decode(error.encoding)
        except UnicodeDecodeError as first:
            return found[: first.start].decode(error.encoding, "replace").count("\n") + 1
        return 1


def known_encoding(name: object) -> bool:
    """Whether text can be in it: `utf-8`, `cp1252`, `utf-16-le`, ..., and not `hex`, which is no text."""
    try:
        return isinstance(name, str) and b"".decode(name) == "" and "a".encode(name) != b""
    except (LookupError, ValueError):  # a UnicodeError is a ValueError
        return False


def no_encoding(name: object) -> str:
    """What is to be said of one that is not known."""
    return f"encoding={name!r} is no encoding of text that Python knows; write one such as utf-8, utf-16-le or cp1252"


def _not_in(encoding: str, said: str) -> str:
    return (
        f"is not in {encoding} ({said}); say what the file is in by the data set's encoding, such as encoding=cp1252 "
        f"for Windows, or save it as UTF-8"
    )
