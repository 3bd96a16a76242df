"""Read the source as text: which classes a folder holds, what they take and what their docstrings say.

Nothing is imported, so that a list of all methods costs no import of torch, and nothing is registered: whatever lies in
the folder is found.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder of flsim, clients, strategies and experiments, in a checkout and in a wheel."""


_ROOMS = ("flsim", "clients", "strategies", "experiments")
_MADE = {"dict": "{}", "list": "[]"}  # what a default_factory makes


@dataclass(frozen=True)
class Setting:
    """A keyword argument of a class."""

    name: str
    type: str
    default: str | None
    """As the source writes it; None if it must be given."""
    doc: str
    owner: str
    """`module:Name` of the class that declares it."""


@dataclass(frozen=True)
class Class:
    """A class of the source."""

    module: str
    node: ast.ClassDef

    @property
    def name(self) -> str:
        """As a config names it, after the colon."""
        return self.node.name

    @property
    def path(self) -> str:
        """`module:Name`."""
        return f"{self.module}:{self.name}"

    @property
    def doc(self) -> str:
        """The docstring of its file if it is alone in it, else its own."""
        tree = tree_of(self.module)
        public = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        return ast.get_docstring(tree if public == [self.node] else self.node) or ""

    @cached_property
    def line(self) -> list["Class"]:
        """The class itself, then what it inherits from within the source, nearest first."""
        found = [self]
        for base in self.node.bases:
            above = resolve(self.module, ast.unparse(base).split("[")[0])
            found += [] if above is None else [one for one in above.line if one not in found]
        return found

    @property
    def methods(self) -> set[str]:
        """Names of its public methods and properties, inherited ones included."""
        own = (node for one in self.line for node in one.node.body if isinstance(node, ast.FunctionDef))
        return {node.name for node in own if node.name == "__call__" or not node.name.startswith("_")}

    @property
    def is_abstract(self) -> bool:
        """Whether it is a protocol, or leaves a method to its subclasses."""
        if any(ast.unparse(base).split("[")[0] == "Protocol" for base in self.node.bases):
            return True
        nearest: dict[str, ast.FunctionDef] = {}
        for one in self.line:
            for node in one.node.body:
                if isinstance(node, ast.FunctionDef):
                    nearest.setdefault(node.name, node)
        return any("abstractmethod" in map(ast.unparse, node.decorator_list) for node in nearest.values())

    def settings(self) -> list[Setting]:
        """What a config may set: the fields of a dataclass, or the arguments of `__init__`; inherited ones last."""
        found: dict[str, Setting] = {}
        for one in self.line:
            for setting in [*_fields(one), *_arguments(one)]:
                found.setdefault(setting.name, setting)
        return list(found.values())

    def keywords(self, method: str) -> dict[str, str]:
        """What a method of it takes by keyword alone, with its annotations; nothing if it has no such method."""
        found: dict[str, str] = {}
        for one in self.line:
            for node in one.node.body:
                if isinstance(node, ast.FunctionDef) and node.name == method:
                    for given in node.args.kwonlyargs:
                        found.setdefault(given.arg, ast.unparse(given.annotation) if given.annotation else "Any")
        return found

    @property
    def takes_anything(self) -> bool:
        """Whether it may take more settings than its source says: any keyword, or what a base elsewhere takes."""
        inits = [n for one in self.line for n in one.node.body if getattr(n, "name", "") == "__init__"]
        made = any(isinstance(init, ast.FunctionDef) for init in inits)
        made |= any("dataclass" in ast.unparse(one) for part in self.line for one in part.node.decorator_list)
        return not made or any(isinstance(init, ast.FunctionDef) and init.args.kwarg is not None for init in inits)


@cache
def tree_of(module: str) -> ast.Module:
    """The syntax tree of a module of the source."""
    return ast.parse(source_of(module))


@cache
def source_of(module: str) -> str:
    """The text of a module of the source."""
    return _file(module).read_text()


