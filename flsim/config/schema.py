"""The configuration of a run: frozen dataclasses and what is allowed in them; `flsim/config/load.py` reads them.

Defaults live here and nowhere else, except for the settings of plug-ins (`client`, `strategy`, `stage`), which are the
plug-in's own keyword arguments and are checked when it is built.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flsim.config.address import is_address, without_secrets
from flsim.config.budget import DIVISIONS as DIVISIONS
from flsim.config.budget import BudgetConfig as BudgetConfig
from flsim.config.budget import FleetBudgetConfig as FleetBudgetConfig
from flsim.config.model import AUTO as AUTO
from flsim.config.model import LoraShape as LoraShape
from flsim.config.model import ModelConfig as ModelConfig
from flsim.config.ranges import ConfigError as ConfigError
from flsim.config.ranges import (
    above,
    at_least,
    count,
    count_or,
    filled,
    gpu_share,
    one_of,
    one_of_or_path,
    part,
    plug_in,
    share,
    tupled,
    worded,
)
from flsim.config.system import BUFFERED, FIRST
from flsim.config.system import SystemConfig as SystemConfig
from flsim.config.warmup import WarmupConfig as WarmupConfig

SCHEDULES = ("switch", "staggered", "ramp", "recurring", "joint")
OWN_TESTS = ("always", "phases", "never")
PARTITIONS = ("dirichlet", "user", "evenly")
STRATA = ("rank", "task", "traffic")
ENGINE_KINDS = ("ray", "local")
ALL, GRANTED = "all", "granted"
CLOUD_ACCESS = ("text", "top_logprobs", "scores", "logits", "features")
CLOUD_FREE = ("cache",)
"""Settings of every cloud that enter no answer; a class states its own (`flsim/cloud/protocol.py`)."""


@dataclass(frozen=True)
class DataConfig:
    """One data set: what it is, whose its items are, and how answers to them are judged; docs/data.md shows some.

    `stream.phases` calls it by its name in `data`.
    """

    kind: str = ""
    """The short name of a shipped reader: a known set (`gsm8k`, `math`, `mbpp`, ...), `english`, which ships, `files`
    for one's own, `leaf`, `datasets`, `lm_eval` or `reasoning_gym`."""
    reader: str | None = filled(None, "my_reader.py:read")
    """In place of `kind`: a function of a folder, and of `settings`, that returns items (`flsim.tasks.item.Item`), as
    `module:Name` or `my_file.py:Name`."""
    root: str = filled(".", "questions")
    """Folder that its files are relative to, there for every worker; looked for in the current folder, then beside the
    config file that names it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The reader's own keyword arguments, such as `files`, `columns` or `shown_tests`."""
    encoding: str = "utf-8"
    """What its text files are in, such as `cp1252`, where they do not say so by a byte order mark."""
    splits: str = one_of("official", ("official", "hash"))
    """`official`: the set's own train, validation and test, and a hash of the question for what it lacks; `hash`: the
    hash for all (`flsim/tasks/item.py`)."""
    partition: str = one_of_or_path("dirichlet", PARTITIONS, "flwr_datasets.partitioner:ShardPartitioner")
    """Whose items are whose: `dirichlet`: every device has its own mixture of `over`; `user`: a device holds the items
    of a user; `evenly`: at random; or the path of a partitioner of `flwr-datasets`, or of one's own with the same
    methods. The draw follows `stream.seed`."""
    partition_settings: dict[str, Any] = field(default_factory=dict)
    """Of a partitioner by path: its keyword arguments, such as `{partition_by: label, alpha: 0.5}`; the number of
    devices and the seed are given to it."""
    over: str = one_of("label", ("label", "level", "user"))
    """What `dirichlet` mixes: `label`, `level` or `user`."""
    alpha: float = at_least(0, 1.0)
    """Sum of the Dirichlet's parameters; inf makes devices equal, 0 gives each one label."""
    quantity_sigma: float = at_least(0, 0.0, finite=True)
    """Sigma of the log-normal number of items per device, for `dirichlet` and `evenly`; 0 makes them equal."""
    users_per_device: int | None = count(1)
    """For `user`: how many users a device holds; None deals out all users that there are."""
    least: int = at_least(0, 1)
    """For `user`: users with fewer items than this in any split are left out."""
    strict: bool = False
    """Whether to refuse what is otherwise told in the log and on the page: questions with two answers, copies in two
    splits, rows that are there twice."""
    keep_user_ids: bool = False
    """Whether the ids of users stand in the files and pictures of the run; else users are numbered, and the ids are
    forgotten once the items are dealt."""
    verifier: str | None = filled(None, "numeric")
    """What says whether an answer is right: a short name (`exact`, `words`, `numeric`, `maths`, `choice`, `code`), or a
    class with the methods of `flsim.problems.judging.Verifier`, or a reward function in TRL's form, as `module:Name` or
    `my_file.py:Name`; None: what the reader says that fits its references."""
    verifier_settings: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments, such as `wall_s` of `maths` and `code`."""
    instruction: str | None = None
    """What is said before every question, to devices and cloud; None: the form that the verifier reads
    (`Verifier.instruction`); "" says nothing."""


@dataclass(frozen=True)
class StreamConfig:
    """Which tasks each device meets, and when."""

    phases: tuple[tuple[str, ...], ...] = (("arithmetic", "numbers"), ("strings", "lists"), ("arithmetic", "numbers"))
    """Tasks of each phase, in order: of the built-in world, or names of `data`."""
    schedule: str = one_of("switch", SCHEDULES)
    """`switch`: one switch for all; `staggered`: each device lags by up to `lag_rounds`; `ramp`: the mixture moves over
    `lag_rounds`; `recurring`: the phases come again and again, `phase_rounds` each; `joint`: all phases at once, in
    every round: the bound of a learner that never switches."""
    phase_rounds: int | None = count(None)
    """Length of a phase in rounds; None shares the run's rounds out evenly."""
    lag_rounds: int = at_least(0, 4)
    """Longest lag of a device (`staggered`) or length of the ramp (`ramp`), in rounds."""
    alpha: float = above(0, 0.5)
    """Dirichlet concentration of every device's mixture over groups, families and levels; inf makes devices equal. The
    items of a set of `data` have been dealt by its own `alpha`."""
    quantity_sigma: float = at_least(0, 0.3)
    """Sigma of the log-normal number of prompts per step and device; 0 gives every device the same."""
    seed: int = 0
    """Seed of the partition and the test sets, apart from the training's."""

    def __post_init__(self) -> None:
        """Lists do as well as tuples."""
        object.__setattr__(self, "phases", tupled(self.phases))


