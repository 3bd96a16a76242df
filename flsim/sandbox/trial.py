"""One trial: tests are run here, the code under test runs in a cell, and only values cross between them.

Passing means that this process, which the code cannot reach, saw every assert of the tests hold. There is no exit code,
output or flag by which the code could say so itself, and no expected value ever enters its process.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from flsim.sandbox.asserts import COUNT, UnusableTestsError, assert_sites, counted, modules, subjects
from flsim.sandbox.backends import ENDED_BY_LIMIT, Sandbox
from flsim.sandbox.remote import EndedError, Line, deadline_in

PASSED, FAILED, ERROR, TIMED_OUT, REFUSED = "passed", "failed", "error", "timed out", "refused"


@dataclass(frozen=True)
class Limits:
    """What one trial may use."""

    cpu_s: int = 4
    """Processor seconds; the main limit, as it depends little on what else the machine does."""
    wall_s: float = 10.0
    """Seconds on the clock: for code that sleeps."""
    memory_mb: int = 512
    """Address space, with about 30 MB for Python itself."""
    reply_bytes: int = 1 << 20
    """Longest message from the code."""
    code_chars: int = 20_000
    """Longest code."""
    text_chars: int = 200_000
    """Longest text that code is looked for in."""

    def __post_init__(self) -> None:
        """Refuse limits that allow nothing."""
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value} allows nothing; a limit of a trial is positive")


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    kind: str
    """`passed`; `failed`: an assert did not hold, or the code raised; `error`: the code did not load, or its process
    ended or broke the line; `timed out`; `refused`: too long, or tests that cannot be used."""
    why: str = ""
    """One line."""
    asserts: int = 0
    """How many were seen to hold."""
    code: str = ""
    """What was tried; "" if nothing was."""


class AssertFailedError(AssertionError):
    """An assert of the tests did not hold."""


def try_code(sandbox: Sandbox, code: str, tests: str, limits: Limits) -> Outcome:
    """Run tests against code in a cell of its own."""
    try:
        sites, names, program = assert_sites(tests), subjects(tests), compile(counted(tests), "tests", "exec")
    except UnusableTestsError as error:
        return Outcome(REFUSED, str(error))
    cell = sandbox.start(limits.memory_mb)
    line = Line(cell, deadline_in(limits.wall_s), limits.reply_bytes)
    held: set[int] = set()
    try:
        outcome = _tried(line, code, program, _namespace(tests, held), names, limits)
    finally:
        signal = cell.end(left=line.broken is not None and line.broken.left)
    if line.broken is not None:  # whatever the tests made of it
        late = line.broken.late or (line.broken.left and signal in ENDED_BY_LIMIT)
        return Outcome(TIMED_OUT if late else ERROR, str(line.broken), len(held))
    if outcome.kind == PASSED and line.refuted is not None:
        return Outcome(FAILED, str(line.refuted), len(held))
    if outcome.kind == PASSED and len(held) != sites:
        return Outcome(FAILED, f"{len(held)} of {sites} asserts were reached", len(held))
    return Outcome(outcome.kind, outcome.why, len(held))


def _tried(line: Line, code: str, program: Any, namespace: dict[str, Any], names: list[str], limits: Limits) -> Outcome:
    try:
        line.load(code, cpu_s=limits.cpu_s, memory_mb=limits.memory_mb)
    except (Exception, EndedError) as error:
        return Outcome(ERROR, _said("the code does not load", error))
    try:
        namespace |= {name: line.subject(name) for name in names}
        exec(program, namespace)
    except AssertFailedError as error:
        return Outcome(FAILED, str(error))
    except (Exception, EndedError) as error:
        return Outcome(FAILED, _said("raised", error))
    return Outcome(PASSED)


def _namespace(tests: str, held: set[int]) -> dict[str, Any]:
    def count(site: int, value: Any) -> None:
        if not value:
            raise AssertFailedError(f"assert {site + 1} does not hold")
        held.add(site)

    return {"__name__": "tests", COUNT: count} | {name: importlib.import_module(name) for name in modules(tests)}


def _said(what: str, error: BaseException) -> str:
    return f"{what}: {type(error).__name__}: {ascii(str(error)[:200])[1:-1]}"  # one line, whatever the code wrote
