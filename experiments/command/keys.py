"""Every key of a config and every setting of a part, and who reads it, for `flsim explain` and the completion."""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from experiments.command.list import KINDS, Parts
from experiments.command.walk import Setting, modules_in, source_of, tree_of
from flsim.config.explain import NAME, SECTION, Key, fields_of
from flsim.config.schema import Config

ROOMS = ("flsim", "clients", "strategies", "experiments")
_PLAIN = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.BinOp, ast.UnaryOp)
_AROUND = (ast.Expression, ast.operator, ast.unaryop, ast.expr_context)


@dataclass(frozen=True)
class PartKey:
    """A setting of the parts that some key names, such as `client.lr`."""

    name: str
    setting: Setting
    takers: tuple[str, ...]
    """Paths of the parts that take it."""

    @property
    def default(self) -> str:
        """As the command line takes it; empty if it must be given."""
        given = self.setting.default
        return "" if given is None else _evaluated(self.setting.owner.partition(":")[0], given)


@cache
def config_keys() -> tuple[Key, ...]:
    """The keys of the config itself, sections included, in the order of its dataclasses."""
    return tuple(fields_of())


@cache
def part_keys() -> tuple[PartKey, ...]:
    """The settings of all shipped parts; one entry per class that declares it."""
    takers: dict[tuple[str, Setting], list[str]] = {}
    for kind in KINDS.values():
        if isinstance(kind, Parts):
            for part in kind.classes():
                for setting in part.settings():
                    takers.setdefault((f"{kind.key}.{setting.name}", setting), []).append(part.path)
    return tuple(PartKey(name, setting, tuple(paths)) for (name, setting), paths in takers.items())


def key_names() -> list[str]:
    """What may be set, each once; sections are not among it."""
    every = [key.name for key in config_keys() if key.type != SECTION] + [key.name for key in part_keys()]
    return list(dict.fromkeys(every))


def written(default: Any) -> str:
    """A default as the command line takes it: `null` for None, lists in brackets."""
    return default if isinstance(default, str) else json.dumps(default)


def readers_of(key: str) -> list[str]:
    """Modules that read a key of the config: those in which it is an attribute of its section.

    The section is known by its name (`config.budget.tau`, `budget.tau`) or by a parameter that is annotated with its
    class (`def largest(limits: BudgetConfig)` reads `limits.tau`).
    """
    *above, leaf = [word for word in key.split(".") if word != NAME]
    section, of = above[-1] if above else "config", _class_of(above)
    modules = [module for room in ROOMS for module in modules_in(room)]
    return [module for module in modules if f".{leaf}" in source_of(module) and _reads(module, leaf, section, of)]


def _class_of(sections: Sequence[str]) -> str:
    """The name of the dataclass that holds a section's keys."""
    found: type = Config
    for word in sections:
        hint = get_type_hints(found)[word]
        found = next(part for part in (hint, *get_args(hint)) if is_dataclass(part) and isinstance(part, type))
    return found.__name__


@cache
def _nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(tree_of(module)))


def _reads(module: str, leaf: str, section: str, of: str) -> bool:
    nodes = _nodes(module)
    annotated = [
        (node.arg, ast.unparse(node.annotation)) for node in nodes if isinstance(node, ast.arg) and node.annotation
    ]
    names = {section, *(name for name, kind in annotated if of in kind.split(" | "))}
    read = (node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr == leaf)
    return any((getattr(value, "attr", None) or getattr(value, "id", None)) in names for value in read)


def _evaluated(module: str, default: str) -> str:
    """A default of the source as the command line takes it; what is no plain value stays as the source has it."""
    value = ast.parse(default, mode="eval")
    if isinstance(value.body, ast.Name):
        constant = _constant(module, default)
        return default if constant is None else _evaluated(module, constant)
    if not all(isinstance(node, (*_PLAIN, *_AROUND)) for node in ast.walk(value)):
        return default
    return written(eval(compile(value, module, "eval"), {}))  # numbers and texts alone, such as 2**15


def _constant(module: str, name: str) -> str | None:
    """What a name stands for in a module: assigned there, alone or in a row of names, or where it is imported from."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if ast.unparse(target) == name:
                    return ast.unparse(node.value)
                if isinstance(target, ast.Tuple) and name in [ast.unparse(one) for one in target.elts]:
                    return _element(module, node.value, [ast.unparse(one) for one in target.elts].index(name))
        if isinstance(node, ast.ImportFrom) and node.module in (*modules_in("flsim"), *modules_in("clients")):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _constant(node.module, alias.name)
    return None


def _element(module: str, row: ast.expr, place: int) -> str | None:
    """The element of a row in the source, which may have a name."""
    if isinstance(row, ast.Name):
        named = _constant(module, row.id)
        return None if named is None else _element(module, ast.parse(named, mode="eval").body, place)
    return ast.unparse(row.elts[place]) if isinstance(row, ast.Tuple) else None
