"""A head beside LoRA under every strategy: its mean by hand, LoRA's bits as without it, whole runs that carry it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam as FlowerFedAdam
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

import flsim
from clients.app import DeviceApp
from clients.asking.simple import Never
from clients.poisoning import Poison, PoisonedApp
from clients.sft import Sft
from flsim.config.schema import Config, ConfigError
from flsim.flower.contract import CarriesMore, client_of, more_of
from flsim.loop.checkpoints import latest_checkpoint
from flsim.metrics.rows import without_timing
from flsim.models.adapter import HEAD, Adapter, extras_of, lora_of, only
from strategies.base import DeltaStrategy, Update
from strategies.fedavg import FedAvg
from strategies.fedex_lora import FedExLora
from strategies.fedsa_lora import FedSaLora
from strategies.ffa_lora import FfaLora
from strategies.flex_lora import FlexLora
from strategies.flora import Flora
from strategies.het_lora import HetLora
from strategies.local_only import LocalOnly
from strategies.parts import reducers
from strategies.parts.server_optimizers import Adam, Momentum
from strategies.robust import GeometricMedian, Median, MultiKrum, TrimmedMean
from strategies.rolora import RoLora
from tests.strategies.head_learner import WithHead
from tests.strategies.lora_fleet import UNEQUAL, draw, fleet, update
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

COUNTS = (5, 2, 4)
MOVES = (0.1, 0.2, 0.4)  # of every number of a head, by device
BY_EXAMPLES = (5 * 0.1 + 2 * 0.2 + 4 * 0.4) / 11
PLAIN = (0.1 + 0.2 + 0.4) / 3
HEAD_AT_FIRST: Adapter = {
    "head.weight": np.array([[0.5, -1.0, 2.0]], np.float32),
    "head.bias": np.array([0.25], np.float32),
}
MEANS = [FedAvg, FlexLora, FedExLora, Flora, FfaLora, RoLora, FedSaLora]
STRATEGIES = [*MEANS, HetLora, MultiKrum, GeometricMedian, TrimmedMean, Median, LocalOnly]
OTHERS = [make for make in STRATEGIES if make is not FlexLora]


def begun(strategy: DeltaStrategy, *settings: str) -> DeltaStrategy:
    strategy.begin(fleet(*(settings or UNEQUAL)))
    return strategy


def updates_of(
    strategy: DeltaStrategy, server: Adapter, moves: tuple[float, ...] = MOVES, counts: tuple[int, ...] = COUNTS
) -> list[Update]:
    """Every device moves all numbers of its head alike, and its factors at random."""
    found, config = [], strategy._config
    assert config is not None
    for device, (move, count) in enumerate(zip(moves, counts, strict=True)):
        shape = config.shape_of(device)
        sent = only(only(strategy.deal(server, shape), strategy.carries), strategy.learns)
        by = draw(shape.rank, 1, device, size=0.3)
        learned = {name: tensor + by.get(name, np.float32(move)) for name, tensor in sent.items()}
        found.append(update(device, sent, learned, count, shape))
    return found


def moved(strategy: DeltaStrategy, server: Adapter, updates: list[Update]) -> list[float]:
    """How far each number of the head moved."""
    new = strategy.aggregate(server, updates)
    assert {name: tensor.shape for name, tensor in new.items()} == {n: t.shape for n, t in server.items()}
    return [float(by) for name in HEAD_AT_FIRST for by in (new[name] - server[name]).ravel()]


# ---------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        *((make, BY_EXAMPLES) for make in MEANS),
        (lambda: FlexLora("adapters"), BY_EXAMPLES),
        (lambda: FedAvg(server_lr=0.5), BY_EXAMPLES / 2),
        (lambda: FlexLora(optimizer=Momentum(lr=0.5)), BY_EXAMPLES / 2),
        (lambda: FedAvg(reducer=reducers.MultiKrum()), PLAIN),  # of three devices it can fear none
        (MultiKrum, PLAIN),
        (TrimmedMean, PLAIN),  # a fifth of three is nobody
        (lambda: TrimmedMean(0.4), 0.2),
        (Median, 0.2),
        (GeometricMedian, 0.2),  # on a line it is the weighted median: 5 of 11 lie below, 4 above
        (lambda: FedAvg(reducer=reducers.GeometricMedian()), 0.2),
        (LocalOnly, 0.0),
    ],
)
def test_the_head_by_hand_at_unequal_ranks(make: Callable[[], DeltaStrategy], expected: float) -> None:
    strategy, server = begun(make()), draw(4, 0) | HEAD_AT_FIRST
    found = moved(strategy, server, updates_of(strategy, server))
    assert found == pytest.approx([expected] * 4, abs=2e-4 if "Geometric" in repr(vars(strategy)) else 1e-6)


def test_hetloras_head_goes_by_its_own_weights() -> None:
    """Norms of products times nothing: the shares that the rows show."""
    strategy, server = begun(HetLora()), draw(4, 0) | HEAD_AT_FIRST
    found = moved(strategy, server, updates_of(strategy, server))
    expected = sum(share * MOVES[device] for device, share in strategy.shares.items())
    assert found == pytest.approx([expected] * 4, abs=1e-6)
    assert abs(expected - BY_EXAMPLES) > 1e-3


def test_server_optimizers_keep_moments_of_the_head() -> None:
    """FedAdam's first step: m = 0.1 D, v = 0.99 tau^2 + 0.01 D^2, lr m / (sqrt(v) + tau)."""
    optimizer = Adam()
    strategy, server = begun(FlexLora(optimizer=optimizer)), draw(4, 0) | HEAD_AT_FIRST
    found = moved(strategy, server, updates_of(strategy, server))
    second = 0.99e-6 + 0.01 * BY_EXAMPLES**2
    assert found == pytest.approx([0.003 * 0.1 * BY_EXAMPLES / (second**0.5 + 1e-3)] * 4, rel=1e-3)
    assert set(HEAD_AT_FIRST) < set(optimizer.first)


