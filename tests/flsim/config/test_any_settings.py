"""Whatever is given as settings, from wherever: a config that reads back as itself, or one sentence, never a traceback.

Small here; over thousands of examples by `make test-torture`.
"""

import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.command.__main__ import main
from flsim.config.explain import SECTION, fields_of, refuse_out_of_range
from flsim.config.load import differences, load_config, settings_of, to_yaml
from flsim.config.model import ModelConfig
from flsim.config.schema import Config, ConfigError, DataConfig
from flsim.config.shipped import FOLDER
from flsim.config.system import SystemConfig
from flsim.loop.checks import check_settings

EXAMPLES = [40, pytest.param(4000, marks=pytest.mark.torture)]
KEYS = [key.name.replace("NAME", "mine") for key in fields_of() if key.type != SECTION]
SECTIONS = [key.name.replace("NAME", "mine") for key in fields_of() if key.type == SECTION]
ODD = (
    *(
        "",
        " ",
        "null",
        "None",
        "~",
        "no",
        "yes",
        "on",
        "true",
        "True",
        "010",
        "0x1F",
        "0o7",
        "1_000",
        "1e3",
        "1e-3",
        "-1",
    ),
    *(
        "0",
        "1",
        "8",
        "0.5",
        "1e999",
        "1e-999",
        "inf",
        "-inf",
        ".inf",
        "nan",
        ".nan",
        "12:30",
        "2024-01-01",
        "99999999999999999999",
    ),
    *(
        "[",
        "]",
        "[]",
        "[8,4]",
        "8,4",
        "8,,4",
        "[[a]]",
        "{}",
        "{a: 1}",
        "{a: 1, a: 2}",
        "{path: a:b}",
        "{",
        "'",
        '"',
        "'no'",
    ),
    *(
        "a # b",
        "a: b",
        "a=b",
        "- a",
        "&a",
        "*a",
        "!a",
        "!!int 3",
        "|",
        ">",
        "<<",
        "\t",
        "a\nb",
        "é漢字",
        "\u2028",
        "\x85",
        "\ufeff",
    ),
    *("${seed}", "${oc.env:HOME}", "{help}", "\0", "\ud800", "a:b", "clients.da_grpo:DaGrpo", "x" * 300, "9" * 5000),
)
VALUES = st.sampled_from(ODD) | st.text(max_size=12) | st.text("[]{},:#'\"-&*!|>%@ \t\nae0.1", max_size=16)
THEIR_WORDS = ("Traceback", "DictConfig", "ListConfig", "container", "omegaconf", "yaml.org", "NoneType", "mark>")


def said_well(error: ConfigError) -> None:
    """One sentence, not too long, and in no library's words."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 700, text
    assert not [word for word in THEIR_WORDS if word in text], text


def reads_back(config: Config, file: Path) -> None:
    """What is written of it is the same config, to the last bit."""
    file.write_text(to_yaml(config), encoding="utf-8")
    again = load_config(file)
    assert again == config
    assert differences(config, again) == []
    try:
        check_settings(config)
    except ConfigError as error:
        said_well(error)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that examples write over."""
    folder: Path = tmp_path_factory.mktemp("any")
    return folder / "config.yaml"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_value_of_any_key(examples: int, file: Path) -> None:
    """From the command line, and in a file as it stands or in quotes."""

    @settings(max_examples=examples)
    @given(
        key=st.sampled_from([*KEYS, *SECTIONS, "client.lr", "cloud.url", "stage.path"]),
        value=VALUES,
        place=st.integers(0, 2),
    )
    def law(key: str, value: str, place: int) -> None:
        try:
            if place == 0:
                config = load_config(None, [f"{key}={value}"])
            else:
                *above, last = key.split(".")
                quoted = "'" + value.replace("'", "''") + "'" if place == 2 else value
                text = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(above))
                file.write_bytes(f"{text}{'  ' * len(above)}{last}: {quoted}\n".encode(errors="surrogatepass"))
                config = load_config(file)
        except ConfigError as error:
            said_well(error)
        else:
            reads_back(config, file)

    law()


