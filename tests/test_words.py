"""One word per thing: what the table of `docs/design.md` bans stands nowhere in code, configs or pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPELLINGS = {"flsim/config/spelling.py", "flsim/config/plugins.py", "flsim/metrics/renamed.py", "docs/design.md"}
"""Where old words must stand: what was renamed is read for one release by these, and the table itself."""


def banned() -> list[str]:
    """The last column of the table of words."""
    words = (ROOT / "docs" / "design.md").read_text().split("## Words")[1]
    cells = [line.split("|")[3] for line in words.splitlines() if line.count("|") == 4]
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell) if "never" not in cell]


def files() -> dict[str, str]:
    """Code, configs and pages by path, those of `SPELLINGS` left out."""
    rooms = ("flsim", "clients", "strategies", "experiments", "docs")
    found = [path for room in rooms for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".yaml", ".md")]
    named = {str(path.relative_to(ROOT)): path for path in [*found, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]}
    return {name: path.read_text() for name, path in named.items() if name not in SPELLINGS}


def test_the_table_bans_words_and_is_read_whole() -> None:
    assert {"task group", "local_accuracy", "ServerStage", "experiments.sweep"} <= set(banned())


@pytest.mark.parametrize("word", banned())
def test_a_banned_word_stands_nowhere(word: str) -> None:
    pattern = re.compile(rf"(?<![\w.]){re.escape(word)}" if word[0] != "." else re.escape(word))
    assert [name for name, text in files().items() if pattern.search(text)] == []
