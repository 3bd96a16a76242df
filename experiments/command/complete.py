"""Print the completion script of a shell: bash, zsh or fish.

  bash:  echo 'eval "$(flsim complete bash)"' >> ~/.bashrc
  zsh:   echo 'eval "$(flsim complete zsh)"' >> ~/.zshrc       # below compinit
  fish:  flsim complete fish > ~/.config/fish/completions/flsim.fish

Then <TAB> completes subcommands, names of configs, keys, kinds and folders of runs. The scripts ask
`flsim complete -- WORD ...`, which prints what the last of these words may become.
"""

from pathlib import Path

from experiments.benchmark.__main__ import BENCHMARKS
from experiments.command.keys import key_names
from experiments.command.list import KINDS
from experiments.command.terminal import Parser
from experiments.study import STUDIES
from flsim.config.shipped import shipped_names

BASH = """\
_flsim() {
    local word="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=($(compgen -W "$(flsim complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$word"))
    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
}
complete -o default -F _flsim flsim
"""
ZSH = """\
_flsim() {
    local -a found
    found=(${(f)"$(flsim complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
    _files
}
compdef _flsim flsim
"""
FISH = """\
complete -c flsim -a '(flsim complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    if arguments[:1] == ["--"]:
        print("\n".join(candidates(arguments[1:])))
        return 0
    parser = Parser("complete", __doc__)
    parser.add_argument("shell", metavar="SHELL", choices=SCRIPTS, help=" or ".join(SCRIPTS))
    print(SCRIPTS[parser.parse_args(arguments).shell], end="")
    return 0


def candidates(words: list[str]) -> list[str]:
    """What the last of the words after `flsim` may become; shells pick those that begin as it does."""
    from experiments.command.__main__ import COMMANDS  # not above: it imports this module by name

    *before, word = words or [""]
    found = list(COMMANDS) if not before else _arguments(before[0], len(before))
    if before[:1] == ["judge"]:
        from flsim.problems.judging import SHIPPED  # not above: no other word needs it

        found = list(SHIPPED) if before[-1] == "--verifier" else ["--verifier", "--settings", "--options", "--pairs"]
    if before[:1] in (["why"], ["replay"]) and len(before) > 1:
        found = _of_a_round(Path(before[1])) + (["--json"] if before[0] == "why" else ["--pdb", "--again", "--folder"])
    return [one for one in found if one.startswith(word)]


def _arguments(command: str, place: int) -> list[str]:
    """What may stand at a place (1 is the first) after a subcommand."""
    if command == "explain":
        return key_names()
    if command == "list":
        return list(KINDS)
    if command in ("new", "complete"):
        return ["method", "strategy", "config"] if command == "new" else list(SCRIPTS)
    if command == "benchmark" and place == 1:
        return list(BENCHMARKS)
    if command in ("run", "study", "profile") and place == 1:
        return [*(STUDIES if command == "study" else ()), *shipped_names()]
    if command in ("resume", "compare", "diagnose", "why", "replay", "watch") and place == 1:
        return [str(file.parent) for file in sorted(Path("runs").glob("*/config.yaml"))]
    return [f"{key}=" for key in key_names()] if command in ("run", "study", "profile", "resume") else []


def _of_a_round(run: Path) -> list[str]:
    """What may follow the folder of a run, where one of its rounds is meant."""
    rounds = sorted(int(file.stem.removeprefix("round-")) for file in run.glob("rows/round-*.parquet"))
    return ["device=", *(f"round={number}" for number in rounds if number)]
