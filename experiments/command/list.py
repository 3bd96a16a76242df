"""List what ships: configs, methods, strategies and all other parts.

Examples:
  flsim list
  flsim list methods strategies

Each has its name and its first sentence, read from its file: whatever lies in the folder is named.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from experiments.command.terminal import Parser, bold, listed
from experiments.command.walk import ROOT, Class, classes_in, find, first_sentence, table_at, told_of


@dataclass(frozen=True)
class Files:
    """A kind that is YAML files of one folder, known by their names."""

    used: str
    """How one is named on the command line."""
    folder: str

    def entries(self) -> list[tuple[str, str]]:
        """Names, with the first sentence of the comment on top of each file."""
        files = sorted((ROOT / self.folder).glob("*.yaml"))
        return [(file.stem, _comment(file.read_text())) for file in files]


@dataclass(frozen=True)
class Parts:
    """A kind that is classes, named by `module:Name`."""

    key: str
    """Of the config, whose `path` names one and whose other keys are its settings."""
    folder: str
    """The package that holds them."""
    like: str
    """`module:Name` of a protocol or class: whatever has all of its methods is of this kind; or several, with spaces
    between, of which one is enough."""

    @property
    def used(self) -> str:
        """How one is named on the command line."""
        return f"{self.key}.path=PATH"

    def entries(self) -> list[tuple[str, str]]:
        """Paths, with the first sentence of each docstring."""
        return [(one.path, first_sentence(one.doc)) for one in self.classes()]

    def classes(self) -> list[Class]:
        """All that can be used, by path."""
        likes = [find(path).methods for path in self.like.split()]
        every = [one for one in classes_in(self.folder) if not one.is_abstract and _can_be_written(one)]
        return [one for one in every if any(like <= one.methods for like in likes)]


@dataclass(frozen=True)
class Measures:
    """The kind that is a table: `flsim.metrics.measures`."""

    used: str = "a name in reports, tables and studies"

    def entries(self) -> list[tuple[str, str]]:
        """Names, with the first sentence of their meanings."""
        from flsim.metrics.measures import MEASURES  # not above: no other list need wait for pandas

        return [(name, first_sentence(measure.meaning)) for name, measure in MEASURES.items()]


@dataclass(frozen=True)
class Findings:
    """The kind that is the table `flsim.diagnosis.table`."""

    used: str = "what flsim diagnose may find"

    def entries(self) -> list[tuple[str, str]]:
        """Names, with when they fire."""
        from flsim.diagnosis.table import KINDS as OF_FINDINGS  # not above: no other list need wait for pandas

        return [(name, f"{kind.severities[0]}: {kind.fires}") for name, kind in OF_FINDINGS.items()]


@dataclass(frozen=True)
class Named:
    """A kind that has short names: a table of `NAME: "module:Name"` in the source, beside paths of one's own."""

    used: str
    table: str
    """`module:NAME` of the table."""

    def entries(self) -> list[tuple[str, str]]:
        """Short names, with the first sentence on what each names."""
        return [(name, first_sentence(told_of(path))) for name, path in table_at(self.table).items()]


def _can_be_written(part: Class) -> bool:
    """Whether a config can hold all that it must be given; a cloud that stands before another cloud is no choice."""
    needed = [setting.type for setting in part.settings() if setting.default is None]
    return all(kind.split("[")[0] in ("str", "int", "float", "bool", "list", "tuple", "dict") for kind in needed)


KINDS: dict[str, Files | Parts | Measures | Findings | Named] = {
    "configs": Files("flsim run NAME", "experiments/configs"),
    "methods": Files("flsim study CONFIG method=NAME", "experiments/configs/methods"),
    "learners": Parts("client", "clients", "clients.learner:Learner"),
    "rules": Parts("client.asking", "clients/asking", "clients.asking.rule:AskingRule"),
    "modes": Parts("client.helping", "clients/helping", "clients.helping.helping:Helping"),
    "strategies": Parts("strategy", "strategies", "strategies.base:DeltaStrategy"),
    "samplers": Parts("strategy.sampler", "strategies/parts", "strategies.parts.samplers:Sampler"),
    "weighters": Parts("strategy.weighter", "strategies/parts", "strategies.parts.weighters:ByExamples"),
    "reducers": Parts(
        "strategy.reducer",
        "strategies/parts",
        "strategies.parts.reducers:Combining strategies.parts.reducers:Coordinatewise",
    ),
    "optimizers": Parts("strategy.optimizer", "strategies/parts", "strategies.parts.server_optimizers:ServerOptimizer"),
    "stages": Parts("stage", "strategies/stages", "flsim.flower.contract:Stage"),
    "clouds": Parts("cloud", "flsim/cloud", "flsim.cloud.protocol:Cloud"),
    "readers": Named("data.NAME.kind=NAME, or data.NAME.reader=PATH", "flsim.tasks.load:READERS"),
    "verifiers": Named("data.NAME.verifier=NAME or PATH", "flsim.problems.judging:SHIPPED"),
    "trackers": Named("track=NAME or PATH", "flsim.trackers.named:SHIPPED"),
    "measures": Measures(),
    "findings": Findings(),
}
"""What `flsim list` shows; the keys of the parts are also those that `flsim explain` looks for settings under."""


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("list", f"{__doc__}\nkinds: {', '.join(KINDS)}")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="what to list (default: everything)")
    args = parser.parse_args(arguments)
    unknown = next((kind for kind in args.kinds if kind not in KINDS), None)
    if unknown is not None:
        close = get_close_matches(unknown, KINDS, n=1)
        meant = f"did you mean {close[0]}?" if close else f"there are: {', '.join(KINDS)}"
        parser.error(f"there is no kind {unknown!r}; {meant}")
    for place, kind in enumerate(args.kinds or KINDS):
        print(f"{chr(10) if place else ''}{bold(kind)}  {KINDS[kind].used}\n{listed(KINDS[kind].entries())}")
    return 0


def _comment(text: str) -> str:
    """The first sentence of the comment on top; commands, which are indented, end it."""
    lines = re.match(r"(?:# (?! ).*\n)*", text)
    assert lines is not None
    return first_sentence(lines.group().replace("# ", ""))
