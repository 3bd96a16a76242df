"""constraints.txt is a lock, so that `make` need not resolve: each group of it is whole; and so is a wheel."""

import re
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import Distribution  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ["run", "tasks", "gguf", "dev", "bench"]


def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def asked(group: str) -> list[Requirement]:
    """What setup.cfg says that a group requires."""
    parser = setup_cfg()
    lines = parser["options"]["install_requires"] if group == "run" else parser["options.extras_require"][group]
    return [Requirement(line) for line in lines.strip().splitlines()]


def locked(group: str) -> dict[str, str]:
    """The versions in the paragraph of constraints.txt that the Makefile installs under this name."""
    paragraph = re.search(rf"^# {group}:.*\n((?:.+\n)+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert paragraph is not None, f"constraints.txt has no group {group}"
    pins = [line.split("==") for line in paragraph[1].splitlines()]
    return {canonicalize_name(name): version for name, version in pins}


def needed(requirements: list[Requirement]) -> list[Requirement]:
    """These and all that they need in turn, by the metadata of what is installed."""
    found = {str(requirement): requirement for requirement in requirements}
    todo = list(requirements)
    while todo:
        above = todo.pop()
        for requirement in map(Requirement, distribution(above.name).requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ["", *above.extras]):
                if str(requirement) not in found:
                    todo.append(requirement)
                found[str(requirement)] = requirement
    return list(found.values())


def unmet(requirements: list[Requirement], pins: dict[str, str]) -> set[str]:
    """The requirements that no version in the lock meets."""
    return {
        str(requirement)
        for requirement in requirements
        if (version := pins.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(version, prereleases=True)
    }


OPTIONAL = ["track", "data", "partitioners", "harness", "gguf", "tasks", "ecosystem"]


def locked_optional() -> dict[str, str]:
    """The versions in constraints-ecosystem.txt, which is a lock of a whole environment."""
    lines = (ROOT / "constraints-ecosystem.txt").read_text().splitlines()
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in lines if not line.startswith("#"))}


@pytest.mark.parametrize("group", ["run", "dev", *OPTIONAL])
def test_the_lock_of_optional_parts_holds_versions_that_setup_cfg_admits(group: str) -> None:
    wanted = [one for one in asked(group) if one.name != "flsim-continual"]
    assert unmet(wanted, locked_optional()) == set()


def test_both_locks_hold_the_same_versions_of_what_results_hang_on() -> None:
    names = {"torch", "numpy", "flwr", "ray", "transformers", "peft", "tokenizers", "pandas"}
    both = locked("run"), locked_optional()
    assert {name: both[0][name] for name in names} == {name: both[1][name] for name in names}


@pytest.mark.parametrize("group", GROUPS)
def test_the_lock_holds_versions_that_setup_cfg_admits(group: str) -> None:
    assert unmet(asked(group), locked("run") | locked(group)) == set()


@pytest.mark.parametrize("group", GROUPS)
def test_the_lock_holds_what_those_need_in_turn_and_nothing_else(group: str) -> None:
    if any("nvidia" in line for line in distribution("torch").requires or []) or sys.platform != "linux":
        pytest.skip("the lock is for Linux without a GPU; elsewhere `make` lets pip resolve")
    try:
        distribution(asked(group)[0].name)
    except PackageNotFoundError:
        pytest.skip(f"not installed: make .venv/{group}")
    requirements = needed(asked(group))
    assert unmet(requirements, locked("run") | locked(group)) == set()
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    assert locked(group).keys() <= names, "no longer needed"
    installed = {name: Version(distribution(name).version).public for name in locked(group)}
    assert installed == locked(group), "not the environment that `make` installs"


def test_a_wheel_holds_every_file_of_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flsim = Distribution({"script_name": "setup.py"})
    flsim.parse_config_files()
    build = flsim.get_command_obj("build_py")
    build.ensure_finalized()
    tops = [pattern.rstrip("*") for pattern in setup_cfg()["options.packages.find"]["include"].split()]
    files = {path for top in tops for path in Path(top).rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {Path(path) for path in build.get_output_mapping().values()} == files
