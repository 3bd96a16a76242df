"""`${key}` stands for another setting of the whole config, and every text with `${` in it is read back as itself."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.load import load_config, to_yaml
from flsim.config.schema import Config, ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "seed: 3\nrounds: ${fleet.devices}\nrun_dir: runs/${name}-${seed}\nfleet: {devices: 7}\n"
        'client: {path: "clients.grpo:Grpo", steps: "${seed}"}\n'
    )
    return path


def test_a_reference_is_read_by_the_type_of_its_own_field(file: Path) -> None:
    config = load_config(file)
    assert (config.rounds, config.client["steps"], config.run_dir) == (7, 3, "runs/mine-3")


def test_it_follows_whatever_gives_the_other_setting_last(file: Path) -> None:
    config = load_config(file, ["seed=5", "fleet.devices=9", "fleet.ranks=[${seed},2]"])
    assert (config.rounds, config.run_dir, config.fleet.ranks) == (9, "runs/mine-5", (5, 2))


def test_a_default_may_be_referred_to() -> None:
    assert load_config(None, ["name=tau-${budget.tau}"]).name == f"tau-{Config().budget.tau}"


def test_the_environment_is_read_as_omegaconf_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAU", "0.25")
    assert load_config(None, ["budget.tau=${oc.env:TAU}"]).budget.tau == 0.25


def test_a_folder_holds_what_was_found_and_no_reference(file: Path) -> None:
    assert "${" not in to_yaml(load_config(file))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("name=${nope}", "name='${nope}' in the overrides refers to what there is not, or to itself"),
        ("name=${name}", "refers to what there is not, or to itself"),
        ("name=${", "name: a reference is not closed"),
        ("rounds=${name}", "rounds='run' in the overrides must be a whole number"),
        ("run_dir=${budget}", "run_dir in the overrides must be a text or null, and not keys and values"),
    ],
)
def test_a_reference_to_nothing_is_told_in_a_sentence(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        load_config(None, [wrong])
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@given(st.lists(st.sampled_from(["${", "\\", "}", "a", "$", "{"]), min_size=1).map("".join))
def test_every_text_is_read_back_as_itself(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    config = replace(Config(), name=text)
    path = tmp_path_factory.mktemp("written") / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config
