"""Flower's own strategies, privacy wrappers and mods run unchanged; where formulas are equal, ours agree with them."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

import flsim.flower.messages as wire
import flsim.loop.health
import strategies.fedavg
from clients.app import DeviceApp
from clients.da_grpo import DaGrpo
from flsim.config.schema import Config
from flsim.devices import device_at, device_name
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.grid import LocalGrid
from flsim.flower.messages import DeviceUpdate, device_of, round_of
from flsim.flower.store import DeviceStore
from flsim.loop.checkpoints import latest_checkpoint
from flsim.loop.run import run
from flsim.metrics.rows import without_timing
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from strategies.parts import server_optimizers
from tests.tiny import TOKEN_RUN, TinyRun

pytestmark = pytest.mark.usefixtures("no_report")

TINY = ("fleet.devices=4", "engine.pack=8", "client.group_size=4", "client.lr=0.01", *TOKEN_RUN)
HEALTH = {"aggregation_bias", "update_cosine", "effective_devices"}
CLIP = 0.01  # a device's move is about 0.3


def rows_of(config: Config, strategy: Strategy) -> pd.DataFrame:
    return without_timing(run(config, strategy=strategy, progress=False).rows)


def rows_with(config: Config, strategy: Strategy, *mods: Mod) -> pd.DataFrame:
    """With mods around the client."""
    client = DaGrpo.client_app(config, mods=mods, **{k: v for k, v in config.client.items() if k != "path"})
    return without_timing(run(config, strategy=strategy, client=client, progress=False).rows)


def adapter_of(folder: Path) -> Adapter:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.adapter


def cohorts(rows: pd.DataFrame) -> list[list[str]]:
    """Who was sent the adapter, by round."""
    sent = rows[rows["name"] == "downlink_bytes"]
    return [sorted(sent[sent["round"] == round_]["device"]) for round_ in (1, 2)]


def check_that_all_learned(config: Config, rows: pd.DataFrame) -> None:
    """Nobody is set aside, health is there in both rounds, and the adapter has moved to finite numbers."""
    assert not (rows["name"] == "set_aside").any()
    for round_ in (1, 2):
        of_round = rows[rows["round"] == round_]
        assert set(of_round["name"]) >= HEALTH
        norms = of_round[of_round["name"] == "update_norm"]["total"]
        assert len(norms) == config.fleet.devices
        assert norms.max() > 0.01
    end, start = adapter_of(config.folder), first_adapter(config.model, config.seed)
    assert all(np.isfinite(tensor).all() for tensor in end.values())
    assert apart(end, start) > 1e-5


def apart(one: Adapter, other: Adapter) -> float:
    """The distance of two adapters as vectors."""
    return float(np.sqrt(sum(((one[name].astype(np.float64) - other[name]) ** 2).sum() for name in one)))


@pytest.mark.parametrize(
    ("make", "devices"),
    [
        (lambda: FedAvgM(server_momentum=0.9), 3),
        (lambda: FedYogi(eta=0.01), 3),
        (lambda: FedAdagrad(eta=0.01), 3),
        (lambda: FedProx(proximal_mu=0.1), 3),
        pytest.param(lambda: QFedAvg(client_learning_rate=0.1, q=0.2), 3, marks=pytest.mark.slow),
        (FedMedian, 3),
        (lambda: FedTrimmedAvg(beta=0.34), 3),
        (lambda: Krum(num_malicious_nodes=1), 5),
        (lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3), 5),
        pytest.param(lambda: Bulyan(num_malicious_nodes=1), 7, marks=pytest.mark.slow),
    ],
    ids=["m", "yogi", "adagrad", "prox", "q", "median", "trimmed", "krum", "multi-krum", "bulyan"],
)
def test_it_runs(tiny_run: TinyRun, make: Callable[[], Strategy], devices: int) -> None:
    steps = 2 if devices == 5 else 1  # after one step of five the nearest to its neighbours has not moved at all
    config = tiny_run("one", f"fleet.devices={devices}", f"client.steps={steps}")
    check_that_all_learned(config, rows_of(config, make()))


def test_bulyan_skips_a_round_with_fewer_than_4_f_plus_3_replies(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Krum asks for no least number, though its paper promises something from 2 f + 3 on."""
    config = tiny_run("six", "fleet.devices=6", "rounds=1", "evaluation.every_rounds=9")
    rows_of(config, Bulyan(num_malicious_nodes=1))
    assert apart(adapter_of(tmp_path / "six"), first_adapter(config.model, config.seed)) == 0


Wrapper = Callable[[float], Strategy]  # by its noise multiplier


