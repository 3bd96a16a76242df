"""The configuration of a run: frozen dataclasses and what is allowed in them; `flsim/config_files.py` reads them.

Defaults live here and nowhere else, except for the settings of plug-ins (`client`, `strategy`, `server`), which are the
plug-in's own keyword arguments and are checked when it is built.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flsim.tasks.families import GROUPS

SCHEDULES = ("switch", "staggered", "ramp", "recurring")
SHARES = ("equally", "traffic", "price")
CLOUD_KINDS = ("builtin", "oracle")
CLOUD_ACCESS = ("text", "top_logprobs", "scores", "logits")
ENGINE_KINDS = ("ray", "local")
DTYPES = ("float32", "bfloat16")
AUTO = "auto"


class ConfigError(ValueError):
    """A setting that cannot be used; the message gives value, source, what is allowed and the mend."""


@dataclass(frozen=True)
class ModelConfig:
    """The frozen base that all devices share, and the shape of their LoRA adapters."""

    path: str = "builtin:slm"
    """`builtin:slm`, or the folder of a Hugging Face decoder-only checkpoint."""
    rank: int = 8
    """LoRA rank r (peft's `LoraConfig.r`)."""
    alpha: float = 16.0
    """LoRA alpha; the adapter is scaled by alpha / r."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that carry an adapter (peft's `LoraConfig.target_modules`)."""
    dtype: str = "float32"
    """Of the frozen base: `float32` or `bfloat16`; adapters are float32 always."""
    adapter: str | None = None
    """Folder of a peft adapter to start from; None starts at B = 0."""

    def __post_init__(self) -> None:
        """OmegaConf hands lists over."""
        object.__setattr__(self, "targets", tuple(self.targets))


@dataclass(frozen=True)
class StreamConfig:
    """Which tasks each device meets, and when."""

    phases: tuple[tuple[str, ...], ...] = (("arithmetic", "numbers"), ("strings", "lists"), ("arithmetic", "numbers"))
    """Task groups of each phase, in order."""
    schedule: str = "switch"
    """`switch`: one switch for all; `staggered`: each device lags by up to `lag_rounds`; `ramp`: the mixture moves over
    `lag_rounds`; `recurring`: the phases come again and again, `phase_rounds` each."""
    phase_rounds: int | None = None
    """Length of a phase in rounds; None shares the run's rounds out evenly."""
    lag_rounds: int = 4
    """Longest lag of a device (`staggered`) or length of the ramp (`ramp`), in rounds."""
    alpha: float = 0.5
    """Dirichlet concentration of every device's mixture over groups, families and levels; inf makes devices equal."""
    quantity_sigma: float = 0.3
    """Sigma of the log-normal number of prompts per step and device; 0 gives every device the same."""
    seed: int = 0
    """Seed of the partition and the test sets, apart from the training's."""

    def __post_init__(self) -> None:
        """OmegaConf hands lists over; phases are compared and hashed."""
        object.__setattr__(self, "phases", tuple(tuple(phase) for phase in self.phases))


@dataclass(frozen=True)
class LoraShape:
    """What an adapter is like: its product is `alpha / rank * B A`, with B `(out, rank)` and A `(rank, in)`."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """Alpha / r, by which the product of the factors is multiplied."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class FleetConfig:
    """The simulated devices."""

    devices: int = 16
    """Number of devices in the fleet."""
    cohort: int | None = None
    """Devices that take part in a round; None means all."""
    ranks: tuple[int, ...] = ()
    """LoRA ranks of the devices, dealt in turn: device i has `ranks[i % len(ranks)]`; empty gives all `model.rank`."""
    alphas: tuple[float, ...] = ()
    """LoRA alphas that belong to `ranks`, one each; empty gives all `model.alpha`."""
    sharing: float = 0.0
    """Chance of a device to be one that lets the server see the questions it sent to the cloud (by `stream.seed`)."""

    def __post_init__(self) -> None:
        """OmegaConf hands lists over."""
        object.__setattr__(self, "ranks", tuple(self.ranks))
        object.__setattr__(self, "alphas", tuple(self.alphas))


@dataclass(frozen=True)
class FleetBudgetConfig:
    """One cloud budget for all devices together, which the server shares out before every round; None means no cap."""

    share: str | None = None
    """`equally`: as many calls for every device; `traffic`: by the prompts it meets; `price`: one dual variable for
    all, and by how much a device asks at that price. None: `equally` if there is a cap, else no fleet budget."""
    calls_total: int | None = None
    """Cloud queries of the fleet in the whole run."""
    calls_per_round: int | None = None
    """Cloud queries of the fleet in one round; None spreads `calls_total` evenly over the rounds."""
    tokens_total: int | None = None
    """Cloud tokens (prompt and completion) of the fleet in the whole run."""
    money_total: float | None = None
    """Money (in the unit of `cloud.price_*`) of the fleet in the whole run."""
    price_init: float = 0.5
    """The fleet's dual variable at the start, for `share=price`."""
    price_lr: float = 0.2
    """Its step per round and unit of usage above `budget.tau`."""
    price_gain: float = 2.0
    """Proportional gain beside the integral: a policy follows the price slowly, and the integral alone would swing."""
    price_max: float = 1.0
    """Its upper clip: the largest reward that the cloud can bring."""

    @property
    def rule(self) -> str | None:
        """How the budget is shared; None if there is no fleet budget."""
        caps = (self.calls_total, self.calls_per_round, self.tokens_total, self.money_total)
        return "equally" if self.share is None and any(cap is not None for cap in caps) else self.share


@dataclass(frozen=True)
class BudgetConfig:
    """Every device's cloud budget: `tau` steers the learning, the caps refuse what goes beyond. None means no cap."""

    tau: float = 0.3
    """Allowed share of prompts that are sent to the cloud."""
    calls_per_round: int | None = None
    """Cloud queries of one device in one round."""
    calls_total: int | None = None
    """Cloud queries of one device in the whole run."""
    tokens_per_round: int | None = None
    """Cloud tokens (prompt and completion) of one device in one round."""
    tokens_total: int | None = None
    """Cloud tokens of one device in the whole run."""
    money_per_round: float | None = None
    """Money (in the unit of `cloud.price_*`) of one device in one round."""
    money_total: float | None = None
    """Money of one device in the whole run."""
    fleet: FleetBudgetConfig = field(default_factory=FleetBudgetConfig)


@dataclass(frozen=True)
class CloudConfig:
    """The cloud LLM."""

    kind: str = "builtin"
    """`builtin`: the shipped cloud model; `oracle`: the right answer, wrong on `oracle_error` of the questions."""
    oracle_error: float = 0.03
    """Share of questions that the oracle answers wrongly (by a hash of the question)."""
    access: str | None = None
    """Most that it may give to a server that learns from it: `text`, `top_logprobs`, `scores` or `logits`; None means
    all that it can (`flsim/cloud/teacher.py`)."""
    price_per_prompt_token: float = 0.27e-6
    """Money per token sent."""
    price_per_completion_token: float = 1.10e-6
    """Money per token received."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How and when accuracy is measured."""

    every_rounds: int = 2
    """Evaluate after every so many rounds, and always at the end of a phase."""
    prompts_per_task: int = 20
    """Test prompts per device and task group, drawn from the device's own mixture within the group."""
    split: str = "test"
    """`test`, or `validation` while settings are being chosen."""


@dataclass(frozen=True)
class EngineConfig:
    """Where the clients run; only `pack` and `gpus` change a result, in the last bits of a float."""

    kind: str = "ray"
    """`ray`: worker processes; `local`: this process, for tests and debugging."""
    workers: int = 2
    """Ray workers; each holds the base model once."""
    address: str | None = None
    """Address of a running Ray cluster, whose nodes must share the run's folder; None starts one on this machine."""
    gpus: float = 0.0
    """GPU share of a worker: 0 for the CPU, 1/k for k workers on one GPU, or a whole number of GPUs."""
    pack: int | str = 8
    """Devices that one worker trains in one batch; `auto` finds the fastest by a short rehearsal."""
    stream: int = 128
    """Cohorts above this size are summed on the workers where the strategy allows it: the server's memory then does not
    grow with them, but it sees no single update, and the rows say less of the aggregation's health."""
    timeout_s: float | None = None
    """Seconds after which a round stops waiting for its devices; None waits for all."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    name: str = "run"
    """Name of the run, used for its folder."""
    seed: int = 0
    """Seed of adapters, questions, sampling and cohorts."""
    rounds: int = 36
    """Number of rounds."""
    run_dir: str | None = None
    """Folder of the run; None means `runs/{name}-seed{seed}`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    client: dict[str, Any] = field(default_factory=lambda: {"path": "clients.da_grpo:client_app"})
    """`path` as `module:Name`, called as `Name(config, **rest)`; the rest are its settings."""
    strategy: dict[str, Any] = field(default_factory=lambda: {"path": "strategies.fedavg:FedAvg"})
    """`path` as `module:Name`, called as `Name(**rest)`: any Flower strategy. A setting that has a `path` itself is
    built likewise."""
    server: dict[str, Any] | None = None
    """What the server does after each aggregation (`flsim/server.py`): `path` as `module:Name`, called as
    `Name(**rest)`; None does nothing."""

    @property
    def cohort_size(self) -> int:
        """Devices per round."""
        return self.fleet.devices if self.fleet.cohort is None else self.fleet.cohort

    @property
    def shape(self) -> LoraShape:
        """The widest adapter, which the server keeps."""
        return LoraShape(self.model.rank, self.model.alpha)

    def shape_of(self, device: int) -> LoraShape:
        """The adapter of a device."""
        ranks = self.fleet.ranks or (self.model.rank,)
        alphas = self.fleet.alphas or (self.model.alpha,) * len(ranks)
        return LoraShape(ranks[device % len(ranks)], alphas[device % len(alphas)])

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.run_dir) if self.run_dir is not None else Path("runs") / f"{self.name}-seed{self.seed}"


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
    if config.cloud.access is not None:
        _one_of("cloud.access", config.cloud.access, CLOUD_ACCESS)
    _one_of("engine.kind", config.engine.kind, ENGINE_KINDS)
    _one_of("model.dtype", config.model.dtype, DTYPES)
    if isinstance(config.engine.pack, str) and config.engine.pack != AUTO:
        raise ConfigError(f"engine.pack={config.engine.pack!r} must be a number of devices, or {AUTO}")
    _one_of("evaluation.split", config.evaluation.split, ("validation", "test"))
    for key, value in (
        ("rounds", config.rounds),
        ("stream.phase_rounds", 1 if config.stream.phase_rounds is None else config.stream.phase_rounds),
        ("fleet.devices", config.fleet.devices),
        ("engine.workers", config.engine.workers),
        ("engine.pack", 1 if isinstance(config.engine.pack, str) else config.engine.pack),
        ("model.rank", config.model.rank),
        ("evaluation.every_rounds", config.evaluation.every_rounds),
        ("evaluation.prompts_per_task", config.evaluation.prompts_per_task),
        ("fleet.cohort", config.cohort_size),
    ):
        _in_range(key, value, 1, math.inf, "a count")
    _check_gpu_share(config.engine)
    _check_ranks(config)
    if config.cohort_size > config.fleet.devices:
        raise ConfigError(
            f"fleet.cohort={config.cohort_size} is more than fleet.devices={config.fleet.devices}; "
            f"lower the cohort, raise the number of devices, or leave the cohort out to take all"
        )
    if not config.model.targets:
        raise ConfigError("model.targets is empty; name at least one linear layer, such as [q_proj, v_proj]")
    if not config.model.alpha > 0:
        raise ConfigError(f"model.alpha={config.model.alpha} must be above 0: the adapter is scaled by alpha / rank")
    if config.stream.schedule == "recurring" and config.stream.phase_rounds is None:
        raise ConfigError("stream.schedule=recurring needs stream.phase_rounds: after how many rounds a phase ends")
    if not config.stream.alpha > 0:
        raise ConfigError(f"stream.alpha={config.stream.alpha} must be above 0 (.inf makes all devices equal)")
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
    for number, phase in enumerate(config.stream.phases):
        if not phase:
            raise ConfigError(f"stream.phases[{number}] is empty; give at least one of: {', '.join(GROUPS)}")
        for group in phase:
            _one_of(f"stream.phases[{number}]", group, GROUPS)
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
