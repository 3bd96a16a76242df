"""The benchmark prints a table whose shares add up (slow: it starts Ray)."""

import re
from dataclasses import replace

import pytest

from experiments.benchmark import median_seconds, round_table
from flsim.config_files import load_config


def test_median_ignores_the_first_call() -> None:
    calls: list[int] = []
    seconds = median_seconds(lambda: calls.append(1), 3)
    assert len(calls) == 4
    assert 0 <= seconds < 1


@pytest.mark.slow
def test_round_table_has_a_line_per_pack_and_shares_of_one() -> None:
    config = load_config("experiments/configs/demo.yaml", ["client.steps=1", "client.prompts=2", "cloud.kind=oracle"])
    config = replace(config, fleet=replace(config.fleet, devices=4))
    _, *lines = round_table(config, [1, 2], 1).splitlines()
    assert [int(line.split()[0]) for line in lines] == [1, 2]
    for line in lines:
        assert sum(map(float, re.findall(r"(-?[\d.]+)%", line))) == pytest.approx(100, abs=0.3)
