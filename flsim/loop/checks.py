"""What does not fit together in a configuration, before anything is built: rules between settings, and a folder in use.

What a single field allows is said at the field (`flsim/config/schema.py`).
"""

import math
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from flsim.cloud.make import make_cloud
from flsim.config.budget import CALLS, MONEY
from flsim.config.explain import refuse_out_of_range
from flsim.config.given import shown
from flsim.config.model import AFTER, ASKS_BEFORE, ASKS_IN_BOTH, ModelConfig
from flsim.config.ranges import near
from flsim.config.schema import BudgetConfig, Config, ConfigError, EvaluationConfig, FleetBudgetConfig, FleetConfig
from flsim.config.system import (
    BUFFERED,
    FIRST,
    READ_BY_AVAILABILITY,
    READ_BY_END,
    AvailabilityConfig,
    RoundEndConfig,
    SystemConfig,
)
from flsim.files import REMOTE, called
from flsim.loop.lock import LOCK, OWNER
from flsim.metrics.rows import EVERY_TASK
from flsim.problems.families import TASKS
from flsim.system.availability import Availability
from flsim.system.classes import Fleet
from flsim.tasks.checks import check_data
from flsim.trackers.named import trackers_of

MANY = 100_000
"""A fleet above this size learns or is tested as a whole only where that is said: it would take hours a round."""


def check(config: Config) -> None:
    """Refuse settings that cannot work, and a cloud or tracker that cannot be built, before anything else is built.

    Raises:
        ConfigError: naming key, value, what is allowed and the mend.
    """
    check_settings(config)
    make_cloud(config.cloud)
    trackers_of(config.track)


def check_settings(config: Config) -> None:
    """Refuse settings that cannot work, as far as no plug-in is asked, and neither torch nor Ray is imported for it.

    Raises:
        ConfigError: naming key, value, what is allowed and the mend.
    """
    refuse_out_of_range(config)  # again for a config that no file was read for
    _check_budget(config.budget)
    _check_units(config)
    if config.engine.gpus and config.engine.kind == "local":
        raise ConfigError(
            f"engine.gpus={config.engine.gpus} needs engine.kind=ray: a share is given to a worker process"
        )
    _check_graphs(config)
    _check_request(config.model)
    _check_fleet(config.fleet, config.model.rank, config.model.alpha)
    for name in config.data:
        if name in (*TASKS, EVERY_TASK):
            raise ConfigError(f"data.{name}: {name!r} is a task of the built-in world; choose another name")
    check_data(config.data)
    _check_examples(config)
    _check_tests(config.evaluation, config.fleet)
    _check_phases(config)
    _check_warmup(config)
    if config.system is not None:
        _check_system(config, config.system)


def refuse_until(until: int | None) -> None:
    """Refuse a last round that is none; None runs to the end.

    Raises:
        ConfigError: naming it.
    """
    if until is not None and until < 0:
        raise ConfigError(f"until={until} must be at least 0: it is the last round to run")


def refuse_used(folder: Path) -> None:
    """Refuse a folder that already holds something of a run.

    Raises:
        ConfigError: naming it and the mend.
    """
    try:
        used = os.path.lexists(folder) and any(_is_of_a_run(path) for path in folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"run_dir={shown(str(folder))} cannot be a run's folder: {error.strerror}; name another by run_dir=..."
        ) from error
    if used:
        raise ConfigError(
            f"the run folder {folder} exists and is not empty; go on with it by flsim resume {called(folder)} "
            f"(in Python flsim.run(resume=...)), choose another by run_dir=..., or delete it"
        )


def _is_of_a_run(path: Path) -> bool:
    """Not so the lock, and what a kill leaves before there is a config, with which a run begins."""
    return path.name not in ("environment.json", LOCK, OWNER, REMOTE) and path.suffix != ".part"


def _check_budget(budget: BudgetConfig) -> None:
    fleet = budget.fleet
    if not fleet.price_init <= fleet.price_max:
        raise ConfigError(
            f"budget.fleet.price_init={fleet.price_init} must be in [0, {fleet.price_max:g}]: it is a price, up to "
            f"budget.fleet.price_max"
        )
    for name in ("price_init", "price_lr", "price_gain", "price_max"):
        given, default = getattr(fleet, name), getattr(FleetBudgetConfig(), name)
        if fleet.rule != "price" and given != default:
            raise ConfigError(
                f"budget.fleet.{name}={given} has no effect without budget.fleet.division=price; add that, or leave"
                " it out"
            )