# -------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("make", STRATEGIES)
@pytest.mark.parametrize("ranks", [UNEQUAL, ("model.rank=4", "model.alpha=8", "fleet.devices=6")])
def test_a_head_leaves_loras_bits_as_they_are(make: Callable[[], DeltaStrategy], ranks: tuple[str, ...]) -> None:
    """Also over two rounds, with frames, residuals and moments of the first; a head that moves a thousandfold."""
    results = []
    for head in ({}, HEAD_AT_FIRST):
        strategy, server = begun(make(), *ranks), draw(4, 0) | head
        for _ in range(2):
            server = strategy.aggregate(server, updates_of(strategy, server, (100.0, -200.0, 1e3)))
        results.append((lora_of(server), strategy.residual, strategy.shares))
    (one, residual, own), (other, same_residual, same) = results
    assert all(np.array_equal(tensor, other[name]) for name, tensor in one.items())
    assert (residual is None) == (same_residual is None)
    assert all(np.array_equal(t, (same_residual or {})[n]) for n, t in (residual or {}).items())
    assert own == same


@pytest.mark.parametrize("make", STRATEGIES)
def test_nobody_moves_and_nothing_moves(make: Callable[[], DeltaStrategy]) -> None:
    strategy, server = begun(make()), draw(4, 0) | HEAD_AT_FIRST
    assert moved(strategy, server, updates_of(strategy, server, (0.0, 0.0, 0.0))) == [0.0] * 4


