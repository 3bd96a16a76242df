"""Who is set aside for what a reply says: counts that are none, and updates too large for anybody's sum."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdagrad, FedMedian, Krum, QFedAvg, Strategy
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

import flsim
import flsim.flower.messages as wire
from flsim.config.schema import ConfigError
from flsim.flower.arrays import to_arrays
from flsim.flower.messages import DeviceUpdate
from flsim.flower.returned import StrategyError
from flsim.loop.checkpoints import latest_checkpoint
from strategies.fedavg import FedAvg
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("no_report")

TINY = ("rounds=1", "fleet.devices=3", "evaluation.every_rounds=9")
STOCK: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1, "min_evaluate_nodes": 1}


def client(counts: dict[int, float], *, step: Callable[[int], float] = lambda device: 1.0, key: str = "") -> ClientApp:
    """Devices that move by `step` and say that they learned from so many examples, 1 if nothing else is given."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        device = int(context.node_config["partition-id"])
        moved = {name: tensor + np.float32(step(device)) for name, tensor in wire.adapter_of(message).items()}
        reply = wire.train_reply(DeviceUpdate(device, moved, 1, 0.5), message)
        reply.content["metrics"] = MetricRecord(
            {**reply.content.metric_records["metrics"], key or "num-examples": counts.get(device, 1)}
        )
        return reply

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(wire.evaluate_reply((), 0, message).content, reply_to=message)

    return app


def run(tiny_run: TinyRun, strategy: Strategy, app: ClientApp) -> tuple[dict[str, str], float]:
    """Who was set aside for what, and by how much the adapter moved, in every tensor alike."""
    config = tiny_run("run")
    finished = flsim.run(config, client=app, strategy=strategy, progress=False, until=0)
    before = latest_checkpoint(config.folder)
    finished = flsim.run(None, resume=config.folder, client=app, strategy=strategy, progress=False)
    after = latest_checkpoint(config.folder)
    assert before is not None
    assert after is not None
    moves = {float(np.mean(after.adapter[name] - before.adapter[name])) for name in before.adapter}
    aside = finished.rows[finished.rows["name"] == "set_aside"]
    assert max(moves) - min(moves) < 1e-6
    return dict(zip(aside["device"], aside["task"], strict=True)), max(moves)


@pytest.mark.parametrize("count", [math.nan, math.inf, -3, 1e18, 10**12])
@pytest.mark.parametrize("strategy", [FlowerFedAvg(**STOCK), FedAvg()], ids=["Flower's", "own"])
def test_a_count_that_is_none_sets_its_device_aside(tiny_run: TinyRun, strategy: Strategy, count: float) -> None:
    """The others move by 1 and 3, of 1 and 3 examples: (1 * 1 + 3 * 3) / 4."""
    app = client({1: count, 2: 3}, step=lambda device: 1.0 + device)
    aside, moved = run(tiny_run, strategy, app)
    assert aside == {"device-001": "miscounted"}
    assert moved == pytest.approx(2.5, abs=1e-5)


def test_a_strategy_with_a_weight_of_its_own_is_held_to_that(tiny_run: TinyRun) -> None:
    strategy = FlowerFedAvg(weighted_by_key="seen", **STOCK)
    aside, moved = run(tiny_run, strategy, client({1: math.nan, 2: 0}, step=lambda device: 1.0 + device, key="seen"))
    assert aside == {"device-001": "miscounted"}
    assert moved == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "strategy",
    [FlowerFedAvg(**STOCK), FedAdagrad(**STOCK), FedMedian(**STOCK), Krum(**STOCK), QFedAvg(1.0, **STOCK), FedAvg()],
    ids=lambda strategy: f"{type(strategy).__module__.split('.')[0]} {type(strategy).__name__}",
)
def test_where_nobody_learned_from_anything_the_adapter_stays(tiny_run: TinyRun, strategy: Strategy) -> None:
    """Under stock strategies, too, which would divide by the sum of the examples."""
    assert run(tiny_run, strategy, client(dict.fromkeys(range(3), 0))) == ({}, 0.0)


@pytest.mark.parametrize(
    "strategy", [FedAdagrad(**STOCK), FlowerFedAvg(**STOCK), FedAvg()], ids=["square", "sum", "own"]
)
def test_an_update_too_large_to_be_summed_is_set_aside(tiny_run: TinyRun, strategy: Strategy) -> None:
    """Finite by itself, it would overflow where it is squared or added to another."""
    aside, moved = run(tiny_run, strategy, client({}, step=lambda device: 3e38 if device == 1 else 0.0))
    assert aside == {"device-001": "unsummable"}
    assert math.isfinite(moved)


def test_what_only_its_weight_makes_too_large_is_set_aside_alike(tiny_run: TinyRun) -> None:
    """10^6 times 10^9 is beyond what is summed exactly, on the workers or, as here, at the server."""
    aside, moved = run(tiny_run, FedAvg(), client({1: 10**9}, step=lambda device: 1e6 if device == 1 else 2.0))
    assert aside == {"device-001": "unsummable"}
    assert moved == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [({}, "min_available_nodes=2"), ({"min_available_nodes": 1}, "min_train_nodes=2")],
)
def test_a_strategy_that_waits_for_more_devices_than_a_round_has_is_refused(
    tiny_run: TinyRun, settings: dict[str, Any], wanted: str
) -> None:
    config = tiny_run("run", "fleet.devices=3", "fleet.cohort=1")
    with pytest.raises(ConfigError, match=rf"FedAvg would wait for ever: it wants {wanted} .* a round has 1 "):
        flsim.run(config, strategy=FlowerFedAvg(**settings), client=client({}), progress=False)
    assert not config.folder.exists()


def test_a_strategy_that_waits_in_its_own_way_ends_with_a_sentence(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks every moment who is there; a real one does so every second."""

    class Waits(FlowerFedAvg):
        def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
            while len(list(grid.get_node_ids())) < 4:
                time.sleep(0.01)

    monkeypatch.setattr("flsim.flower.grid._WAITED_S", 0.2)
    with pytest.raises(StrategyError, match="waits for more devices than the 3 of the round"):
        flsim.run(tiny_run("run"), strategy=Waits(**STOCK), client=client({}), progress=False)


def test_a_count_is_read_from_whatever_a_reply_holds(tmp_path: Path) -> None:
    message = Message(wire.instruction(to_arrays({"a": np.zeros(2, np.float32)}), round_=1), 1, "train")
    reply = wire.evaluate_reply((), 7, message)
    assert wire.count_of(reply) == 7
    assert wire.count_of(reply, "seen") is None
    reply.content["metrics"] = MetricRecord({"seen": [1, 2]})
    with pytest.raises(wire.UnusableReplyError, match=r"'seen' is .*must be a number in"):
        wire.count_of(reply, "seen")
