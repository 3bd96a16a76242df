"""Finish a run: from its rows to summary, ledger, figures and page; may be called again at any time."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from flsim.charts.of_run import charts_of
from flsim.diagnosis.seen import Facts
from flsim.diagnosis.table import findings_of
from flsim.files import write_atomically
from flsim.metrics.measures import MEASURES
from flsim.metrics.rows import read_compact
from flsim.metrics.run_rows import RunRows
from flsim.report.figures import write_figures
from flsim.report.page import write_report
from flsim.report.partition_figure import read_partitions, write_partitions
from flsim.report.summarise import summary_from
from flsim.report.summary import Summary, write_summary
from flsim.report.table import answer
from flsim.tasks.sets import DataTask
from flsim.tasks.stream import Phase
from flsim.timing import read_timings

_LEDGER = ("calls", "refused", "tokens", "money")
"""The measures that a device's ledger shows."""


def finish_run(
    run_dir: Path,
    *,
    phases: Sequence[Phase],
    tau: float | None,
    data: Sequence[DataTask] = (),
    devices: int | None = None,
    facts: Facts | None = None,
) -> Summary:
    """Read a run's rows and write what is made of them into its folder.

    That is `summary.json`, `stream.parquet`, `ledger.parquet`, `plots/`, `report.html`, and `partitions/` of data sets.

    Args:
        run_dir: the run's folder, with `rows/` and, where present, `config.yaml`, `environment.json` and `timing/`;
            the run may be partial.
        phases: the stream's phases.
        tau: the allowed share of prompts that may ask the cloud; None when the run has no budget.
        data: the stream's data sets; of those that are not given, what was written before is taken.
        devices: size of the fleet; None takes as many as have rows.
        facts: what a diagnosis knows of the run beside its rows; None knows its phases, tau and devices.

    Returns:
        The summary, as in `summary.json`.
    """
    run_dir = Path(run_dir)
    run = RunRows.under(read_compact(run_dir), phases, tau)
    name = run_dir.resolve().name
    write_partitions(run_dir, data)
    findings = findings_of(run, Facts(phases, tau, devices) if facts is None else facts)
    summary = summary_from(run, name=name, findings=findings)
    summary = replace(summary, partitions=read_partitions(run_dir))
    summary = summary if devices is None else replace(summary, devices=devices)
    write_summary(run_dir, summary)
    _write_parquet(run_dir / "ledger.parquet", ledger_table(run))
    stream = stream_table(run)
    _write_parquet(run_dir / "stream.parquet", stream)
    sentence = answer(summary)
    timings = read_timings(run_dir)  # never in the summary, which is equal for equal runs
    charts = charts_of(run, timings)
    write_figures(
        run_dir / "plots",
        run,
        charts,
        summary=summary,
        title=name,
        answer=sentence,
        stream=stream,
        timings=timings,
    )
    write_report(run_dir, summary=summary, timings=timings, charts=charts)
    return summary


def ledger_table(run: RunRows) -> pd.DataFrame:
    """What every device spent on the cloud in every round of training.

    Args:
        run: its rows.

    Returns:
        Columns `round, device, calls, refused, tokens, money`, sorted by round and device; 0 where nothing was noted.
    """
    spent = pd.concat([MEASURES[name].rows(run).assign(name=name) for name in _LEDGER])
    wide = spent.pivot_table(index=["round", "device"], columns="name", values="total", aggfunc="sum", fill_value=0.0)
    wide = wide.reindex(columns=list(_LEDGER), fill_value=0.0)
    return wide.rename_axis(columns=None).reset_index()


def stream_table(run: RunRows) -> pd.DataFrame:
    """The realised stream: what every device met in every round of training.

    Args:
        run: its rows.

    Returns:
        Columns `round, device, task, prompts, mean_difficulty` (0 at the easiest level of a family, 1 at the hardest);
        empty for a client that does not report difficulty.
    """
    met = run.trained("difficulty")
    table = met.assign(prompts=met["weight"].astype(int), mean_difficulty=met["total"] / met["weight"])
    return table[["round", "device", "task", "prompts", "mean_difficulty"]].reset_index(drop=True)


def _write_parquet(path: Path, frame: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue(), what="a table of the report")