@pytest.mark.parametrize("make", [MultiKrum, lambda: FedAvg(reducer=reducers.MultiKrum())])
def test_a_poisoned_head_hides_behind_no_honest_factors(make: Callable[[], DeltaStrategy]) -> None:
    """Six devices learn the same; one sends a head far off, and another one's factors are far off."""
    strategy, server = begun(make(), "model.rank=4", "model.alpha=8", "fleet.devices=6"), draw(4, 0) | HEAD_AT_FIRST
    updates = updates_of(strategy, server, (0.1, 0.1, 0.1, 0.1, 0.1, 50.0), (1,) * 6)
    far = {name: tensor + np.float32(20 * bool(name not in HEAD_AT_FIRST)) for name, tensor in updates[0].sent.items()}
    updates[0] = update(0, updates[0].sent, {**updates[0].adapter, **lora_of(far)}, 1, updates[0].shape)  # type: ignore[arg-type]
    assert moved(strategy, server, updates) == pytest.approx([0.1] * 4, abs=1e-6)
    assert strategy.shares[0] == 0.0
    assert strategy.shares[5] > 0


def test_what_travels_and_what_stays() -> None:
    server = draw(4, 0) | HEAD_AT_FIRST
    for make, carries in ((FedSaLora, True), (FfaLora, True), (LocalOnly, False)):
        assert set(extras_of(only(server, make().carries))) == (set(HEAD_AT_FIRST) if carries else set())


# -------------------------------------------------------------------------------------------------------------- runs

TINY = (
    "model.rank=4",
    "model.alpha=8",
    "fleet.devices=3",
    "fleet.ranks=[4,2,3]",
    "fleet.alphas=[8,6,3]",
    "rounds=3",
    "evaluation.every_rounds=9",
    "engine.pack=2",
    "client.path=tests.strategies.head_learner:WithHead",
    "client.lr=0.05",
    "budget.tau=1",
)
EQUAL = ("fleet.ranks=[]", "fleet.alphas=[]")
PLAIN_CLIENT = "client.path=clients.sft:Sft"


def go(config: Config, strategy: Any, **more: Any) -> flsim.Run:
    return flsim.run(config, strategy=strategy, progress=False, **more)


def server_adapter(folder: Path) -> Adapter:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.adapter


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [FlexLora, *(pytest.param(make, marks=pytest.mark.slow) for make in OTHERS)])
def test_a_run_carries_the_head_and_goes_on_bit_for_bit(
    tiny_run: TinyRun, tiny_checkpoint: Path, tmp_path: Path, make: Callable[[], DeltaStrategy]
) -> None:
    """Straight through, and stopped after rounds 1 and 2: rows, checkpoint and the saved files are equal."""
    whole = go(tiny_run("whole"), make())
    go(tiny_run("parts"), make(), until=1)
    for until in (2, None):
        parts = go(tiny_run("parts"), make(), resume=tmp_path / "parts", until=until)
    assert not (whole.rows["name"] == "set_aside").any()
    assert without_timing(whole.rows).equals(without_timing(parts.rows))
    server = server_adapter(whole.folder)
    assert equal(server, server_adapter(parts.folder))
    head = extras_of(server)
    assert {name: tensor.shape for name, tensor in head.items()} == {"head.weight": (2, 32), "head.bias": (2,)}
    begun_at = {"head.weight": 0.0, "head.bias": 0.5}
    for name, tensor in head.items():
        assert (tensor == begun_at[name]).all() == (make is LocalOnly)
        assert np.ptp(tensor) < 1e-6  # all numbers have one goal
    assert equal(load_file(whole.folder / "adapter" / HEAD), head)
    assert equal(load_file(parts.folder / "adapter" / HEAD), head)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_checkpoint), str(whole.folder / "adapter"))


@pytest.mark.slow
def test_what_a_head_adds_to_the_messages_is_counted(tiny_run: TinyRun) -> None:
    """2 x 32 weights and 2 biases of 4 bytes, and what NumPy writes in front of each of the two."""
    sizes = []
    for name, more in (("with", []), ("without", [PLAIN_CLIENT])):
        rows = go(tiny_run(name, *more), FedAvg()).rows
        sizes.append([rows[rows["name"] == kind]["total"].sum() for kind in ("uplink_bytes", "downlink_bytes")])
    up, down = (one - other for one, other in zip(*sizes, strict=True))
    assert up == down == 3 * 3 * (4 * 66 + 2 * 128)


