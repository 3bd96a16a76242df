"""What the subcommands share of a terminal: how mistakes end, colour where it is wanted, lists that wrap."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

WIDEST = 100
"""Columns of a page: wider lines are hard to read."""

GRAMMAR = """\
key=value sets a key of the config; the last of a key wins. The type of its field says how the value is read:

  text           as it is typed: name=no, name=010, run_dir='a # b'
                 only "" and "null" stand in quotes
  number         rounds=8, client.lr=1e-3, stream.alpha=inf
                 no leading zeros, no 0x10, no 1_000, no nan
  true or false  these two words
  list           fleet.ranks=[8,4] or fleet.ranks=8,4
  null or none   leaves a setting out that may be left out
  keys           budget.tau=0.5 or budget={tau: 0.5}
  a reference    run_dir=runs/${name}-${seed}: what other settings are; \\${ is ${ itself

A setting of a plug-in, such as client.lr, is null, true, false, a number, a list or {a: 1} if it is written as one, and
else a text; in quotes it is always a text. A YAML file is read by the same rules.
"""
"""How settings are written, wherever they are taken; docs/running.md has it too."""


class Parser(argparse.ArgumentParser):
    """The arguments of `flsim NAME`; a mistake is one sentence, not a page of usage."""

    def __init__(self, name: str, text: str | None, *, settings: bool = False) -> None:
        """Take the text of `--help`.

        Args:
            name: of the subcommand.
            text: the docstring of its module.
            settings: whether it takes `key=value`, so that its help says how these are written.
        """
        formatter = argparse.RawDescriptionHelpFormatter
        told = f"{text}\n\n{GRAMMAR}" if settings else text
        super().__init__(prog=f"flsim {name}", description=prose(told), formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave with status 2."""
        message = message.replace(", key=value", "")  # argparse counts what may be left out among what is required
        self.exit(2, f"error: {message} ({self.prog} --help explains)\n")


def folder_in(text: str) -> Path:
    """A folder as it was typed, for options; an address in an object store is none.

    Raises:
        argparse.ArgumentTypeError: saying so.
    """
    from flsim.config.address import is_address, without_secrets  # not above: most commands have no such option

    if is_address(text):
        raise argparse.ArgumentTypeError(
            f"{without_secrets(text)} lies in an object store, and this takes a folder; docs/storage.md says what "
            f"takes an address"
        )
    return Path(text)


def no_such(kind: str, name: str, known: Collection[str], *, command: str = "") -> int:
    """Say on stderr that there is no such thing, and what was meant or what there is; returns the exit status, 2.

    Args:
        kind: such as `subcommand`.
        name: as it was typed.
        known: all there are.
        command: what is typed before a name.
    """
    close = get_close_matches(name, known, n=1)
    meant = f"did you mean {command}{close[0]}?" if close else f"there are: {', '.join(known)}"
    print(f"error: there is no {kind} {name!r}; {meant}", file=sys.stderr)
    return 2


def width() -> int:
    """Columns to write in: the terminal's, at most 100."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def bold(text: str) -> str:
    """For headings and names."""
    return _styled("1", text)


def green(text: str) -> str:
    """For what is well."""
    return _styled("32", text)


def yellow(text: str) -> str:
    """For what is missing and may be."""
    return _styled("33", text)


def red(text: str) -> str:
    """For what is missing and must not be."""
    return _styled("31", text)


def listed(entries: Sequence[tuple[str, str]]) -> str:
    """Names with what they mean, in a second column that wraps; below the names where those are long."""
    longest = max(len(name) for name, _ in entries)
    column = longest + 4 if longest <= width() // 2 - 4 else 6
    lines = []
    for name, text in entries:
        first, *more = wrapped(text, width() - column)
        if column > longest:
            lines.append(f"  {bold(name)}{' ' * (column - 2 - len(name))}{first}".rstrip())
        else:
            lines += [f"  {bold(name)}", " " * column + first]
        lines += [" " * column + line for line in more]
    return "\n".join(lines)


def prose(text: str | None) -> str:
    """A docstring for the terminal: paragraphs wrapped anew, and what is indented left as it stands."""
    lines, sentence = list[str](), list[str]()
    for line in [*(text or "").strip().splitlines(), ""]:
        if line and not line.startswith(" "):
            sentence.append(line)
            continue
        lines += wrapped(" ".join(sentence), width()) if sentence else []
        sentence = []
        lines.append(line)
    return "\n".join(lines).rstrip()


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most so many columns, at least one; words such as `da-grpo` stay whole."""
    return textwrap.wrap(text, max(columns, 30), break_on_hyphens=False, break_long_words=False) or [""]


def paragraph(text: str) -> str:
    """A text, indented and wrapped."""
    return "\n".join(f"  {line}" for line in wrapped(text, width() - 2))


def _styled(code: str, text: str) -> str:
    """In colour on a terminal that has it, unless the user wants none (https://no-color.org)."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
