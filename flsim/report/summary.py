"""The summary of a run: every number that the report, the table and comparisons show; `summary.json` holds it."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from flsim.diagnosis.finding import Finding
from flsim.files import DamagedFileError, write_atomically
from flsim.metrics.users import PairedDifference, UserSummary
from flsim.report.system_summary import DeviceClassSummary
from flsim.tasks.stream import Phase

_FILE = "summary.json"


@dataclass(frozen=True)
class Tested(UserSummary):
    """One measure of a model over users, at one test."""

    round: int
    """Of the test."""


@dataclass(frozen=True)
class Used(UserSummary):
    """Training usage over users, in some rounds."""

    users_above_tau: int | None
    """None when the run has no budget."""


@dataclass(frozen=True)
class TestedAuc:
    """User-level weighted AUC of a model at its last test: `sum_u w_u AUC_u / sum_u w_u` (GAUC)."""

    by_examples: float | None
    """Each user weighed by its impressions: the test items that its AUC is of; None if no user has an AUC."""
    by_traffic: float | None
    """None also where nobody's traffic is known."""
    by_requests: float | None
    """None also where there were no requests."""
    uniform: float | None
    """Every user with an AUC counts once."""
    users: int
    """Users with an AUC."""
    one_class: int
    """Users whose items are all of one class, for whom there is none."""
    left_out: float
    """Share of all impressions that are theirs."""
    round: int
    """Of the test."""


@dataclass(frozen=True)
class Tenth:
    """The claims of one tenth, such as from 20 % to below 30 %, of all users together."""

    begins: int
    """In percent."""
    claimed: float
    """Sum of the claims."""
    wrong: float
    """How often the device alone was wrong there."""
    prompts: float


@dataclass(frozen=True)
class Reliability:
    """What the asking rule claims of being wrong alone at the last test, and what came true, of all prompts alike."""

    error: float
    """ECE, in tenths of equal width (Guo et al. 2017)."""
    claimed: float
    """Mean claim."""
    wrong: float
    """Share of prompts that the device alone gets wrong."""
    prompts: float
    tenths: tuple[Tenth, ...]


Aucs = dict[str, dict[str, TestedAuc]]
"""By model, and by name: `asking_auc`, `wrong_auc`, `task_auc` of two score labels, `class_auc` of more."""
Models = dict[str, dict[str, Tested]]
"""By model, and by name of the measure."""


@dataclass(frozen=True)
class Headline:
    """The two differences that answer whether learning and learning to ask paid off, paired user by user."""

    accuracy_over_random: PairedDifference | None
    """The global adapter that may ask, minus the model that the run starts from, asking at random."""
    alone_accuracy_over_frozen: PairedDifference | None
    """The global adapter alone minus the model that the run starts from, alone: no warm-up counts as learned."""


@dataclass(frozen=True)
class Switch:
    """The models at the last test of a phase that another one followed."""

    phase: str
    round: int
    """The phase's last."""
    models: Models


@dataclass(frozen=True)
class PhaseEnd:
    """A stage of the accuracy matrix."""

    phase: str
    round: int
    """Of the test."""


@dataclass(frozen=True)
class Drop:
    """Forgetting at the end of a phase."""

    phase: str
    round: int
    left_behind: tuple[str, ...]
    """Tasks that an earlier phase taught and this one does not."""
    mean: float | None
    """Over those; None if there are none."""
    by_task: dict[str, float]


@dataclass(frozen=True)
class Transfer:
    """Backward transfer at the end."""

    mean: float | None
    by_task: dict[str, float]


@dataclass(frozen=True)
class Course:
    """How the mean user's accuracy went over the phases, of the global adapter."""

    stages: tuple[PhaseEnd, ...]
    tasks: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    """A line per stage, a column per task; None where nothing was measured."""
    forgetting: tuple[Drop, ...]
    """Of every stage after the first."""
    backward_transfer: Transfer


