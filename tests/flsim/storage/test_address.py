"""Addresses: taken apart and put together, and never with what is secret in them."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.address import Address, Secret, is_address, without_secrets
from flsim.config.load import load_config, settings_of, to_yaml
from flsim.config.schema import Config, ConfigError

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)


@given(st.sampled_from(["s3", "gs", "hdfs", "fsspec+memory"]), WORDS, st.lists(WORDS, max_size=3), WORDS)
def test_an_address_without_secrets_is_written_as_given(scheme: str, host: str, path: list[str], word: str) -> None:
    text = f"{scheme}://{'/'.join([host, *path])}?region={word}"
    assert str(Address.of(text)) == text
    assert Address.of(text).whole == text
    assert Address.of(str(Address.of(text))) == Address.of(text)


def test_what_is_secret_leaves_the_address_and_is_known_to_the_library_alone() -> None:
    text = "s3://AKIA:hu/sh@bucket/runs/a/?scheme=http&endpoint_override=127.0.0.1:9"
    assert not is_address("runs/mine")
    address = Address.of("s3://AKIA:hush@bucket/runs/a/?scheme=http&endpoint_override=127.0.0.1:9")
    assert str(address) == "s3://bucket/runs/a?scheme=http&endpoint_override=127.0.0.1:9"
    assert address.name == "a"
    assert address.whole == "s3://AKIA:hush@bucket/runs/a?scheme=http&endpoint_override=127.0.0.1:9"
    assert address.below("rows/x").whole.startswith("s3://AKIA:hush@bucket/runs/a/rows/x?")
    assert "hush" not in f"{address!r} {address.secret!r}"
    assert is_address(text)


def test_the_container_of_azure_is_no_secret_and_its_password_is_one() -> None:
    address = Address.of("abfs://box:hush@account.dfs.core.windows.net/runs?client_secret=quiet&tenant_id=7")
    assert str(address) == "abfs://box@account.dfs.core.windows.net/runs?tenant_id=7"
    assert address.whole == "abfs://box:hush@account.dfs.core.windows.net/runs?tenant_id=7&client_secret=quiet"


def test_another_process_knows_a_secret_once_it_is_told() -> None:
    secret = Address.of("s3://one:hush@told/x").secret
    other = Address.of("s3://another/x")
    assert other.secret == Secret()
    other.remember(pickle.loads(pickle.dumps(secret)))
    assert other.whole == "s3://one:hush@another/x"


def test_a_config_holds_and_writes_no_secret() -> None:
    config = load_config(None, ["run_dir=s3://key:hush@bucket/${name}?scheme=http", "name=mine"])
    assert config.run_dir == "s3://bucket/mine?scheme=http"
    assert "hush" not in to_yaml(Config(run_dir="s3://key:hush@bucket/x"))
    assert settings_of(config)["run_dir"] == "s3://bucket/mine?scheme=http"
    assert without_secrets(None) is None
    assert without_secrets("runs/a b") == "runs/a b"


def test_who_asks_for_a_folder_where_there_is_an_address_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"run_dir=s3://bucket/x lies in an object store"):
        _ = Config(run_dir="s3://key:hush@bucket/x").folder


def test_a_study_wants_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.study.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(["demo", "seed=0,1", "--root", "s3://key:hush@bucket/study"])
    said = capsys.readouterr().err
    assert "s3://bucket/study lies in an object store" in said
    assert "hush" not in said
