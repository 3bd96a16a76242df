"""Compare runs: open them, refuse what cannot be compared, measure each, and pair all with one of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from flsim.comparison.comparable import check_comparable
from flsim.comparison.cost_table import targets_frame
from flsim.comparison.pairing import Pair, pair
from flsim.comparison.result import PAIRED, REFERENCES, Compared, Result, means_of
from flsim.comparison.runs import Given, Labels, Method, OpenRun, open_methods
from flsim.comparison.table import ALL_ALONG, per_user_frame, table_frame
from flsim.comparison.weightings import terminal_table, weighting_frame
from flsim.config.schema import ConfigError
from flsim.metrics.intervals import Interval
from flsim.metrics.measured import measure
from flsim.metrics.measures import MEASURES, Measure, chosen
from flsim.metrics.rows import of_users
from flsim.metrics.run_rows import Life, RunRows, mean
from flsim.metrics.users import per_user
from flsim.metrics.weighting import UNIFORM, WEIGHTINGS, Weighting, weighting_of
from flsim.tasks.stream import TaskStream


class Comparison(Compared):
    """What `compare` found, as tables and as a page."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """A line per method, bound and reference: `NAME`, `NAME_low`, `NAME_high` for means, facts, and differences."""
        return table_frame(self)

    @cached_property
    def by_weighting(self) -> pd.DataFrame:
        """A line per method, bound, weighting and measure of users: mean, interval, and difference to `against`."""
        return weighting_frame(self)

    @cached_property
    def targets(self) -> pd.DataFrame:
        """A line per method and kind of cost: what `target` took, how many seeds got there, and the speed-up."""
        return targets_frame(self)

    @cached_property
    def per_user(self) -> pd.DataFrame:
        """A line per method, seed and device, with all measures and the difference of accuracy to `against`."""
        return per_user_frame(self)

    def write(self, folder: str | Path) -> list[Path]:
        """Write tables (CSV; LaTeX and Markdown), figures (PNG) and `page.html`, which holds all and needs no network.

        Returns:
            The files, the page first.
        """
        from flsim.comparison.write import write_comparison  # only now: drawing takes memory and time to load

        return write_comparison(self, Path(folder))

    def __repr__(self) -> str:
        """The tables as `flsim compare` prints them."""
        return terminal_table(self)

    def _repr_html_(self) -> str:
        """The comparison as a notebook shows it."""
        from flsim.comparison.notebook import comparison_html

        return comparison_html(self)


def compare(
    runs: Sequence[Given],
    *,
    labels: Labels | None = None,
    against: str | None = None,
    alone: str | None = None,
    bounds: Sequence[Given] | Labels = (),
    measures: Sequence[str | Measure] | None = None,
    weighting: str | Weighting = UNIFORM,
    horizon: float = 1.0,
    spend: float | None = None,
    target: float | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Lay finished runs side by side, paired by user and seed.

    Runs that differ in nothing but their seeds are of one method. All methods need the same stream (apart from its
    seed), budget, test sets, fleet size, rounds, base model and cloud, and the same seeds.

    Args:
        runs: folders of runs, folders that hold them, or what `flsim.run` returned.
        labels: what methods are called -> one or more of their runs; without a label a method is called by its config's
            `name`, or by its folder where several share that.
        against: label of the method that the others are paired with; None takes the first.
        alone: label of the method or bound by which the harm rate is taken: what a user would have without the others.
            None takes the frozen model that asks at random.
        bounds: runs that are shown as bounds only, such as joint training, with labels or without: they need the same
            test sets, no more.
        measures: what the main table shows of the whole run: names of `flsim.metrics.measures.MEASURES`, measures of
            your own, or paths of them as module:NAME; None shows the usual ones. All are taken, shown or not.
        weighting: what users weigh in means, differences and intervals: a name of
            `flsim.metrics.weighting.WEIGHTINGS`. `by_weighting` and the page have all of them.
        horizon: how many test prompts a device meets in its life for each training prompt, in measures of both.
        spend: cloud calls per prompt, of training and test together, at which accuracies are compared; None is the
            budget's tau.
        target: accuracy of the mean user, such as 0.6; what it takes to get there is told of every method. None takes
            what `against` reaches in all seeds, where runs have a `system`.
        out: a folder to write tables, figures and the page to; None writes nothing.

    Raises:
        ConfigError: if runs cannot be compared or opened, or a label, a measure or a weighting is unknown, or nobody's
            weight is known, or horizon, spend or target can be none; it says what differs.
        DamagedFileError: if a run's rows cannot be read.
    """
    shown = chosen(ALL_ALONG if measures is None else measures)
    own, weighed = tuple(one for one in shown if one.name not in MEASURES), weighting_of(weighting)
    _check_numbers(horizon, spend, target)
    methods = open_methods(runs, labels)
    limits = open_methods([], bounds) if isinstance(bounds, Mapping) else open_methods(bounds)
    check_comparable(methods, limits)
    known, all_known = [m.label for m in methods], [m.label for m in (*methods, *limits)]
    _check_labels(known, all_known, against, alone)
    seeds = [run.seeds for run in methods[0].runs]
    every = {m.label: (m, _of_seeds(m, seeds)) for m in (*methods, *limits)}
    before = [_before(run, alone) for run in every[known[0] if alone is None else alone][1]]
    life = Life(horizon, spend)
    results = {label: _result(m, of_seeds, before, own, weighed, life) for label, (m, of_seeds) in every.items()}
    _check_weights([results[label] for label in known], weighed)
    base = known[0] if against is None else against
    found = Comparison(
        results=tuple(results[label] for label in known),
        bounds=tuple(results[m.label] for m in limits),
        references=_references([results[label] for label in known]),
        against=base,
        alone=MEASURES["random_accuracy"].title if alone is None else alone,
        pairs=tuple(
            p for label in all_known if label != base for p in _pairs(results[label], results[base], seeds, weighed)
        ),
        shown=tuple(shown),
        own=own,
        weighting=weighed,
        life=life,
        aim=target,
    )
    if out is not None:
        found.write(out)
    return found


