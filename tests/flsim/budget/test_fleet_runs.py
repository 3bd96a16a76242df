"""Runs with a fleet budget on a tiny model: caps hold on every engine, after failures and after a kill."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flwr.app import Context, Message, MessageType
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from ray import cloudpickle

import flsim
import flsim.flower.messages as wire
from clients.app import DeviceApp
from clients.da_grpo import DaGrpo
from flsim.config.schema import DIVISIONS, Config, ConfigError
from flsim.flower.work import PackedClientApp
from flsim.loop.checkpoints import latest_checkpoint
from flsim.loop.rounds import cohort
from flsim.metrics.rows import read_rows, without_timing
from flsim.report.summary import Charged
from flsim.report.table import end_table
from tests.kept import states_of
from tests.tiny import TinyRun, without_report

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find the tests

TINY = (  # four devices of unequal traffic in packs of two, three rounds; prices are a money unit per token
    "rounds=3",
    "fleet.devices=4",
    "stream.quantity_sigma=0.8",
    "cloud.price_per_prompt_token=0.3",
    "cloud.price_per_completion_token=0.7",
    "evaluation.every_rounds=3",
    "evaluation.prompts_per_task=10",
    "engine.pack=2",
    *(f"client.{key}" for key in ("steps=2", "prompts=4", "group_size=4", "lr=0.01")),
    *(f"client.{key}" for key in ("policy=token", "imitate=0", "replay=0")),  # wishes for more than a head does
)
CAPS = {"calls": 20, "tokens": 300, "money": 150.0}  # a third to a half of what the devices wish for


def rows_of(config: Config, **more: Any) -> pd.DataFrame:
    return flsim.run(config, progress=False, **more).rows


def named(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of the devices."""
    return rows[(rows["name"] == name) & (rows["split"] == "train")]