@pytest.mark.parametrize("make", [FedAvg, pytest.param(FlexLora, marks=pytest.mark.slow)])
def test_a_head_leaves_the_training_of_lora_as_it_is(tiny_run: TinyRun, make: Callable[[], DeltaStrategy]) -> None:
    """Bit for bit, in all rows but those of bytes, though its gradient is ten times as long as what LoRA's may be."""
    runs = [go(tiny_run(name, *more), make()) for name, more in (("with", []), ("without", [PLAIN_CLIENT]))]
    ours, plain = (server_adapter(run.folder) for run in runs)
    assert equal(lora_of(ours), plain)
    rows, expected = (without_timing(run.rows) for run in runs)
    rows, expected = (one[~one["name"].str.endswith("link_bytes")].reset_index(drop=True) for one in (rows, expected))
    assert (rows["name"] == "update_norm").any()
    assert rows.equals(expected)


@pytest.mark.parametrize(
    ("make", "learns"), [(RoLora, ("B", "A", "B")), pytest.param(FfaLora, ("B", "B", "B"), marks=pytest.mark.slow)]
)
def test_the_head_is_learned_whichever_factor_is(
    tiny_run: TinyRun, make: Callable[[], DeltaStrategy], learns: tuple[str, ...]
) -> None:
    heads, config = [], tiny_run("run")
    for until in range(1, 1 + len(learns)):
        go(config, make(), until=until, resume=config.folder if until > 1 else None)
        heads.append(float(server_adapter(config.folder)["head.bias"][0]))
    assert 0.5 < heads[0] < heads[1] < heads[2]


def test_alone_every_device_keeps_its_own_head(tiny_run: TinyRun) -> None:
    """With one step a round, each device's Adam goes lr towards its goal; the fleet's server has the first head."""
    config = tiny_run("alone", *EQUAL)
    seen: dict[int, list[float]] = {}

    class Seen(DeviceApp):
        def answer(self, messages: Any, contexts: Any) -> Any:
            for message, context, adapter in zip(messages, contexts, self._receive(messages, contexts), strict=True):
                if message.metadata.message_type == "train":
                    seen.setdefault(context.node_id, []).append(float(adapter["head.bias"][1]))
            return super().answer(messages, contexts)

    learner = WithHead(steps=1, prompts=3, lr=0.05, max_new_tokens=4)
    go(config, LocalOnly(), client=Seen(config, learner))
    for begins in seen.values():
        assert begins == pytest.approx([0.5, 0.55, 0.6], abs=5e-3)
    assert server_adapter(config.folder)["head.bias"].tolist() == [0.5, 0.5]


def test_heads_that_workers_sum_are_the_heads_that_the_server_sums(tiny_run: TinyRun) -> None:
    found = [server_adapter(go(tiny_run(f"from-{n}", *EQUAL, f"engine.stream={n}"), FedAvg()).folder) for n in (2, 99)]
    assert equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "ranks"), [(FedAvg, EQUAL), (FlexLora, ())])
def test_ray_gives_the_bits_of_this_process(
    one_ray: None, tiny_run: TinyRun, make: Callable[[], DeltaStrategy], ranks: tuple[str, ...]
) -> None:
    """FedAvg's workers sum heads; FlexLoRA's send them, of unequal ranks."""
    here = go(tiny_run("here", *ranks), make())
    there = go(tiny_run("there", *ranks, "engine.kind=ray", "engine.workers=2", "engine.stream=2"), make())
    assert equal(server_adapter(here.folder), server_adapter(there.folder))
    assert equal(load_file(there.folder / "adapter" / HEAD), extras_of(server_adapter(here.folder)))


