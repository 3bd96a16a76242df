"""The sweep: how its arguments are read, where its runs lie, and the command itself, whole, repeated and killed."""

import math
import os
import signal
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.study.__main__ import main
from experiments.study.axes import read_axes, split_values, values_of
from experiments.study.methods import FOLDER, find_method, method_names
from experiments.study.plan import folder_name, plan_of, refuse_what_cannot_run
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.loop.folder import open_new
from flsim.metrics.rows import read_rows, without_timing
from tests.tiny import tiny_file

ROOT = Path(__file__).resolve().parents[3]
DEMO = str(ROOT / "experiments" / "configs" / "demo.yaml")

plain = st.text("abcxyz019.-:_/", min_size=1, max_size=6)
quoted = st.text("ab,]['{ ", max_size=6).map(lambda text: f'"{text}"')
value = st.recursive(
    plain | quoted, lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"), max_leaves=6
)


@given(st.lists(value, min_size=1, max_size=5))
def test_values_joined_by_commas_are_split_again(values: list[str]) -> None:
    assert split_values("x", ",".join(values)) == values


@given(st.integers(-20, 20), st.integers(0, 30), st.integers(1, 7))
def test_a_range_has_both_ends(first: int, length: int, step: int) -> None:
    last = first + length
    assert values_of("x", f"{first}..{last}") == [str(number) for number in range(first, last + 1)]
    assert values_of("x", f"{first}..{last}..{step}") == [str(number) for number in range(first, last + 1, step)]


def test_axes_and_settings() -> None:
    arguments = ["seed=0..2,7", "fleet.ranks=[8,4,2]", "budget.tau=0.1,0.3", "method=paper", 'name="a,b"', "x=it's"]
    axes, settings = read_axes(arguments)
    assert axes == {"seed": ["0", "1", "2", "7"], "budget.tau": ["0.1", "0.3"], "method": ["paper"]}
    assert settings == ["fleet.ranks=[8,4,2]", "name=a,b", "x=it's"]
    axes, settings = read_axes(["fleet.ranks=[8,4],[2,2]", "rounds=3..3", "client={lr: 1, mods: [a, b]}"])
    assert axes == {"fleet.ranks": ["[8,4]", "[2,2]"], "rounds": ["3"]}
    assert settings == ["client={lr: 1, mods: [a, b]}"]


