"""Whole runs on a tiny model: what a folder holds, equal rows on every engine, resumes, failures, bad input."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Strategy
from peft import PeftModel
from ray import cloudpickle
from transformers import AutoModelForCausalLM

import flsim
import flsim.flower.messages as wire
from clients.app import DeviceApp, LocalAlgorithm
from clients.da_grpo import DaGrpo
from clients.device.world import load_world
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.files import DamagedFileError
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.grid import LocalGrid, store_in
from flsim.flower.messages import DeviceUpdate
from flsim.flower.work import PackedClientApp
from flsim.loop.checkpoints import latest_checkpoint
from flsim.loop.rounds import cohort
from flsim.metrics.calibration import ROWS as CLAIMS
from flsim.metrics.rows import COLUMNS, without_timing
from flsim.models.adapter import Adapter, load_adapter
from flsim.models.base import BaseModel
from flsim.models.decoding import encode
from flsim.report.summary import read_summary
from flsim.timing import PARTS, read_timings
from strategies.base import DeltaStrategy, Update
from strategies.fedavg import FedAvg
from tests.kept import states_of
from tests.tiny import TinyRun

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find the tests

PHASES = "stream.phases=[[arithmetic,numbers],[strings,lists],[arithmetic,numbers]]"
TINY = (  # three devices in packs of two and three rounds
    "rounds=3",
    "fleet.devices=3",
    PHASES,
    "strategy.path=strategies.fedavg:FedAvg",  # the one that is summed on the workers
    "evaluation.every_rounds=1",
    "evaluation.prompts_per_task=4",
    "engine.pack=2",
    *(f"client.{key}" for key in ("steps=2", "group_size=3", "lr=0.01")),
)
TASKS = ("arithmetic", "numbers", "strings", "lists")
TRAIN_NAMES = {"reward", "alone_reward", "cloud_requests", "unanimous_groups", "difficulty"}
TRAIN_FACTS = {"dual_variable", "cloud_calls", "cloud_tokens", "cloud_money", "cloud_refused", "effective_groups"}
COUNTS = {"read_tokens", "sampled_tokens", "cut_responses", "decode_steps", "learned_tokens", "cloud_trips"}
COUNTS |= {"cloud_prompt_tokens", "cloud_completion_tokens", "cloud_up_bytes", "cloud_down_bytes"}
ENGINE_FACTS = {"downlink_bytes", "uplink_bytes", "seconds", "update_norm", "mean_cosine", "aggregation_share"}
TAKEN = {"read_tokens", "sampled_tokens", "cut_responses", "cloud_test_tokens", "cloud_test_trips", "cloud_test_bytes"}
TEST_NAMES = {"accuracy", "alone_accuracy", "kept_accuracy", "cloud_grants", "cloud_requests"} | TAKEN
CURVE_NAMES = {f"accuracy_sending_{share}" for share in range(10, 100, 10)}


@pytest.fixture(scope="module")
def finished(tiny_runs: TinyRun) -> flsim.Run:
    """The run that the others are compared with."""
    return flsim.run(tiny_runs("whole"), progress=False)


def short(tiny_runs: TinyRun, name: str, *more: str) -> Config:
    """Without most of the evaluation, for tests of other things."""
    return tiny_runs(name, "stream.phases=[[arithmetic]]", "evaluation.every_rounds=9", *more)


def algorithm_of(config: Config) -> LocalAlgorithm:
    return DaGrpo.client_app(config, **{key: value for key, value in config.client.items() if key != "path"}).algorithm


def adapter_of(folder: Path, round_: int) -> Adapter:
    """The adapter that a round committed."""
    with np.load(folder / "checkpoints" / f"round-{round_:05d}.npz") as file:
        return {name.removeprefix("adapter/"): file[name] for name in file.files if name.startswith("adapter/")}


def same_bits(one: Adapter, other: Adapter) -> bool:
    return {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}


def assert_equal_runs(one: flsim.Run, other: flsim.Run) -> None:
    """Rows but for times, the adapter, and what every device keeps: equal bit for bit."""
    pd.testing.assert_frame_equal(without_timing(one.rows), without_timing(other.rows), check_exact=True)
    assert states_of(one.folder) == states_of(other.folder)
    file = Path("adapter") / "adapter_model.safetensors"
    assert (one.folder / file).read_bytes() == (other.folder / file).read_bytes()


class Faulty(PackedClientApp):
    """Another client whose device 1 fails in one round; `everyone` fails with it if asked."""

    def __init__(self, config: Config, how: str, *, round_: int, kind: str = MessageType.TRAIN, everyone: bool = False):
        super().__init__()
        self.inner = DeviceApp(config, algorithm_of(config))
        self.how, self.round, self.kind, self.everyone = how, round_, kind, everyone

    def extras(self, base: BaseModel) -> Adapter:
        return self.inner.extras(base)

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        now = wire.round_of(messages[0]) == self.round and messages[0].metadata.message_type == self.kind
        hit = [now and (self.everyone or context.node_id == 2) for context in contexts]
        if any(hit) and self.how == "interrupt":
            raise KeyboardInterrupt
        if any(hit) and self.how == "raise":
            raise RuntimeError("out of battery")
        replies = self.inner.answer(messages, contexts)
        for reply, spoiled in zip(replies, hit, strict=True):
            if spoiled:
                arrays = {name: tensor * np.float32(np.nan) for name, tensor in wire.adapter_of(reply).items()}
                reply.content["arrays"] = to_arrays(arrays)
        return replies


def interrupted(config: Config, round_: int, kind: str = MessageType.TRAIN) -> Path:
    """A run that somebody stopped in the middle of a round: some devices have already written their states."""
    with pytest.raises(KeyboardInterrupt):
        flsim.run(config, client=Faulty(config, "interrupt", round_=round_, kind=kind), progress=False)
    return config.folder


def test_the_folder_holds_the_whole_run(finished: flsim.Run) -> None:
    folder = finished.folder
    expected = "config.yaml environment.json ledger.parquet summary.json report.html run.log rows adapter devices plots"
    assert set(expected.split()) <= {path.name for path in folder.iterdir()}
    assert [p.name for p in sorted((folder / "rows").iterdir())] == [f"round-{n:05d}.parquet" for n in range(4)]
    assert set(states_of(folder)) == {"device-000", "device-001", "device-002"}
    assert len(list((folder / "plots").glob("*.png"))) >= 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (folder / "plots").glob("*.png"))
    assert not list(folder.rglob("*.part"))
    assert finished.report == folder / "report.html"
    assert "<html" in finished.report.read_text()
    assert read_summary(folder) == finished.summary
    assert "rounds 0 to 3, 3 devices on local" in (folder / "run.log").read_text()


def test_config_and_environment_say_how_to_run_it_again(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    assert load_config(finished.folder / "config.yaml") == tiny_runs("whole")
    environment = json.loads((finished.folder / "environment.json").read_text())
    assert {"python", "machine", "commit", "packages"} <= environment.keys()
    assert environment["packages"]["torch"] == torch.__version__


def test_the_rows_say_what_was_measured(finished: flsim.Run) -> None:
    rows = finished.rows
    assert tuple(rows.columns) == COLUMNS
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    assert set(train[train["task"] != "all"]["name"]) == TRAIN_NAMES
    assert set(train[train["task"] == "all"]["name"]) == TRAIN_FACTS | COUNTS | ENGINE_FACTS
    assert set(train["round"]) == {1, 2, 3}
    for model, rounds in (
        ("global", {0, 1, 2, 3}),
        ("own", {1, 2, 3}),
        ("frozen", {0}),
        ("random", {0}),
        ("cloud", {0}),
    ):
        part = test[test["model"] == model]
        assert set(part["round"]) == rounds
        together, part = part[part["task"] == "all"], part[part["task"] != "all"]
        expected = {
            "cloud": {"accuracy"},
            "random": TEST_NAMES - TAKEN - {"cloud_requests"},
            "global": TEST_NAMES | CURVE_NAMES,
        }.get(model, TEST_NAMES)
        assert set(part["name"]) == expected
        assert len(part) == len(rounds) * 3 * 4 * part["name"].nunique()  # of 3 devices on 4 tasks
        assert (part[part["name"] != "kept_accuracy"]["weight"] == 4.0).all()
        assert set(part["task"]) == set(TASKS)
        claims, aucs = together[together["name"].isin(CLAIMS)], together[~together["name"].isin(CLAIMS)]
        assert len(aucs) == (len(rounds) * 3 * 2 if model == "global" else 0)
        assert set(aucs["name"]) <= {"asking_auc", "wrong_auc"}
        assert set(aucs["weight"]) <= {0.0, 16.0}  # of all test prompts, or of a device with one class only
        claimed = claims[claims["name"].str.startswith("claimed")]
        assert claimed["weight"].sum() == claims["weight"].sum() / 2 == 16 * len(aucs) / 2


def test_a_fresh_adapter_measures_as_the_frozen_base_in_round_0(finished: flsim.Run) -> None:
    keys = ["device", "task", "name", "total", "weight"]
    first = finished.rows[finished.rows["round"] == 0]
    first = first[first["name"].isin(TEST_NAMES)]  # curves are the global adapter's only
    fresh, frozen = (first[first["model"] == model][keys].reset_index(drop=True) for model in ("global", "frozen"))
    pd.testing.assert_frame_equal(fresh, frozen)


def test_the_ledger_is_what_the_rows_say(finished: flsim.Run) -> None:
    ledger = pd.read_parquet(finished.folder / "ledger.parquet")
    assert len(ledger) == 3 * 3  # devices and rounds
    spent = finished.rows[finished.rows["name"] == "cloud_calls"]
    assert ledger["calls"].sum() == spent["total"].sum() > 0


def test_the_bytes_on_the_wire_are_the_adapters(finished: flsim.Run) -> None:
    """Every tensor is 4 bytes per number and an npy header of 128 bytes, down and up alike."""
    adapter = adapter_of(finished.folder, 3)
    size = sum(4 * tensor.size + 128 for tensor in adapter.values())
    rows = finished.rows
    for name in ("downlink_bytes", "uplink_bytes"):
        assert rows[rows["name"] == name]["total"].tolist() == [size] * 9


def test_every_round_says_where_its_time_went(finished: flsim.Run) -> None:
    """In worker-seconds; here the one worker is the driver, which never idles."""
    timings = read_timings(finished.folder)
    assert [timing.round for timing in timings] == [0, 1, 2, 3]
    for timing in timings:
        assert timing.workers == 1
        assert timing.wall_s > 0
        assert sum(timing.parts.values()) == pytest.approx(timing.wall_s)
        assert set(timing.parts) <= set(PARTS)
        assert min(timing.parts.values()) >= 0
        assert {"store", "evaluate", "commit"} <= timing.parts.keys()
    assert all(timing.parts["train"] > 0 and timing.parts["aggregate"] > 0 for timing in timings[1:])


@pytest.mark.usefixtures("no_report")
def test_sums_on_the_workers_change_no_bit_of_a_run(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    """The same FedAvg, but it wants to see the updates, so that every adapter travels to it."""
    assert_equal_runs(flsim.run(tiny_runs("listed"), strategy=Looking(), progress=False), finished)


class Looking(FedAvg):
    """FedAvg, one update at a time."""

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        return super().aggregate(adapter, list(updates))


def stock_app() -> ClientApp:
    """Flower's own, whose devices send back what they are sent."""
    echo = ClientApp()

    @echo.train()
    def train(message: Message, context: Context) -> Message:
        return wire.train_reply(DeviceUpdate(0, wire.adapter_of(message), 1, 0.0), message)

    @echo.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return wire.evaluate_reply((), 1, message)

    return echo


