"""Write a file to start from: a method, a strategy or a config.

Examples:
  flsim new method my_method          # my_method.py, with the class MyMethod
  flsim new strategy my_strategy
  flsim new config my_config          # my_config.yaml

It is commented, runs as it is and lies in the current folder; nothing is overwritten, and the command to try next is
said.
"""

import keyword
from pathlib import Path

from experiments.command.terminal import Parser, bold
from flsim.config.schema import ConfigError
from flsim.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {file.stem: file for file in sorted(TEMPLATES.glob("*.*"))}
"""What there is to begin with, by name: the files of `templates/`, in which my_KIND and MyKind stand for the name."""


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("new", __doc__)
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=" or ".join(KINDS))
    parser.add_argument("name", metavar="NAME", help="of the file, without a suffix, such as my_method")
    args = parser.parse_args(arguments)
    file = write_new(args.kind, args.name)
    text = file.read_text().splitlines()
    first = next(line.lstrip("# ") for line in text if line.lstrip("# ").startswith("flsim "))
    print(f"{file} is there; read it, change it, and try it:\n\n  {bold(first)}")
    return 0


def write_new(kind: str, name: str) -> Path:
    """Write the file.

    Args:
        kind: one of `KINDS`.
        name: in the form of a Python module: small letters, digits and underscores.

    Raises:
        ConfigError: if the name cannot be one of a module, or the file is there.
    """
    template = KINDS[kind]
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} cannot name a {kind}: use small letters, digits and _, such as my_{kind}")
    file = Path(f"{name}{template.suffix}")
    if file.exists():
        raise ConfigError(f"{file} is there already, and nothing is overwritten; choose another name or move it away")
    words = "".join(word.capitalize() for word in name.split("_"))
    text = template.read_text().replace(f"my_{kind}", name).replace(f"My{kind.capitalize()}", words)
    write_atomically(file, text.encode(), what="the new file")
    return file