def test_a_method_takes_no_settings_that_a_config_gave_to_its_own_learner_or_strategy(tmp_path: Path) -> None:
    """What both take stays, and so does what the method or the command line says, that it be refused."""
    file = tmp_path / "own.yaml"
    file.write_text(
        "client: {path: 'clients.da_grpo:DaGrpo', lr: 0.01, head_rate: 2.0, kl: 0.1}\n"
        "strategy: {path: 'strategies.robust:TrimmedMean', share: 0.3, server_lr: 0.5}\n"
    )
    own, other, said = (
        plan_of(str(file), arguments)[0].config
        for arguments in (
            ["method=da_grpo"],
            ["method=grpo", "strategy.path=strategies.fedavg:FedAvg"],
            ["method=grpo", "client.head_rate=3"],
        )
    )
    assert own.client["head_rate"] == 2.0
    assert other.client == {"path": "clients.grpo:Grpo", "lr": 0.01, "kl": 0.1}
    assert other.strategy == {"path": "strategies.fedavg:FedAvg", "server_lr": 0.5}
    assert said.client["head_rate"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rounds"], ["'rounds'", "key=value"]),
        (["--resume=3"], ["'--resume=3'", "key=value"]),
        (["seed=0", "seed=1"], ["seed is given twice", "seed=0..4,7"]),
        (["seed=0..2,1"], ["'seed=0..2,1'", "1 twice"]),
        (["seed=4..0"], ["range 4..0 is empty", "first..last"]),
        (["seed=0..4..0"], ["range 0..4..0 is empty"]),
        (["x=a,,b"], ["'x=a,,b'", "empty value"]),
        (["x=[8,4"], ["'x=[8,4'", "[ that nothing closes"]),
        (["x=8]"], ["] that nothing opens"]),
        (["x=[8}"], ["} that nothing opens"]),
        (["x='a,b"], ["' that nothing closes"]),
        (["method=papper"], ["no method 'papper'", "alone, ", "da_grpo, ", "my_method.yaml"]),
        (["method=paper+rnd"], ["method=paper+rnd", "no method 'rnd'"]),
        (["method=nowhere/mine.yaml"], ["no file 'nowhere/mine.yaml'"]),
        (["run_dir=runs/x"], ["run_dir", "--root"]),
        (["name=a,b"], ["names its runs itself"]),
        (["method=paper", "seed=x"], ["run paper-seed=x", "seed='x' in the overrides must be a whole number"]),
        (["method=paper", "budget.tau=0.3,1.5"], ["run paper-budget.tau=1.5", "[0, 1]"]),
        (["strategy.path=a:b,a/b"], ["would share the folder", "strategy.path=a-b-seed0"]),
        (["engine.gpus=1"], ["engine.gpus=1", "engine.kind=ray"]),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(DEMO, arguments)
    for word in words:
        assert word in str(caught.value)


def test_the_folder_is_the_same_in_any_order_of_the_arguments() -> None:
    arguments = ["method=alone", "stream.alpha=0.5,2.0", "seed=1", "budget.tau=0.1,0.3"]
    plans = [plan_of(DEMO, order) for order in list(permutations(arguments))[::5]]
    configs = [{run.folder: run.config for run in plan} for plan in plans]
    assert all(found == configs[0] for found in configs)
    assert len(configs[0]) == 4
    assert Path("runs/sweep-demo/alone-budget.tau=0.3-stream.alpha=2.0-seed1") in configs[0]


@given(st.dictionaries(st.sampled_from(["method", "budget.tau", "strategy.path", "x"]), st.text(max_size=8)))
def test_a_folder_name_is_safe(choice: dict[str, str]) -> None:
    name = folder_name({**choice, "seed": "3"})
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+=-")
    assert name.endswith("seed3")
    assert folder_name({"seed": "3", **dict(reversed(choice.items()))}) == name


def test_runs_go_seed_by_seed_and_each_seed_has_its_fleet() -> None:
    runs = plan_of(DEMO, ["method=da_grpo,alone", "seed=0..1"])
    assert [run.folder.name for run in runs] == ["da_grpo-seed0", "alone-seed0", "da_grpo-seed1", "alone-seed1"]
    assert [(run.config.seed, run.config.stream.seed) for run in runs] == [(0, 0), (0, 0), (1, 1), (1, 1)]
    assert [run.config.name for run in runs[:2]] == ["demo-da_grpo", "demo-alone"]
    assert {run.config.engine.kind for run in runs} == {"local"}
    kept = plan_of(DEMO, ["seed=0..1", "stream.seed=5", "engine.kind=ray", "name=mine"])
    assert [(run.config.seed, run.config.stream.seed) for run in kept] == [(0, 5), (1, 5)]
    assert {run.config.engine.kind for run in kept} == {"ray"}
    assert [str(run.folder) for run in kept] == ["runs/sweep-mine/seed0", "runs/sweep-mine/seed1"]


def test_without_axes_it_is_the_config_itself() -> None:
    (run,) = plan_of(DEMO, [])
    assert run.folder == Path("runs/sweep-demo/seed0")
    assert run.config.name == "demo"


def fragment(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


def test_fragments_are_laid_over_key_by_key_and_the_command_line_over_them(tmp_path: Path) -> None:
    """Settings of work stay as the config has them, whatever the method; of two fragments the second wins."""
    one = fragment(tmp_path, "one", "client: {lr: 0.1, dual_lr: 0.2, dual_max: 3}\nbudget: {tau: 0.1}")
    two = fragment(tmp_path, "two", "client: {dual_lr: 0.4, dual_max: 5}")
    (run,) = plan_of(DEMO, [f"method={one}+{two}", "client.dual_max=7"])
    base = load_config(DEMO).client
    assert run.config.client == {**base, "lr": 0.1, "dual_lr": 0.4, "dual_max": 7}
    assert run.config.budget.tau == 0.1
    assert run.config.name == "demo-one+two"
    assert run.folder.name == "one+two-seed0"
    assert (plan_of(DEMO, [f"method={two}+{one}"])[0]).config.client["dual_max"] == 3


def test_a_wrong_fragment_is_named(tmp_path: Path) -> None:
    wrong = fragment(tmp_path, "wrong", "client: {lr: 0.1}\nbudgett: {tau: 0.1}")
    with pytest.raises(
        ConfigError, match=r"run wrong: unknown key 'budgett' in .*wrong\.yaml, line 2; did you mean budget"
    ):
        plan_of(DEMO, [f"method={wrong}"])
    with pytest.raises(ConfigError, match=r"budget\.tau='.*' in .*high\.yaml, line \d+ must be a number"):
        plan_of(DEMO, [f"method={fragment(tmp_path, 'high', 'budget: {tau: high}')}"])
    with pytest.raises(ConfigError, match=r"list\.yaml must hold keys and values"):
        plan_of(DEMO, [f"method={fragment(tmp_path, 'list', '- 3')}"])


def test_a_method_says_what_its_files_say() -> None:
    client = plan_of(DEMO, ["method=paper"])[0].config.client
    assert (client["dual_gain"], client["dual_max"], client["cost_baseline"]) == (0, math.inf, "group")
    assert find_method("paper+alone").files == (FOLDER / "paper.yaml", FOLDER / "alone.yaml")


def test_what_a_kill_leaves_before_there_is_a_config_can_be_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text("{}")
    (tmp_path / "run" / ".config.yaml.77.part").write_text("seed")
    config = Config(run_dir=str(tmp_path / "run"))
    assert open_new(config) == tmp_path / "run"
    with pytest.raises(ConfigError, match="not empty"):
        open_new(config)


@pytest.fixture
def tiny(tiny_checkpoint: Path, tmp_path: Path) -> str:
    """A config file of a run as small as it gets."""
    client = (f"client.{key}" for key in ("prompts=2", "group_size=2", "max_new_tokens=3"))
    return str(tiny_file(tmp_path, tiny_checkpoint, "evaluation.every_rounds=1", "engine.kind=ray", *client))


def times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_sweep_of_two_runs_its_repetition_and_its_refusals(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run works, one fails while it runs; a second call tries that one again and leaves the other untouched."""
    (tmp_path / "faulty.py").write_text(
        "from strategies.base import DeltaStrategy\n"
        "class Faulty(DeltaStrategy):\n def aggregate(self, adapter, updates):\n  raise ArithmeticError('no luck')\n"
    )
    faulty = fragment(tmp_path, "faulty", f"strategy: {{path: '{tmp_path}/faulty.py:Faulty'}}")
    command = [tiny, f"method={faulty},alone", "seed=3", "--root", str(tmp_path / "all"), "--jobs", "2"]
    assert main([*command, "--list"]) == 0
    assert "2 to do" in capsys.readouterr().out
    assert not (tmp_path / "all").exists()
    assert main(command) == 1
    said = capsys.readouterr()
    assert "2 runs, 1 failed" in said.err
    assert "no luck" in said.err
    log = tmp_path / "all" / "faulty-seed3" / "run.log"
    assert f"log: {log}" in said.err
    assert "Traceback" in log.read_text()
    assert "|  alone |    3 |  alone-seed3 |" in said.out
    assert f"flsim compare {tmp_path / 'all'}" in said.out
    before = times(tmp_path / "all" / "alone-seed3")
    assert len(list((tmp_path / "all" / "alone-seed3" / "rows").iterdir())) == 3
    assert main([*command[:1], "method=alone", *command[2:]]) == 0
    assert "1 finished, 0 to do" in capsys.readouterr().out
    assert times(tmp_path / "all" / "alone-seed3") == before
    assert main([*command, "client.lr=0.5"]) == 2
    said = capsys.readouterr()
    assert "started with another config (client.lr" in said.err
    assert "another --root" in said.err


def sweep(tiny: str, root: Path, methods: str) -> subprocess.Popen[bytes]:
    arguments = [tiny, f"method={methods}", "seed=0..1", "rounds=12", "--jobs", "2", "--root", str(root)]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.study", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def rows_of(root: Path) -> dict[str, pd.DataFrame]:
    return {file.parent.name: without_timing(read_rows(file.parent)) for file in root.glob("*/summary.json")}


def wait_for_a_commit(root: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a round is committed that was not when this was called."""
    deadline = time.monotonic() + 180
    before = set(root.rglob("checkpoints/*.npz"))
    while not set(root.rglob("checkpoints/*.npz")) - before:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("methods", ["da_grpo,alone", "grpo,grpo+confidence"])
def test_a_killed_sweep_goes_on_and_ends_as_an_unbroken_one(methods: str, tiny: str, tmp_path: Path) -> None:
    """First the command alone is killed, so that its runs have to notice and end; then all hear a Ctrl-C at once.

    The two runs of GRPO share a training, which goes on where it was, too.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _, err = (process := sweep(tiny, whole, methods)).communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    for stop, status in ((os.kill, -signal.SIGKILL), (os.killpg, 130)):
        process = sweep(tiny, broken, methods)
        wait_for_a_commit(broken, process)
        family = psutil.Process(process.pid).children(recursive=True)
        stop(process.pid, signal.SIGINT if status == 130 else signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status
        assert b"Traceback" not in err
        assert not psutil.wait_procs(family, timeout=20)[1]
    assert len(rows_of(broken)) < 4, "nothing was left to go on with"
    _, err = (process := sweep(tiny, broken, methods)).communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    expected = rows_of(whole)
    assert len(expected) == 4
    for name, rows in rows_of(broken).items():
        pd.testing.assert_frame_equal(rows, expected.pop(name), check_exact=True)
    assert not expected


@pytest.mark.parametrize("config", ["aba", "aba_single"])
def test_every_shipped_method_can_be_built_over_the_configs_of_the_comparison(config: str) -> None:
    """Learners, asking rules and additions on top of a learner, bounds: settings that nobody takes would be refused."""
    adding = {"never", "always", "random", "confidence", "entropy", "classifier", "cascade", "oracle", "replay", "kl"}
    adding |= {"own_calibrated", "paced", "hint", "explore"}
    base = {
        "paced": "grpo+confidence",
        "hint": "gapg",
        "explore": "gapg",
    }  # they need a rule with a threshold, and a request in words
    drafting = {"surprise"}  # added to what asks by words, of a model that asks after its drafts
    names = [f"{base.get(name, 'grpo')}+{name}" if name in adding else name for name in method_names()]
    names = [name for name in names if name not in drafting]
    file = str(Path(DEMO).parent / f"{config}.yaml")
    plan = plan_of(file, [f"method={','.join(names)}"])
    assert len(plan) == len(names) > 20
    model = ["model.path=builtin:slm_draft", "model.request=after"]
    after = [plan_of(file, [f"method=gapg+{name}", *model])[0] for name in sorted(drafting)]
    refuse_what_cannot_run([*plan, *after])