def test_flowers_own_strategies_take_it_as_they_take_factors(tiny_run: TinyRun) -> None:
    config = tiny_run("flower", *EQUAL)
    go(config, FlowerFedAdam(eta=0.01))
    assert (server_adapter(config.folder)["head.weight"] > 0).all()


@pytest.mark.parametrize("residual", [False, True])
def test_a_stage_leaves_the_head_to_the_devices(tiny_run: TinyRun, tmp_path: Path, residual: bool) -> None:
    """The server distils factors: with and without it, the head after one round is the same."""
    stage = [
        *("stage.path=strategies.stages.distillation:Distillation", "stage.every_rounds=1", "stage.prompts=8"),
        *("stage.steps=2", "stage.batch=4", "stage.held_out=4", "stage.users=0", f"stage.cache={tmp_path / 'bought'}"),
        *("stage.loss=sequence", "stage.margin=1"),
    ]
    make = Flora if residual else FedAvg
    found = [
        server_adapter(go(tiny_run(name, *more), make(), until=1).folder)
        for name, more in (("with", stage), ("without", []))
    ]
    assert equal(*(extras_of(adapter) for adapter in found))
    assert not equal(*(lora_of(adapter) for adapter in found))


def test_a_malicious_device_may_poison_a_head_and_krum_leaves_it_out(tiny_run: TinyRun) -> None:
    """Of five devices one sends its moves backwards, a thousandfold: then the mean is far below the first 0.5."""
    biases = {}
    for strategy in (MultiKrum(), FedAvg()):
        config = tiny_run(f"poison-{type(strategy).__name__}", *EQUAL, "fleet.devices=5", "engine.pack=5")
        poison = Poison(attack="flip", share=0.2, size=1000.0)
        learner = WithHead(steps=1, prompts=3, lr=0.05, max_new_tokens=4)
        run = go(config, strategy, client=PoisonedApp(config, learner, [], Never(), None, poison))
        assert not (run.rows["name"] == "set_aside").any()
        biases[type(strategy)] = float(server_adapter(run.folder)["head.bias"][0])
    assert biases[MultiKrum] > 0.5
    assert biases[FedAvg] < -1


def test_a_run_goes_on_from_the_saved_head_of_another(tiny_run: TinyRun) -> None:
    first = go(tiny_run("first", *EQUAL), FedAvg())
    again = tiny_run("again", *EQUAL, f"model.adapter={first.folder / 'adapter'}", "rounds=1")
    go(again, LocalOnly())
    assert equal(server_adapter(again.folder), server_adapter(first.folder))
    (first.folder / "adapter" / HEAD).unlink()
    fresh = tiny_run("fresh", *EQUAL, f"model.adapter={first.folder / 'adapter'}", "rounds=1")
    go(fresh, LocalOnly())
    assert server_adapter(fresh.folder)["head.bias"].tolist() == [0.5, 0.5]
    assert "holds no head.safetensors: head.weight, head.bias begin anew" in (fresh.folder / "run.log").read_text()


def test_a_run_does_not_go_on_with_devices_that_learn_something_else(tiny_run: TinyRun) -> None:
    config = tiny_run("run")
    go(config, FedAvg(), until=1)
    other = DeviceApp(config, Sft(steps=1, prompts=3, max_new_tokens=4))
    with pytest.raises(ConfigError, match=r"0 tensors are missing and 2 unknown, first head\.bias; go on with"):
        go(config, FedAvg(), client=other, resume=config.folder)


# ------------------------------------------------------------------------------------------------------ the contract


def test_a_client_says_what_its_devices_carry(tiny_run: TinyRun) -> None:
    config = tiny_run("any")
    client = client_of(config)
    assert isinstance(client, CarriesMore)
    more = more_of(client)
    assert isinstance(client, DeviceApp)
    assert more is not None
    assert list(client.world.first)[-2:] == list(more(client.world.base)) == ["head.weight", "head.bias"]
    assert more_of(object()) is None
