"""What a diagnosis asks of a run's client, by the source of its class: without torch, and without anybody's code.

`flsim watch` looks at runs with it. Of a client that does not ship nothing is known but what the config says.
"""

import ast
import math
from typing import Any

from experiments.command.walk import Class, find
from flsim.config.schema import Config
from flsim.diagnosis.seen import Facts
from flsim.loop.facts import OF_THE_CLASS, facts_with


def facts_unloaded(config: Config) -> Facts:
    """What `flsim.loop.diagnosing.facts_of` says of a config.

    Law: the same for every client that ships.
    """
    try:
        named = find(str(config.client["path"]))
    except (LookupError, OSError, ValueError):
        return facts_with(config, learns_to_ask=False, dual_max=None, dual_lr=None)
    may_ask, dual_max, dual_lr = (attribute(named, name) for name in OF_THE_CLASS)
    return facts_with(config, learns_to_ask=bool(may_ask), dual_max=dual_max, dual_lr=dual_lr)


def attribute(one: Class, name: str) -> Any:
    """A value that a class gives to one of its attributes, or inherits; None if it has none that the source spells."""
    for owner in one.line:
        for node in owner.node.body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value is not None:
                return _value(node.value)
            if isinstance(node, ast.Assign) and name in [ast.unparse(target) for target in node.targets]:
                return _value(node.value)
    return None


def _value(written: ast.expr) -> Any:
    """Of a literal, of `math.inf`, and of a field with a default; None for all else."""
    if isinstance(written, ast.Call) and ast.unparse(written.func) == "field":
        given = {keyword.arg: keyword.value for keyword in written.keywords}
        return _value(given["default"]) if "default" in given else None
    if ast.unparse(written) == "math.inf":
        return math.inf
    try:
        return ast.literal_eval(written)
    except ValueError:
        return None