@cache
def modules_in(folder: str) -> list[str]:
    """The modules of a package, those of packages within it included, sorted."""
    files = (file.relative_to(ROOT).with_suffix("").parts for file in (ROOT / folder).rglob("*.py"))
    return sorted(".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in files)


def classes_in(folder: str) -> list[Class]:
    """The public classes of a package, by module and place."""
    nodes = [(module, node) for module in modules_in(folder) for node in tree_of(module).body]
    classes = [Class(module, node) for module, node in nodes if isinstance(node, ast.ClassDef)]
    return [one for one in classes if not one.name.startswith("_")]


@cache
def resolve(module: str, name: str) -> Class | None:
    """What a name means in a module: a class defined there or imported from the source; None for any other."""
    if not _file(module).is_file():
        return None
    for node in tree_of(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Class(module, node)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return resolve(node.module, alias.name)
    return None


def find(path: str) -> Class:
    """The class at `module:Name` of the source.

    Raises:
        LookupError: if it is not there.
    """
    module, _, name = path.partition(":")
    found = resolve(module, name)
    if found is None:
        raise LookupError(f"{path} is not in the source; whoever moved it must mend the place that names it")
    return found


def is_in_source(module: str) -> bool:
    """Whether a module is one of flsim, clients, strategies and experiments."""
    return module.split(".")[0] in _ROOMS and _file(module).is_file()


def names_in(module: str) -> set[str]:
    """What a module of the source gives a name to at its top."""
    names: set[str] = set()
    for node in tree_of(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
    return names


def purpose_of(module: str) -> str:
    """The first sentence of a module's docstring."""
    return first_sentence(ast.get_docstring(tree_of(module)) or "")


def table_at(path: str) -> dict[str, str]:
    """A table of strings in the source, `NAME = MappingProxyType({...})`, by its path `module:NAME`."""
    module, _, name = path.partition(":")
    called = _assigned(module, name)
    assert isinstance(called, ast.Call), f"{path} is no MappingProxyType any more"
    known = {node.id: _assigned(module, node.id) for node in ast.walk(called) if isinstance(node, ast.Name)}
    entries = called.args[0]
    assert isinstance(entries, ast.Dict)
    keys = [known[key.id] if isinstance(key, ast.Name) else key for key in entries.keys]
    return {
        ast.literal_eval(k): ast.literal_eval(v) for k, v in zip(keys, entries.values, strict=True) if k is not None
    }


def _assigned(module: str, name: str) -> ast.expr | None:
    """What a module assigns to a name, or the module does from which it imports it; None if neither does."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and name in [ast.unparse(target) for target in node.targets]:
            return node.value
        if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
            return _assigned(node.module, name) if node.module.startswith("flsim.") else None
    return None


def told_of(path: str) -> str:
    """What stands below an assignment, or in the docstring of a class, at `module:Name`; else that of its module."""
    module, _, name = path.partition(":")
    body = tree_of(module).body
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(below, ast.Expr):
            return str(ast.literal_eval(below.value))
    return ast.get_docstring(tree_of(module)) or ""


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence, or the first empty line, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`\"])", paragraph, maxsplit=1)[0].rstrip(".:")


def documented(body: list[ast.stmt]) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Annotated assignments with the string that stands below each, empty if none does."""
    for place, node in enumerate(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            below = body[place + 1] if place + 1 < len(body) else None
            text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            yield node, " ".join(str(text).split())


def _fields(one: Class) -> list[Setting]:
    """Of a dataclass."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in one.node.decorator_list):
        return []
    found = []
    for node, doc in documented(one.node.body):
        kind, name = ast.unparse(node.annotation), ast.unparse(node.target)
        if not (name.startswith("_") or kind.startswith("ClassVar") or "init=False" in ast.unparse(node)):
            default = None if node.value is None else _default(node.value)
            found.append(Setting(name, kind, default, doc, one.path))
    return found


def _arguments(one: Class) -> list[Setting]:
    """Of `__init__`, with what the docstring's section `Args:` says of each."""
    init = next((n for n in one.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        return []
    said = argument_docs(ast.get_docstring(init) or "")
    every = init.args.args[1:]
    late = len(every) - len(init.args.defaults)
    defaults = [None] * late + list(init.args.defaults) + init.args.kw_defaults
    return [
        Setting(
            given.arg,
            ast.unparse(given.annotation) if given.annotation else "Any",
            None if default is None else ast.unparse(default),
            said.get(given.arg, ""),
            one.path,
        )
        for given, default in zip([*every, *init.args.kwonlyargs], defaults, strict=True)
    ]


def argument_docs(doc: str) -> dict[str, str]:
    """What a Google-style section `Args:` says, by argument."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    parts = re.split(r"^ {4}(\w+):", section.group(1), flags=re.MULTILINE)[1:] if section else []
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _default(value: ast.expr) -> str:
    """As written; a `field(default=...)` is what it makes."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in value.keywords}
        made = given.get("default_factory", "")
        return given.get("default") or _MADE.get(made) or made.removeprefix("lambda: ")
    return ast.unparse(value)


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
