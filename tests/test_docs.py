"""Docs agree with the code: links, commands, paths, plug-ins, keys, methods, strategies, rules and rooms."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from clients.asking import learned, policy, scores, simple
from experiments.command.__main__ import COMMANDS
from experiments.command.terminal import GRAMMAR
from experiments.study import STUDIES
from flsim.config.explain import NAME, fields_of
from flsim.config.shipped import shipped_names
from tests.test_floors import FLOORS

ROOT = Path(__file__).parents[1]
TOP = ("flsim", "clients", "strategies", "experiments")
HISTORY = "CHANGELOG.md"  # it names what there was
PAGES = sorted(str(p.relative_to(ROOT)) for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
PRESENT = [page for page in PAGES if page != HISTORY]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def classes_in(file: Path) -> set[str]:
    """The public classes and functions of a file."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds)}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page))
    broken = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PRESENT)
def test_every_command_of_a_page_is_there(page: str) -> None:
    """`python -m a.b` is a file a/b.py or a folder with a `__main__.py`; `flsim NAME` is a subcommand."""
    called = {name.rstrip(".") for name in re.findall(r"python -m ([\w.]+)", text_of(page))}
    files = {name: ROOT.joinpath(*name.split(".")) for name in called if name.split(".")[0] in TOP}
    assert not [n for n, f in files.items() if not f.with_suffix(".py").exists() and not (f / "__main__.py").exists()]
    typed = re.findall(r"(?:^ {4}|`)flsim (\w+)", text_of(page), re.M)
    assert set(typed) <= set(COMMANDS)
    run = re.findall(r"(?:^ {4}|`)flsim (?:run|study|profile) ([a-z]\w*)(?=[ `\n])", text_of(page), re.M)
    assert set(run) <= {*shipped_names(), *STUDIES}


@pytest.mark.parametrize("page", PRESENT)
def test_every_path_in_backticks_is_there(page: str) -> None:
    paths = re.findall(rf"`((?:{'|'.join(TOP)}|docs|tests)/[\w./-]*)`", text_of(page))
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PRESENT)
def test_every_plug_in_that_is_named_is_there(page: str) -> None:
    named = set(re.findall(rf"\b((?:{'|'.join(TOP)})(?:\.\w+)+):(\w+)", text_of(page)))
    files = {(module, name): ROOT.joinpath(*module.split(".")).with_suffix(".py") for module, name in named}
    assert not [key for key, file in files.items() if not file.exists() or key[1] not in classes_in(file)]


def test_the_table_of_methods_names_the_files_that_ship() -> None:
    table = text_of("docs/sweeps.md").partition("Shipped are:")[2].partition("A method of your own")[0]
    named = re.findall(r"`(\w+)`", table)
    assert sorted(named) == sorted(file.stem for file in (ROOT / "experiments/configs/methods").glob("*.yaml"))


@pytest.mark.parametrize(
    ("page", "room", "shared"),
    [
        (
            *("docs/methods.md", "clients"),
            {
                "__init__",
                "app",
                "evaluate",
                "orders",
                "taken",
                "task_scores",
                "refusals",
                "learner",
                "reinforcement",
                "poisoning",
            },
        ),
        ("docs/strategies.md", "strategies", {"__init__", "base", "mean"}),
    ],
)
def test_every_method_and_strategy_is_on_its_page(page: str, room: str, shared: set[str]) -> None:
    files = {file.stem for file in (ROOT / room).glob("*.py")} - shared
    assert files
    assert {stem for stem in files if f"{room}.{stem}:" not in text_of(page)} == set()


def test_every_rule_for_asking_is_on_its_page() -> None:
    rules = {
        f"{module.__name__}:{name}"
        for module in (policy, simple, scores, learned)
        for name, one in vars(module).items()
        if inspect.isclass(one) and one.__module__ == module.__name__ and hasattr(one, "decide")
    }
    concrete = {rule for rule in rules if not rule.partition(":")[2].startswith("_")}
    assert concrete == set(re.findall(r"^\| `(clients\.asking\.[\w.:]+)`", text_of("docs/asking.md"), re.M))


def test_how_settings_are_written_is_told_as_in_the_help_of_the_commands() -> None:
    block = "\n".join(f"    {line}".rstrip() for line in GRAMMAR.strip().splitlines())
    assert block in text_of("docs/running.md")


def test_the_keys_of_running_md_are_keys_of_a_config() -> None:
    """Every key in the first column; `a.b, c` is a.b and a.c, and an ellipsis stands for more of a section."""
    known = {key.name for key in fields_of()}
    free = ("client.", "strategy.", "stage.")  # what stands there is the plug-in's own
    for line in text_of("docs/running.md").partition("| key | meaning |")[2].partition("\n\n")[0].splitlines()[2:]:
        section = ""
        for key in re.findall(r"`([\w.*]+)`", line.split("|")[1]):
            name = key if "." in key or key in known else f"{section}{key}"
            section = name.rpartition(".")[0] + "." if "." in name else ""
            assert name in known or name.startswith(free) or name.endswith(".*"), f"{key} in {line}"


def test_every_section_of_a_config_is_in_running_md() -> None:
    sections = {key.name.partition(".")[0] for key in fields_of() if NAME not in key.name} - {"name", "run_dir"}
    table = text_of("docs/running.md").partition("| key | meaning |")[2].partition("\n\n")[0]
    assert {section for section in sections if f"`{section}" not in table} == set()


def test_the_picture_of_the_house_is_that_of_the_floors() -> None:
    picture = text_of("docs/design.md").partition("## The picture")[2].partition("Arrows run")[0]
    drawn = {int(n): rooms.split() for n, rooms in re.findall(r"^ +(\d) +([a-z ]+?)(?: {3,}.*)?$", picture, re.M)}
    assert drawn == {n: sorted(rooms) for n, rooms in enumerate(FLOORS[:-1])}


def test_every_room_has_one_line_in_the_design() -> None:
    table = text_of("docs/design.md").partition("## Rooms")[2].partition("## Words")[0]
    named = re.findall(r"^\| `([\w/.]+)` \|", table, re.M)
    there = {f"flsim/{room}" for floor in FLOORS[:-1] for room in floor} | set(TOP) - {"flsim"}
    there |= {
        f"{top}/{init.parent.name}" for top in ("clients", "strategies") for init in ROOT.glob(f"{top}/*/__init__.py")
    }
    assert len(named) == len(set(named))
    assert there <= {name.removesuffix(".py") for name in named}
    assert not [name for name in named if not (ROOT / name).exists()]
