"""Where forgetting could differ: the same question under other learning rates, phases, groups, adapters and models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.reproduce_paper.plan import METHODS, Planned, runs_of
from flsim.comparison.compare import Comparison
from flsim.comparison.result import difference_of
from flsim.comparison.table import gap_text
from flsim.metrics.intervals import Interval
from flsim.text import markdown_table as table

COMPARED = tuple(m for m in METHODS if m.files in ("da_grpo", "grpo+random", "collaborative_dr_grpo", "sft+random"))
"""DA-GRPO, the same without asking, with a fixed reward for help, and by heart."""
CLEAN = "runs/slm_clean"
"""Where `python -m experiments.pretrain slm_clean --out runs` leaves the model."""


@dataclass(frozen=True)
class Regime:
    """One change of the setting."""

    name: str
    what: str
    settings: tuple[str, ...]
    """Over the setting's own; they also go over tuned ones."""


REGIMES = (
    Regime("as tuned", "the setting as it is", ()),
    Regime("fast", "learning rate 0.01 for all", ("client.lr=0.01",)),
    Regime("slow", "learning rate 0.001 for all", ("client.lr=0.001",)),
    Regime("long", "phases of 36 rounds", ("rounds=108",)),
    Regime(
        "many",
        "A, B, A, B, A",
        (
            "rounds=60",
            "stream.phases=[[arithmetic,numbers],[strings,lists],[arithmetic,numbers],[strings,lists],[arithmetic,numbers]]",
        ),
    ),
    Regime(
        "unrelated", "one group a phase: sums, strings, sums", ("stream.phases=[[arithmetic],[strings],[arithmetic]]",)
    ),
    Regime("small", "adapters of rank 1", ("model.rank=1", "model.alpha=2")),
    Regime("clean", "an SLM that was pretrained on right answers only", (f"model.path={CLEAN}",)),
)
"""One change at a time."""
MEASURES = (
    ("during_task", "during task"),
    ("post_switch", "post switch"),
    ("forgetting_relative", "forgets, relative"),
    ("alone_during_task", "during, alone"),
    ("alone_forgetting_relative", "forgets alone, relative"),
)


def regime_runs(setting: str, regime: Regime, seeds: Sequence[int], root: Path, more: Sequence[str]) -> list[Planned]:
    """The runs of one regime; those of the setting as it is are the ones of the tables, and are not done again."""
    folder = root / f"regimes-{setting}" / regime.name if regime.settings else root / setting
    return runs_of(setting, COMPARED, seeds, folder, [*more, *regime.settings])


def regimes_table(found: Mapping[str, Comparison]) -> str:
    """A line per regime and method; beside DA-GRPO's means, what the others have more or less than it."""
    lines = [["regime", "method", *(title for _, title in MEASURES)]]
    for name, comparison in found.items():
        for result in comparison.results:
            gaps = {} if result.label == comparison.against else difference_of(comparison, result.label)
            cells = [_cell(result.means.get(key), gaps.get(key)) for key, _ in MEASURES]
            lines.append([name, result.label, *cells])
    return table(lines)


def _cell(mean: Interval | None, gap: Interval | None) -> str:
    if mean is None:
        return "-"
    text = f"{100 * mean.mean:.1f}"
    return text if gap is None else f"{text}: {gap_text(gap)}"
