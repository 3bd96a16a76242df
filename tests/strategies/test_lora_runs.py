"""Whole runs with every kind of strategy: unequal ranks, parts of adapters, residuals, resumes, what is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Context, Message
from peft import PeftModel
from transformers import AutoModelForCausalLM

import flsim
from clients.app import DeviceApp
from clients.da_grpo import DaGrpo
from clients.device.world import load_world
from flsim.config.schema import Config, ConfigError
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.messages import round_of
from flsim.flower.returned import StrategyError
from flsim.loop.checkpoints import latest_checkpoint
from flsim.loop.checks import check
from flsim.metrics.rows import without_timing
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from flsim.models.stacked_lora import StackedLora
from strategies.base import DeltaStrategy, Update
from strategies.fedavg import FedAvg
from strategies.fedex_lora import FedExLora
from strategies.fedsa_lora import FedSaLora
from strategies.ffa_lora import FfaLora
from strategies.flex_lora import FlexLora
from strategies.flora import Flora
from strategies.local_only import LocalOnly
from strategies.parts.server_optimizers import Adam
from strategies.parts.weighters import RewardGain
from strategies.rolora import RoLora
from tests.tiny import TOKEN_RUN, TinyRun

pytestmark = pytest.mark.usefixtures("no_report")

TINY = (
    "model.rank=4",
    "model.alpha=8",
    "fleet.devices=4",
    "evaluation.prompts_per_task=4",
    "engine.pack=2",
    *(f"client.{key}" for key in ("steps=2", "group_size=4", "lr=0.01")),
    *TOKEN_RUN,  # LoRA alone; test_heads.py has what is learned beside it
)
UNEQUAL = ("fleet.ranks=[4,2,3]", "fleet.alphas=[8,6,3]")


def go(config: Config, strategy: DeltaStrategy, **more: Any) -> flsim.Run:
    return flsim.run(config, strategy=strategy, progress=False, **more)


def bytes_of(run: flsim.Run, name: str) -> dict[str, float]:
    rows = run.rows[run.rows["name"] == name]
    return {str(device): float(total) for device, total in rows.groupby("device")["total"].sum().items()}


def server_adapter(folder: Path) -> Adapter:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.adapter


@pytest.mark.parametrize("make", [FedAvg, FlexLora, FedExLora, Flora, FfaLora, RoLora, FedSaLora, LocalOnly])
def test_it_runs_on_unequal_ranks_and_packs_do_not_matter(tiny_run: TinyRun, make: Callable[[], Any]) -> None:
    """Two packs or four: the same figures within rounding, and every device's training is measured."""
    found = [go(tiny_run(f"packs-{pack}", f"engine.pack={pack}", *UNEQUAL), make()).rows for pack in (2, 1)]
    for rows in found:
        assert not (rows["name"] == "set_aside").any()
        assert rows.loc[rows["name"] == "reward", "device"].nunique() == 4
    one, other = (rows[rows["name"] == "update_norm"]["total"].to_numpy() for rows in found)
    np.testing.assert_allclose(one, other, rtol=2e-2, atol=1e-6)


@pytest.mark.slow
def test_what_travels_is_counted(tiny_run: TinyRun) -> None:
    up = {}
    for make in (FedAvg, FfaLora, RoLora, FedSaLora, LocalOnly, Flora):
        run = go(tiny_run(make.__name__), make())
        up[make.__name__] = sum(bytes_of(run, "uplink_bytes").values())
        down = sum(bytes_of(run, "downlink_bytes").values())
        if make is LocalOnly:
            assert down == 0
        if make is Flora:
            assert down > 1.5 * up["FedAvg"]  # the residual comes along in the second round
    assert up["LocalOnly"] == 0
    assert up["FfaLora"] + up["FedSaLora"] == pytest.approx(up["FedAvg"], rel=1e-9)
    assert up["RoLora"] == pytest.approx(up["FedAvg"] / 2, rel=1e-9)  # B in round 1, A in round 2


