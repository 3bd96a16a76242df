"""`flsim` by itself: help that comes at once, mistakes in one sentence, what ships by name from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

import flsim
from experiments.command.__main__ import COMMANDS, main
from experiments.command.complete import candidates
from experiments.command.walk import purpose_of
from flsim.config.schema import ConfigError
from flsim.config.shipped import FOLDER, config_file, shipped_names

HEAVY = {"torch", "ray", "flwr", "pandas", "numpy", "matplotlib", "transformers"}


LIGHT = [
    [],
    ["--help"],
    ["list", "methods", "strategies"],
    ["explain", "budget"],
    ["complete", "--", "run", "demo", "bud"],
    ["complete", "--", "judge", "C", "D", "--verifier", ""],
    ["judge", "C", "The answer is C", "--verifier", "choice"],
    *([name, "--help"] for name in ("run", "resume", "why", "replay", "compare", "profile", "benchmark")),
    *([name, "--help"] for name in ("new", "doctor", "judge")),
]


def test_help_and_lists_import_nothing_heavy() -> None:
    """So they come within a fraction of a second; the clock of a busy machine says less than the list of modules.

    One process does them all, each looked at before the next: what is heavy, and how much it said.
    """
    code = (
        "import contextlib, io, sys\nfrom experiments.command.__main__ import main\n"
        f"for arguments in {LIGHT!r}:\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):\n        main(arguments)\n"
        f"    print(len(said.getvalue()), *sorted(sys.modules.keys() & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for arguments, line in zip(LIGHT, done.stdout.splitlines(), strict=True):
        length, *heavy = line.split()
        assert not heavy, arguments
        assert int(length) > 0, arguments


def test_alone_it_says_how_to_begin_and_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "flsim run demo rounds=4" in out
    for name, module in COMMANDS.items():
        assert f"\n  {name} " in out
        assert purpose_of(module).split()[0] in out
    assert "\x1b[" not in out  # no colour where there is no terminal
    assert max(map(len, out.splitlines())) <= 80


def test_python_m_flsim_is_the_same_command(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "flsim"], capture_output=True, text=True, check=True)
    main([])
    assert done.stdout == capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], "there is no subcommand 'rum'; did you mean flsim run?"),
        (["run", "dmo"], "did you mean demo?"),
        (["run"], "give a config first"),
        (["run", "seed=3"], "give a config first"),
        (["run", "demo", "rounds"], "write it as key=value"),
        (["run", "demo", "--untill", "3"], "unrecognized arguments"),
        (["resume", "nowhere"], "nowhere holds no run"),
        (["list", "stratgies"], "there is no kind 'stratgies'; did you mean strategies?"),
        (["explain", "budget.taw"], "did you mean budget.tau"),
        (["new", "method", "My Method"], "use small letters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_status_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_configs_that_ship_are_known_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the folder goes before a name; a name that is neither is refused with those that come close."""
    monkeypatch.chdir(tmp_path)
    for name in shipped_names():
        assert flsim.load_config(name).name == name
    assert config_file("demo") == FOLDER / "demo.yaml"
    Path("demo").write_text("rounds: 5\n")
    assert flsim.load_config("demo").rounds == 5
    with pytest.raises(ConfigError, match=r"did you mean strategies\? shipped are aba, "):
        flsim.load_config("stratgies")
    with pytest.raises(ConfigError, match=r"there is no config file 'mine.yaml'"):
        flsim.load_config("mine.yaml")


def test_data_that_lie_beside_a_config_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions that ship come with `real`; in the current folder the same relative path goes first."""
    monkeypatch.chdir(tmp_path)
    root = Path(flsim.load_config("real").data["gsm8k"].root)
    assert (root / "train.jsonl").is_file()
    assert root.is_absolute()
    (tmp_path / "configs").mkdir()
    (tmp_path / "questions").mkdir()
    file = tmp_path / "configs" / "mine.yaml"
    file.write_text("data: {mine: {kind: files, root: ../questions}, other: {kind: files, root: nowhere}}\n")
    config = flsim.load_config(file)
    assert Path(config.data["mine"].root) == tmp_path / "questions"
    assert config.data["other"].root == "nowhere"
    monkeypatch.chdir(tmp_path / "configs")
    assert flsim.load_config(file).data["mine"].root == "../questions"


def test_completion_knows_subcommands_configs_keys_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "demo-seed0" / "config.yaml").touch()
    assert candidates(["re"]) == ["resume", "replay", "record"]
    assert candidates(["run", "re"]) == ["real", "replay_code", "replay_domains", "replay_gsm8k", "replay_mmlu"]
    assert candidates(["run", "demo", "budget.ta"]) == ["budget.tau="]
    assert candidates(["run", "demo", "client.dual_g"]) == ["client.dual_gain="]
    assert candidates(["explain", "budget.ta"]) == ["budget.tau"]
    assert candidates(["resume", ""]) == candidates(["why", ""]) == ["runs/demo-seed0"]
    (tmp_path / "runs/demo-seed0/rows").mkdir()
    for number in (0, 1, 12):
        (tmp_path / f"runs/demo-seed0/rows/round-{number:05d}.parquet").touch()
    assert candidates(["replay", "runs/demo-seed0", "r"]) == ["round=1", "round=12"]
    assert candidates(["why", "runs/demo-seed0", ""]) == ["device=", "round=1", "round=12", "--json"]
    assert candidates(["judge", "5", "5", "--verifier", "n"]) == ["numeric"]
    assert candidates(["judge", "--p"]) == ["--pairs"]
    assert candidates(["list", "ver"]) == ["verifiers"]
    assert candidates(["benchmark", "re"]) == ["real", "reporting"]


def test_bash_completes_with_the_script_that_it_is_given(tmp_path: Path) -> None:
    """The script in a real bash, with a command `flsim` on its path that is this Python's."""
    command = tmp_path / "flsim"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flsim "$@"\n')
    command.chmod(0o755)
    lines = (
        f'PATH="{tmp_path}:$PATH"; eval "$(flsim complete bash)"; '
        'COMP_WORDS=(flsim run demo budget.ta); COMP_CWORD=3; compopt() { echo "$@"; }; _flsim; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["-o", "nospace", "budget.tau="], "")