def _check_units(config: Config) -> None:
    """That what the budget counts in can be known, and means something."""
    budget, prices = config.budget, config.cloud
    if config.system is None:
        for setting in budget.needs_system:
            raise ConfigError(
                f"budget.{setting} counts what devices and links take, and there are none without system; set "
                f"system={{}} for those that ship, or leave it out"
            )
    if budget.unit == MONEY and not prices.price_per_prompt_token and not prices.price_per_completion_token:
        raise ConfigError(
            "budget.unit=money weighs requests by what they cost, and cloud.price_per_prompt_token and "
            "price_per_completion_token are 0; set one of them, or budget.unit=tokens"
        )
    if budget.unit != CALLS and budget.fleet.rule == "price":
        raise ConfigError(
            f"budget.unit={budget.unit} weighs each device's requests by the mean of its own, and "
            f"budget.fleet.division=price has one price for all devices; leave one of them out"
        )


def _check_request(model: ModelConfig) -> None:
    if model.request == AFTER and model.path == ASKS_BEFORE:
        raise ConfigError(
            f"model.request={AFTER} with model.path={ASKS_BEFORE}, which has only learned to ask before it answers; "
            f"take model.path={ASKS_IN_BOTH}"
        )


def _check_graphs(config: Config) -> None:
    """That there is a card whose work could be captured, and that nothing in it is computed again."""
    if config.model.cuda_graphs and not config.engine.gpus:
        raise ConfigError(
            "model.cuda_graphs=true captures the work of a GPU, and with engine.gpus=0 processors compute, where every "
            "call runs at once; set engine.gpus=1, or leave it out"
        )
    if config.model.cuda_graphs and config.model.gradient_checkpointing:
        raise ConfigError(
            "model.cuda_graphs=true captures whole passes, and model.gradient_checkpointing=true computes parts of "
            "them again; set one of them"
        )


def _check_examples(config: Config) -> None:
    """That examples are of tasks that there are, and each a question with an answer."""
    known = (EVERY_TASK, *TASKS, *config.data)
    for task, pairs in config.model.examples.items():
        if task not in known:
            raise ConfigError(
                f"model.examples names {shown(task)}, which is no task{near(task, known)}; there are {', '.join(known)}"
            )
        for number, pair in enumerate(pairs):
            if len(pair) != 2 or not all(text.strip() for text in pair):
                raise ConfigError(
                    f"model.examples.{task}[{number}]={list(pair)!r} must be a question and its answer, such as "
                    f'["What is the opposite of hot?", "cold"]'
                )


def _check_fleet(fleet: FleetConfig, rank: int, alpha: float) -> None:
    """The fleet in itself, and its ranks and alphas beside those of the model."""
    for own in fleet.ranks:
        if own > rank:
            raise ConfigError(
                f"fleet.ranks={own} must be in [1, {rank}]: it is a LoRA rank, at most model.rank, which the server "
                f"keeps"
            )
    if fleet.alphas and len(fleet.alphas) != len(fleet.ranks):
        raise ConfigError(
            f"fleet.alphas={list(fleet.alphas)} must hold one alpha for each of fleet.ranks={list(fleet.ranks)}; "
            f"leave it out to give all model.alpha={alpha:g}"
        )
    if fleet.cohort is not None and fleet.cohort > fleet.devices:
        raise ConfigError(
            f"fleet.cohort={fleet.cohort} is more than fleet.devices={fleet.devices}; "
            f"lower the cohort, raise the number of devices, or leave the cohort out to take all"
        )
    if fleet.cohort is None and fleet.devices > MANY:
        raise ConfigError(
            f"fleet.devices={fleet.devices} without fleet.cohort would all learn in every round; set fleet.cohort=100, "
            f"or fleet.cohort={fleet.devices} if that is meant"
        )


