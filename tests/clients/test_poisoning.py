"""Malicious devices: who they are, what they send, and that all others are as they were."""

import numpy as np
import pytest

import flsim
from clients.poisoning import Poison, malicious_devices
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.models.adapter import Adapter
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("no_report")

TINY = ("rounds=1", "fleet.devices=4", "evaluation.prompts_per_task=4", "engine.pack=4")
SENT = {"w": np.array([1.0, 2.0], dtype=np.float32), "v": np.zeros(50, dtype=np.float32)}
LEARNED = {"w": np.array([1.5, 1.0], dtype=np.float32), "v": np.ones(50, dtype=np.float32)}


def test_a_flip_by_hand() -> None:
    """From (1, 2) to (1.5, 1) the step is (0.5, -1); ten times backwards gives (1 - 5, 2 + 10)."""
    assert Poison("flip", size=10).instead(SENT, LEARNED, 0, 1)["w"].tolist() == [-4.0, 12.0]


def test_noise_has_the_size_of_the_step_and_nothing_of_its_direction() -> None:
    poisoned = Poison("noise", size=3).instead(SENT, LEARNED, 0, 1)
    assert np.linalg.norm(poisoned["v"] - SENT["v"]) == pytest.approx(3 * np.sqrt(50), rel=1e-5)
    assert abs(float(poisoned["v"].mean())) < 1.5
    again, later = (Poison("noise", size=3).instead(SENT, LEARNED, 0, round_) for round_ in (1, 2))
    assert np.array_equal(again["v"], poisoned["v"])
    assert not np.array_equal(later["v"], poisoned["v"])


def test_size_zero_sends_back_what_was_sent() -> None:
    for attack in ("flip", "noise"):
        assert all(np.array_equal(t, SENT[n]) for n, t in Poison(attack, size=0).instead(SENT, LEARNED, 0).items())


def test_a_fifth_of_the_fleet_is_the_same_fifth_in_every_run() -> None:
    config = load_config(None, ["fleet.devices=30"])
    assert len(malicious_devices(config, 0.2)) == 6
    assert malicious_devices(config, 0.2) == malicious_devices(load_config(None, ["fleet.devices=30", "seed=9"]), 0.2)
    assert malicious_devices(config, 0.2) != malicious_devices(
        load_config(None, ["fleet.devices=30", "stream.seed=9"]), 0.2
    )
    assert malicious_devices(config, 0.0) == set()


def norms(run: flsim.Run) -> dict[str, float]:
    rows = run.rows[run.rows["name"] == "update_norm"]
    return dict(zip(rows["device"], rows["total"], strict=True))


def test_only_the_malicious_send_something_else(tiny_run: TinyRun) -> None:
    config = tiny_run(
        "bad", "client.path=clients.poisoning:Poisoned", "client.poison_share=0.5", "client.poison_size=7"
    )
    bad = norms(flsim.run(config, progress=False))
    good = norms(flsim.run(tiny_run("good"), progress=False))
    malicious = {f"device-{device:03d}" for device in malicious_devices(config, 0.5)}
    assert len(malicious) == 2
    for device, norm in good.items():
        expected = 7 * norm if device in malicious else norm  # B starts at 0, so the product's move is linear in B's
        assert bad[device] == pytest.approx(expected, rel=0.1)


def test_the_malicious_are_marked_in_the_rows_and_are_no_users_of_a_comparison(tiny_run: TinyRun) -> None:
    config = tiny_run("marked", "client.path=clients.poisoning:Poisoned", "client.poison_share=0.5")
    run = flsim.run(config, progress=False)
    malicious = {f"device-{device:03d}" for device in malicious_devices(config, 0.5)}
    assert set(run.rows[run.rows["name"] == "malicious"]["device"]) == malicious
    assert set(flsim.compare([run]).per_user["device"]) == {f"device-{device:03d}" for device in range(4)} - malicious


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("client.poison=lie", "poison='lie' is not known; choose one of: flip, noise"),
        ("client.poison_share=2", "poison_share=2 must be in"),
        ("client.poison_size=-1", "poison_size=-1 must be at least 0"),
    ],
)
def test_bad_settings_are_refused(tiny_run: TinyRun, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flsim.run(tiny_run("refused", "client.path=clients.poisoning:Poisoned", setting), progress=False)


def test_every_tensor_is_poisoned() -> None:
    poisoned: Adapter = Poison("flip", size=1).instead(SENT, LEARNED, 0)
    assert poisoned.keys() == LEARNED.keys()