def server_fixed(noise: float) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(FedAvg(), noise, CLIP, 3)


def client_fixed(noise: float) -> Strategy:
    return DifferentialPrivacyClientSideFixedClipping(FedAvg(), noise, CLIP, 3)


def server_adaptive(noise: float) -> Strategy:
    return DifferentialPrivacyServerSideAdaptiveClipping(FedAvg(), noise, 3, initial_clipping_norm=CLIP)


def client_adaptive(noise: float) -> Strategy:
    return DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), noise, 3, initial_clipping_norm=CLIP)


PRIVATE = pytest.mark.parametrize(
    ("make", "mods"),
    [
        (server_fixed, ()),
        (client_fixed, (fixedclipping_mod,)),
        (server_adaptive, ()),
        (client_adaptive, (adaptiveclipping_mod,)),
    ],
    ids=["server-fixed", "client-fixed", "server-adaptive", "client-adaptive"],
)


@PRIVATE
def test_a_privacy_wrapper_runs_and_its_noise_is_that_of_the_seed(
    tiny_run: TinyRun, tmp_path: Path, make: Wrapper, mods: tuple[Mod, ...]
) -> None:
    config = tiny_run("one", "fleet.devices=3")
    rows = rows_with(config, make(0.2), *mods)
    pd.testing.assert_frame_equal(
        rows, rows_with(tiny_run("two", "fleet.devices=3"), make(0.2), *mods), check_exact=True
    )
    if mods:  # the devices clip, so that nothing larger came
        rows.loc[rows["name"] == "update_norm", "total"] += 1
    check_that_all_learned(config, rows)
    one, other = (adapter_of(tmp_path / name) for name in ("one", "two"))
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}


@PRIVATE
def test_a_privacy_wrapper_clips(tiny_run: TinyRun, tmp_path: Path, make: Wrapper, mods: tuple[Mod, ...]) -> None:
    """Without noise: three moves of at most 0.01 have a mean of at most that."""
    once = ("fleet.devices=3", "rounds=1", "evaluation.every_rounds=9")
    config = tiny_run("clipped", *once)
    rows_with(config, make(0.0), *mods)
    moved = apart(adapter_of(tmp_path / "clipped"), first_adapter(config.model, config.seed))
    assert 0 < moved <= CLIP * (1 + 1e-5)


def test_a_privacy_wrapper_and_its_mod_are_named_from_the_shell(tiny_run: TinyRun, tmp_path: Path) -> None:
    named = tiny_run(
        "named",
        "fleet.devices=3",
        "strategy.path=flwr.serverapp.strategy:DifferentialPrivacyClientSideFixedClipping",
        "strategy.strategy.path=flwr.serverapp.strategy:FedAvg",
        "strategy.noise_multiplier=0.2",
        f"strategy.clipping_norm={CLIP}",
        "strategy.num_sampled_clients=3",
        "client.mods=[flwr.clientapp.mod:fixedclipping_mod]",
    )
    rows = without_timing(run(named, progress=False).rows)
    passed = rows_with(tiny_run("passed", "fleet.devices=3"), client_fixed(0.2), fixedclipping_mod)
    pd.testing.assert_frame_equal(rows, passed, check_exact=True)


def test_the_noise_of_local_privacy_is_the_devices_own(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Mods draw from NumPy's global generator; neither packs nor another device in the cohort change the draw."""
    mod = LocalDpMod(clipping_norm=CLIP, sensitivity=1e-3, epsilon=1.0, delta=1e-3)
    once = ("fleet.devices=3", "rounds=1", "evaluation.every_rounds=9")
    for name, pack in (("one", 1), ("three", 3)):
        rows = rows_with(tiny_run(name, f"engine.pack={pack}", *once), FedAvg(), mod)
        assert not (rows["name"] == "set_aside").any()
    one, other = adapter_of(tmp_path / "one"), adapter_of(tmp_path / "three")
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}
    rows_with(tiny_run("else", "seed=1", *once), FedAvg(), mod)
    assert apart(adapter_of(tmp_path / "else"), one) > 1e-3


