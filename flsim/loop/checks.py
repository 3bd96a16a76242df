"""What is allowed in a configuration: every check, before anything is built."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from flsim.cloud.checks import check_cloud
from flsim.config.model import AUTO, DTYPES, ModelConfig
from flsim.config.schema import (
    ALL,
    CLOUD_ACCESS,
    CLOUD_KINDS,
    ENGINE_KINDS,
    GRANTED,
    SCHEDULES,
    SHARES,
    BudgetConfig,
    Config,
    ConfigError,
    EngineConfig,
    FleetBudgetConfig,
)
from flsim.metrics.rows import EVERY_TASK
from flsim.problems.families import GROUPS
from flsim.tasks.checks import check_data


def check(config: Config) -> None:
    """Refuse values that cannot work, before anything is built.

    Raises:
        ConfigError: naming key, value, what is allowed and the mend.
    """
    _check_budget(config.budget)
    _in_range("cloud.oracle_error", config.cloud.oracle_error, 0.0, 1.0, "a share of questions")
    _in_range("fleet.sharing", config.fleet.sharing, 0.0, 1.0, "the chance that a device lets the server see questions")
    _in_range("stream.lag_rounds", config.stream.lag_rounds, 0, math.inf, "a number of rounds")
    _in_range("stream.quantity_sigma", config.stream.quantity_sigma, 0, math.inf, "the sigma of a log-normal")
    _one_of("stream.schedule", config.stream.schedule, SCHEDULES)
    _one_of("cloud.kind", config.cloud.kind, CLOUD_KINDS)
    check_cloud(config)
    if config.cloud.access is not None:
        _one_of("cloud.access", config.cloud.access, CLOUD_ACCESS)
    _one_of("engine.kind", config.engine.kind, ENGINE_KINDS)
    _check_model(config.model)
    if isinstance(config.engine.pack, str) and config.engine.pack != AUTO:
        raise ConfigError(f"engine.pack={config.engine.pack!r} must be a number of devices, or {AUTO}")
    _one_of("evaluation.split", config.evaluation.split, ("validation", "test"))
    _one_of("evaluation.cloud", config.evaluation.cloud, (AUTO, ALL, GRANTED))
    for key, value in (
        ("rounds", config.rounds),
        ("stream.phase_rounds", 1 if config.stream.phase_rounds is None else config.stream.phase_rounds),
        ("fleet.devices", config.fleet.devices),
        ("engine.workers", config.engine.workers),
        ("engine.pack", 1 if isinstance(config.engine.pack, str) else config.engine.pack),
        ("evaluation.every_rounds", config.evaluation.every_rounds),
        ("evaluation.prompts_per_task", config.evaluation.prompts_per_task),
        ("fleet.cohort", config.cohort_size),
    ):
        _in_range(key, value, 1, math.inf, "a count")
    _in_range("engine.stream", config.engine.stream, 0, math.inf, "the largest cohort that the server sees one by one")
    _check_gpu_share(config.engine)
    _check_ranks(config)
    if config.cohort_size > config.fleet.devices:
        raise ConfigError(
            f"fleet.cohort={config.cohort_size} is more than fleet.devices={config.fleet.devices}; "
            f"lower the cohort, raise the number of devices, or leave the cohort out to take all"
        )
    if config.stream.schedule == "recurring" and config.stream.phase_rounds is None:
        raise ConfigError("stream.schedule=recurring needs stream.phase_rounds: after how many rounds a phase ends")
    if not config.stream.alpha > 0:
        raise ConfigError(f"stream.alpha={config.stream.alpha} must be above 0 (.inf makes all devices equal)")
    for name in config.data:
        if name in (*GROUPS, EVERY_TASK):
            raise ConfigError(f"data.{name}: {name!r} is a task group of the built-in world; choose another name")
    check_data(config)
    _check_phases(config)
    plug_ins = {
        "client": config.client,
        "strategy": config.strategy,
        **({"server": config.server} if config.server else {}),
    }
    for part, plug_in in plug_ins.items():
        if not isinstance(plug_in.get("path"), str):
            raise ConfigError(f"{part} has no path; give {part}.path=module:Name or {part}.path=my_file.py:Name")


def _check_budget(budget: BudgetConfig) -> None:
    """Caps of a device, caps of the fleet, and settings of the fleet's budget that contradict each other."""
    _in_range("budget.tau", budget.tau, 0.0, 1.0, "the share of prompts that may ask the cloud")
    for part, caps in (("budget", asdict(budget)), ("budget.fleet", asdict(budget.fleet))):
        for name, cap in caps.items():
            if name.endswith(("_per_round", "_total")):
                _in_range(f"{part}.{name}", 0 if cap is None else cap, 0, math.inf, "a cap (leave it out for none)")
    fleet = budget.fleet
    if fleet.share is not None:
        _one_of("budget.fleet.share", fleet.share, SHARES)
    if fleet.money_total == math.inf:
        raise ConfigError("budget.fleet.money_total=inf cannot be shared out; leave it out for no cap")
    _in_range("budget.fleet.price_lr", fleet.price_lr, 0.0, math.inf, "a step size")
    _in_range("budget.fleet.price_gain", fleet.price_gain, 0.0, math.inf, "a proportional gain")
    _in_range("budget.fleet.price_init", fleet.price_init, 0.0, fleet.price_max, "a price, up to price_max")
    for name in ("price_init", "price_lr", "price_gain", "price_max"):
        given, default = getattr(fleet, name), getattr(FleetBudgetConfig(), name)
        if fleet.rule != "price" and given != default:
            raise ConfigError(
                f"budget.fleet.{name}={given} has no effect without budget.fleet.share=price; add that, or leave it out"
            )