def _check_numbers(horizon: float, spend: float | None, target: float | None) -> None:
    if not 0 < horizon < math.inf:
        raise ConfigError(
            f"horizon={horizon!r} must be above 0 and finite: test prompts that a device meets for each training prompt"
        )
    if spend is not None and not 0 <= spend <= 1:
        raise ConfigError(f"spend={spend!r} must be in [0, 1]: cloud calls per prompt of training and test together")
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"target={target!r} must be in (0, 1]: a share of the mean user's test prompts")


def _check_labels(methods: Sequence[str], every: Sequence[str], against: str | None, alone: str | None) -> None:
    twice = next((label for label in every if list(every).count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"a method and a bound are both called {twice!r}; give the method another label")
    for what, label, allowed in (("against", against, methods), ("alone", alone, every)):
        if label is not None and label not in allowed:
            raise ConfigError(f"{what}={label!r} is none of the methods compared; they are {', '.join(allowed)}")


def _of_seeds(method: Method, seeds: Sequence[tuple[int, int]]) -> list[OpenRun]:
    """The runs of these seeds; of a bound, a run on the same stream where none has the same seed."""
    exact = {run.seeds: run for run in method.runs}
    stream = {run.seeds[1]: run for run in reversed(method.runs)}
    return [exact.get(own, stream[own[1]]) for own in seeds]


def _rows_of(run: OpenRun) -> RunRows:
    phases = TaskStream(run.config.stream, run.config.rounds).phases
    rows = RunRows(of_users(run.rows()), phases, run.config.budget.tau)
    if rows.accuracy.empty:
        raise ConfigError(f"{run.folder} has tested nobody at its end (run.log says why); leave it out, or run it anew")
    return rows


def _before(run: OpenRun, alone: str | None) -> pd.Series:
    """What each user would have without the others: its accuracy in this run, or that of asking at random."""
    return per_user(_rows_of(run).at_end("accuracy", "random" if alone is None else "global"))


def _check_weights(results: Sequence[Result], weighting: Weighting) -> None:
    """Refuse a weighting by what nobody knows: a run of the release before has no traffic, one alone no requests."""
    for result in results:
        for run, measured in zip(result.method.runs, result.runs, strict=True):
            if measured.users["accuracy"].notna().any() and not (measured.weights(weighting)["accuracy"] > 0).any():
                raise ConfigError(
                    f"weighting={weighting.name!r} cannot be taken: {run.folder} has no rows that say what its users "
                    f"weigh so; take another of {', '.join(WEIGHTINGS)}, or make the run again"
                )


def _result(
    method: Method,
    runs: Sequence[OpenRun],
    before: Sequence[pd.Series],
    own: Sequence[Measure],
    weighting: Weighting,
    life: Life,
) -> Result:
    found = [
        measure(replace(_rows_of(run), before=alone, life=life), own) for run, alone in zip(runs, before, strict=True)
    ]  # one run's rows at a time
    facts = {name: mean([run.facts[name] for run in found]) for name in found[0].facts}
    return Result(method, tuple(found), means_of(found, weighting, own), facts)


def _references(methods: Sequence[Result]) -> dict[str, dict[str, Interval]]:
    """Read from the first method: all have the same test sets, and these models do not learn.

    Where methods start from models of their own, by a warm-up or `model.adapter`, each has its line.
    """
    own = [name for name in ("frozen_accuracy", "random_accuracy") if _start_differs(methods, name)]
    return {
        MEASURES[name].title + (f", {one.label}" if name in own else ""): {column: one.means[name]}
        for name, column in REFERENCES.items()
        for one in (methods if name in own else methods[:1])
        if name in one.means
    }


def _start_differs(methods: Sequence[Result], name: str) -> bool:
    """Whether some do not start from the base, and a measure of what they start from is not the same for all."""
    configs = [one.method.config for one in methods]
    if not any(config.warmup.steps or config.model.adapter for config in configs):
        return False
    return len({one.means[name].mean for one in methods if name in one.means}) > 1


def _pairs(one: Result, base: Result, seeds: Sequence[tuple[int, int]], weighting: Weighting) -> list[Pair]:
    names, weights = (one.label, base.label), base.weights(weighting)
    found = (pair(names, one.users, base.users, seeds, measure=name, weights=weights) for name in PAIRED)
    return [p for p in found if p is not None]