def test_a_mod_that_refuses_is_heard_in_full(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The clipping mod without its wrapper: who reads the log learns what is missing."""
    rows = rows_with(tiny_run("alone", "fleet.devices=3", "rounds=1"), FedAvg(), fixedclipping_mod)
    assert rows[rows["name"] == "set_aside"]["task"].tolist() == ["refused"] * 3
    assert "refused: fixedclipping_mod requires the key 'clipping_norm'" in (tmp_path / "alone/run.log").read_text()


def test_replies_that_a_strategy_empties_or_clips_are_measured_as_they_came(tiny_run: TinyRun, tmp_path: Path) -> None:
    """FedMedian takes the tensors out of the replies, the server-side wrapper replaces them; FedAvg goes beyond it."""
    found = []
    for name, strategy in (("a", FedAvg()), ("m", FedMedian()), ("c", server_fixed(0.0))):
        config = tiny_run(name, "fleet.devices=3", "rounds=1", "evaluation.every_rounds=9")
        rows = rows_of(config, strategy)
        found.append(rows[rows["name"].isin(HEALTH | {"update_norm"})].reset_index(drop=True))
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other, check_exact=True)
    assert apart(adapter_of(tmp_path / "a"), first_adapter(config.model, config.seed)) > 5 * CLIP


def test_a_cohort_that_takes_too_long_to_measure_is_not_measured(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flsim.loop.health, "MOST_OPERATIONS", 1000.0)
    rows = rows_of(tiny_run("large", "fleet.devices=3", "evaluation.every_rounds=9"), FedAvg())
    assert set(rows[rows["split"] == "fleet"]["name"]) == {"effective_devices"}
    assert not (rows["name"] == "update_norm").any()
    log = (tmp_path / "large/run.log").read_text()
    assert log.count("bias, cosine and norms of 3 updates are not measured") == 1


def test_proximal_devices_stay_nearer(tiny_run: TinyRun) -> None:
    """A device's way in product space, summed over the cohort; with mu = 0 it is FedAvg's, bit for bit."""
    far = {}
    for mu in (None, 0.0, 30.0):
        more = ("fleet.devices=3", "rounds=1", "evaluation.every_rounds=9", "client.steps=4")
        strategy = FedAvg() if mu is None else FedProx(proximal_mu=mu)
        rows = rows_of(tiny_run(f"mu-{mu}", *more), strategy)
        far[mu] = rows[rows["name"] == "update_norm"]["total"].sum()
    assert far[0.0] == far[None]
    assert far[30.0] < 0.7 * far[None]


def unlike_the_paper(optimizer: server_optimizers.Adam | server_optimizers.Adagrad, like: Adapter) -> Strategy:
    """Ours with Flower's v_0 = 0."""
    optimizer.second = {name: np.zeros(tensor.shape) for name, tensor in like.items()}
    return strategies.fedavg.FedAvg(optimizer=optimizer)


class Corrected(server_optimizers.Adam):
    """With the bias correction of Flower's FedAdam, whose powers are one above the round."""

    rounds = 0

    def step(self, adapter: Adapter, delta: server_optimizers.Tensors) -> Adapter:
        self.rounds += 1
        self.lr = 0.01 * np.sqrt(1 - 0.99 ** (self.rounds + 1)) / (1 - 0.9 ** (self.rounds + 1))
        return super().step(adapter, delta)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
            lambda _: strategies.fedavg.FedAvg(optimizer=server_optimizers.Momentum(lr=0.5, beta=0.9)),
        ),
        (
            lambda: FedAdagrad(eta=0.01, tau=1e-3),
            lambda like: unlike_the_paper(server_optimizers.Adagrad(lr=0.01, tau=1e-3), like),
        ),
        (
            lambda: FedYogi(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3),
            lambda like: unlike_the_paper(server_optimizers.Yogi(lr=0.01, tau=1e-3), like),
        ),
        (
            lambda: FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3),
            lambda like: unlike_the_paper(Corrected(lr=0.01, tau=1e-3), like),
        ),
    ],
    ids=["momentum", "adagrad", "yogi", "adam"],
)
def test_flowers_server_optimizers_and_ours_agree(
    theirs: Callable[[], Strategy], ours: Callable[[Adapter], Strategy]
) -> None:
    """Over three rounds of the same replies, once ours start from their v_0; Flower counts in float32."""
    results = []
    for strategy in (theirs(), ours(draw(0))):
        adapter = draw(0)
        for round_ in (1, 2, 3):
            adapter = one_round(strategy, adapter, round_)
        results.append(adapter)
    assert apart(results[0], draw(0)) > 0.02
    assert apart(*results) < 2e-5 * apart(results[0], draw(0))


@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
def test_it_runs_and_gives_identical_rows_twice(tiny_run: TinyRun, tmp_path: Path, kind: type[Strategy]) -> None:
    rows = rows_of(tiny_run("one"), kind())
    pd.testing.assert_frame_equal(rows, rows_of(tiny_run("two"), kind()), check_exact=True)
    assert set(rows["round"]) == {0, 1, 2}
    assert cohorts(rows) == [[f"device-{d:03d}" for d in range(4)]] * 2
    assert not (rows["name"] == "set_aside").any()
    config = tiny_run("three")
    start = first_adapter(config.model, config.seed)
    assert any(not np.array_equal(start[name], tensor) for name, tensor in adapter_of(tmp_path / "one").items())


