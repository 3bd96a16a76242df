"""What a plug-in may offer to the round loop: the contract with strategies, with stages after them, and with clients.

Any Flower strategy and any Flower ClientApp will do. Who offers more is used for more:

    Deals        a strategy that deals every device its own part of the adapter: unequal ranks, one factor only
    LeavesOut    a strategy that says whose update it could not use
    TakesMean    a strategy that needs a weighted mean of the deltas only, so that workers may sum them for the driver
    Stage  what happens to the adapter after each aggregation, such as distillation
    MakesClient  a class that says itself which ClientApp runs it, as learners do
    CarriesMore  a ClientApp whose devices learn more than LoRA's factors
    Calibrates   a client whose devices set something on questions of a split of their own before they are tested
    TriesOut     a ClientApp that asks the cloud's server, before a run, whether it can do what devices will ask for
    BringsModel  a ClientApp whose devices learn another model than a language model under LoRA
    HoldsLayers  a ClientApp whose devices may hold layers of the cloud's model
    ChoosesByTime  a ClientApp whose devices may choose by what things take in virtual time
    WarmsUp      a ClientApp that says whether its devices ask by words, and takes the adapter that they start from
    KeepsState   a strategy or a stage that says itself what a checkpoint keeps of it

`begin` introduces them to the run before anything is written, `state_of` and `restore` are for its checkpoints; what a
strategy returned is looked at in `flsim/flower/returned.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from flsim.cloud.protocol import Cloud
from flsim.config.plugins import call, resolve
from flsim.config.schema import Config, ConfigError
from flsim.flower.messages import NUM_EXAMPLES, Measures
from flsim.learning.exact_sum import ExactSum
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter
from flsim.models.base import BaseModel, Extras
from flsim.system.shapes import Shape


@runtime_checkable
class Deals(Protocol):
    """A strategy that says itself what each device gets; `strategies/base.py` has all of it."""

    carries: str
    """The factors that travel."""
    learns: str
    """The factors that devices learn."""
    shares: Mapping[int, float]
    """The weight of each device in the last aggregation."""
    cut_energy: float | None
    """Share of the squared norm of the last exact aggregate that was left out; None if nothing is cut."""

    def begin(self, config: Config) -> None:
        """Get to know the fleet, before the first round or after a resume."""
        ...

    def carried(self, adapter: Adapter) -> Adapter:
        """What of an adapter travels.

        Raises:
            ConfigError: if the strategy cannot tell.
        """
        ...

    def messages(self, arrays: ArrayRecord, config: ConfigRecord, nodes: Sequence[int], kind: str) -> list[Message]:
        """The adapter as these nodes get it, in training and in evaluation alike."""
        ...

    @property
    def residual(self) -> Adapter | None:
        """What devices merge into their base."""
        ...


@runtime_checkable
class TriesOut(Protocol):
    """A client that finds out before a run what the cloud's server can do."""

    def try_out(self) -> None:
        """Find out.

        Raises:
            ConfigError: if it cannot do what devices will ask for.
        """
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A strategy that may find that it cannot use an update that came."""

    left_out: Mapping[int, str]
    """Devices that the last aggregation left out, with the reason for people."""


Weight = Callable[[Measures], float]
"""How much say a device has, at least 0; where workers sum it travels to them, so it must be picklable."""


@runtime_checkable
class TakesMean(Protocol):
    """A strategy that needs nothing of the adapters but a weighted mean of their deltas."""

    @property
    def streamed_weight(self) -> Weight | None:
        """The weight that the workers sum with; None if the strategy wants the adapters after all."""
        ...

    def aggregate_mean(
        self, server_round: int, replies: Iterable[Message], total: ExactSum
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's `aggregate_train`, but the replies carry no adapters.

        Args:
            server_round: the round.
            replies: the usable ones, by device.
            total: the weighted sum of their deltas, each against what that device was sent.
        """
        ...