def test_a_smaller_rank_sends_less(tiny_run: TinyRun) -> None:
    up = bytes_of(go(tiny_run("ranks", *UNEQUAL), FlexLora()), "uplink_bytes")
    assert up["device-000"] == up["device-003"] > up["device-002"] > up["device-001"]


def test_ffa_never_moves_a(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run("ffa", *UNEQUAL)
    go(config, FfaLora())
    start, end = first_adapter(config.model, config.seed), server_adapter(tmp_path / "ffa")
    for name, tensor in start.items():
        assert np.array_equal(end[name], tensor) == ("lora_A" in name), name


def test_devices_alone_learn_what_they_would_learn_in_fleets_of_one(tiny_run: TinyRun, tmp_path: Path) -> None:
    """LocalOnly in a fleet of four equals FedAvg over each single device: rewards of both rounds, bit for bit.

    With packs of one; the cohort of the second run is one device of the same fleet.
    """
    alone = go(tiny_run("alone", "engine.pack=1", "evaluation.every_rounds=9"), LocalOnly()).rows
    for device in range(2):

        class Only(FedAvg):
            def configure_train(self, *args: Any) -> Any:
                return [m for m in super().configure_train(*args) if m.metadata.dst_node_id == device + 1]  # noqa: B023

        single = go(tiny_run(f"only-{device}", "engine.pack=1", "evaluation.every_rounds=9"), Only()).rows
        name = f"device-{device:03d}"
        rewards = [r[(r["name"] == "reward") & (r["device"] == name)]["total"].tolist() for r in (alone, single)]
        assert len(rewards[0]) == 2
        assert rewards[0] == rewards[1]


@pytest.mark.parametrize("make", [FedSaLora, LocalOnly])
def test_what_a_device_keeps_is_what_it_is_measured_with(
    tiny_run: TinyRun, tmp_path: Path, make: Callable[[], Any]
) -> None:
    """The adapter after the last round is server's part and own part; both models are measured on the same tests.

    For LocalOnly nothing changes between a device's last step and its measurement, so `global` equals `local`.
    """
    rows = go(tiny_run("own"), make()).rows
    tests = rows[(rows["round"] == 2) & (rows["split"] == "test") & (rows["name"] == "alone_accuracy")]
    by_model = {model: part.set_index("device")["total"] for model, part in tests.groupby("model")}
    if make is LocalOnly:
        pd.testing.assert_series_equal(by_model["global"], by_model["own"])
    kept = list((tmp_path / "own" / "devices").rglob("*.states"))
    assert kept


def dense_logits(folder: Path, base: Path, ids: torch.Tensor) -> torch.Tensor:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    with torch.no_grad():
        return torch.as_tensor(model(ids).logits)


@pytest.mark.parametrize("make", [FedExLora, Flora])
def test_the_saved_adapter_is_the_model_with_all_that_was_merged(
    tiny_run: TinyRun, tiny_checkpoint: Path, tmp_path: Path, make: Callable[[], Any]
) -> None:
    """peft loads one adapter from the folder; a worker merges the residual into the base: the same logits."""
    config = tiny_run("merged", *UNEQUAL)
    strategy = make()
    go(config, strategy)
    world = load_world(config)
    ids = torch.randint(3, 40, (2, 6), generator=torch.Generator().manual_seed(0))
    world.lora.merge(strategy.residual)
    world.lora.attach(world.lora.stack([server_adapter(tmp_path / "merged")]))
    with torch.no_grad():
        ours = world.base.model(ids).logits
    theirs = dense_logits(tmp_path / "merged" / "adapter", tiny_checkpoint, ids)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    world.lora.merge(None)
    with torch.no_grad():
        assert not torch.allclose(world.base.model(ids).logits, ours, atol=1e-3)


class Interrupted(DeviceApp):
    """DA-GRPO until round 2, in which somebody presses Ctrl-C."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        if round_of(messages[0]) == 2:
            raise KeyboardInterrupt
        return super().answer(messages, contexts)


@pytest.mark.parametrize(
    "make",
    [lambda: FlexLora(optimizer=Adam(lr=0.01), weighter=RewardGain()), FedExLora, Flora, FedSaLora, RoLora],
    ids=["flex", "fedex", "flora", "fedsa", "rolora"],
)
def test_what_a_strategy_keeps_survives_a_resume(
    tiny_run: TinyRun, tmp_path: Path, make: Callable[[], DeltaStrategy]
) -> None:
    config = tiny_run("stopped", "rounds=3", *UNEQUAL)
    whole = go(tiny_run("whole", "rounds=3", *UNEQUAL), make())
    algorithm = DaGrpo.client_app(config, **{k: v for k, v in config.client.items() if k != "path"}).algorithm
    with pytest.raises(KeyboardInterrupt):
        go(config, make(), client=Interrupted(config, algorithm))
    resumed = go(config, make(), resume=config.folder)
    pd.testing.assert_frame_equal(without_timing(resumed.rows), without_timing(whole.rows), check_exact=True)
    one, other = server_adapter(tmp_path / "stopped"), server_adapter(tmp_path / "whole")
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}


def test_health_is_in_the_rows(tiny_run: TinyRun) -> None:
    rows = go(tiny_run("health", *UNEQUAL), FlexLora()).rows
    of_server = rows[(rows["split"] == "fleet") & (rows["round"] == 2)].set_index("name")["total"]
    assert set(of_server.index) == {"aggregation_bias", "cut_energy", "effective_devices", "update_cosine"}
    assert 0 < of_server["aggregation_bias"] < 2
    assert 0 <= of_server["cut_energy"] < 1
    assert 1 < of_server["effective_devices"] <= 4
    assert -1 <= of_server["update_cosine"] <= 1
    shares = rows[(rows["name"] == "aggregation_share") & (rows["round"] == 2)]
    assert shares["total"].sum() == pytest.approx(1)
    assert (rows[rows["name"] == "update_norm"]["total"] > 0).all()


def test_a_streamed_cohort_gives_the_same_bits_and_says_less(tiny_run: TinyRun, tmp_path: Path) -> None:
    listed = go(tiny_run("listed", "engine.stream=4"), FedAvg())
    streamed = go(tiny_run("streamed", "engine.stream=3"), FedAvg())
    one, other = server_adapter(tmp_path / "listed"), server_adapter(tmp_path / "streamed")
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}
    assert set(streamed.rows[streamed.rows["split"] == "fleet"]["name"]) == {"effective_devices"}
    assert "aggregation_bias" in set(listed.rows["name"])


def returning(what: Callable[[Adapter], Any]) -> DeltaStrategy:
    """A strategy that returns this in its second round."""

    class Returning(DeltaStrategy):
        rounds = 0

        def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
            self.rounds += 1
            returned: Adapter = what(adapter) if self.rounds == 2 else adapter
            return returned

    return Returning()


def first(adapter: Adapter) -> str:
    return next(iter(adapter))


OTHER = "returned another adapter than it was given: "


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda a: None, "returned None instead of the next adapter; return a dict"),
        (lambda a: [1, 2], "returned a list instead"),
        (lambda a: {n: t for n, t in a.items() if n != first(a)}, OTHER + "1 tensors are missing and 0 unknown"),
        (lambda a: a | {first(a): a[first(a)][:1]}, OTHER + r".* has shape \(1, 48\), expected \(4, 48\); return a"),
        (lambda a: a | {first(a): a[first(a)] * np.nan}, "returned NaN or infinity, first in .*lora_A.*division"),
        (lambda a: a | {first(a): "twelve"}, "returned tensors that are no numbers"),
    ],
    ids=["none", "list", "key", "shape", "nan", "text"],
)
def test_a_wrong_return_is_refused_with_the_strategys_file(
    tiny_run: TinyRun, tmp_path: Path, what: Callable[[Adapter], Any], message: str
) -> None:
    """In round 2; what round 1 committed is still there, so that a mended strategy can go on."""
    config = tiny_run("wrong")
    with pytest.raises(StrategyError, match=rf"Returning \(.*test_lora_runs\.py:\d+\) {message}"):
        go(config, returning(what))
    checkpoint = latest_checkpoint(tmp_path / "wrong")
    assert checkpoint is not None
    assert checkpoint.round == 1
    resumed = go(config, returning(lambda adapter: adapter), resume=config.folder)
    assert resumed.rows["round"].max() == 2


def test_a_stock_strategy_refuses_unequal_ranks_before_anything_is_written(tiny_run: TinyRun, tmp_path: Path) -> None:
    from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

    with pytest.raises(ConfigError, match=r"FedAvg sends every device the same adapter, but fleet.ranks=\[4, 2, 3\]"):
        flsim.run(tiny_run("stock", *UNEQUAL), strategy=FlowerFedAvg(), progress=False)
    assert not (tmp_path / "stock").exists()


def test_parts_are_built_from_the_shell(tiny_run: TinyRun) -> None:
    from flsim.config.plugins import build

    spec = tiny_run(
        "shell",
        "strategy.path=strategies.flex_lora:FlexLora",
        "strategy.average=adapters",
        "strategy.weighter.path=strategies.parts.weighters:QFair",
        "strategy.weighter.q=2",
        "strategy.optimizer.path=strategies.parts.server_optimizers:Adam",
        "strategy.sampler.path=strategies.parts.samplers:RandomShare",
    ).strategy
    strategy = build("strategy", spec)
    assert (type(strategy).__name__, strategy.average, strategy.weighter.q) == ("FlexLora", "adapters", 2)
    assert type(strategy.optimizer) is Adam
    with pytest.raises(
        ConfigError, match=r"strategies.parts.weighters:QFair.*settings of strategy.weighter.*it takes: q"
    ):
        build(
            "strategy",
            {"path": "strategies.flex_lora:FlexLora", "weighter": {"path": "strategies.parts.weighters:QFair", "p": 1}},
        )


def test_ranks_are_checked(tiny_run: TinyRun) -> None:
    with pytest.raises(ConfigError, match=r"fleet.ranks=9 must be in \[1, 4\]"):
        check(tiny_run("high", "fleet.ranks=[9]"))
    with pytest.raises(ConfigError, match=r"fleet.alphas=\[1.0\] must hold one alpha for each of fleet.ranks=\[4, 2\]"):
        check(tiny_run("few", "fleet.ranks=[4,2]", "fleet.alphas=[1]"))


def test_the_residual_travels_in_the_adapters_own_names(tiny_run: TinyRun) -> None:
    """Of every layer, and a device's base is its own again in the next run of the same worker."""
    config = tiny_run("names")
    strategy = Flora()
    go(config, strategy)
    assert strategy.residual is not None
    assert set(strategy.residual) == set(first_adapter(config.model, config.seed))
    world = load_world(config)
    weights = {n: t.clone() for n, t in world.base.model.state_dict().items()}
    world.lora.merge(strategy.residual)
    world.lora.merge(to_adapter(to_arrays(strategy.residual)))
    world.lora.merge(None)
    assert all(torch.equal(t, weights[n]) for n, t in world.base.model.state_dict().items())


def test_a_residual_is_merged_once_a_round_for_all_packs(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packs train in round 2 with what round 1 left, and two are measured with what round 2 left."""
    merged: list[bool] = []
    merge = StackedLora.merge

    def noting(self: StackedLora, residual: Adapter | None) -> None:
        merged.append(residual is not None)
        merge(self, residual)

    monkeypatch.setattr(StackedLora, "merge", noting)
    go(tiny_run("once"), Flora())
    assert merged == [True, True]