def draw(seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(3, 4)).astype(np.float32) for name in ("a", "b")}


def one_round(strategy: Strategy, adapter: Adapter, round_: int) -> Adapter:
    """Through the hooks; device i goes on from what it was sent by a tenth of `draw(10 round + i)`."""
    with tempfile.TemporaryDirectory() as folder:
        grid = LocalGrid(ClientApp(), DeviceStore(Path(folder)), devices=3, pack=1)
        grid.open_to(range(3))
        sent = list(strategy.configure_train(round_, to_arrays(adapter), ConfigRecord(), grid))
    replies = []
    for message in sent:
        device = device_at(message.metadata.dst_node_id)
        moves = draw(10 * round_ + device)
        moved = {name: tensor + np.float32(0.1) * moves[name] for name, tensor in wire.adapter_of(message).items()}
        replies.append(wire.train_reply(DeviceUpdate(device, moved, device + 1, 0.5), message))
    arrays, _ = strategy.aggregate_train(round_, replies)
    assert arrays is not None
    return to_adapter(arrays)


class Recording(FedAvg):
    """Notes which devices' replies it is given, in which order."""

    def __init__(self) -> None:
        super().__init__(fraction_train=0.5)
        self.given: list[list[int]] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        self.given.append([device_of(reply) for reply in replies])
        return super().aggregate_train(server_round, replies)


def test_half_a_fleet_is_the_same_half_in_two_runs_and_another_in_each_round(tiny_run: TinyRun) -> None:
    """It samples in random order; the replies are sorted all the same, so that its sums do not depend on that."""
    recording = Recording()
    one = cohorts(rows_of(tiny_run("one", "fleet.devices=8"), recording))
    two = cohorts(rows_of(tiny_run("two", "fleet.devices=8"), FedAvg(fraction_train=0.5)))
    assert [len(members) for members in one] == [4, 4]
    assert one == two
    assert one[0] != one[1]
    assert [[device_name(device) for device in devices] for devices in recording.given] == one


def test_a_stock_strategy_samples_within_the_cohort(tiny_run: TinyRun) -> None:
    """A cohort of 3 out of 4; FedProx, another stock strategy, sends to all it sees, that is to 3."""
    rows = rows_of(tiny_run("one", "fleet.cohort=3"), FedProx(proximal_mu=0.1))
    assert [len(members) for members in cohorts(rows)] == [3, 3]
    evaluated = rows[(rows["split"] == "test") & (rows["model"] == "global") & (rows["round"] == 2)]
    assert set(evaluated["device"]) == {f"device-{d:03d}" for d in range(4)}  # the whole fleet all the same


def test_flowers_fedavg_and_ours_agree(tiny_run: TinyRun, tmp_path: Path) -> None:
    """After one round: the same replies, averaged in float32 there and in float64 here."""
    for name, strategy in (("theirs", FedAvg()), ("ours", strategies.fedavg.FedAvg())):
        rows_of(tiny_run(name, "rounds=1"), strategy)
    ours = adapter_of(tmp_path / "ours")
    for name, tensor in adapter_of(tmp_path / "theirs").items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=2e-7)


class Interrupted(DeviceApp):
    """DA-GRPO until round 2, in which somebody presses Ctrl-C."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        if round_of(messages[0]) == 2:
            raise KeyboardInterrupt
        return super().answer(messages, contexts)


def test_fedadam_keeps_its_moments_across_a_resume(tiny_run: TinyRun, tmp_path: Path) -> None:
    whole = rows_of(tiny_run("whole"), FedAdam())
    config = tiny_run("stopped")
    algorithm = DaGrpo.client_app(config, **{k: v for k, v in config.client.items() if k != "path"}).algorithm
    with pytest.raises(KeyboardInterrupt):
        run(config, strategy=FedAdam(), client=Interrupted(config, algorithm), progress=False)
    resumed = run(config, strategy=FedAdam(), resume=config.folder, progress=False)
    pd.testing.assert_frame_equal(without_timing(resumed.rows), whole, check_exact=True)
    expected = adapter_of(tmp_path / "whole")
    assert {n: t.tobytes() for n, t in adapter_of(tmp_path / "stopped").items()} == {
        n: t.tobytes() for n, t in expected.items()
    }