OF_ONES_OWN = ("client", "strategy", "stage", "data", "system.classes", "system.links")
"""Where a name may be any."""


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_misspelt_key(examples: int) -> None:
    """A letter more, less or other: a sentence, unless it names a plug-in's own setting, a data set or the like."""

    @settings(max_examples=examples)
    @given(data=st.data())
    def law(data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([one for one in KEYS if not one.startswith(OF_ONES_OWN)]))
        place = data.draw(st.integers(0, len(key) - 1))
        letter = data.draw(st.sampled_from("abex_-.[]+~ é\0\n="))
        wrong = data.draw(
            st.sampled_from([key[:place] + letter + key[place:], key[:place] + key[place + 1 :], key + letter])
        )
        try:
            config = load_config(None, [f"{wrong}=1"])
        except ConfigError as error:
            said_well(error)
        else:
            free = wrong.split("=")[0].split(".")[0] in ("cloud", "model")
            assert free or wrong.partition("=")[0] in KEYS, f"{wrong} was taken: {differences(Config(), config)}"

    law()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_damage_to_a_file(examples: int, file: Path) -> None:
    """Bytes put in, taken out or replaced, somewhere in a config that ships."""
    whole = (FOLDER / "demo.yaml").read_bytes() + (FOLDER / "real.yaml").read_bytes().replace(b"\n", b"\n ")[:600]
    sources = [(FOLDER / f"{name}.yaml").read_bytes() for name in ("demo", "real", "distil")] + [whole]
    junk = st.binary(max_size=4) | st.sampled_from(
        [b"\t", b": ", b"- ", b"\n", b"#", b"'", b"[", b"{", b"&a ", b"*a", b"!b ", b"\xff"]
    )

    @settings(max_examples=examples)
    @given(source=st.sampled_from(sources), start=st.integers(0, 2000), cut=st.integers(0, 30), more=junk)
    def law(source: bytes, start: int, cut: int, more: bytes) -> None:
        start %= len(source)
        file.write_bytes(source[:start] + more + source[start + cut :])
        try:
            config = load_config(file)
        except ConfigError as error:
            said_well(error)
        else:
            reads_back(config, file)

    law()


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(ODD) | st.text(max_size=8)
ANYTHING = st.recursive(
    PLAIN | st.binary(max_size=3) | st.sampled_from([object(), 1j, {1}, Path("x"), math.nan, 2**70, int]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def with_value(part: Any, path: list[str], value: Any) -> Any:
    """A config, or a section of one, with the field at `path` replaced."""
    name, *rest = path
    return replace(part, **{name: with_value(getattr(part, name), rest, value) if rest else value})


@pytest.mark.parametrize("examples", EXAMPLES)
def test_anything_that_python_puts_into_a_field(examples: int, file: Path) -> None:
    named = ("data.", "system.classes.", "system.links.")  # what stands under a name is not there before
    keys = [key.split(".") for key in [*KEYS, *SECTIONS] if not key.startswith(named)]

    @settings(max_examples=examples)
    @given(path=st.sampled_from(keys), value=ANYTHING)
    def law(path: list[str], value: Any) -> None:
        config = with_value(Config(system=SystemConfig()), path, value)
        try:
            refuse_out_of_range(config)
        except ConfigError as error:
            said_well(error)
        else:
            file.write_text(to_yaml(config), encoding="utf-8")
            assert settings_of(load_config(file)) == settings_of(config)  # in which a tuple is a list

    law()


@pytest.mark.parametrize("examples", [12, pytest.param(1000, marks=pytest.mark.torture)])
def test_the_command_ends_with_status_2_and_one_line(examples: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Of `flsim run`, with `--until -1`, which is refused when all else was taken."""

    @settings(max_examples=examples)
    @given(key=st.sampled_from(KEYS), value=VALUES)
    def law(key: str, value: str) -> None:
        assert main(["run", "demo", f"{key}={value}", "--until", "-1"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err

    law()


def test_the_keys_are_all_there() -> None:
    """Those of a data set under a name, and no section is left out."""
    assert {"seed", "budget.fleet.division", "data.mine.alpha", "client"} <= set(KEYS)
    assert {field.name for field in fields(DataConfig)} <= {key.rpartition(".")[2] for key in KEYS}
    assert {field.name for field in fields(Config) if is_dataclass(getattr(Config(), field.name))} <= set(SECTIONS)


@pytest.mark.parametrize("examples", [None, 3, ["no table"]])
def test_examples_that_are_no_table_are_told_and_not_fallen_over(examples: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.examples"):
        check_settings(replace(Config(), model=ModelConfig(examples=examples)))
