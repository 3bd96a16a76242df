"""The arrows of the house point down: experiments -> clients, strategies -> flsim, and in flsim from floor to floor.

No module stands on itself, and reading a config loads no room but its own.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "flsim": {"flsim"},
    "strategies": {"strategies", "flsim"},
    "clients": {"clients", "flsim"},
    "experiments": {"experiments", "clients", "strategies", "flsim"},
}

FLOORS = (
    ("devices", "seeding", "files", "text", "learning", "collaboration", "config", "sandbox"),
    ("timing", "budget", "problems", "storage", "system"),
    ("models", "tasks"),
    ("aggregation", "cloud", "metrics"),
    ("charts", "diagnosis", "flower"),
    ("report",),
    ("trackers",),
    ("loop", "comparison", "export"),
    ("federation", "live"),
    ("flsim", "__main__"),
)
"""The rooms of flsim, from the ground up: a room imports only rooms of lower floors. `flsim` is its `__init__.py`, and
`__main__` starts the command by its name, since that lives above, in `experiments`."""

WHOLE_CONFIG = (
    "flsim/__init__.py",
    "flsim/config",
    "flsim/loop",
    "flsim/federation",
    "flsim/comparison",
    "flsim/live",
    "experiments",
)
"""Where functions may take the whole `Config`: the loop and what stands above it, and the room that reads it."""
MEETS_THE_RUN = {
    "flsim/flower/contract.py": {"begin", "client_app", "client_of"},  # plug-ins are introduced to the run
    "clients/app.py": {"__init__"},
    "clients/device/world.py": {"load_world", "World"},
    "clients/learner.py": {"client_app", "check", "app", "_refuse_too_much"},
    "clients/da_grpo.py": {"check"},
    "clients/fixed_price.py": {"check"},
    "clients/reinforcement.py": {"check"},
    "clients/refusals.py": {"refuse_rule", "refuse_mode"},
    "clients/poisoning.py": {"malicious_devices", "__init__", "app"},
    "clients/supervised.py": {"client_app", "_refuse_language", "__init__"},
    "strategies/base.py": {"DeltaStrategy", "begin"},
    "strategies/fed_dyn.py": {"begin"},
    "strategies/rolora.py": {"begin"},
    "strategies/parts/oort.py": {"begin"},
    "strategies/parts/samplers.py": {"begin", "system_of"},
    "strategies/stages/distillation.py": {"Distillation", "begin"},
    "strategies/stages/module_distillation.py": {"begin"},
    "flsim/tasks/stream.py": {"stream_of"},
}
"""Other functions, and classes with a field of this type, that may: where a plug-in meets the run. Whatever they call
gets a section of the config or plain values."""


def module_of(file: Path, root: Path) -> str:
    """The name that a file is imported by."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(file: Path) -> ast.Module:
    """What a file says, read once for all tests here."""
    return ast.parse(file.read_text())


@cache
def imports(file: Path, root: Path) -> set[str]:
    """Every dotted name that a file imports, wherever in it; `from a import b` counts as `a.b`."""
    package = module_of(file, root).split(".")[: None if file.name == "__init__.py" else -1]
    names = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def module_graph(root: Path, packages: list[str]) -> dict[str, set[str]]:
    """Which of the repository's modules each of them imports."""
    files = {module_of(file, root): file for package in packages for file in sorted((root / package).rglob("*.py"))}

    def known(name: str) -> str | None:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name or None

    graph = {module: {known(name) for name in imports(file, root)} for module, file in files.items()}
    return {module: {target for target in targets if target is not None} for module, targets in graph.items()}


def room_of(module: str) -> str:
    """The room of flsim that a module belongs to: a package, a module that stands alone, or flsim's own face."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_down(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ is not where this test looks for it: {ROOT}"
    for file in files:
        upward = ({name.split(".")[0] for name in imports(file, ROOT)} & MAY_IMPORT.keys()) - MAY_IMPORT[package]
        assert not upward, (
            f"{file.relative_to(ROOT)} imports {sorted(upward)}: {package}/ may import only "
            f"{sorted(MAY_IMPORT[package])}"
        )


def test_every_room_stands_on_one_floor() -> None:
    declared = [room for floor in FLOORS for room in floor]
    there = {room_of(module) for module in module_graph(ROOT, ["flsim"])}
    assert sorted(declared) == sorted(there)


def test_rooms_import_only_rooms_of_lower_floors() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    arrows = {
        (room_of(module), room_of(target)): f"{module} imports {target}"
        for module, targets in module_graph(ROOT, ["flsim"]).items()
        for target in targets
    }
    assert ("loop", "config") in arrows  # the graph is not empty by mistake
    wrong = [said for (above, below), said in arrows.items() if above != below and floor_of[below] >= floor_of[above]]
    assert not wrong, f"{'; '.join(sorted(wrong))}: a room may import only rooms of lower floors, see FLOORS"


def test_loading_a_config_imports_no_other_room() -> None:
    """No reader, verifier, cloud or model, and neither torch nor Ray: half a second goes into them, or several."""
    code = (
        "import sys, flsim; flsim.load_config('experiments/configs/demo.yaml'); "
        "print(*[name for name in sys.modules if name.split('.')[0] in ('flsim', 'torch', 'ray', 'transformers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "flsim.config.load" in loaded
    assert {room_of(name) for name in loaded} <= {"flsim", "config"}


def takers_of_the_config(file: Path) -> set[str]:
    """Functions with a parameter, and classes with a field, that is annotated with the whole `Config`."""

    def names_it(annotation: ast.expr | None) -> bool:
        return annotation is not None and "Config" in re.findall(r"\w+", ast.unparse(annotation))

    if not re.search(r"\bConfig\b", file.read_text()):
        return set()  # of most files at once, as it takes long to write annotations out
    takers = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            if any(names_it(one.annotation) for one in every if one is not None):
                takers.add(node.name)
        elif isinstance(node, ast.ClassDef):
            fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
            if any(names_it(field.annotation) for field in fields):
                takers.add(node.name)
    return takers


def test_below_the_loop_nothing_takes_the_whole_config() -> None:
    for package in MAY_IMPORT:
        for file in sorted((ROOT / package).rglob("*.py")):
            where = str(file.relative_to(ROOT))
            more = takers_of_the_config(file) - MEETS_THE_RUN.get(where, set())
            assert not more or where.startswith(WHOLE_CONFIG), (
                f"{where}: {sorted(more)} take the whole Config; pass its section (budget, model, ...) or plain values"
            )


def test_no_circle_among_modules() -> None:
    graph = module_graph(ROOT, list(MAY_IMPORT))
    assert "flsim.seeding" in graph["flsim.tasks.stream"]  # the graph is not empty by mistake
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other in a circle: {' <- '.join(error.args[1])}")


def test_the_walk_sees_every_way_to_import(tmp_path: Path) -> None:
    """a imports b by name, b imports c relatively and inside a function, c imports a's member: a circle of three."""
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").write_text("")
    (house / "a.py").write_text("import house.b as b\n")
    (house / "b.py").write_text("def late():\n    from . import c\n")
    (house / "c.py").write_text("from house.a import b\n")
    graph = module_graph(tmp_path, ["house"])
    assert graph == {"house": set(), "house.a": {"house.b"}, "house.b": {"house.c"}, "house.c": {"house.a"}}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
