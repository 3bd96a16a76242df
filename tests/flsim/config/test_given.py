"""Files are taken apart without guessing, and what is no YAML in UTF-8 is told in a sentence with its line."""

from pathlib import Path

import pytest

from flsim.config.given import OVERRIDES, Keyed, Listed, Text, override, read_file
from flsim.config.load import load_config
from flsim.config.schema import ConfigError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"rounds: 4\nrounds: 5\n", ", line 2: the key 'rounds' stands here a second time, after "),
        (b"budget: {tau: 0.1,\n  tau: 0.2}\n", ", line 2: the key 'tau' stands here a second time, after "),
        (b"budget:\n\ttau: 0.3\n", ", line 2: this is no YAML: a tab stands where only spaces may"),
        (b"rounds: 4\nfleet: [1, 2\n", ": this is no YAML: "),
        (b"rounds: 4\n  seed: 3\n", ", line 2: this is no YAML: mapping values are not allowed here"),
        (b"- rounds\n", " must hold keys and values, such as `rounds: 4`, not a list or a single value"),
        (b"demo\n", " must hold keys and values"),
        (b"rounds: 4\n---\nrounds: 5\n", ", line 2: this is no YAML: found another document"),
        (b"rounds: 4\nname: caf\xe9\n", ", line 2: this is no UTF-8; save the file in that encoding"),
        ("rounds: 4\n".encode("utf-16"), ", line 1: this is no UTF-8"),
        (b"rounds: 4\nname: a\x00b\n", ", line 2: this is no YAML: special characters are not allowed"),
        (b"rounds: !!python/object:os.system 4\n", ", line 1: the tag !!python/object:os.system means nothing here"),
        (b"rounds: !mine 4\n", ", line 1: the tag !mine means nothing here"),
        (b"? [a, b]\n: 4\n", ", line 1: a key must be a single text"),
        (b"client: &x {path: 'a:b', again: *x}\n", ", line 1: an alias stands within what it repeats"),
        (b"client: {<<: 3}\n", ", line 1: << must name keys and values"),
        (b"client: *nobody\n", ", line 1: this is no YAML: found undefined alias 'nobody'"),
        (b"a: " + b"[" * 5000, ": this is no YAML: it is nested too deeply"),
        (b"seed: \n", ", line 1 cannot be null: it must be a whole number"),
        (b"seed: '3'\n", ", line 1 must be a whole number, and not a text in quotes"),
        (b"name: [a]\n", ", line 1 must be a text, and not a list"),
        (b"budget: 3\n", ", line 1 must be keys and values"),
        (b"budget.tau: 3\n", ", line 1; write budget: {tau: ...}"),
        (b"budget:\n  taw: 3\n", ", line 2; did you mean budget.tau?"),
        (b"cloud: {kind: gpt}\n", ", line 1 is not known; name a class"),
        (b"cloud: {kind: [gpt]}\n", ", line 1 is not known; name a class"),
        (b"cloud: {settings: 3, url: x}\n", "cloud.settings='3' in "),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\n# nothing\n", b"---\n", b"\xef\xbb\xbf", b"\xef\xbb\xbfname: odd\n", b"name: odd\r\n"]
)
def test_an_empty_file_and_one_with_a_byte_order_mark_are_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    assert load_config(file).name == "odd"


def test_a_section_whose_lines_are_all_commented_out_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("budget:\n  # tau: 0.1\nstage:\ndata:\n")
    assert load_config(file) == load_config()


def test_what_is_no_file_is_told_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a YAML file"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").write_text("rounds: 4\n")
    with pytest.raises(ConfigError, match=r"is a folder; .*flsim resume"):
        load_config(tmp_path)
    for path in ("x" * 5000, "a\0b", "", "no/such/file.yaml"):
        with pytest.raises(ConfigError, match="there is no config file"):
            load_config(path)
    with pytest.raises(ConfigError, match="3 is no config; give a file, or the name of one that ships"):
        load_config(3)  # type: ignore[arg-type]


def test_what_stands_in_several_places_may_be_written_once(tmp_path: Path) -> None:
    """Anchors and `<<`, of which what stands beside it goes first."""
    file = tmp_path / "run.yaml"
    file.write_text("data:\n  a: &a {kind: files, alpha: 2, over: user}\n  b: {<<: *a, alpha: 3}\n  c: *a\n")
    data = load_config(file).data
    assert (data["b"].kind, data["b"].over, data["b"].alpha) == ("files", "user", 3)
    assert data["a"] == data["c"]


def test_keys_lists_and_texts_keep_their_place_and_their_quotes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("a: no\nb:\n- '010'\n- [x]\n")
    where = f"{file}, line "
    assert read_file(file) == Keyed(
        str(file),
        {
            "a": Text(f"{where}1", "no"),
            "b": Listed(
                f"{where}2", (Text(f"{where}3", "010", quoted=True), Listed(f"{where}4", (Text(f"{where}4", "x"),)))
            ),
        },
    )
    inner = Keyed(OVERRIDES, {"b": Text(OVERRIDES, "c=d", whole=True)})
    assert override("a.b=c=d") == Keyed(OVERRIDES, {"a": inner})
