"""Judge a response: is it right, and what was read in it?

Examples:
  flsim judge 20 "20 cm^2" --verifier numeric       # right: said 20 from "20 cm^2"; wanted 20
  flsim judge C "I would pick Paris." --options London Rome Paris
  flsim judge "assert add(1, 2) == 3" @answer.md --verifier code --settings wall_s=2
  cat answer.txt | flsim judge "1/2" -              # the response from standard input
  flsim judge --pairs pairs.jsonl                   # {"reference": ..., "response": ...} a line

A verifier says what counts as right: flsim list verifiers. Without --verifier the reference decides: asserts are code,
a letter is a choice, a number is numeric, formulas are maths, all else is exact (words is more lenient: "Paris." is
Paris). A line of --pairs may name its own verifier and say what it expects, "right": true or false; each that is judged
otherwise is printed.

The status is 0 for right, 1 for wrong (with --pairs: some were judged otherwise than expected), 2 for what cannot be
judged.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.command.terminal import Parser, green, red

_LETTERS = "ABCDEFGHIJ"
_SHOWN = 80  # characters of a quotation


@dataclass(frozen=True)
class Pair:
    """One response to be judged."""

    reference: str
    response: str
    verifier: str
    """With its settings, as `Problem.verifier`."""
    right: bool | None = None
    """The verdict that is expected; None: any."""
    place: str = ""
    """Where it stands."""


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("judge", __doc__)
    parser.add_argument(
        "reference", nargs="?", metavar="REFERENCE", help="the right answer; - is standard input, @FILE a file"
    )
    parser.add_argument(
        "response", nargs="?", metavar="RESPONSE", help="what was said; - is standard input, @FILE a file"
    )
    parser.add_argument(
        "--verifier", metavar="NAME", help="what judges: a short name, or module:Name, or my_file.py:Name"
    )
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="of the verifier")
    parser.add_argument("--options", nargs="+", default=[], metavar="TEXT", help="the choices A, B, C ..., for choice")
    parser.add_argument("--pairs", metavar="FILE", help="judge each line of a JSONL file; - is standard input")
    args = parser.parse_intermixed_args(arguments)
    if args.pairs is None and args.response is None:
        parser.error("a reference and a response are needed, or --pairs FILE")
    if args.pairs is not None and (args.reference is not None or args.options):
        parser.error("--pairs FILE holds all that is judged; leave REFERENCE, RESPONSE and --options out")
    if args.reference == args.response == "-":
        parser.error("only one of REFERENCE and RESPONSE can be read from standard input")
    from flsim.sandbox.helper import VerifierError  # not above: --help need not wait for it

    try:
        settings = _settings(args.settings)
        if args.pairs is not None:
            return _judge_all(list(_pairs(args.pairs, args.verifier, settings)))
        reference = _with_options(_text(args.reference), args.options)
        name = args.verifier or ("choice" if args.options else None)
        return _judge_one(Pair(reference, _text(args.response), _called(name, reference, settings)))
    except VerifierError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def sentence(pair: Pair) -> tuple[bool, str]:
    """The verdict, and it in one sentence with what was read.

    Raises:
        ConfigError: there is no such verifier, or it can read nothing in the reference.
        VerifierError: it cannot work here.
    """
    from flsim.config.schema import ConfigError
    from flsim.problems.judging import explain, verifier

    try:
        unusable = verifier(pair.verifier).unreadable([pair.reference])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"verifier {pair.verifier} does not take its settings: {error}") from error
    if unusable:
        raise ConfigError(
            f"{pair.place}verifier {pair.verifier} can read nothing in the reference {_quoted(pair.reference)}, so "
            f"that no response could be right; mend the reference, or name another --verifier"
        )
    found = explain(pair.verifier, pair.reference, pair.response)
    verdict = green("right") if found.right else red("wrong")
    if found.said is not None:
        elsewhere = found.taken_from is not None and found.taken_from.strip() != found.said
        read = f"said {_short(found.said)}" + (f" from {_quoted(found.taken_from or '')}" if elsewhere else "")
    elif found.taken_from:
        read = f"said more than one answer in {_quoted(found.taken_from)}"
    else:
        read = f"nothing was read in {_quoted(pair.response)}"
    if found.said is None and found.taken_from is None and found.wanted is None:
        return found.right, f"{verdict}: {pair.verifier} gives no reading"
    return found.right, f"{verdict}: {read}" + ("" if found.wanted is None else f"; wanted {_short(found.wanted)}")


def guessed(reference: str) -> str:
    """The verifier that a reference is for, by its form."""
    from flsim.sandbox.asserts import headed, why_unusable
    from flsim.sandbox.program import asserts_of

    text = reference.strip()
    if not why_unusable(asserts_of(text) or headed(text)[1]):
        return "code"
    if re.match(r"\(?[A-J](?:[).:]+(?:\s|$)|\s*(?:\n|$))", text):
        return "choice"
    if re.fullmatch(r"[-+$€£\u2212]?\s?\d[\d\s.,/%]*", text) or "####" in text:
        return "numeric"
    return "maths" if re.search(r"[\\^=√π]|\d\s*[-+*/]\s*\w", text) else "exact"


def _judge_one(pair: Pair) -> int:
    right, told = sentence(pair)
    print(told)
    return 0 if right else 1


def _judge_all(pairs: Sequence[Pair]) -> int:
    """Print what is judged otherwise than expected, and the counts."""
    rights = expected = misjudged = 0
    for pair in pairs:
        right, told = sentence(pair)
        rights += right
        expected += pair.right is not None
        if pair.right is not None and right != pair.right:
            misjudged += 1
            print(f"{pair.place}expected {'right' if pair.right else 'wrong'}, judged {told} ({pair.verifier})")
    print(
        f"{len(pairs)} pairs: {rights} right, {len(pairs) - rights} wrong; {misjudged} of the {expected} that say what "
        f"they expect are judged otherwise"
    )
    return 1 if misjudged else 0


def _pairs(file: str, verifier: str | None, settings: Mapping[str, Any]) -> Iterator[Pair]:
    """The pairs of a JSONL file."""
    from flsim.config.schema import ConfigError

    kinds = {"reference": (str,), "response": (str,), "verifier": (str, type(None)), "right": (bool, type(None))}
    lines = [line for line in enumerate(_text("-" if file == "-" else f"@{file}").splitlines(), 1) if line[1].strip()]
    if not lines:
        raise ConfigError(f"--pairs {file} holds no line; each is one of JSON with reference and response")
    for number, line in lines:
        place = f"{file}, line {number}: "
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{place}no JSON ({error}); a line is {{'reference': ..., 'response': ...}}") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{place}a {type(row).__name__}; an object with reference and response is needed")
        for name, allowed in kinds.items():
            if not isinstance(row.get(name), allowed):
                wanted = "true or false" if name == "right" else "a text"
                raise ConfigError(f"{place}{name} is {json.dumps(row.get(name))[:_SHOWN]}; it must be {wanted}")
        called = _called(row.get("verifier") or verifier, row["reference"], settings)
        yield Pair(row["reference"], row["response"], called, row.get("right"), place)


def _called(name: str | None, reference: str, settings: Mapping[str, Any]) -> str:
    from flsim.problems.judging import called

    return called(name or guessed(reference), settings)


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings of a verifier: a value is JSON where it can be, else a text."""
    from flsim.config.schema import ConfigError

    found = dict[str, Any]()
    for setting in given:
        key, equals, value = setting.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--settings {setting!r} is no KEY=VALUE, such as wall_s=10")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _with_options(reference: str, options: Sequence[str]) -> str:
    """The reference of a choice with its options on the lines below, as its verifier reads them."""
    from flsim.config.schema import ConfigError

    if len(options) > len(_LETTERS):
        raise ConfigError(f"--options: {len(options)} texts; choices are lettered from A to {_LETTERS[-1]}")
    return "\n".join([reference, *(f"{letter}. {text}" for letter, text in zip(_LETTERS, options, strict=False))])


def _text(given: str) -> str:
    """What an argument stands for: itself, standard input for -, a file's text for @FILE."""
    from flsim.config.schema import ConfigError

    try:
        if given == "-":
            return sys.stdin.read()
        return Path(given[1:]).read_text("utf-8-sig") if given.startswith("@") else given
    except UnicodeDecodeError:
        raise ConfigError(
            f"{given.removeprefix('@')} is no text in UTF-8; convert it, for instance with iconv"
        ) from None
    except OSError as error:
        raise ConfigError(f"{given[1:]} cannot be read: {error.strerror}; @FILE and --pairs name files") from None


def _quoted(text: str) -> str:
    return f'"{_short(text)}"'


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