@runtime_checkable
class Stage(Protocol):
    """Anything that `stage.path` may name; it goes with any strategy, since it sees only what came of it.

    Its attributes are saved with every checkpoint and restored on resume, as a strategy's are (`state_of`).

        class Shrink:
            def __init__(self, by=0.01):
                self.by = by

            def begin(self, config, cloud):
                pass

            def after_round(self, round_, adapter, replies, residual):
                return {name: (1 - self.by) * tensor for name, tensor in adapter.items()}, []
    """

    def begin(self, config: Config, cloud: Cloud) -> None:
        """Learn the run's settings, before anything is written.

        Args:
            config: of the run.
            cloud: what the devices ask; a stage that asks it takes `cloud.for_server()`.

        Raises:
            ConfigError: if the stage cannot work with them.
        """
        ...

    def after_round(
        self, round_: int, adapter: Adapter, replies: Sequence[Message], residual: Adapter | None
    ) -> tuple[Adapter, list[Row]]:
        """Take the round's result, and make of it what the next round and the evaluation get.

        Args:
            round_: from 1.
            adapter: as the strategy left it.
            replies: the training replies that it was made of, by device; their tensors may be gone.
            residual: what devices merge into their base beside it, under its names and with scale 1; None is nothing.

        Returns:
            The adapter to go on with, and what was measured: rows of the split `stage`, which no user's mean counts.
        """
        ...


@runtime_checkable
class Wraps(Protocol):
    """A strategy around another one, such as Flower's of differential privacy."""

    strategy: Strategy


@runtime_checkable
class MakesClient(Protocol):
    """A class that `client.path` may name, such as a learner: it says itself which app runs it on the devices.

    Anything else that `client.path` names is called as `Name(config, **settings)` and gives a Flower ClientApp.
    """

    def client_app(self, config: Config, cloud: Cloud | None, **settings: Any) -> ClientApp:
        """The app, a class method.

        Args:
            config: of the run.
            cloud: what the devices ask; None is the one that `config.cloud` names.
            settings: what the config gives beside the path.
        """
        ...


@runtime_checkable
class CarriesMore(Protocol):
    """A client whose devices learn something beside LoRA, such as a head on the last hidden state.

    It is part of the adapter: the server begins with it, strategies average it, checkpoints and saved adapters hold it.
    """

    def extras(self, base: BaseModel) -> Adapter:
        """It, by name, as it is at first; a function of the base alone, since server and workers each ask for it."""
        ...


@runtime_checkable
class Calibrates(Protocol):
    """A client whose devices set something, such as a threshold, on questions that they are not tested on."""

    @property
    def calibrates_on(self) -> tuple[str, str] | None:
        """The split of these questions, and who reads them, for people; None where nobody does."""
        ...


@runtime_checkable
class BringsModel(Protocol):
    """A client whose devices learn a model of its own, which travels in the adapter's place: tensors by name."""

    def first_adapter(self) -> Adapter:
        """What round 1 starts from.

        Raises:
            ConfigError: for whatever would keep devices from learning it.
        """
        ...

    @property
    def asks(self) -> bool:
        """Whether its devices ask a cloud, in training or at tests."""
        ...

    def shape(self) -> Shape:
        """What an example of it takes, for runs in virtual time."""
        ...

    def save_model(self, folder: Path, adapter: Adapter) -> None:
        """Write what was learned into a folder."""
        ...


@runtime_checkable
class HoldsLayers(Protocol):
    """A client whose devices may hold layers of the cloud's model, for modes of help that cut it."""

    @property
    def held(self) -> float:
        """Their share of all its layers; 0 for none."""
        ...


@runtime_checkable
class ChoosesByTime(Protocol):
    """A client whose devices may do one thing or another by what it takes in virtual time."""

    @property
    def chooses_by_time(self) -> bool:
        """Whether they do, so that under another system the run would have been another one."""
        ...


@runtime_checkable
class WarmsUp(Protocol):
    """A client that a warm-up prepares; any other gets the adapter that it made with the first round's messages."""

    @property
    def speaks(self) -> bool:
        """Whether the help request is something that its devices say, so that it can be taught."""
        ...

    def start_from(self, folder: str | None) -> None:
        """The adapter that the run starts from, as `model.adapter` would name it; it has no messages yet."""
        ...


@runtime_checkable
class KeepsState(Protocol):
    """A strategy or a stage that says itself what a checkpoint keeps of it."""

    def state_dict(self) -> dict[str, Any]:
        """By name, anything that pickles."""
        ...

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Take it back on resume, before `begin`."""
        ...


def client_of(config: Config, cloud: Cloud | None = None) -> ClientApp:
    """The Flower ClientApp that `config.client` names, for devices that ask `cloud`, or else what the config names.

    Raises:
        ConfigError: if the path does not resolve or a setting is not taken.
    """
    named = resolve("client.path", str(config.client["path"]))
    if isinstance(named, MakesClient):
        app: ClientApp = call(named.client_app, "client", config.client, config, cloud)
    else:
        app = call(named, "client", config.client, config)
    return app


def more_of(client: object) -> Extras | None:
    """What a client's devices learn beside LoRA; None if it does not say."""
    return client.extras if isinstance(client, CarriesMore) else None


