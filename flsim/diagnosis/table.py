"""THE table of findings: what each reads, when it fires, and what finds it; pages and lists are made of it."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from flsim.diagnosis.asking import budget, dual_stuck
from flsim.diagnosis.finding import FAULT, NOTE, SEVERITIES, WARNING, Finding
from flsim.diagnosis.helping import poor_help
from flsim.diagnosis.learning import (
    cannot_tell,
    forgetting_in_local_steps,
    forgetting_over_time,
    local_global_gap,
    slow_convergence,
    worst_off,
)
from flsim.diagnosis.limits import LIMITS
from flsim.diagnosis.seen import Facts, Seen
from flsim.diagnosis.stuck import asks_always_or_never
from flsim.diagnosis.systems import absent, communication_bound, participation_bias, stale, stragglers
from flsim.diagnosis.updates import (
    aggregation_loses,
    dead_adapter,
    length_collapse,
    nobody_counts,
    reward_collapse,
)
from flsim.metrics.run_rows import RunRows


@dataclass(frozen=True)
class Kind:
    """One finding that there may be."""

    name: str
    title: str
    """As pages call it."""
    severities: tuple[str, ...]
    """That it may have, the worst first."""
    reads: str
    """Names of rows."""
    when: str
    """It fires if this holds; `{gap}` stands for the threshold of that name."""
    mend: str
    """What it advises, in short."""
    of: Callable[[Seen], list[Finding]]

    @property
    def fires(self) -> str:
        """When, with the thresholds in it."""
        return self.when.format(**{name: f"{one.value:.3g}" for name, one in LIMITS.items()})


_TABLE = (
    Kind(
        "local_global_gap", "local-global gap", (WARNING,),
        "`alone_accuracy` of `own` and `global` at ends of phases, `update_cosine`",
        "own minus merged > {gap} on the tasks just learned, and its interval lies above 0; it names the "
        "cosine where that is < {cosine} over the last third",
        "fewer local steps, FedSA, products in place of factors",
        local_global_gap,
    ),
    Kind(
        "forgetting_in_local_steps", "forgetting in local steps", (WARNING,),
        "`alone_accuracy` of `own` on past tasks, of `global` at the test before",
        "the fall > {local_forgetting}, and its interval lies above 0",
        "replay, a KL to the start, fewer local steps",
        forgetting_in_local_steps,
    ),
    Kind(
        "forgetting_over_time", "forgetting over time", (WARNING,),
        "`alone_accuracy` of `global` at ends of phases",
        "share lost by the end of the next phase > {forgotten}, and the interval of the fall lies above 0",
        "replay, a KL to the start, shorter phases",
        forgetting_over_time,
    ),
    Kind(
        "slow_convergence", "slow convergence", (WARNING, NOTE),
        "`accuracy` of `global` and `cloud` in the latest phase",
        "after {tests} tests of the phase or more: accuracy < cloud - {below_cloud}, and the interval of the last "
        "third's gain per round lies below {slope} of the first third's, or of what would have reached the cloud; only "
        "a note where the phase closed {closed} of the gap",
        "learning rate, rank, longer runs, imitation",
        slow_convergence,
    ),
    Kind(
        "communication_bound", "communication bound", (WARNING,),
        "`link_seconds`, `round_seconds`, bytes (with `system`)",
        "transfers > {link} of the devices' rounds",
        "lower rank, FFA, longer rounds",
        communication_bound,
    ),
    Kind(
        "budget", "budget violated or unused", (WARNING, NOTE),
        "`cloud_requests` or `cloud_purchases`, `cloud_refused`, `cloud_calls`",
        "usage in the last third of a phase of {settled} rounds or more > tau + {over_tau}, or (a note) < {under_tau} "
        "tau, and the interval of the difference excludes 0; refused > {refused} of {requests} requests or more, over "
        "the last third of the rounds",
        "dual rate, `dual_bias`, caps that fit tau",
        budget,
    ),
    Kind(
        "dual_stuck", "dual variable stuck", (WARNING, NOTE),
        "`dual_variable` of devices, or of the fleet; `cloud_requests`",
        "lambda at its maximum for {at_bound} of a phase while usage > tau, on {fleet} of the devices (else a note); "
        "at 0 for as long (a note)",
        "`dual_max`, `price_max`, tau",
        dual_stuck,
    ),
    Kind(
        "dead_adapter", "dead adapter", (FAULT, WARNING),
        "`update_norm`, `learned_tokens`",
        "norm < {dead} of the median of the round, or < {still} in all, or no token learned, {rounds} rounds in a row "
        "in which the fleet had something to learn; a fault on {fleet} of the devices if it lasts to the end",
        "learning rate, group size, rank",
        dead_adapter,
    ),
    Kind(
        "reward_collapse", "reward collapse", (FAULT, WARNING, NOTE),
        "`effective_groups`, `unanimous_groups` (how many groups), `reward`",
        "> {no_signal} of the groups teach nothing, {rounds} rounds in a row; a fault if it lasts to the end, a note "
        "where the mean reward is {solved} or more",
        "difficulty, temperature, group size, imitation",
        reward_collapse,
    ),
    Kind(
        "asks_always_or_never", "asks always or never", (FAULT, WARNING),
        "`cloud_requests` without `explored`, `weighed_requests`",
        "usage < {asks} tau, or > 1 - {asks} (1 - tau), also as `budget.unit` counts it, {rounds} rounds in a row, for "
        "tau that lies {asking_margin} or more from 0 and 1; a fault if it lasts to the end",
        "`client.explore`, a head",
        asks_always_or_never,
    ),
    Kind(
        "length_collapse", "length collapse", (WARNING,),
        "`cut_responses`, `sampled_tokens` without `helped_drawn`, `cloud_requests`",
        "> {cut} of the responses reach the limit without an ending, or those that did not ask have < {short} tokens, "
        "{rounds} rounds in a row",
        "`max_new_tokens`, `mask_cut`, reward",
        length_collapse,
    ),
    Kind(
        "poor_help", "poor help", (WARNING, NOTE),
        "`accepted_tokens`, `help_share` (with a mode of help)",
        "over the last third of the rounds: (a note) accepted < {accepted} of {drafted} drafted tokens or more; help "
        "took > {dearer} of what asking would have, of {requests} questions or more",
        "shorter drafts, distillation, asking",
        poor_help,
    ),
    Kind(
        "aggregation_loses", "aggregation loses", (WARNING, NOTE),
        "`aggregation_bias`, `cut_energy`, `effective_devices`, `aggregation_share`",
        "over the last third of the rounds: bias > {bias} where factors are averaged; energy kept by the cut < "
        "{kept_energy}; (a note) devices that count < {effective} of those that took part",
        "products in place of factors, rank",
        aggregation_loses,
    ),
    Kind(
        "nobody_counts", "no update counts", (FAULT, WARNING),
        "`set_aside`, `downlink_bytes`",
        "every device that was asked was set aside, {rounds} rounds in a row; a fault if it lasts to the end",
        "longer deadlines and windows, buffered rounds; whatever the log says of failures",
        nobody_counts,
    ),
    Kind(
        "stragglers", "stragglers", (WARNING,),
        "`round_seconds`, `wasted_joules` (with `system`)",
        "the longest duration > {straggler} medians in more than half of the rounds, where all are waited for; wasted "
        "> {waste} of all joules",
        "`system.end`: first, deadline, buffered",
        stragglers,
    ),
    Kind(
        "stale", "stale", (WARNING,),
        "`staleness`, `dropped` (with `system`)",
        "the {stale} quantile of staleness is at `max_staleness`; dropped > {dropped} of the replies",
        "fewer in flight, larger buffers",
        stale,
    ),
    Kind(
        "participation_bias", "participation bias", (WARNING,),
        "`aggregation_share`, `class_NAME`, `accuracy`",
        "the busiest {busiest} of the devices sent > {work} of the updates, from {turns} a device in the mean on; two "
        "classes > {classes} apart in accuracy, with intervals that do not meet",
        "samplers, over-selection",
        participation_bias,
    ),
    Kind(
        "absent", "empty batteries, absent devices", (WARNING, NOTE),
        "`battery`, `downlink_bytes` (with `system`)",
        "any battery at {empty} of its capacity or below; any device that never took part, where chance alone would "
        "leave fewer than {chance} (a note below {fleet} of the fleet)",
        "windows, classes, less work",
        absent,
    ),
    Kind(
        "worst_off", "worst-off users", (WARNING,),
        "`accuracy` of `global` and `random` at the end, `test_items`",
        "10th percentile < mean - {tenth}, of what tests do not scatter by themselves, from {percentile_users} users "
        "on; > {harmed} of the users, and {harmed_users} at least, lost more than {clearly} standard errors",
        "a personal part, fair weights",
        worst_off,
    ),
    Kind(
        "cannot_tell", "cannot tell", (NOTE,),
        "`accuracy` of `global` and `random`, or `alone_accuracy` of `global` and `frozen`",
        "the interval of the mean user's difference holds 0, or fewer than {users} users are tested",
        "seeds, users, test prompts",
        cannot_tell,
    ),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
"""All of them by name."""


def findings_of(rows: pd.DataFrame | RunRows, facts: Facts) -> tuple[Finding, ...]:
    """Diagnose a run, whole or partial.

    Laws: the order of rows changes nothing; rows that a run lacks make findings silent and no errors.

    Args:
        rows: all rows of the run, perhaps as measures read them: what both take is then taken once.
        facts: what they do not say.

    Returns:
        The worst first, those of one severity in the order of the table.
    """
    seen = Seen(rows.rows, facts, rows) if isinstance(rows, RunRows) else Seen(rows, facts)
    every = [finding for kind in KINDS.values() for finding in kind.of(seen)]
    return tuple(sorted(every, key=lambda one: -SEVERITIES.index(one.severity)))


def lines_of_findings() -> list[str]:
    """The table of findings as docs/diagnoses.md has it, in Markdown."""
    return [f"| {one.title} | {', '.join(one.severities)} | {one.reads} | {one.fires} | {one.mend} |" for one in _TABLE]


def lines_of_limits() -> list[str]:
    """The table of thresholds, likewise."""
    return [f"| `{name}` | {one.value:.3g} | {one.meaning} | {one.source} |" for name, one in LIMITS.items()]
