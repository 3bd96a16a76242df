"""Clouds by path: old spellings, settings of a class's own, what is refused, and objects that are passed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flsim
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.make import fitting, free_settings, make_cloud
from flsim.cloud.protocol import MONEY, Answer, Cloud
from flsim.cloud.recorded import Recorded
from flsim.config.load import differences, load_config, settings_of, to_yaml
from flsim.config.plugins import resolve
from flsim.config.schema import CloudConfig, ConfigError
from flsim.metrics.rows import without_timing

MINE = """
from flsim.cloud.protocol import Answer, Cloud


class Loud(Cloud):
    def __init__(self, word="yes"):
        self.word = word

    def quote(self, problem):
        return Answer("", 1, 1)

    def answer(self, problems):
        return [Answer(self.word, 1, 1) for _ in problems]

    def identity(self):
        return ["loud", self.word]
"""
OLD = [
    (["cloud.kind=builtin"], Builtin, {}),
    (["cloud.kind=oracle", "cloud.oracle_error=0.25"], Oracle, {"error": 0.25}),
    (["cloud.kind=oracle", "cloud.oracle_errors={lists: 0.5}"], Oracle, {"errors": {"lists": 0.5}, "error": 0.03}),
    (["cloud.kind=endpoint", "cloud.url=http://h/v1", "cloud.model=m"], Endpoint, {"url": "http://h/v1", "model": "m"}),
    (["cloud.kind=model", "cloud.model=builtin:cloud"], Checkpoint, {"model": "builtin:cloud"}),
    (["cloud.kind=replay"], Recorded, {"file": None}),
]


@pytest.mark.parametrize(("settings", "kind", "attributes"), OLD)
def test_old_spellings_are_read_and_written_back_new(
    settings: list[str], kind: type, attributes: dict[str, Any]
) -> None:
    config = load_config(None, settings)
    cloud = make_cloud(config.cloud)
    assert type(cloud) is kind
    assert {name: getattr(cloud, name) for name in attributes} == attributes
    assert f"path: {kind.__module__}:{kind.__name__}" in to_yaml(config)
    assert "oracle_error" not in to_yaml(config)
    assert "kind: " not in to_yaml(config).split("cloud:")[1].split("evaluation:")[0]


def test_what_stood_below_replay_stands_beside_the_path_now(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,ok,prompt_tokens,completion_tokens\n")
    file = tmp_path / "old.yaml"
    file.write_text(f"cloud:\n  kind: replay\n  replay: {{file: {tmp_path}/t.csv}}\n")
    config = load_config(file, ["cloud.replay.right=ok"])
    assert settings_of(config)["cloud.file"] == f"{tmp_path}/t.csv"
    assert settings_of(config)["cloud.right"] == "ok"
    file.write_text(to_yaml(config))
    assert load_config(file) == config


def test_a_cloud_of_ones_own_is_given_by_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    config = load_config(None, [f"cloud.path={tmp_path}/mine.py:Loud", "cloud.word=nay"])
    assert make_cloud(config.cloud).identity() == ["loud", "nay"]
    assert settings_of(config)["cloud.word"] == "nay"
    silent = load_config(None, [f"cloud.path={tmp_path}/mine.py:Loud", "cloud.word=null"])
    assert make_cloud(silent.cloud).identity() == ["loud", "yes"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cloud.path=flsim.cloud.builtin:Orakel"], r"has no 'Orakel' .did you mean Oracle.*; it defines: .*Oracle"),
        (["cloud.path=flsim.nowhere:Cloud"], r"cannot import module 'flsim.nowhere'"),
        (
            ["cloud.path=flsim.cloud.builtin:Oracle", "cloud.eror=0.1"],
            r"'eror' .did you mean error..; it takes: error, errors",
        ),
        (["cloud.path=pathlib:PurePath"], r"names a PurePosixPath, which is no cloud, as it lacks costs, .*quote"),
        (["cloud.path=flsim.cloud.protocol:Cloud"], r"abstract|instantiated"),
    ],
)
def test_what_is_no_cloud_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_cloud(load_config(None, settings).cloud)


def test_an_object_that_does_not_fit_is_refused_in_one_sentence() -> None:
    class Half:
        costs, access, shared, reach = MONEY, "text", False, ()

        def quote(self) -> Answer:
            return Answer("", 1, 1)

    with pytest.raises(ConfigError, match=r"cloud= is a Half, which is no cloud, as it lacks quote, answer, identity"):
        fitting(Half())
    with pytest.raises(ConfigError, match=r"cloud= is the class Oracle; give an object, such as Oracle\(\)"):
        fitting(Oracle)
    oracle: Cloud = Oracle()
    assert fitting(oracle) is oracle


def test_how_a_cloud_is_reached_may_change_on_a_resume() -> None:
    where = ["cloud.path=flsim.cloud.endpoint:Endpoint", "cloud.url=http://h/v1", "cloud.model=m"]
    old, new = load_config(None, where), load_config(None, [*where, "cloud.retries=9", "cloud.cache=null"])
    assert differences(old, new, free_settings(old.cloud)) == []
    assert differences(old, new) == ["cloud.retries: (absent) -> 9"]
    assert free_settings(CloudConfig("gone.py:Cloud")) == ("cloud.cache",)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_cloud_that_is_passed_is_asked_as_one_that_is_named(
    engine: str, tiny_checkpoint: Path, tmp_path: Path, one_thread: None
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    tiny = [f"model.path={tiny_checkpoint}", "model.rank=2", "rounds=1", "stream.phases=[[numbers]]", "fleet.devices=2"]
    tiny += ["client.path=clients.sft:Sft", "client.steps=2", "client.prompts=4", "budget.tau=0.5"]
    tiny += ["evaluation.prompts_per_task=4", f"engine.kind={engine}", "cloud.price_per_prompt_token=1"]
    mine = [f"cloud.path={tmp_path}/mine.py:Loud", "cloud.word=seven"]
    named = load_config(None, [*tiny, f"run_dir={tmp_path}/named", *mine])
    passed = load_config(None, [*tiny, f"run_dir={tmp_path}/passed"])
    cloud = resolve("cloud", f"{tmp_path}/mine.py:Loud")("seven")
    one, other = flsim.run(named, progress=False).rows, flsim.run(passed, cloud=cloud, progress=False).rows
    pd.testing.assert_frame_equal(without_timing(one), without_timing(other), check_exact=True)
    assert one.loc[one["name"] == "cloud_money", "total"].sum() > 0
    with pytest.raises(ConfigError, match=r"cloud= is a str, which is no cloud"):
        flsim.run(replace(passed, run_dir=f"{tmp_path}/third"), cloud="openai", progress=False)  # type: ignore[arg-type]
