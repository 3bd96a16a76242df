"""The table of `flsim benchmark tracking`, of made-up figures: what is compared with what."""

import argparse

import pytest

from experiments.benchmark.tracking import NONE, WATCH, Seen, arguments, rows_of
from flsim.trackers.named import SHIPPED


def test_a_side_is_held_against_the_run_without_repeat_by_repeat() -> None:
    """2.02 to 2, 4.04 to 4: one per cent more each; 30 ms of 6 CPU seconds are half a per cent."""
    seen = {NONE: Seen(rounds=[2.0, 4.0]), "wandb": Seen(rounds=[2.02, 4.04], sent=[0.03, 0.03], start=[1.0, 2.0])}
    head, plain, wandb = rows_of(seen, cpu=6.0)
    assert plain == ["none", "3.00 (2.00..4.00)", "", "6000 (the round's own)", "", ""]
    told = dict(zip(head, wandb, strict=True))
    assert told["more"] == "1.0 (1.0..1.0) %"
    assert told["CPU ms a round"] == "30.0 (30.0..30.0)"
    assert told["of a round"] == "0.50 %"
    assert told["start, CPU s"] == "1.5 (1.0..2.0)"


def test_only_what_is_known_is_measured() -> None:
    parser = argparse.ArgumentParser()
    arguments(parser)
    assert set(parser.parse_args([]).sides) == {*SHIPPED, WATCH}
    with pytest.raises(SystemExit):
        parser.parse_args(["--sides", "csv"])