def speaks(client: object) -> bool | None:
    """Whether a client's devices ask by words; None if it does not say."""
    return client.speaks if isinstance(client, WarmsUp) else None


def begin(strategy: object, stage: Stage | None, config: Config, cloud: Cloud) -> None:
    """Introduce a strategy and the server's stage to the fleet, to each other, and the stage to the cloud.

    Raises:
        ConfigError: if they cannot serve it: no stock Flower strategy can serve unequal ranks, and a stage needs the
            whole adapter.
    """
    inner = strategy.strategy if isinstance(strategy, Wraps) else None
    _refuse_waiting(strategy, config.cohort_size)
    if isinstance(strategy, Deals):
        strategy.begin(config)
        if stage is not None and set(strategy.learns) - set(strategy.carries):
            raise ConfigError(
                f"{type(stage).__name__} needs the whole adapter at the server, but with {type(strategy).__name__} the "
                f"devices keep a part of it for themselves; set stage=null, or choose another strategy"
            )
    elif isinstance(inner, Deals) and set(inner.carries) != set("AB"):
        raise ConfigError(
            f"{type(strategy).__name__} wraps {type(inner).__name__}, whose devices keep a part of the adapter for "
            f"themselves, which a wrapper cannot deal out; wrap a strategy that sends whole adapters"
        )
    elif config.has_unequal_shapes:
        raise ConfigError(
            f"{type(strategy).__name__} sends every device the same adapter, but fleet.ranks={list(config.fleet.ranks)}"
            f" differ from model.rank={config.model.rank}; leave fleet.ranks out, or choose a strategy of the folder "
            f"strategies/, such as strategies.flex_lora:FlexLora"
        )
    if stage is not None:
        stage.begin(config, cloud)


def weighed_by(strategy: object) -> str:
    """The metric of a reply that a strategy takes as its weight; a stock strategy may name its own."""
    inner = strategy.strategy if isinstance(strategy, Wraps) else strategy
    return str(getattr(inner, "weighted_by_key", NUM_EXAMPLES))


def _refuse_waiting(strategy: object, cohort: int) -> None:
    """Refuse a strategy, or one that it wraps, that waits for more devices than a round has; nobody would ever come.

    Raises:
        ConfigError: naming its setting, and the mend.
    """
    if isinstance(strategy, Wraps):
        _refuse_waiting(strategy.strategy, cohort)
    if getattr(strategy, "fraction_train", None) == 0.0:
        return  # asks nobody
    for name in ("min_available_nodes", "min_train_nodes"):
        wanted = getattr(strategy, name, None)
        if isinstance(wanted, int) and wanted > cohort:
            raise ConfigError(
                f"{type(strategy).__name__} would wait for ever: it wants {name}={wanted} devices (Flower's default is "
                f"2), and a round has {cohort} (fleet.cohort, else fleet.devices); set strategy.{name}={cohort}, or "
                f"raise those"
            )


def state_of(plug_in: object) -> dict[str, Any]:
    """What a checkpoint keeps of a strategy or a stage: its `state_dict`, or all attributes if it has none.

    So do Flower's own strategies, which know of no checkpoint: FedAdam has its moments in `m_t` and `v_t`.
    """
    return plug_in.state_dict() if isinstance(plug_in, KeepsState) else attributes(plug_in)


def restore(plug_in: object, state: Mapping[str, Any]) -> None:
    """Give a strategy or a stage what `state_of` said of it."""
    if isinstance(plug_in, KeepsState):
        plug_in.load_state_dict(state)
    else:
        vars(plug_in).update(state)


def attributes(plug_in: object) -> dict[str, Any]:
    """All attributes but cached properties, which hold what can be worked out again, such as a loaded model."""
    kinds = type(plug_in).__mro__
    cached = {name for kind in kinds for name, value in vars(kind).items() if isinstance(value, cached_property)}
    return {name: value for name, value in vars(plug_in).items() if name not in cached}
