"""The report of one run in a process of its own: `python -m ... FOLDER`; prints one line of JSON."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from experiments.benchmark.measuring import peak_bytes
from flsim.config.load import load_config
from flsim.diagnosis.seen import Facts
from flsim.report import finish
from flsim.tasks.stream import TaskStream

PARTS = {
    "read_compact": "rows read",
    "findings_of": "diagnosis",
    "summary_from": "summary",
    "ledger_table": "ledger",
    "stream_table": "stream",
    "charts_of": "charts",
    "write_figures": "pictures",
    "write_report": "page",
}
"""Functions that the report calls one after the other, and what they are called in the table."""
_LONGEST_S = 600


@dataclass(frozen=True)
class Reported:
    """What the report of one run took."""

    parts: dict[str, float]
    """Processor seconds of each, and of `other`."""
    wall_s: float
    peak: int
    """Bytes, of the whole process."""


def report(folder: Path) -> Reported:
    """Write the report of a run and time its parts."""
    config = load_config(folder / "config.yaml")
    phases = TaskStream(config.stream, config.rounds).phases
    facts = Facts(phases, config.budget.tau, config.fleet.devices, learns_to_ask=True)
    parts = dict.fromkeys(PARTS.values(), 0.0)
    for function, name in PARTS.items():
        setattr(finish, function, _timed(getattr(finish, function), name, parts))
    cpu, wall = time.process_time(), time.perf_counter()
    finish.finish_run(folder, phases=phases, tau=config.budget.tau, devices=config.fleet.devices, facts=facts)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Reported({**parts, "other": cpu - sum(parts.values())}, wall, peak_bytes())


def _timed(work: Callable[..., Any], name: str, parts: dict[str, float]) -> Callable[..., Any]:
    """The same function, whose processor seconds are added up."""

    @wraps(work)
    def timed(*args: Any, **more: Any) -> Any:
        began = time.process_time()
        try:
            return work(*args, **more)
        finally:
            parts[name] += time.process_time() - began

    return timed


def in_a_process(folder: Path) -> Reported:
    """The same in a process that has imported nothing yet."""
    command = [sys.executable, "-m", __spec__.name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=_LONGEST_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return Reported(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(asdict(report(Path(sys.argv[1])))))