@dataclass(frozen=True)
class FleetConfig:
    """The simulated devices."""

    devices: int = count(16, most=10_000_000)
    """Number of devices in the fleet."""
    cohort: int | None = count(None)
    """Devices that take part in a round; None means all."""
    ranks: tuple[int, ...] = count(())
    """LoRA ranks of the devices, dealt in turn: device i has `ranks[i % len(ranks)]`; empty gives all `model.rank`."""
    alphas: tuple[float, ...] = above(0, ())
    """LoRA alphas that belong to `ranks`, one each; empty gives all `model.alpha`."""
    opt_in: float = share(0.0)
    """Chance of a device to be one that lets the server see the questions it sent to the cloud (by `stream.seed`)."""

    def __post_init__(self) -> None:
        """Lists do as well as tuples."""
        object.__setattr__(self, "ranks", tupled(self.ranks))
        object.__setattr__(self, "alphas", tupled(self.alphas))


@dataclass(frozen=True)
class CloudConfig:
    """The cloud LLM: which class answers, and what is of every cloud."""

    path: str = filled("flsim.cloud.builtin:Builtin", "flsim.cloud.builtin:Oracle")
    """`module:Name` or `my_file.py:Name` of a class with the methods of `flsim.cloud.protocol.Cloud`, called as
    `Name(**settings)`; shipped are `Builtin`, `Oracle`, `Endpoint`, `Checkpoint` and `Recorded` (docs/clouds.md)."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The class's own settings; written beside the others, such as `cloud.url`, and checked when it is built."""
    cache: str | None = filled(AUTO, "answers")
    """Folder of what a cloud has answered whose answers cost time or money, for all runs; `auto`: `flsim` in the user's
    cache folder (`XDG_CACHE_HOME`, else `~/.cache`); None keeps answers in memory only."""
    access: str | None = one_of(None, CLOUD_ACCESS)
    """Most that it may give to a server that learns from it, and to devices that it helps: `text`, `top_logprobs`,
    `scores`, `logits` or `features`; None means all that it can (`flsim/cloud/teacher.py`)."""
    draft: str | None = worded(None, ("question", "draft"))
    """What is sent in place of a question for which the device has a draft, such as
    `{question}\\n\\nA smaller model's try: {draft}\\nAnswer the question; correct the try if it is wrong.` The draft is
    that of the first response of the group that asks, and at tests that of the greedy answer; where there is none, the
    question is sent as it is. None sends no drafts."""
    hint: str | None = worded(None, ("question", "draft"))
    """What is sent in place of a question where devices are given hints (`clients/helping/hint.py`), such as
    `{question}\\n\\nA pupil has written: {draft}\\nGive a hint of at most 20 words, and not the answer.` Then the whole
    reply is the hint. None sends the question, and the hint is the beginning of the answer to it."""
    price_per_prompt_token: float = at_least(0, 0.27e-6, finite=True)
    """Money per token sent."""
    price_per_completion_token: float = at_least(0, 1.10e-6, finite=True)
    """Money per token received."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How and when accuracy is measured."""

    every_rounds: int = count(2)
    """Evaluate after every so many rounds, and always at the end of a phase."""
    prompts_per_task: int = count(20)
    """Test prompts per device and task; of a data set at most so many, unless `items` says otherwise."""
    prompts_between: int | None = count(None)
    """Of these prompts the first so many of each task, where a test is neither before training nor at the end of a
    phase; None: all. Results are read at ends of phases, and only curves hold tests of both sizes."""
    devices: float | None = part(None)
    """The panel: how many devices are tested, or, below 1, what share of them, drawn at random once and for all; None:
    all. Means over users stay unbiased; what is said of the worst of them is of the panel (docs/comparing.md)."""
    strata: str | None = one_of(None, STRATA)
    """By what the panel is spread: every `rank`, most met `task`, or amount of `traffic` has its share of it, up to a
    device; None: by chance alone. Each device is in it as likely as any other either way."""
    own: str = one_of("always", OWN_TESTS)
    """When the model that a device has learned by itself is tested beside the global one: `always`, only at the ends of
    `phases`, where forgetting by aggregation is read, or `never`; each such test costs as much as that of the global
    model."""
    items: int | str | None = count_or(ALL, None)
    """Of a data set, how many of the device's own test items it meets, each at most once: `all`, or at most so many,
    drawn without replacement and the same in every round; None: at most `prompts_per_task`."""
    split: str = one_of("test", ("validation", "test"))
    """`test`, or `validation` while settings are being chosen."""
    cloud: str = one_of(AUTO, (AUTO, ALL, GRANTED))
    """Which test prompts the cloud answers: `all`, so that its own accuracy and the rules' curves are measured, or only
    those that a budget has `granted`; `auto`: all, but of a cloud that costs money the granted ones."""


