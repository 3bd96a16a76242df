"""Plays by speaker: windows that do not reach from one split into another, and a network that reads them."""

from pathlib import Path

import pytest
import torch

import flsim
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.models.char_rnn import CharRnn
from flsim.problems.problem import Problem
from flsim.tasks.load import load

SPEECH = "now is the winter of our discontent made glorious summer by this sun of york. "


@pytest.fixture
def play(tmp_path: Path) -> Path:
    speakers = ("ROMEO", "First Citizen", "JULIET")
    blocks = [f"{name}:\n{number} {SPEECH * 4}" for number in range(8) for name in speakers]
    (tmp_path / "input.txt").write_text("\n\n".join([*blocks, "ALL:\nAy."]))
    return tmp_path


def test_letters_ask_for_the_next_and_no_test_letter_is_read_in_training(play: Path) -> None:
    items = load("shakespeare", play, window=10, step=3, least=500)
    assert {item.user for item in items} == {"ROMEO", "First Citizen", "JULIET"}
    assert {len(item.question) for item in items} == {10}
    assert " " in {item.answer for item in items}
    own = [item for item in items if item.user == "ROMEO"]
    whole = " ".join(f"{number} {SPEECH * 4}".strip() for number in range(8))
    ends = {"train": round(0.76 * len(whole)), "validation": round(0.88 * len(whole)), "test": len(whole)}
    starts = {"train": 0, "validation": ends["train"], "test": ends["validation"]}
    for split, end in ends.items():
        piece = whole[starts[split] : end]
        found = [item for item in own if item.split == split]
        assert [item.question + item.answer for item in found] == [
            piece[at : at + 11] for at in range(0, len(piece) - 10, 3)
        ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"window": 0}, "leave no window"), ({"least": 100}, "leave no window"), ({"least": 10**6}, "no speaker has")],
)
def test_settings_that_leave_nothing_are_refused(play: Path, settings: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load("shakespeare", play, **settings)  # type: ignore[arg-type]


def test_a_network_of_letters_reads_the_last_ones() -> None:
    network = CharRnn(5, hidden=4, letters=6)
    inputs = network.inputs([Problem("t", "", 0, text, "a") for text in ("abc", "0123456789")])
    assert inputs.tolist() == [[0, 0, 0, *map(ord, "abc")], list(map(ord, "456789"))]
    assert network(inputs).shape == torch.Size([2, 5])


@pytest.mark.usefixtures("no_report")
def test_a_run_of_speakers_learns_letters(play: Path, tmp_path: Path) -> None:
    settings = [
        *("rounds=2", f"data.letters.root={play}", f"run_dir={tmp_path / 'run'}", "engine.kind=local"),
        *("data.letters.settings={window: 10, step: 5, least: 500}", "fleet={devices: 3, cohort: 3}"),
        *("client.model_settings.hidden=8", "evaluation={every_rounds: 2, items: 20}"),
    ]
    done = flsim.run(load_config("shakespeare", settings), progress=False)
    rows = done.rows[(done.rows["name"] == "loss") & (done.rows["model"] == "global")]
    sums = rows.groupby("round")[["total", "weight"]].sum()
    assert sums["total"][2] / sums["weight"][2] < sums["total"][0] / sums["weight"][0]
