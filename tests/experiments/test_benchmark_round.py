"""The table of a round's time: its shares add up (slow: it starts Ray)."""

import re
from dataclasses import replace

import pytest

from experiments.benchmark.devices import DEMO
from experiments.benchmark.round import round_table
from flsim.config.load import load_config


@pytest.mark.slow
def test_round_table_has_a_line_per_pack_and_shares_of_one() -> None:
    config = load_config(DEMO, ["client.steps=1", "client.prompts=2", "cloud.kind=oracle"])
    config = replace(config, fleet=replace(config.fleet, devices=4))
    _, _, *lines = round_table(config, [1, 2], 1).splitlines()
    assert [int(line.split("|")[1]) for line in lines] == [1, 2]
    for line in lines:
        assert sum(map(float, re.findall(r"(-?[\d.]+)%", line))) == pytest.approx(100, abs=0.3)
