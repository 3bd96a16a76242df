import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.app import DeviceApp
from clients.learner import Learner
from flsim.config.load import load_config
from flsim.config.plugins import RENAMED, build, current, resolve
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of

SOURCE = '''
from pathlib import Path

CONSTANT = 3

class Mine:
    """A plug-in with settings."""

    def __init__(self, config, *, speed=1.0, name="x"):
        if speed < 0:
            raise ValueError(f"speed={speed} must not be negative")
        self.config, self.speed, self.name = config, speed, name

def nothing(config):
    return "nothing"

def anything(config, **settings):
    return settings
'''


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "flsim_test_plugin.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop(path.stem, None)


def complaint(spec: dict[str, Any], *args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build("client", spec, *args)
    return str(caught.value)


def test_a_module_is_imported_and_called() -> None:
    assert build("client", {"path": "fractions:Fraction", "denominator": 4}, 3) * 4 == 3
    assert resolve("x", "math:pi") == pytest.approx(3.14159, abs=1e-5)


def test_a_missing_module_is_named_with_the_mend() -> None:
    message = complaint({"path": "no_such_package.sub:Name"})
    assert "client.path='no_such_package.sub:Name'" in message
    assert "cannot import module 'no_such_package.sub'" in message
    assert "No module named 'no_such_package'" in message
    assert "my_file.py:Name" in message


def test_a_missing_name_is_answered_with_what_is_defined() -> None:
    message = complaint({"path": "flsim.seeding:seed"})
    assert "client.path='flsim.seeding:seed'" in message
    assert (
        "has no 'seed' (did you mean seed_for?); it defines: seed_for, generator, seed_globals, python_random"
        in message
    )
    assert str(Path("flsim/seeding.py")) in message


@pytest.mark.parametrize("path", ["flsim.seeding", "flsim.seeding:", ":seed_for", "", ".:seed_for"])
def test_a_path_of_another_form_is_refused(path: str) -> None:
    message = complaint({"path": path})
    assert f"client.path={path!r} must be written as module:Name or my_file.py:Name" in message


def test_a_file_is_a_plug_in(file: Path) -> None:
    mine = build("client", {"path": f"{file}:Mine", "speed": 2.0}, "the config")
    assert (mine.config, mine.speed, mine.name) == ("the config", 2.0, "x")
    assert build("client", {"path": f"{file}:anything", "a": 1, "b": [2]}, 0) == {"a": 1, "b": [2]}


def test_a_file_is_looked_for_from_here(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert build("client", {"path": f"{file.name}:nothing"}, 0) == "nothing"


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = complaint({"path": "mine.py:Mine"})
    assert "client.path='mine.py:Mine'" in message
    assert f"there is no file 'mine.py' (looked in {tmp_path})" in message


def test_a_missing_name_in_a_file_lists_its_own_names_only(file: Path) -> None:
    message = complaint({"path": f"{file}:Theirs"})
    assert "has no 'Theirs'; it defines: Mine, nothing, anything" in message
    assert "Path," not in message


def test_an_unknown_setting_is_answered_with_those_there_are(file: Path) -> None:
    message = complaint({"path": f"{file}:Mine", "sped": 2.0}, "the config")
    assert "'sped'" in message
    assert "settings of client" in message
    assert message.endswith("it takes: speed, name")  # the config is not a setting
    assert complaint({"path": f"{file}:nothing", "sped": 2.0}, 0).endswith("it takes: no settings")


def test_a_value_that_a_plug_in_refuses_is_named_with_its_reason(file: Path) -> None:
    message = complaint({"path": f"{file}:Mine", "speed": -2.0}, 0)
    assert "refused the settings {'speed': -2.0} of client" in message
    assert "speed=-2.0 must not be negative" in message


def test_an_error_that_names_its_own_setting_is_passed_on_as_it_is(tmp_path: Path) -> None:
    """Such as that of a model which the plug-in loads: it is no setting of the plug-in that is wrong."""
    file = tmp_path / "reads.py"
    file.write_text(
        "from flsim.config.schema import ConfigError\n"
        "class Reads:\n"
        "    def __init__(self, config):\n"
        "        raise ConfigError('model.path is wrong')\n"
    )
    assert complaint({"path": f"{file}:Reads"}, 0) == "model.path is wrong"


def test_what_cannot_be_called_is_refused(file: Path) -> None:
    message = complaint({"path": f"{file}:CONSTANT"}, 0)
    assert "CONSTANT' names 3, which cannot be called" in message


def test_shipped_plug_ins_name_a_wrong_setting() -> None:
    config = load_config(None, ["client.learning_rate=1"])
    with pytest.raises(ConfigError, match=r"there is no setting learning_rate .*; DaGrpo takes: steps, prompts"):
        client_of(config)
    assert "'server_rl'" in complaint({"path": "strategies.fedavg:FedAvg", "server_rl": 1.0})


OLD = {  # every plug-in of release 0.1 that has another name now
    "clients.asking": "always:Always at_random:AtRandom cascade:Cascade classifier:Classifier confidence:Confidence "
    "entropy:Entropy never:Never oracle:Oracle own:Own own_calibrated:OwnCalibrated",
    "strategies": "distillation:Distillation geometric_median:GeometricMedian median:Median multi_krum:MultiKrum "
    "trimmed_mean:TrimmedMean samplers:Everyone samplers:First samplers:RandomShare samplers:WorstOff "
    "weighters:ByExamples weighters:Uniform weighters:EffectiveGroups weighters:QFair weighters:RewardGain "
    "reducers:Mean reducers:Median reducers:TrimmedMean reducers:MultiKrum reducers:GeometricMedian "
    "server_optimizers:Average server_optimizers:Momentum server_optimizers:Adam server_optimizers:Yogi "
    "server_optimizers:Adagrad",
}


@pytest.mark.parametrize("path", [f"{room}.{name}" for room, names in OLD.items() for name in names.split()])
def test_a_plug_in_that_moved_is_found_by_its_old_path(path: str) -> None:
    found = resolve("x", path)
    module, _, name = current(path).partition(":")
    assert (found.__module__, found.__name__) == (module, name)
    assert name == path.partition(":")[2]


@pytest.mark.parametrize("path", [path for path in RENAMED if path.endswith(":client_app")])
def test_a_client_app_of_the_last_release_is_its_learner(path: str) -> None:
    assert issubclass(resolve("x", path), Learner)
    assert isinstance(client_of(load_config(None, [f"client.path={path}"])), DeviceApp)


def test_a_config_with_old_paths_is_the_one_with_new_ones() -> None:
    old = ["client.path=clients.grpo:client_app", "strategy.sampler.path=strategies.samplers:First"]
    old += [
        "client.asking.path=clients.asking.confidence:Confidence",
        "stage.path=strategies.distillation:Distillation",
    ]
    new = ["client.path=clients.grpo:Grpo", "strategy.sampler.path=strategies.parts.samplers:First"]
    new += ["client.asking.path=clients.asking.scores:Confidence"]
    new += ["stage.path=strategies.stages.distillation:Distillation"]
    assert load_config(None, old) == load_config(None, new)


def test_a_path_of_ones_own_stays_as_it_is() -> None:
    for path in (
        "my_clients.py:client_app",
        "clients.py:client_app",
        "strategies.fedavg:FedAvg",
        "samplers:First",
        "x",
    ):
        assert current(path) == path
