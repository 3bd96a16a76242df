"""The arrows of the house point down: experiments -> clients, strategies -> flsim; and no module stands on itself."""

import ast
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


def module_of(file: Path, root: Path) -> str:
    """The name that a file is imported by."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, root: Path) -> set[str]:
    """Every dotted name that a file imports, wherever in it; `from a import b` counts as `a.b`."""
    package = module_of(file, root).split(".")[: None if file.name == "__init__.py" else -1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
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