class HalfRank(DeltaStrategy):
    """Sends odd devices half of the rank; the adapter stays as it is."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        sent = list(super().configure_train(server_round, arrays, config, grid))
        half = {n: t[:1] if "lora_A" in n else t[:, :1] for n, t in to_adapter(arrays).items()}
        content = RecordDict({**sent[0].content, "arrays": to_arrays(half)})
        return [wire.with_content(m, content) if m.metadata.dst_node_id % 2 == 0 else m for m in sent]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return None, None

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        return adapter


@pytest.mark.usefixtures("no_report")
def test_a_device_is_judged_by_what_it_was_sent(tiny_runs: TinyRun) -> None:
    """Device 1 is sent half of the rank and replies in kind; nobody is set aside."""
    config = short(tiny_runs, "half-rank", "rounds=1")
    rows = flsim.run(config, client=stock_app(), strategy=HalfRank(), progress=False).rows
    assert not (rows["name"] == "set_aside").any()
    sizes = {name: rows[rows["name"] == f"{name}link_bytes"].set_index("device")["total"] for name in ("up", "down")}
    assert sizes["up"].equals(sizes["down"])
    assert sizes["up"]["device-001"] < sizes["up"]["device-000"] == sizes["up"]["device-002"]


class Noting(LocalGrid):
    """Notes what had been written when it was let go, and when it was left."""

    def __init__(self, folder: Path, devices: int) -> None:
        super().__init__(stock_app(), store_in(folder), devices, 1)
        self._folder = folder
        self.noted: list[tuple[str, bool, bool]] = []

    def _note(self, what: str) -> None:
        last = self._folder / "checkpoints" / "round-00001.npz"
        self.noted.append((what, last.exists(), (self._folder / "summary.json").exists()))

    def release(self) -> None:
        self._note("let go")

    def __exit__(self, *of: Any) -> None:
        self._note("left")
        super().__exit__(*of)


@pytest.mark.usefixtures("no_pictures")
def test_the_grid_is_let_go_after_the_last_round_and_left_after_the_report(tiny_runs: TinyRun) -> None:
    """So that Ray ends while the report is made."""
    config = short(tiny_runs, "let-go", "rounds=1")
    grid = Noting(config.folder, config.fleet.devices)
    flsim.run(config, client=stock_app(), strategy=HalfRank(), progress=False, on=grid)
    assert grid.noted == [("let go", True, False), ("left", True, True)]


def test_peft_loads_the_adapter_with_equal_logits(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    config = tiny_runs("whole")
    world = load_world(config)
    saved = load_adapter(finished.folder / "adapter", like=adapter_of(finished.folder, 3))
    assert same_bits(saved, adapter_of(finished.folder, 3))
    prompts = encode(world.base, [["12+34=", "max([3,1])="]])
    ids, mask = prompts.ids[0], prompts.mask[0]
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    world.lora.attach(world.lora.stack([saved]))
    base = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    bare = base(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    theirs = PeftModel.from_pretrained(base, str(finished.folder / "adapter")).eval()
    with torch.no_grad():
        mine = world.base.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
        peft = theirs(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    torch.testing.assert_close(mine, peft, rtol=0, atol=1e-5)
    assert (mine - bare).abs().max() > 1e-3  # it learned something to compare


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ray_gives_the_rows_of_the_local_engine(
    one_ray: None, finished: flsim.Run, tiny_runs: TinyRun, workers: int
) -> None:
    on_ray = flsim.run(tiny_runs(f"ray-{workers}", "engine.kind=ray", f"engine.workers={workers}"), progress=False)
    assert_equal_runs(on_ray, finished)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_a_client_in_a_file_of_ones_own_reaches_the_workers(one_ray: None, tiny_runs: TinyRun, tmp_path: Path) -> None:
    """`client.path=my_file.py:Name` in a folder that no worker looks into."""
    file = tmp_path / "my_client.py"
    file.write_text(
        "from clients.app import DeviceApp\n"
        "from clients.da_grpo import DaGrpo\n\n\n"
        "class Halved(DaGrpo):\n"
        "    @property\n"
        "    def help_price(self):\n"
        "        return 0.5\n\n\n"
        "def app(config, **settings):\n"
        "    return DeviceApp(config, Halved(**settings))\n"
    )
    config = short(tiny_runs, "own-file", "engine.kind=ray", "rounds=1", f"client.path={file}:app")
    rows = flsim.run(config, progress=False).rows
    assert not (rows["name"] == "set_aside").any()
    assert set(rows[rows["name"] == "reward"]["device"]) == {"device-000", "device-001", "device-002"}


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_another_seed_gives_other_rows_on_the_same_test_sets(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    other = flsim.run(tiny_runs("seed-1", "seed=1"), progress=False).rows
    for split, name, same in (("train", "reward", False), ("test", "accuracy", True)):
        one, two = (
            run[(run["split"] == split) & (run["name"] == name) & (run["round"] == 3)]["weight"]
            for run in (finished.rows, other)
        )
        assert (one.tolist() == two.tolist()) == same
    assert not other["total"].equals(finished.rows["total"])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("round_", "kind"),
    [
        (2, MessageType.TRAIN),
        pytest.param(2, MessageType.EVALUATE, marks=pytest.mark.slow),
        pytest.param(0, MessageType.EVALUATE, marks=pytest.mark.slow),
    ],
    ids=["while training", "while evaluating", "before the first commit"],
)
def test_a_stopped_run_goes_on_elsewhere_as_if_it_had_not_been(
    finished: flsim.Run, tiny_runs: TinyRun, tmp_path: Path, round_: int, kind: str
) -> None:
    before = interrupted(tiny_runs(f"stopped-{round_}-{kind}"), round_, kind)
    assert not (before / "report.html").exists()
    folder = Path(shutil.move(before, tmp_path / "moved"))
    resumed = flsim.run(resume=folder, progress=False)
    assert_equal_runs(resumed, finished)
    assert resumed.report == folder / "report.html"
    assert resumed.report.exists()
    assert not before.exists()


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_what_an_uncommitted_round_left_behind_is_written_again(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    """Killed between the rows of round 2 and its checkpoint: states and rows of round 2 are there, and some of 3."""
    folder = interrupted(tiny_runs("uncommitted"), 3)
    (folder / "checkpoints" / "round-00002.npz").unlink()
    rows = folder / "rows" / "round-00002.parquet"
    rows.write_bytes(rows.read_bytes()[:100])
    assert list((folder / "devices").glob("round-00002-*.states"))
    assert_equal_runs(flsim.run(resume=folder, progress=False), finished)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_the_mend_works(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    """Stopped in round 3 after some devices had learned; the checkpoint of round 2 is damaged, that of 1 is good."""
    folder = interrupted(tiny_runs("damaged"), 3, MessageType.EVALUATE)
    path = folder / "checkpoints" / "round-00002.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DamagedFileError, match="delete it to go on from the round before it") as caught:
        flsim.run(resume=folder, progress=False)
    assert str(path) in str(caught.value)
    path.unlink()
    assert_equal_runs(flsim.run(resume=folder, progress=False), finished)


@pytest.mark.usefixtures("no_pictures")
def test_resuming_a_finished_run_only_reports_again_wherever_it_is_told_to_run(
    finished: flsim.Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    before = {path.name: path.read_bytes() for path in (folder / "rows").iterdir()}
    (folder / "report.html").unlink()
    again = flsim.run(None, ["engine.workers=7", "engine.kind=ray"], resume=folder, progress=False)
    assert again.report.exists()
    assert again.summary == finished.summary
    assert {path.name: path.read_bytes() for path in (folder / "rows").iterdir()} == before


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("how", "reason", "detail"), [("raise", "raised", "out of battery"), ("nan", "not_finite", "NaN")]
)
def test_a_device_that_fails_is_set_aside_and_the_run_goes_on(
    tiny_runs: TinyRun, how: str, reason: str, detail: str
) -> None:
    config = short(tiny_runs, f"fault-{how}")
    rows = flsim.run(config, client=Faulty(config, how, round_=2), progress=False).rows
    aside = rows[rows["name"] == "set_aside"]
    assert aside[["round", "device", "task", "total", "weight"]].values.tolist() == [
        [2, "device-001", reason, 1.0, 1.0]
    ]
    learned = rows[rows["name"] == "dual_variable"].groupby("round")["device"].apply(list).to_dict()
    everyone = ["device-000", "device-001", "device-002"]
    assert learned == {1: everyone, 2: ["device-000", "device-002"], 3: everyone}
    (line,) = [line for line in (config.folder / "run.log").read_text().splitlines() if "set aside" in line]
    assert f"round 2: device-001 is set aside, {reason}: " in line
    assert detail in line


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("strategy", [FedAvg, FlowerFedAvg])
def test_a_round_in_which_everyone_fails_leaves_the_adapter_as_it_was(
    tiny_runs: TinyRun, strategy: type[Strategy]
) -> None:
    config = short(tiny_runs, f"all-fail-{strategy.__module__}")
    client = Faulty(config, "nan", round_=3, everyone=True)
    rows = flsim.run(config, client=client, strategy=strategy(), progress=False).rows
    assert (rows[rows["name"] == "set_aside"]["round"] == 3).sum() == 3
    assert same_bits(adapter_of(config.folder, 2), adapter_of(config.folder, 3))
    assert any(np.abs(tensor).max() > 0 for name, tensor in adapter_of(config.folder, 3).items() if "lora_B" in name)


@pytest.mark.usefixtures("no_report")
def test_a_failed_evaluation_is_logged_and_the_run_goes_on(tiny_runs: TinyRun) -> None:
    config = short(tiny_runs, "blind", "rounds=1")
    rows = flsim.run(config, client=Faulty(config, "raise", round_=1, kind=MessageType.EVALUATE), progress=False).rows
    measured = rows[(rows["model"] == "global") & (rows["round"] == 1)]
    assert set(measured["device"]) == {"device-000", "device-002"}
    assert "round 1: no evaluation of device-001: raised: RuntimeError" in (config.folder / "run.log").read_text()


def test_a_cohort_is_a_pure_function_of_seed_and_round() -> None:
    config = load_config(None, ["fleet.devices=20", "fleet.cohort=5"])
    forwards = {round_: cohort(config, round_) for round_ in range(1, 201)}
    backwards = {round_: cohort(config, round_) for round_ in range(200, 0, -1)}
    assert forwards == backwards
    for members in forwards.values():
        assert members == sorted(set(members))
        assert len(members) == 5
    assert len({tuple(members) for members in forwards.values()}) > 150
    assert cohort(replace(config, seed=1), 1) != forwards[1] or cohort(replace(config, seed=1), 2) != forwards[2]


def test_every_device_has_its_turn() -> None:
    """400 rounds of 5 of 20: each device is in 100 on average, with a standard deviation of sqrt(400 * 3/16) = 8.7."""
    config = load_config(None, ["fleet.devices=20", "fleet.cohort=5"])
    turns = np.bincount([device for round_ in range(400) for device in cohort(config, round_)], minlength=20)
    assert turns.sum() == 2000
    assert turns.min() > 100 - 5 * 8.7
    assert turns.max() < 100 + 5 * 8.7


def test_without_a_cohort_everyone_takes_part() -> None:
    assert cohort(load_config(None, ["fleet.devices=4"]), 7) == [0, 1, 2, 3]


@pytest.mark.usefixtures("no_report")
def test_only_the_cohort_learns_and_the_whole_fleet_is_measured(tiny_runs: TinyRun) -> None:
    config = short(tiny_runs, "cohort", "fleet.devices=4", "fleet.cohort=2")
    rows = flsim.run(config, progress=False).rows
    for round_ in (1, 2, 3):
        part = rows[rows["round"] == round_]
        chosen = [f"device-{device:03d}" for device in cohort(config, round_)]
        assert part[part["name"] == "dual_variable"]["device"].tolist() == chosen
    assert rows[(rows["round"] == 3) & (rows["model"] == "global")]["device"].nunique() == 4


def test_an_existing_run_is_not_overwritten(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    before = (finished.folder / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="is not empty") as caught:
        flsim.run(tiny_runs("whole", "rounds=5"), progress=False)
    assert str(finished.folder) in str(caught.value)
    assert "flsim resume" in str(caught.value)
    assert (finished.folder / "config.yaml").read_bytes() == before


def test_resuming_with_another_config_names_the_key_and_both_values(finished: flsim.Run) -> None:
    with pytest.raises(ConfigError, match=r"budget\.tau: 0\.3 -> 0\.5"):
        flsim.run(None, ["budget.tau=0.5"], resume=finished.folder, progress=False)
    with pytest.raises(ConfigError, match=r"client\.lr: 0\.01 -> 0\.02"):
        flsim.run(None, ["client.lr=0.02"], resume=finished.folder, progress=False)


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="holds no run"):
            flsim.run(resume=folder, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.path=/nowhere", "holds no checkpoint"),
        ("model.targets=[nothing]", "model.targets"),
        ("strategy.path=strategies.fedavg:Nothing", "has no 'Nothing'"),
        ("strategy.server_lrr=1", "it takes: server_lr"),
        ("client.group_size=1", "must be at least 2"),
        ("client.grup_size=4", "grup_size"),
        ("fleet.cohort=4", "more than fleet.devices=3"),
    ],
)
def test_bad_settings_are_refused_before_a_folder_is_made(tiny_runs: TinyRun, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flsim.run(tiny_runs("refused", setting), progress=False)
    assert not (tiny_runs("any").folder.parent / "refused").exists()


@pytest.mark.slow
def test_a_run_may_start_from_the_adapter_of_another(tiny_runs: TinyRun) -> None:
    first = flsim.run(short(tiny_runs, "first", "rounds=1"), progress=False)
    second = flsim.run(
        short(tiny_runs, "second", "rounds=1", f"model.adapter={first.folder / 'adapter'}"), progress=False
    )
    assert same_bits(adapter_of(second.folder, 0), adapter_of(first.folder, 1))
    checkpoint = latest_checkpoint(second.folder)
    assert checkpoint is not None
    assert not same_bits(checkpoint.adapter, adapter_of(first.folder, 1))
    assert measured_first(second, "frozen", "accuracy").equals(
        measured_first(second, "global", "accuracy")
    )  # what it starts from
    assert measured_first(second, "base", "alone_accuracy").equals(measured_first(first, "frozen", "alone_accuracy"))
    assert measured_first(first, "base", "alone_accuracy").empty
    assert set(second.summary.at_end) - set(first.summary.at_end) == {"base"}


def measured_first(run: flsim.Run, model: str, name: str) -> pd.DataFrame:
    """What a run measured of a model before training."""
    found = run.rows[(run.rows["round"] == 0) & (run.rows["model"] == model) & (run.rows["name"] == name)]
    return found[["device", "task", "total", "weight"]].reset_index(drop=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": -1}, "until=-1 must be at least 0"),
        ({"strategy": object()}, "is no Flower strategy"),
        ({"client": object()}, "is no Flower ClientApp"),
        ({"overrides": ["stage.path=strategies.fedavg:FedAvg"]}, "stage=FedAvg is no stage"),
    ],
)
def test_what_is_of_another_kind_is_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    overrides = [f"run_dir={tmp_path / 'run'}", "engine.kind=local", *given.pop("overrides", [])]
    with pytest.raises(ConfigError, match=said):
        flsim.run("demo", overrides, progress=False, **given)
    assert not (tmp_path / "run").exists()
