"""`scale`: the overhead by hand, the client that is measured, and the tables."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MessageType

import flsim.flower.messages as wire
from experiments.benchmark import scale
from experiments.benchmark.scale_client import COMPUTE, app, compute
from experiments.benchmark.scale_side import Memory, Side, measure
from flsim.flower.arrays import to_arrays
from flsim.flower.grid import LocalGrid, store_in


def side(*wall_s: float) -> Side:
    """Ten seconds of clients on the wall and twenty of computing, all at 500 MB."""
    return Side(wall_s, tuple(20.0 for _ in wall_s), 3.0, Memory(500 * 2**20, 400 * 2**20, 2000 * 2**20))


def test_the_overhead_is_the_wall_beyond_evenly_spread_computing() -> None:
    """Rounds of 12, 13 and 30 s whose clients compute 20 s on two workers: 2, 3 and 20 s over 1000 messages."""
    assert scale.overhead_ms(side(12.0, 30.0, 13.0), 1000) == pytest.approx(3.0)


def test_the_client_returns_a_new_adapter_and_what_it_computed(tmp_path: Path) -> None:
    start = {"w": np.ones((2, 3), dtype=np.float32)}
    with LocalGrid(app, store_in(tmp_path), 2, 1) as grid:
        content = wire.instruction(to_arrays(start), round_=1)
        replies = grid.send_and_receive([Message(content, node, MessageType.TRAIN) for node in grid.get_node_ids()])
        timing = grid.timing(1, 1.0)
    for device, reply in enumerate(replies):
        assert np.array_equal(wire.adapter_of(reply)["w"], start["w"] + compute(device))
        assert 0 < float(str(reply.content["metrics"][COMPUTE])) <= timing.parts["train"]
    assert compute(0) != compute(1)


def test_the_tables_have_a_line_per_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(name: str, devices: int, rounds: int) -> Side:
        asked.append((name, devices, rounds))
        return side(12.0)

    monkeypatch.setattr(scale, "measure", fake)
    assert len(scale.engine_table([10, 1000], 3, flower=True).splitlines()) == 4
    line = scale.learner_table([100], 3).splitlines()[-1]
    assert "240.0" in line  # 2 workers * 12 s / 100 devices
    assert " 10.0 |" in line  # 3 s of processors / 3 rounds / 100 devices
    assert asked == [(s, n, 3) for n in (10, 1000) for s in ("engine", "flower")] + [("learner", 100, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["engine", "flower", "learner"])
def test_each_side_runs_in_a_process_of_its_own(name: str) -> None:
    found = measure(name, 4, 1)
    assert len(found.wall_s) == len(found.compute_s) == 1
    assert 0 < found.compute_s[0] < 2 * found.wall_s[0]
    assert found.memory.total > found.memory.driver > 0
