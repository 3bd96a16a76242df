"""The comparison with TRL and Flower: every side does the same work (slow: it starts Ray three times)."""

import importlib.util

import pytest

from experiments.benchmark import peers
from experiments.benchmark.__main__ import main
from experiments.benchmark.setting import Measured, Setting


@pytest.fixture
def setting() -> Setting:
    return Setting(devices=2, prompts=1, seeds=(0, 1), repeats=2, pack="auto")


def test_rounds_are_a_warm_up_and_each_seed_in_turn(setting: Setting) -> None:
    rounds = list(setting.rounds)
    assert [round_.number for round_ in rounds] == [1, 2, 3, 4, 5]
    assert [round_.seed for round_ in rounds] == [0, 0, 0, 1, 1]
    assert [round_.warm_up for round_ in rounds] == [True, False, False, False, False]


def test_a_setting_survives_its_travel(setting: Setting) -> None:
    assert Setting.from_json(setting.to_json()) == setting


def test_every_device_and_round_has_questions_of_its_own(setting: Setting) -> None:
    first, second, *_ = setting.rounds
    assert setting.questions(0, first) == setting.questions(0, first)
    assert len(setting.questions(0, first)) == setting.steps * setting.prompts
    assert len({str(setting.questions(k, r)) for k in range(2) for r in (first, second)}) == 4


def test_ratios_are_of_medians_and_only_between_measured_sides() -> None:
    found = {"b": Measured((1.0, 2.0, 3.0), 30, 10), "d": Measured((0.5, 0.5, 9.0), 40, 10)}
    header, _, line = (row.strip("| ").split("|") for row in peers.peers_table({4: found}, ["b", "d"]).splitlines())
    assert [cell.strip() for cell in header] == ["K", "b (ms)", "d (ms)", "b/d", "tokens per response"]
    assert [cell.strip() for cell in line] == [
        "4",
        "100.0 (50.0..150.0)",
        "25.0 (25.0..450.0)",
        "4.0",
        "b 3.00 d 4.00",
    ]


def test_without_trl_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install -e '\.\[bench\]'"):
        main(["peers", "--sides", "b", "d"])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_all_sides_sample_equally_many_responses_of_about_the_same_length(devices: int, one_thread: None) -> None:
    pytest.importorskip("trl")
    setting = Setting(devices, prompts=2, seeds=(0,), repeats=1, pack="auto")
    measured = peers.measure(setting, list(peers.SIDES), "wall")
    assert set(measured) == set(peers.SIDES)
    for side, found in measured.items():
        assert found.responses == devices * setting.steps * 2 * 8, side
        assert len(found.seconds) == 1
        assert found.tokens / found.responses == pytest.approx(3, abs=1.5), side
