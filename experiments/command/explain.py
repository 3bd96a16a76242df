"""Explain keys of a config: meaning, default, and who reads it.

Examples:
  flsim explain                    # every key with its default
  flsim explain budget             # all keys below budget
  flsim explain budget.tau
  flsim explain client.lr          # a setting of what client.path names
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from experiments.command.keys import PartKey, config_keys, key_names, part_keys, readers_of, written
from experiments.command.list import KINDS, Parts
from experiments.command.terminal import Parser, bold, listed, paragraph
from experiments.command.walk import first_sentence
from flsim.config.explain import NAME, SECTION, Key
from flsim.config.spelling import current_key

_LONGEST = 16  # letters of a default in a list; the key by itself shows all of it


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("explain", __doc__)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="a key, or what keys begin with, such as budget")
    args = parser.parse_args(arguments)
    if not args.keys:
        print(
            f"{_lines(config_keys())}\n\nflsim explain KEY says more; client, strategy, cloud and other parts have more"
        )
        return 0
    for place, name in enumerate(args.keys):
        asked = name.partition("=")[0].strip(".")
        key = current_key(asked)
        text = explained(key)
        if text is None:
            print(f"error: there is no key {name!r}; {_near(name)}", file=sys.stderr)
            return 2
        renamed = f"{asked} is called {key} now\n\n" if key != asked else ""
        print(f"{chr(10) if place else ''}{renamed}{text}")
    return 0


def explained(name: str) -> str | None:
    """What there is to say about a key and about all keys below it; None if there are none."""
    name = _general(name)
    own = [_of_config(key) for key in config_keys() if key.name == name]
    own += [_of_part(key) for key in part_keys() if key.name == name]
    own += [_choices(kind) for kind in KINDS.values() if isinstance(kind, Parts) and name == f"{kind.key}.path"]
    below: list[Key | PartKey] = [key for key in config_keys() if key.name.startswith(f"{name}.")]
    below += [key for key in part_keys() if key.name.startswith(f"{name}.")]
    return "\n\n".join([*own, *([_lines(below)] if below else [])]) or None


def _of_config(key: Key) -> str:
    """A key of the config itself, or a section."""
    if key.type == SECTION:
        default = f" = {written(None)}, or what is below" if key.optional else ""
        return f"{bold(key.name)}{default}\n{paragraph(key.meaning)}"
    lines = [paragraph(key.meaning)] if key.meaning else []
    lines += [paragraph(f"allowed: {key.allowed}")] if key.allowed else []
    readers = readers_of(key.name)
    lines += [paragraph(f"read by {', '.join(readers)}")] if readers else []
    return "\n".join([_head(key.name, written(key.default), key.type), *lines])


def _of_part(key: PartKey) -> str:
    """A setting of parts."""
    setting, kind = key.setting, next(name for name, kind in KINDS.items() if _holds(kind, key))
    every = len(KINDS[kind].entries())
    takers = f"all {every} {kind}" if len(key.takers) == every > 1 else ", ".join(key.takers)
    lines = [paragraph(setting.doc)] if setting.doc else []
    lines.append(paragraph(f"taken by {takers}" + ("" if (setting.owner,) == key.takers else f"; see {setting.owner}")))
    return "\n".join([_head(key.name, key.default, setting.type), *lines])


def _holds(kind: object, key: PartKey) -> bool:
    return isinstance(kind, Parts) and key.name == f"{kind.key}.{key.setting.name}"


def _choices(kind: Parts) -> str:
    """What may stand at the path of a part."""
    return f"{bold(kind.key + '.path')}  module:Name, or my_file.py:Name; shipped are\n{listed(kind.entries())}"


def _head(name: str, default: str, kind: str) -> str:
    return f"{bold(name)} = {default or '(must be given)'}    {kind}"


def _lines(keys: Sequence[Key | PartKey]) -> str:
    """A line or a few per key; what several classes declare under one name stands once, with the first of them."""
    texts: dict[str, tuple[str, str]] = {}
    for key in keys:
        if isinstance(key, PartKey):
            texts.setdefault(key.name, (key.default, key.setting.doc))
        elif key.type != SECTION:
            texts.setdefault(key.name, (written(key.default), key.meaning))
    return listed([(f"{name}={_short(default)}", first_sentence(doc)) for name, (default, doc) in texts.items()])


def _short(default: str) -> str:
    return default if len(default) <= _LONGEST else f"{default[: _LONGEST - 3]}..."


def _general(name: str) -> str:
    """`data.gsm8k.root` as `data.NAME.root`: a name that one gives oneself is that of no key."""
    words = name.split(".")
    for key in config_keys():
        before, _, after = key.name.partition(f".{NAME}")
        place = before.count(".") + 1
        if after and name.startswith(f"{before}.") and len(words) > place:
            return ".".join([*words[:place], NAME, *words[place + 1 :]])
    return name


def _near(name: str) -> str:
    """What comes close to a key that is not there."""
    every = key_names()
    every += [section for section in dict.fromkeys(key.rpartition(".")[0] for key in every) if section]
    last = {known.rpartition(".")[2]: known for known in reversed(every)}
    close = [*get_close_matches(name, every, n=3, cutoff=0.7), *(last[x] for x in get_close_matches(name, last, n=2))]
    return f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else "flsim explain lists them all"