@dataclass(frozen=True)
class PhaseUsage:
    """Training usage of one phase."""

    phase: str
    first_round: int
    last_round: int
    tau: float | None
    """Of the run; None when it has no budget."""
    whole: Used | None
    """None without rows."""
    last_third: Used | None
    """Of its last third of rounds, rounded up."""


@dataclass(frozen=True)
class WorstUser:
    """One of the users with the lowest accuracy at the end; None stands for what was not measured."""

    device: str
    accuracy: float
    """With the global adapter, when it may ask."""
    alone_accuracy: float | None
    random: float | None
    """With the frozen model that asks at random."""
    frozen: float | None
    """With the frozen model alone."""
    over_random: float | None
    """accuracy minus random."""


@dataclass(frozen=True)
class Charged:
    """What a cap of the fleet was charged so far."""

    spent: float
    cap: float


@dataclass(frozen=True)
class FleetBudget:
    """Of the whole fleet; None stands for what is not capped, or has no price."""

    calls: Charged | None
    tokens: Charged | None
    money: Charged | None
    price: float | None


@dataclass(frozen=True)
class SetAside:
    """An update that was set aside."""

    round: int
    device: str
    reason: str
    """One word."""


@dataclass(frozen=True)
class StageRound:
    """What the stage after aggregation reported of one round."""

    round: int
    values: dict[str, float]
    """Its own, by name."""
    users: PairedDifference | None
    """Its effect on the users that it looked at: after minus before, alone."""


@dataclass(frozen=True)
class Summary:
    """All of it; None stands for what was not measured."""

    run: str
    """The run's name."""
    rounds: int
    """The last that has rows."""
    devices: int
    """Of the fleet; where its size is not known, those that have rows."""
    split: str
    """Of the tests."""
    tasks: tuple[str, ...]
    """In the order in which phases bring them."""
    tau: float | None
    """None when the run has no budget."""
    phases: tuple[Phase, ...]
    headline: Headline
    at_end: Models
    aucs: Aucs
    """At the end, of the models that have one."""
    reliability: Reliability | None
    """None if the rule's scores claim no chance."""
    at_switches: tuple[Switch, ...]
    continual: dict[str, Course]
    """By measure, of the phases that have begun."""
    usage: tuple[PhaseUsage, ...]
    worst_users: tuple[WorstUser, ...]
    """Worst first."""
    totals: dict[str, float | None]
    """Sums over rounds and devices of training, by measure."""
    fleet_budget: FleetBudget | None
    set_aside: tuple[SetAside, ...]
    stage: tuple[StageRound, ...]
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By data set, what `partitions/` holds of it."""
    measured: dict[str, float] = field(default_factory=dict)
    """Of work, virtual time, joules, questions and participation, by measure: the mean user, or the whole run."""
    classes: tuple[DeviceClassSummary, ...] = ()
    """By class of device; empty without a system."""
    findings: tuple[Finding, ...] = ()
    """What the run's diagnosis found, the worst first (`flsim/diagnosis/table.py`)."""


def write_summary(run_dir: Path, summary: Summary) -> None:
    """Write `summary.json`, which is equal for equal runs."""
    text = json.dumps(asdict(summary), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(run_dir / _FILE, text.encode(), what="the summary")


def read_summary(run_dir: Path) -> Summary:
    """Read what `write_summary` wrote.

    Raises:
        DamagedFileError: if it cannot be read, or is of another release; it says how to have it written again.
    """
    path = run_dir / _FILE
    try:
        found: Summary = _made(Summary, json.loads(path.read_text()))
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} cannot be read as a summary ({type(error).__name__}: {error}); resume the finished run, which "
            f"writes its report again"
        ) from error


def _made(kind: Any, value: Any) -> Any:
    """A value of that type from what JSON holds of it."""
    if isinstance(kind, UnionType):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return None if value is None else _made(inner, value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        told = (one for one in fields(kind) if one.name in value or one.default is MISSING)
        return kind(**{one.name: _made(hints[one.name], value[one.name]) for one in told})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(_made(get_args(kind)[0], one) for one in value)
    if get_origin(kind) is dict:
        return {key: _made(get_args(kind)[1], one) for key, one in value.items()}
    return value