def _check_system(config: Config, system: SystemConfig) -> None:
    """That classes, links and availability can be, that the end of a round can come, and that nothing is idle."""
    Fleet.of(system, config.stream.seed)
    Availability.of(system.availability, config.stream.seed)
    _refuse_idle("system.end", system.end, READ_BY_END[system.end.kind])
    _refuse_idle("system.availability", system.availability, READ_BY_AVAILABILITY[system.availability.kind])
    counted, devices = config.counted, config.fleet.devices
    if system.end.kind == FIRST and counted == devices:
        raise ConfigError(
            f"system.end.kind=first invites more devices than count, and all {devices} count; set fleet.cohort, such "
            f"as fleet.cohort={max(1, devices // 2)}"
        )
    if system.end.kind == BUFFERED and not counted <= config.in_flight <= devices:
        raise ConfigError(
            f"system.end.in_flight={config.in_flight} must be in [{counted}, {devices}]: of the devices that work at a "
            f"time, fleet.cohort={counted} are aggregated together, and there are no more than fleet.devices={devices}"
        )


def _refuse_idle(section: str, given: RoundEndConfig | AvailabilityConfig, read: Sequence[str]) -> None:
    """Refuse a setting that the kind does not read."""
    default = type(given)()
    for one in fields(given):
        value = getattr(given, one.name)
        if one.name not in ("kind", *read) and value != getattr(default, one.name):
            raise ConfigError(
                f"{section}.{one.name}={value} has no effect with {section}.kind={given.kind}; leave it out, or set "
                f"another kind"
            )


def _check_warmup(config: Config) -> None:
    taught = dict.fromkeys(task for phase in config.stream.phases for task in phase)
    for task in config.warmup.tasks or ():
        if task not in taught:
            raise ConfigError(
                f"warmup.tasks names {shown(task)}, which stream.phases never brings{near(task, taught)}; choose of: "
                f"{', '.join(taught)}"
            )


def _check_tests(evaluation: EvaluationConfig, fleet: FleetConfig) -> None:
    devices = fleet.devices
    if evaluation.devices is not None and evaluation.devices > devices:
        raise ConfigError(
            f"evaluation.devices={evaluation.devices:g} is more than fleet.devices={devices}; leave it out to test all"
        )
    if evaluation.devices is None and devices > MANY:
        raise ConfigError(
            f"fleet.devices={devices} without evaluation.devices would all be tested, before the first round, too; set "
            f"evaluation.devices=100, or evaluation.devices={devices} if that is meant"
        )
    if evaluation.strata is not None and evaluation.devices is None:
        raise ConfigError(
            f"evaluation.strata={evaluation.strata} spreads a panel, and all devices are tested; set "
            f"evaluation.devices=50, or leave it out"
        )
    if evaluation.strata == "rank" and not fleet.ranks:
        raise ConfigError(
            "evaluation.strata=rank has no effect where all devices have one rank; set fleet.ranks, or leave it out"
        )
    least = evaluation.prompts_per_task if evaluation.items is None else math.inf
    if evaluation.prompts_between is not None and evaluation.prompts_between > least:
        raise ConfigError(
            f"evaluation.prompts_between={evaluation.prompts_between} is a part of the {evaluation.prompts_per_task} "
            f"of evaluation.prompts_per_task, and cannot be more; lower it, or leave it out"
        )


def _check_phases(config: Config) -> None:
    stream = config.stream
    if stream.schedule == "recurring" and stream.phase_rounds is None:
        raise ConfigError("stream.schedule=recurring needs stream.phase_rounds: after how many rounds a phase ends")
    if not stream.phases:
        raise ConfigError("stream.phases is empty; give at least one list of tasks")
    tasks = (*TASKS, *config.data)
    for number, phase in enumerate(stream.phases):
        if not phase:
            raise ConfigError(f"stream.phases[{number}] is empty; give at least one of: {', '.join(tasks)}")
        for task in phase:
            if task not in tasks:
                own = f"those of data: {', '.join(config.data)}" if config.data else "data sets, which data lists"
                raise ConfigError(
                    f"stream.phases[{number}] names {shown(task)}, which is no task{near(task, tasks)}; there are "
                    f"the built-in {', '.join(TASKS)}, and {own}"
                )
    if stream.schedule != "recurring" and config.rounds < len(stream.phases):
        raise ConfigError(
            f"rounds={config.rounds} is less than the {len(stream.phases)} phases of stream.phases; "
            f"give at least one round per phase"
        )
