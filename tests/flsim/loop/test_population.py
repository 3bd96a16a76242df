"""Large fleets of which few take part: a device is what it is in any fleet, and a million of them start and go on."""

import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

import flsim
import flsim.flower.messages as wire
from clients.da_grpo import DaGrpo
from flsim.config.schema import Config, ConfigError
from flsim.devices import device_name, node_of
from flsim.flower.arrays import to_arrays
from flsim.flower.grid import identify, store_in
from flsim.flower.store import Saved
from flsim.flower.work import answer_pack
from flsim.loop.checks import check_settings
from flsim.loop.rounds import cohort
from flsim.metrics.rows import read_rows, without_timing
from flsim.models.base import first_adapter
from flsim.tasks.testing import panel
from tests.kept import states_of
from tests.tiny import TOKEN_RUN, TinyRun

MILLION = ("fleet.devices=1000000", "fleet.cohort=3", "evaluation.devices=2")
TINY = ("rounds=4", "client.group_size=2", "client.lr=0.01", "evaluation.every_rounds=4")


def life_of(config: Config, devices: list[int]) -> tuple[list[Any], list[bytes]]:
    """Two rounds of some devices and their tests, as a worker has them: rows and adapters, and what they keep."""
    identify()
    settings = {key: value for key, value in config.client.items() if key != "path"}
    app, store = DaGrpo.client_app(config, **settings), store_in(config.folder)
    arrays = to_arrays(first_adapter(config.model, config.seed))
    said, saved = list[Any](), dict[int, Saved]()
    for kind, round_ in ((MessageType.EVALUATE, 0), (MessageType.TRAIN, 1), (MessageType.TRAIN, 2)):
        orders = ConfigRecord({wire.ROUND: round_, wire.REFERENCES: round_ == 0, wire.EVALUATE_LOCAL: round_ == 2})
        content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: orders})
        messages = [Message(content, node_of(device), kind) for device in devices]
        result = answer_pack(app, messages, store, config.fleet.devices, saved=saved)
        saved |= result.saved
        for reply in result.replies:
            said.append(wire.rows_of(reply))
            if kind == MessageType.TRAIN:
                said.append({name: tensor.tobytes() for name, tensor in wire.adapter_of(reply).items()})
    return said, [store.read(device, saved[device], "") for device in devices]


@pytest.mark.parametrize("devices", [[3], [2, 5]], ids=str)
def test_what_a_device_does_and_keeps_does_not_depend_on_the_fleet_around_it(
    tiny_run: TinyRun, devices: list[int]
) -> None:
    """Stream, classes, quantity, tests, sampling, learning, budget, state; of 6 devices or a million, all tested."""
    own = ("stream.schedule=staggered", "fleet.ranks=[1,2]", "evaluation.devices=null", *TOKEN_RUN)
    small, large = (tiny_run(f"of-{n}", f"fleet.devices={n}", *own) for n in (6, 1_000_000))
    one, other = life_of(small, devices), life_of(large, devices)
    assert len(one[0]) == 5 * len(devices)
    assert one == other


def test_a_million_devices_start_and_go_on_to_the_same_bits(tiny_run: TinyRun, no_report: None) -> None:
    """With a budget for all of them; few files are left, and nothing of those that took no part."""
    more = (*MILLION, "budget.fleet.division=price", "budget.fleet.calls_total=40", "engine.pack=2")
    whole, stopped = tiny_run("whole", *more), tiny_run("stopped", *more)
    rows = flsim.run(whole, progress=False).rows
    for until in (1, 3):
        flsim.run(
            None if until > 1 else stopped, resume=stopped.folder if until > 1 else None, until=until, progress=False
        )
    again = flsim.run(resume=stopped.folder, progress=False).rows
    pd.testing.assert_frame_equal(without_timing(again), without_timing(rows), check_exact=True)
    assert states_of(whole.folder) == states_of(stopped.folder)
    took_part = {device_name(device) for round_ in range(1, 5) for device in cohort(whole, round_)}
    assert set(states_of(whole.folder)) == took_part
    tested = {device_name(device) for device in panel(2, 1_000_000, whole.stream.seed)}
    assert set(rows["device"]) - {""} - took_part <= {*tested, "fleet"}
    assert len(list((whole.folder / "devices").iterdir())) <= 8
    late = {path.name for path in (whole.folder / "purchases").rglob("round-*")}
    assert all(int(name[6:11]) > 2 for name in late)


def test_shapes_of_a_large_fleet_are_known_without_asking_every_device(tiny_run: TinyRun) -> None:
    many = tiny_run("many", *MILLION, "fleet.devices=10000000", "fleet.ranks=[2,2,1]")
    assert many.has_unequal_shapes
    assert not tiny_run("equal", *MILLION, "fleet.devices=10000000", "fleet.ranks=[2,2]").has_unequal_shapes
    assert len(pickle.dumps(many)) < 10_000


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (MILLION[:2], "would all be tested, before the first round, too; set evaluation.devices=100"),
        ((MILLION[0], MILLION[2]), "would all learn in every round; set fleet.cohort=100"),
    ],
)
def test_a_fleet_that_would_learn_or_be_tested_as_a_whole_is_refused_unless_that_is_said(
    tiny_run: TinyRun, more: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_settings(tiny_run("none", *more))
    check_settings(tiny_run("some", *more, "fleet.cohort=1000000", "evaluation.devices=1000000"))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.slow
def test_rows_of_a_large_run_are_read_as_those_of_any(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Report and page of a fleet of which few took part."""
    run = flsim.run(tiny_run("whole", *MILLION, "rounds=2"), progress=False)
    assert "2 of 1000000 devices" in run.report.read_text()
    assert len(read_rows(run.folder)) < 2000