def _check_model(model: ModelConfig) -> None:
    """Of the model, what can be said before it is loaded."""
    if model.dtype == "float16":
        raise ConfigError("model.dtype='float16' would lose small gradients, as none are scaled; choose bfloat16")
    _one_of("model.dtype", model.dtype, DTYPES)
    _in_range("model.rank", model.rank, 1, math.inf, "a count")
    for name in ("max_new_tokens", "max_prompt_tokens"):
        value = getattr(model, name)
        _in_range(f"model.{name}", 1 if value is None else value, 1, math.inf, "a number of tokens")
    if model.targets is not None and not model.targets:
        raise ConfigError("model.targets is empty; name at least one linear layer, such as [q_proj, v_proj]")
    if not model.alpha > 0:
        raise ConfigError(f"model.alpha={model.alpha} must be above 0: the adapter is scaled by alpha / rank")
    if model.help is not None and not model.help:
        raise ConfigError("model.help is empty; give the text or token that asks for help, or leave it out")
    if not (model.device_map is None or isinstance(model.device_map, str | dict)):
        raise ConfigError(f"model.device_map={model.device_map!r} must be {AUTO}, or name a device for each layer")


def _check_gpu_share(engine: EngineConfig) -> None:
    """Ray would accept 0.4 and then never start the third worker of a GPU."""
    _in_range("engine.gpus", engine.gpus, 0, math.inf, "the GPU share of a worker")
    if not engine.gpus:
        return
    nearest = float(round(engine.gpus)) if engine.gpus >= 1 else 1 / round(1 / engine.gpus)
    if abs(engine.gpus / nearest - 1) > (0.0 if engine.gpus >= 1 else 0.011):  # 0.33 is meant as 1/3
        shown = f"{nearest:g}" if nearest >= 1 else f"1/{round(1 / nearest)} ({nearest:.4g})"
        raise ConfigError(f"engine.gpus={engine.gpus} must be 0, 1/k or a whole number; the nearest is {shown}")
    if engine.kind == "local":
        raise ConfigError(f"engine.gpus={engine.gpus} needs engine.kind=ray: a share is given to a worker process")


def _check_ranks(config: Config) -> None:
    for rank in config.fleet.ranks:
        _in_range("fleet.ranks", rank, 1, config.model.rank, "a LoRA rank, at most model.rank, which the server keeps")
    if config.fleet.alphas and len(config.fleet.alphas) != len(config.fleet.ranks):
        raise ConfigError(
            f"fleet.alphas={list(config.fleet.alphas)} must hold one alpha for each of "
            f"fleet.ranks={list(config.fleet.ranks)}; leave it out to give all model.alpha={config.model.alpha:g}"
        )
    for alpha in config.fleet.alphas:
        if not alpha > 0:
            raise ConfigError(
                f"fleet.alphas={list(config.fleet.alphas)} must be above 0: adapters are scaled by alpha / rank"
            )


def _check_phases(config: Config) -> None:
    if not config.stream.phases:
        raise ConfigError("stream.phases is empty; give at least one list of task groups")
    groups = (*GROUPS, *config.data)
    for number, phase in enumerate(config.stream.phases):
        if not phase:
            raise ConfigError(f"stream.phases[{number}] is empty; give at least one of: {', '.join(groups)}")
        for group in phase:
            if group not in groups:
                own = f"those of data: {', '.join(config.data)}" if config.data else "data sets, which data lists"
                raise ConfigError(
                    f"stream.phases[{number}] names {group!r}, which is no task group; there are the built-in "
                    f"{', '.join(GROUPS)}, and {own}"
                )
    if config.stream.schedule != "recurring" and config.rounds < len(config.stream.phases):
        raise ConfigError(
            f"rounds={config.rounds} is less than the {len(config.stream.phases)} phases of stream.phases; "
            f"give at least one round per phase"
        )


def _in_range(key: str, value: float, low: float, high: float, meaning: str) -> None:
    if not low <= value <= high:
        allowed = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ConfigError(f"{key}={value} must be {allowed}: it is {meaning}")


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value!r} is not known; choose one of: {', '.join(allowed)}")