@dataclass(frozen=True)
class EngineConfig:
    """Where the clients run; only `pack` and `gpus` change a result, in the last bits of a float."""

    kind: str = one_of("ray", ENGINE_KINDS)
    """`ray`: worker processes; `local`: this process, for tests and debugging."""
    workers: int = count(2)
    """Ray workers; each holds the base model once."""
    address: str | None = filled(None, "auto")
    """Address of a running Ray cluster, whose nodes must share the run's folder; None starts one on this machine."""
    gpus: float = gpu_share(0.0)
    """GPU share of a worker: 0 for the CPU, 1/k for k workers on one GPU, or a whole number of GPUs."""
    pack: int | str = count_or(AUTO, 8)
    """Devices that one worker trains in one batch; `auto` finds the fastest by a short rehearsal."""
    stream: int = at_least(0, 128)
    """Cohorts above this size are summed on the workers where the strategy allows it: the server's memory then does not
    grow with them, but it sees no single update, and the rows say less of the aggregation's health."""
    timeout_s: float | None = at_least(0, None)
    """Seconds after which a round stops waiting for its devices; None waits for all."""

    @property
    def processes(self) -> int:
        """Processes that the devices run in, and that ask the cloud at the same time."""
        return self.workers if self.kind == "ray" else 1


@dataclass(frozen=True)
class Config:
    """A whole run."""

    name: str = filled("run", "demo")
    """Name of the run, used for its folder."""
    seed: int = 0
    """Seed of adapters, questions, sampling and cohorts."""
    rounds: int = count(36)
    """Number of rounds."""
    run_dir: str | None = filled(None, "runs/mine")
    """Folder of the run, or its address in an object store, such as `s3://bucket/mine` (docs/storage.md); None means
    `runs/{name}-seed{seed}`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    data: dict[str, DataConfig] = field(default_factory=dict)
    """Data sets by name, which `stream.phases` may name beside the built-in tasks; only those that it names are
    read."""
    fleet: FleetConfig = field(default_factory=FleetConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    system: SystemConfig | None = None
    """What devices, links and the cloud take in time and energy (docs/systems.md); None counts work, and no seconds."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    client: dict[str, Any] = plug_in({"path": "clients.da_grpo:DaGrpo"})
    """`path` as `module:Name`: a learner, whose settings are the rest, or whatever gives a Flower ClientApp when it is
    called as `Name(config, **rest)`."""
    strategy: dict[str, Any] = plug_in({"path": "strategies.flex_lora:FlexLora"})
    """`path` as `module:Name`, called as `Name(**rest)`: any Flower strategy. A setting that has a `path` itself is
    built likewise. The default is what did best in `docs/results/strategies.md` at equal bytes; it needs the single
    updates, so for cohorts of thousands `strategies.fedavg:FedAvg`, which is summed on the workers, is lighter."""
    stage: dict[str, Any] | None = plug_in(None)
    """What the server does after each aggregation (`flsim/flower/contract.py`): `path` as `module:Name`, called as
    `Name(**rest)`; None does nothing."""
    track: tuple[Any, ...] = ()
    """Trackers that are told of every round (docs/watching.md): `tensorboard`, `wandb`, `mlflow`, `trackio`, or a path
    such as `my_file.py:MyTracker`; with settings as `{path: wandb, project: mine}`. It changes no result."""

    def __post_init__(self) -> None:
        """Lists do as well as tuples, and a single name does as well as a list of one."""
        object.__setattr__(self, "track", (self.track,) if isinstance(self.track, str) else tupled(self.track))

    @property
    def counted(self) -> int:
        """Devices of a round whose updates count."""
        return self.fleet.devices if self.fleet.cohort is None else self.fleet.cohort

    @property
    def cohort_size(self) -> int:
        """Devices that are invited to a round: more than count where the first of them count."""
        if self.system is None or self.system.end.kind != FIRST:
            return self.counted
        return min(self.fleet.devices, math.ceil(self.system.end.over * self.counted))

    def invited(self, round_: int) -> int:
        """Devices that are invited to a round: where rounds are buffered, to the first as many as work at a time."""
        buffered = self.system is not None and self.system.end.kind == BUFFERED
        return self.in_flight if buffered and round_ == 1 else self.cohort_size

    @property
    def in_flight(self) -> int:
        """Devices that work at a time where rounds are buffered: each so many as count are aggregated together."""
        given = None if self.system is None else self.system.end.in_flight
        return min(self.fleet.devices, 2 * self.counted) if given is None else given

    @property
    def shape(self) -> LoraShape:
        """The widest adapter, which the server keeps."""
        return self.model.shape

    def shape_of(self, device: int) -> LoraShape:
        """The adapter of a device."""
        ranks = self.fleet.ranks or (self.model.rank,)
        alphas = self.fleet.alphas or (self.model.alpha,) * len(ranks)
        return self.model.shape_of(ranks[device % len(ranks)], alphas[device % len(alphas)])

    @property
    def has_unequal_shapes(self) -> bool:
        """Whether some device's adapter is of another rank or alpha than the server's."""
        period = max(1, len(self.fleet.ranks)) * max(1, len(self.fleet.alphas))  # after which shapes come again
        return any(self.shape_of(device) != self.shape for device in range(min(period, self.fleet.devices)))

    @property
    def folder(self) -> Path:
        """The run's folder.

        Raises:
            ConfigError: if it lies in an object store, where whoever asks does not look.
        """
        if is_address(self.run_dir):
            raise ConfigError(
                f"run_dir={without_secrets(self.run_dir)} lies in an object store, which this does not work with; give "
                f"a folder (docs/storage.md says what takes an address)"
            )
        return Path(self.run_dir) if self.run_dir is not None else Path("runs") / f"{self.name}-seed{self.seed}"
