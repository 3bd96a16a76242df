"""Lay finished runs of one config side by side: `python -m experiments.across_seeds RUN_DIR ...` prints a table.

Values are user means at the end of each run, then their mean and standard deviation over the runs.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Summary = dict[str, Any]


def _at_end(model: str, name: str) -> Callable[[Summary], float]:
    return lambda summary: float(summary["at_end"][model][name]["user_mean"])


def _gain(name: str) -> Callable[[Summary], float]:
    return lambda summary: float(summary["headline"][name]["mean"])


def _worst_usage(summary: Summary) -> float:
    return max(abs(float(phase["last_third"]["user_mean"]) - float(summary["tau"])) for phase in summary["usage"])


MEASURES: dict[str, Callable[[Summary], float]] = {
    "accuracy, global": _at_end("global", "accuracy"),
    "accuracy, frozen asking at random": _at_end("random", "accuracy"),
    "gain over random asking": _gain("accuracy_over_random"),
    "local accuracy, global": _at_end("global", "alone_accuracy"),
    "local accuracy, frozen": _at_end("frozen", "alone_accuracy"),
    "gain over frozen": _gain("alone_accuracy_over_frozen"),
    "accuracy of the worst-off tenth, global": lambda s: float(s["at_end"]["global"]["accuracy"]["worst_decile_mean"]),
    "accuracy of the worst-off tenth, random": lambda s: float(s["at_end"]["random"]["accuracy"]["worst_decile_mean"]),
    "cloud usage at the end, global": _at_end("global", "cloud_grants"),
    "largest distance of training usage from tau, last third of a phase": _worst_usage,
}


def table(summaries: list[Summary]) -> str:
    """The runs as a Markdown table: a line per measure, a column per run, then mean and standard deviation."""
    names = [str(summary["run"]) for summary in summaries]
    lines = ["| | " + " | ".join(names) + " | mean | sd |", "|---" * (len(names) + 3) + "|"]
    for label, measure in MEASURES.items():
        values = [measure(summary) for summary in summaries]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells = [f"{value:.3f}" for value in (*values, statistics.mean(values), spread)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folders of finished runs")
    args = parser.parse_args()
    missing = [str(run) for run in args.runs if not (run / "summary.json").is_file()]
    if missing:
        parser.error(f"no summary.json in {', '.join(missing)}; finish them with --resume first")
    print(table([json.loads((run / "summary.json").read_text()) for run in args.runs]))


if __name__ == "__main__":
    main()
