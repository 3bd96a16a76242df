"""Say what is wrong with a run: faults, warnings and notes, each with its number, its rows and what to try.

Examples:
  flsim diagnose runs/demo-seed0
  flsim diagnose runs/a runs/b --fail-on warning      # exit status 1 if any has a warning or a fault
  flsim run demo --fail-on fault                      # the same of a run as soon as it has ended
  flsim list findings                                 # all that there may be

A fault makes a run worthless, such as adapters that never move; a warning says that it could be better; a note is what
one should know before one believes it. It reads rows and config alone, so that a run may be old, or not yet finished,
and nothing is written. Each finding names the rows that it stands on, as pandas takes them:

  from flsim.metrics.rows import read_rows
  read_rows("runs/demo-seed0").query("split == 'train' and name in ['update_norm'] and 3 <= round <= 7")

The status is 0 whatever is found, unless --fail-on says which severity is not to pass; docs/diagnoses.md has the table.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from experiments.command.terminal import Parser, bold, green, listed, red, yellow

if TYPE_CHECKING:
    from flsim.diagnosis.finding import Finding

SEVERITIES = ("note", "warning", "fault")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("diagnose", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, such as runs/demo-seed0, or addresses")
    add_fail_on(parser)
    args = parser.parse_intermixed_args(arguments)
    import flsim  # not above: `flsim diagnose --help` need not wait for pandas
    from flsim.diagnosis.finding import counted

    every: list[Finding] = []
    for place, run in enumerate(args.runs):
        found = flsim.diagnose(run)
        print(f"{chr(10) if place else ''}{bold(str(run))}: {counted(found) if found else green(counted(found))}")
        if found:
            print("\n" + "\n\n".join(_told(one) for one in found))
        every += found
    return failed(every, args.fail_on)


def add_fail_on(parser: Parser) -> None:
    """The option that makes an exit status of findings."""
    parser.add_argument(
        "--fail-on",
        choices=SEVERITIES,
        help="exit with status 1 if anything of this severity, or worse, is found (flsim diagnose --help)",
    )


def failed(findings: "Sequence[Finding]", severity: str | None) -> int:
    """The exit status: 1 if there is a finding of that severity or worse; `severity=None` lets all pass."""
    from flsim.diagnosis.finding import at_least

    return 0 if severity is None else int(bool(at_least(findings, severity)))


def _told(one: "Finding") -> str:
    """A finding, line by line."""
    from flsim.report.findings import title_of

    colours: dict[str, Callable[[str], str]] = {"fault": red, "warning": yellow, "note": str}
    lines = [("seen", one.sentence), ("number", one.against), ("try", one.mend)]
    rows = [f"  {bold('rows')}    {query}" for query in one.rows]  # in one line each, to be copied
    return "\n".join([f"{colours[one.severity](one.severity)}: {bold(title_of(one))}", listed(lines), *rows])
