"""What a run is made of, built and checked before anything is written: its parts, its stream, its first adapter."""

from dataclasses import dataclass

from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from flsim.cloud.draft import refuse_draft, refuse_hint
from flsim.cloud.make import cache_of, fitting, make_cloud
from flsim.cloud.protocol import NOTHING, Cloud
from flsim.config.plugins import build
from flsim.config.schema import Config, ConfigError
from flsim.config.session import MAIN, taken_along
from flsim.flower.cluster import check_gpus, refuse_unsendable
from flsim.flower.contract import (
    BringsModel,
    Calibrates,
    Deals,
    HoldsLayers,
    Stage,
    TriesOut,
    begin,
    client_of,
    more_of,
    speaks,
)
from flsim.loop.checks import check
from flsim.loop.warmup import refuse_silent
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from flsim.models.sizes import system_of
from flsim.system.system import System
from flsim.tasks.stream import TaskStream, stream_of


@dataclass(frozen=True)
class Ready:
    """A run that has been checked, and of which nothing has been written."""

    config: Config
    strategy: Strategy
    client: ClientApp
    stage: Stage | None
    cloud: Cloud
    stream: TaskStream
    adapter: Adapter
    """The first one."""
    system: System | None
    """What devices take in virtual time; None without `system`."""


def prepare(
    config: Config, strategy: Strategy | None, client: ClientApp | None, stage: Stage | None, cloud: Cloud | None
) -> Ready:
    """Build and check all parts: what cannot be read, judged, dealt or built is told before anything is written."""
    cloud = make_cloud(config.cloud) if cloud is None else fitting(cloud)
    strategy, client, stage = build_parts(config, strategy, client, stage, cloud)
    stream = stream_of(config)
    read = client.calibrates_on if isinstance(client, Calibrates) else None
    if read is not None:
        stream.demand(*read)
    if config.engine.kind == "ray":
        session = {f"{MAIN}:{name}": one for name, one in taken_along(config).items()}
        refuse_unsendable({"the client": client, "the cloud": cloud, **session})
    cloud.check(stream, config.engine.processes)
    if isinstance(client, TriesOut):
        client.try_out()
    cache = cache_of(config.cloud.cache)
    if cache is not None and cloud.costs != NOTHING:
        cache.check()
    if isinstance(client, BringsModel):
        adapter = client.first_adapter()
    else:
        _refuse_features(stream)
        adapter = first_adapter(config.model, config.seed, more_of(client))
        refuse_silent(config, speaks(client))
    if isinstance(strategy, Deals):
        strategy.carried(adapter)  # told now, and not in round 1
    return Ready(config, strategy, client, stage, cloud, stream, adapter, system_for(config, client))


def system_for(config: Config, client: ClientApp) -> System | None:
    """What devices of this client take in virtual time; None without `system`.

    Raises:
        ConfigError: for a model that nobody knows, a class whose memory is too small for it and for what devices hold
            of the cloud's, or a module that is to stand for a language model.
    """
    if config.system is None:
        return None
    if not isinstance(client, BringsModel):
        held = client.held if isinstance(client, HoldsLayers) else 0.0
        return system_of(config.system, config.model, config.stream.seed, held)
    if config.system.stands_for.device is not None:
        raise ConfigError(
            f"system.stands_for.device={config.system.stands_for.device!r} is a language model, and devices hold "
            f"{config.client.get('model', 'another one')}; leave it out"
        )
    return System(config.system, client.shape(), config.stream.seed)


def _refuse_features(stream: TaskStream) -> None:
    """Refuse pictures and the like, which a language model cannot read."""
    for task in stream.data:
        if task.source.items[0].features is not None:
            raise ConfigError(
                f"data.{task.name} holds pictures, which a language model cannot read; learn them with "
                f"client.path=clients.supervised:Supervised client.model=flsim.models.cnn:LeafCnn"
            )


def build_parts(
    config: Config,
    strategy: Strategy | None = None,
    client: ClientApp | None = None,
    stage: Stage | None = None,
    cloud: Cloud | None = None,
) -> tuple[Strategy, ClientApp, Stage | None]:
    """Check the config, build the plug-ins that it names and that were not passed, and let them meet the fleet.

    Raises:
        ConfigError: for settings that cannot work, or if a plug-in cannot be built or refuses its settings or the
            fleet; nothing has been written by then.
    """
    check(config)
    check_gpus(config.engine)
    cloud = make_cloud(config.cloud) if cloud is None else cloud
    refuse_draft(cloud, config.cloud.draft, config.model)
    refuse_hint(cloud, config.cloud)
    strategy = strategy or build("strategy", config.strategy)
    client = client or client_of(config, cloud)
    stage = stage or (build("stage", config.stage) if config.stage else None)
    _refuse_other_kinds(strategy, client, stage)
    begin(strategy, stage, config, cloud)
    return strategy, client, stage


def _refuse_other_kinds(strategy: object, client: object, stage: object) -> None:
    """A plug-in of one kind in the place of another would fail in the middle of a run."""
    if not isinstance(strategy, Strategy):
        raise ConfigError(f"strategy={strategy!r} is no Flower strategy; derive it from strategies.base.DeltaStrategy")
    if not isinstance(client, ClientApp):
        raise ConfigError(f"client={client!r} is no Flower ClientApp; name a learner, such as clients.grpo:Grpo")
    if stage is not None and not isinstance(stage, Stage):
        raise ConfigError(
            f"stage={type(stage).__name__} is no stage, as it has no after_round (docs/distillation.md); a strategy is "
            f"given by strategy.path"
        )