def of_fleet(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    return rows[(rows["name"] == name) & (rows["split"] == "fleet")]


class Faulty(PackedClientApp):
    """Device 1 raises in round 2, after it has asked; or somebody stops the run there."""

    def __init__(self, config: Config, error: type[BaseException]) -> None:
        super().__init__()
        settings = {key: value for key, value in config.client.items() if key != "path"}
        self.inner: DeviceApp = DaGrpo.client_app(config, **settings)
        self.error = error

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        replies = self.inner.answer(messages, contexts)
        training = messages[0].metadata.message_type == MessageType.TRAIN
        if training and wire.round_of(messages[0]) == 2 and any(context.node_id == 2 for context in contexts):
            raise self.error("out of battery")
        return replies


CASES = [(share, kind) for share in DIVISIONS for kind in CAPS]
QUICK = {*((share, "calls") for share in DIVISIONS), ("price", "tokens"), ("traffic", "money")}


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("share", "kind"), [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_the_fleet_never_passes_its_cap(tiny_runs: TinyRun, share: str, kind: str) -> None:
    """The cap binds (devices are refused), nearly all of it is spent, and no device passes its own allowance."""
    cap = CAPS[kind]
    capped = f"budget.fleet.division={share}", f"budget.fleet.{kind}_total={cap}"
    slow = () if share == "price" else ("client.dual_lr=0.1",)  # so that no two devices' lambdas meet at the clip
    rows = rows_of(tiny_runs(f"{share}-{kind}", *capped, *slow))
    spent = named(rows, f"cloud_{kind}").set_index(["round", "device"])["total"]
    allowed = named(rows, f"allotment_{kind}").set_index(["round", "device"])["total"]
    assert len(spent) == len(allowed) == 12
    assert (spent <= allowed).all()
    assert (allowed.groupby("round").sum() <= cap - spent.groupby("round").sum().cumsum().shift(fill_value=0)).all()
    assert 0.6 * cap < spent.sum() <= cap
    assert named(rows, "cloud_refused")["total"].sum() > 0
    booked = of_fleet(rows, f"spent_{kind}")
    assert booked["total"].tolist() == pytest.approx(spent.groupby("round").sum().cumsum().tolist())
    assert booked["weight"].tolist() == [cap] * 3
    assert set(booked["device"]) == {""}
    price = named(rows, "dual_variable").groupby("round")["total"]
    if share == "price":
        assert price.nunique().tolist() == [1, 1, 1]
        assert of_fleet(rows, "dual_variable")["total"].tolist() == price.first().tolist()
        assert price.first().nunique() == 3
    else:
        assert price.nunique().tolist() == [4, 4, 4]
        assert of_fleet(rows, "dual_variable").empty


@pytest.mark.usefixtures("no_report")
def test_the_test_budgets_follow_the_shares(tiny_runs: TinyRun) -> None:
    """Equally: tau_k = tau (mean n) / n_k from the second round on, and on tests floor(tau_k N) at most, N = 10."""
    config = tiny_runs("targets", "budget.fleet.division=equally", "budget.tau=0.3")
    rows = rows_of(config)
    prompts = named(rows, "difficulty")[lambda found: found["round"] == 1].set_index("device")["weight"]
    assert prompts.nunique() > 1
    targets = named(rows, "target_usage").set_index(["round", "device"])["total"]
    assert (targets[1] == 0.3).all()
    assert targets[2].tolist() == pytest.approx((0.3 * prompts.mean() / prompts).clip(upper=1).tolist())
    tests = rows[(rows["split"] == "test") & (rows["name"] == "cloud_grants") & (rows["model"] == "global")]
    last = tests[tests["round"] == 3].set_index("device")["total"]
    scale = min(1.0, 0.3 / targets[3].mean())
    assert (last <= (10 * scale * targets[3] + 1e-9) // 1).all()
    assert 0 < last.sum() <= 0.3 * 40


PRICED = ("budget.fleet.division=price", "budget.fleet.calls_total=20", "budget.fleet.tokens_total=300")


@pytest.fixture(scope="module")
def priced(tiny_runs: TinyRun) -> Path:
    """A run in one process, in which device 1 fails in round 2; the others must equal it."""
    config = tiny_runs("priced", *PRICED)
    with without_report():
        return flsim.run(config, client=Faulty(config, RuntimeError), progress=False).folder


def assert_equal_runs(one: Path, other: Path) -> None:
    mine, theirs = (without_timing(read_rows(folder)) for folder in (one, other))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert states_of(one) == states_of(other)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.usefixtures("no_report", "one_ray")
@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_rows(tiny_runs: TinyRun, priced: Path, workers: int) -> None:
    config = tiny_runs(f"ray-{workers}", *PRICED, "engine.kind=ray", f"engine.workers={workers}")
    assert_equal_runs(flsim.run(config, client=Faulty(config, RuntimeError), progress=False).folder, priced)


@pytest.mark.usefixtures("no_report")
def test_a_stopped_run_goes_on_with_the_fleets_budget_as_it_was(tiny_runs: TinyRun, priced: Path) -> None:
    stopped = tiny_runs("stopped", *PRICED)
    with pytest.raises(KeyboardInterrupt):
        flsim.run(stopped, client=Faulty(stopped, KeyboardInterrupt), progress=False)
    kept = latest_checkpoint(stopped.folder)
    assert kept is not None
    assert kept.fleet is not None
    assert kept.round == 1
    assert kept.fleet.calls > 0
    assert len(kept.fleet.habits) == 4
    resumed = flsim.run(resume=stopped.folder, client=Faulty(stopped, RuntimeError), progress=False)
    assert_equal_runs(resumed.folder, priced)


@pytest.mark.usefixtures("no_report")
def test_a_device_that_fails_is_charged_what_its_journal_says_it_spent(tiny_runs: TinyRun) -> None:
    """Its rows say the same, though it sent no reply."""
    config = tiny_runs("fails", "budget.fleet.calls_total=20")
    rows = rows_of(config, client=Faulty(config, RuntimeError))
    assert named(rows, "set_aside")["device"].tolist() == ["device-001"]
    allowed = named(rows, "allotment_calls").set_index(["round", "device"])["total"]
    own = named(rows, "cloud_calls").set_index(["round", "device"])["total"]
    assert 0 < own[2, "device-001"] <= allowed[2, "device-001"]
    spent = own.groupby("round").sum()
    charged = of_fleet(rows, "spent_calls").set_index("round")["total"]
    assert charged[2] - charged[1] == spent[2]
    assert charged[3] == spent.sum() <= 20


@pytest.mark.usefixtures("no_report")
def test_flowers_own_strategies_share_the_budget_too(tiny_runs: TinyRun) -> None:
    rows = rows_of(tiny_runs("stock", "budget.fleet.calls_total=20"), strategy=FlowerFedAvg())
    assert 12 < named(rows, "cloud_calls")["total"].sum() <= 20


@pytest.mark.usefixtures("no_report")
def test_only_the_cohort_is_allotted_anything(tiny_runs: TinyRun) -> None:
    config = tiny_runs("cohort", "budget.fleet.calls_total=9", "fleet.cohort=2", "seed=3")
    rows = rows_of(config)
    allowed = named(rows, "allotment_calls").groupby("round")
    assert allowed["device"].apply(list).tolist() == [
        [f"device-{device:03d}" for device in cohort(config, round_)] for round_ in (1, 2, 3)
    ]
    spent = named(rows, "cloud_calls").groupby("round")["total"].sum()
    assert allowed["total"].sum().tolist() == [3, 3 + (3 - spent[1]) // 2, 9 - spent[1] - spent[2]]
    assert 0 < spent.sum() <= 9


@pytest.mark.usefixtures("no_pictures")
def test_the_report_says_what_was_spent_of_the_cap(tiny_runs: TinyRun) -> None:
    """And the fleet is no user: there are four devices."""
    run = flsim.run(tiny_runs("report", *PRICED), progress=False)
    calls = named(run.rows, "cloud_calls")["total"].sum()
    found = run.summary.fleet_budget
    assert found is not None
    assert found.calls == Charged(spent=calls, cap=20.0)
    assert found.tokens is not None
    assert found.tokens.cap == 300.0
    assert found.price == named(run.rows, "dual_variable")["total"].iloc[-1]
    assert run.summary.devices == 4
    assert run.summary.at_end["global"]["accuracy"].users == 4
    assert f"fleet's budget: calls {calls:.0f} of 20, tokens " in end_table(run.summary)
    assert "budget, calls" in run.report.read_text()
    assert f"{calls:.0f} of 20" in run.report.read_text()


def test_settings_of_ones_own_dual_variable_contradict_one_price(tiny_runs: TinyRun) -> None:
    with pytest.raises(ConfigError, match=r"dual_lr would move .*set budget\.fleet\.price_init"):
        flsim.run(tiny_runs("refused", "budget.fleet.division=price", "client.dual_lr=0.2"), progress=False)
    DaGrpo.client_app(tiny_runs("kept", "budget.fleet.division=traffic"), dual_lr=0.2)
