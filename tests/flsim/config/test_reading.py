"""The type of a field says what a text means: texts as they were typed, plain numbers, lists, null, two booleans."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.given import OVERRIDES, Text, shown
from flsim.config.kinds import LARGEST, misfit
from flsim.config.load import load_config, to_yaml
from flsim.config.reading import is_plain, read
from flsim.config.schema import BudgetConfig, Config, ConfigError, FleetConfig, StreamConfig
from flsim.loop.checks import check

NULLS = ("null", "none", "None", "NULL", "~")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def typed(text: str) -> Text:
    """All that an override gives."""
    return Text(OVERRIDES, text, whole=True)


def complaint(override: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    return str(caught.value)


@given(text=TEXTS)
def test_a_text_is_kept_as_it_was_typed(text: str) -> None:
    """But for the words for null, which are refused or None, and must stand in quotes to be texts."""
    bare = text.strip("'\"")
    if bare.lower() not in ("", *NULLS):
        assert read(str, typed(text), "name") == text
        assert read(str | None, typed(text), "run_dir") == text


@pytest.mark.parametrize(
    "text",
    [
        *("no", "yes", "on", "off", "010", "1e3", "0x10", "a # b", "a: b", " a ", "a=b", "[a", "{a}", '"a"', "it's"),
        *("12:30", "2024-01-01", "é漢字", "true", "3", ".inf", "&a", "*a", "!a", "%a", "@a", "`a", "- a", "? a", "|"),
        *(">", "a\nb"),
    ],
)
def test_odd_texts_are_texts_from_the_command_line_and_from_a_file(text: str, tmp_path: Path) -> None:
    assert load_config(None, [f"name={text}"]).name == text
    file = tmp_path / "odd.yaml"
    if text in ("no", "yes", "on", "off", "010", "1e3", "0x10", "12:30", "2024-01-01", "true", "3", ".inf", "é漢字"):
        file.write_text(f"name: {text}\nmodel: {{templates: {{arithmetic: {text}}}}}\n", encoding="utf-8")
        assert load_config(file).name == text
        assert load_config(file).model.templates == {"arithmetic": text}


@pytest.mark.parametrize("word", NULLS)
def test_null_is_none_where_a_setting_may_be_left_out_and_else_refused(word: str) -> None:
    assert load_config(None, [f"run_dir={word}", f"budget.fleet.division={word}", f"model.targets={word}"]) == Config()
    assert load_config(None, [f"cloud.system={word}", f"client.lr={word}"]).cloud.settings == {"system": None}
    assert load_config(None, [f"stage={word}"]).stage is None
    for key in ("name", "seed", "budget.tau", "model.chat", "fleet.ranks", "evaluation.split", "data.x.root"):
        assert f"{key}={word!r} in the overrides cannot be null" in complaint(f"{key}={word}")
    assert load_config(None, [f'name="{word}"', f"run_dir='{word}'"]) == Config(name=word, run_dir=word)


@given(number=st.integers(-LARGEST, LARGEST), other=st.floats(allow_nan=False))
def test_numbers_are_read_as_python_writes_them(number: int, other: float) -> None:
    assert read(int, typed(str(number)), "seed") == number
    assert read(float, typed(repr(other)), "alpha") == other
    assert read(Any, typed(str(number)), "client.x") == number
    assert read(Any, typed(repr(other)), "client.x") == other


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("010", "such as 10"),
        ("-007", "such as -7"),
        ("0x1F", "such as 31"),
        ("0b11", "such as 3"),
        ("1_000", "such as 1000"),
        ("1e3", "such as 1000"),
        ("3.0", "such as 3"),
        ("2.5", "must be a whole number"),
        ("٣", "must be a whole number"),
        ("", "must be a whole number"),
        ("true", "must be a whole number"),
        ("inf", "must be a whole number"),
        ("12:30", "must be a whole number"),
        ("[3]", "must be a whole number"),
        (str(2**63), f"at most {LARGEST}"),
        ("9" * 5000, f"at most {LARGEST}"),
    ],
)
def test_a_whole_number_has_plain_digits(text: str, mend: str, tmp_path: Path) -> None:
    assert mend in complaint(f"seed={text}")
    assert len(complaint(f"seed={text}")) < 300
    file = tmp_path / "odd.yaml"
    file.write_text(f"# a run\nseed: {text}\n")
    with pytest.raises(ConfigError, match=r"odd.yaml, line 2 |odd.yaml, line 2$"):
        load_config(file)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", ".001", "0.001", "+1e-3", " 0.001 "])
def test_a_thousandth_is_a_number_in_every_spelling_from_both_places(text: str, tmp_path: Path) -> None:
    """YAML by itself takes 1e-3 for a text."""
    file = tmp_path / "odd.yaml"
    file.write_text(f"stream: {{alpha: {text}}}\nclient: {{path: 'a:b', lr: {text}}}\n")
    for config in (load_config(file), load_config(None, [f"stream.alpha={text}", f"client.lr={text}"])):
        assert (config.stream.alpha, config.client["lr"]) == (0.001, 0.001)


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\ufeff", "a\tb", "\r\n", " ", "null", "''", "\x1b[1m"])
def test_odd_letters_are_written_so_that_they_are_read_again(text: str, tmp_path: Path) -> None:
    config = Config(name=text, client={"path": "a:b", "x": text})
    file = tmp_path / "odd.yaml"
    file.write_text(to_yaml(config), encoding="utf-8", newline="")
    assert load_config(file) == config


def test_infinity_is_a_number_and_nan_is_none() -> None:
    for text in ("inf", ".inf", "+inf", "Inf"):
        assert load_config(None, [f"stream.alpha={text}"]).stream.alpha == math.inf
    for text in ("nan", ".nan", "NaN"):
        assert "must be a number" in complaint(f"stream.alpha={text}")
        assert "can mean two things" in complaint(f"client.lr={text}")
    assert "beyond what a number can hold; write inf" in complaint("stream.alpha=1e999")
    assert "beyond what a number can hold; write 0" in complaint("stream.alpha=1e-999")


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "1", "0", "y", "TRUE!", ""])
def test_only_true_and_false_are_true_and_false(text: str) -> None:
    assert complaint(f"model.chat={text}") == f"model.chat={text!r} in the overrides must be true or false"
    assert [load_config(None, [f"model.chat={word}"]).model.chat for word in ("true", "False")] == [True, False]


@pytest.mark.parametrize("text", ["[8,4]", "[8, 4]", "8,4", "8, 4", " [ 8,4 ] "])
def test_a_list_is_given_with_or_without_brackets(text: str) -> None:
    assert load_config(None, [f"fleet.ranks={text}"]).fleet.ranks == (8, 4)
    assert load_config(None, [f"model.targets={text}"]).model.targets == ("8", "4")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fleet.ranks=", "write [8, 4], or [] for an empty list"),
        ("fleet.ranks=8,,4", "write [8, 4], or [] for an empty list"),
        ("fleet.ranks=[8,x]", "fleet.ranks[1]='x' in the overrides must be a whole number"),
        ("fleet.ranks=[8,04]", "fleet.ranks[1]='04' in the overrides must be a whole number in plain decimal digits"),
        ("fleet.ranks={8: 4}", "must be a list, such as [a, b]"),
        ("fleet.ranks=[8,4", "a bracket or a quote is not closed"),
        ("fleet.ranks=[8,4] # of 16", "a bracket or a quote is not closed, or more follows"),
        ("fleet.ranks[0]=2", "a list is given as a whole, such as fleet.ranks=[8,4]"),
        ("stream.phases=arithmetic,lists", "must be a list of lists, such as [[a, b], [c]]"),
        ("stream.phases=[arithmetic,lists]", "must be a list of lists, such as [[a, b], [c]]"),
        ("+seed=3", "+ and ~ mean nothing here"),
        ("~stage", "write it as key=value"),
        ("~stage=", "+ and ~ mean nothing here"),
        ("budget..tau=1", "nothing before or after a dot"),
        ("budget=3", "budget='3' in the overrides must be keys and values: write budget.KEY=value"),
        ("budget=null", "budget='null' in the overrides must be keys and values"),
        ("rounds.x=3", "rounds in the overrides must be a whole number, and not keys and values"),
        ("rounds=[3]", "rounds='[3]' in the overrides must be a whole number"),
        ("budget.fleet.division=equal", "(did you mean equally?)"),
        ("name=a\0b", "holds a zero byte"),
        ("run_dir=/x\udcff", "holds what is no Unicode"),
        ("run_dir=", "run_dir='' is empty; give one, such as runs/mine, or leave it out"),
        ("client={lr: [" + "[" * 3000, "a bracket or a quote is not closed"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_sentence(override: str, said: str) -> None:
    message = complaint(override)
    assert said in message
    assert len(message) < 400
    assert "\n" not in message


def test_what_a_plug_in_gets_is_plain_and_what_could_be_two_things_is_refused() -> None:
    given_ = {
        "a": ("abc", "abc"),
        "b": ("a # b: c", "a # b: c"),
        "c": ("true", True),
        "d": ("[1, [x, null], {y: 0.5}]", [1, ["x", None], {"y": 0.5}]),
        "e": ("'no'", "no"),
        "f": ('"010"', "010"),
        "g": ("12:30", "12:30"),
        "h": ("", ""),
        "i": ("gpt-4.1", "gpt-4.1"),
        "j": ("'tis", "'tis"),
    }
    config = load_config(None, [f"client.{name}={text}" for name, (text, _) in given_.items()])
    assert {name: config.client[name] for name in given_} == {name: value for name, (_, value) in given_.items()}
    for text, mend in [("no", "false"), ("On", "true"), ("010", "10"), ("1_0", "10"), ("0x10", "16")]:
        assert f'can mean two things: write {mend}, or "{text}" in quotes' in complaint(f"client.x=[{text}]")


def test_the_last_of_a_key_wins_and_sections_are_laid_over_key_by_key() -> None:
    config = load_config(
        "demo", ["seed=1", "client={lr: 0.5, asking: {path: 'a:b', x: 1}}", "client.asking.x=2", "seed=2"]
    )
    assert config.seed == 2
    assert config.client["asking"] == {"path": "a:b", "x": 2}
    assert (config.client["lr"], config.client["steps"]) == (0.5, 6)
    assert load_config(None, ["fleet={sharing: 0.5}", "cloud={kind: oracle, error: 0.5}"]) == load_config(
        None, ["fleet.opt_in=0.5", "cloud.path=flsim.cloud.builtin:Oracle", "cloud.error=0.5"]
    )


@given(text=TEXTS)
def test_a_text_that_needs_no_quotes_is_itself_wherever_it_stands(text: str) -> None:
    if is_plain(text):
        assert read(Any, Text("", text), "x") == read(str, Text("", text), "x") == text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(rounds="3"), "rounds='3' must be a whole number"),  # type: ignore[arg-type]
        (Config(rounds=True), "rounds=True must be a whole number"),
        (Config(seed=2**80), f"it must be at most {LARGEST}"),
        (Config(name=Path("x")), "must be a text"),  # type: ignore[arg-type]
        (Config(name="a\0"), "holds a zero byte"),
        (Config(model=None), "model=None must be a ModelConfig"),  # type: ignore[arg-type]
        (Config(budget={"tau": 0.3}), "must be a BudgetConfig"),  # type: ignore[arg-type]
        (Config(budget=BudgetConfig(tau="high")), "budget.tau='high' must be a number"),  # type: ignore[arg-type]
        (Config(budget=BudgetConfig(tau=math.nan)), "must be a number, which nan is not"),
        (Config(fleet=FleetConfig(ranks="8,4")), "must be a list"),  # type: ignore[arg-type]
        (Config(fleet=FleetConfig(ranks=3)), "must be a list"),  # type: ignore[arg-type]
        (Config(fleet=FleetConfig(ranks=(8, "x"))), "has an item that must be a whole number"),  # type: ignore[arg-type]
        (Config(stream=StreamConfig(phases=("lists",))), "has an item that must be a list"),  # type: ignore[arg-type]
        (Config(data={"x": {"kind": "gsm8k"}}), "has under 'x' what must be a DataConfig"),  # type: ignore[dict-item]
        (Config(client="a:b"), "must be keys and values"),  # type: ignore[arg-type]
        (Config(client={"path": "a:b", "lr": {1, 2}}), "a set is none of them"),
        (Config(client={"path": "a:b", "lr": math.nan}), "must be a number, which nan is not"),
        (Config(client={"path": "a:b", "x": {1: 2}}), "has keys that are no texts"),
    ],
)
def test_python_gets_the_same_sentences(config: Config, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_of_the_right_type_fit() -> None:
    fit: list[tuple[Any, Any]] = [(int, 3), (float, 3), (float | None, None), (str, ""), (tuple[int, ...], [1])]
    assert [misfit(hint, value) for hint, value in [*fit, (Any, [{"a": None}]), (int | str, "auto")]] == [None] * 7


def test_a_long_value_is_cut_where_a_sentence_shows_it() -> None:
    assert shown("abc") == "'abc'"
    assert shown((8, 4)) == "[8, 4]"
    assert len(shown("x" * 9999)) < 120
