"""What `track` names: short names, paths, settings; what leads nowhere is one sentence before any work."""

import importlib.util
from pathlib import Path

import pytest

import flsim
from flsim.config.load import load_config, to_yaml
from flsim.config.schema import Config, ConfigError
from flsim.loop.checks import check
from flsim.trackers.named import SHIPPED, trackers_of
from tests.flsim.trackers.recorder import Recorder
from tests.tiny import TinyRun

RECORDER = "tests.flsim.trackers.recorder:Recorder"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("track=wandb", ("wandb",)),
        ("track=wandb,mlflow", ("wandb", "mlflow")),
        ("track=[wandb,mlflow]", ("wandb", "mlflow")),
        ("track=[]", ()),
        ("track=[{path: wandb, project: mine}]", ({"path": "wandb", "project": "mine"},)),
    ],
)
def test_a_list_is_written_in_several_ways(written: str, read: tuple[object, ...], tmp_path: Path) -> None:
    config = load_config(None, [written])
    assert config.track == read
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml").track == read


def test_python_may_give_a_list_or_a_name() -> None:
    assert Config(track=["wandb"]).track == Config(track="wandb").track == ("wandb",)  # type: ignore[arg-type]


def test_trackers_of_one_kind_have_names_of_their_own() -> None:
    found = trackers_of([RECORDER, {"path": RECORDER, "knows": True}, RECORDER])
    assert [one.name for one in found] == ["recorder", "recorder-2", "recorder-3"]
    assert [one.tracker for one in found] == [Recorder(), Recorder(knows=True), Recorder()]


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("wandbb", r"track\[0\]='wandbb' is not known \(did you mean wandb\?\); there are tensorboard, wandb"),
        ({"project": "x"}, r"track\[0\]=.* names no tracker; give one of tensorboard, wandb"),
        (7, r"track\[0\]=7 names no tracker"),
        ("tests.tiny:WORLD", r"track\[0\].path='tests.tiny:WORLD' names .*, which cannot be called"),
        (
            "builtins:list",
            r"track\[0\]='builtins:list' makes a list, which is no tracker; derive it from flsim.trackers",
        ),
        ({"path": RECORDER, "projct": "x"}, r"cannot take the settings of track\[0\]: .*'projct'"),
        ({"path": RECORDER, "wait_s": "long"}, r"track\[0\].wait_s='long'"),
        ({"path": RECORDER, "wait_s": -1}, r"track\[0\]: wait_s=-1.* is no time to wait; give seconds, 0 or more"),
        ("nowhere.at_all:Mine", r"track\[0\].path='nowhere.at_all:Mine': cannot import module"),
    ],
)
def test_what_is_no_tracker_is_refused(track: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(load_config(None, []).__class__(track=(track,)))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_missing_package_is_a_sentence_with_its_mend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"track={name} needs .* not installed: pip install {name}; track=\[\]"):
        trackers_of([name])


def test_nothing_is_written_before_a_refusal(tiny_run: TinyRun) -> None:
    config = tiny_run("run", "track=wandbb")
    with pytest.raises(ConfigError, match="wandbb"):
        flsim.run(config, progress=False)
    assert not config.folder.exists()
