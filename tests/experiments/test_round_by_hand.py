"""The round by hand ends with the engine's bits, and the page that is made of it is up to date."""

from pathlib import Path

import pytest

import flsim
from experiments.round_by_hand import SETTINGS, main, page, round_by_hand
from flsim.config.load import load_config
from flsim.loop.checkpoints import latest_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "round.md"
SMALL = ("client.steps=3", "client.prompts=4", "client.group_size=4", "client.lr=0.01", "evaluation.prompts_per_task=1")
STRINGS = "stream.phases=[[strings,lists]]"  # the model that ships asks there
PAPER = ("client.dual_gain=0", "client.dual_max=.inf", "client.dual_lr=0.01", "client.cost_baseline=group")


@pytest.mark.parametrize(
    "more",
    [
        ("budget.tau=0.05",),
        (STRINGS, "seed=1", "client.help_reward=0.8", *PAPER),
        (STRINGS, "budget.calls_per_round=2"),
    ],
    ids=["guarded", "the paper's", "under a cap"],
)
def test_the_round_by_hand_has_the_bits_of_the_engine(
    one_thread: None, no_report: None, tmp_path: Path, more: tuple[str, ...]
) -> None:
    config = load_config(None, [*SETTINGS, *SMALL, *more, f"run_dir={tmp_path / 'run'}"])
    adapter, device = round_by_hand(config)
    run = flsim.run(config, progress=False)
    checkpoint = latest_checkpoint(run.folder)
    assert checkpoint is not None
    assert {n: t.tobytes() for n, t in adapter.items()} == {n: t.tobytes() for n, t in checkpoint.adapter.items()}

    rows = run.rows[(run.rows["split"] == "train") & (run.rows["round"] == 1)]
    totals = rows.groupby("name")["total"].sum()
    assert totals["reward"] == device.totals["right"]
    assert totals["alone_reward"] == device.totals["alone"]
    assert totals["cloud_requests"] == device.totals["asked"] > 0
    assert rows.groupby("name")["weight"].sum()["reward"] == device.totals["responses"]
    assert totals["dual_variable"] == float(device.dual)
    spent = device.ledger.round
    assert (totals["cloud_calls"], totals["cloud_tokens"]) == (spent.calls, spent.tokens)
    assert totals["cloud_refused"] == spent.refused
    assert (spent.refused > 0) == any("calls_per_round" in setting for setting in more)


def test_the_page_is_made_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Mend it with: python -m experiments.round_by_hand --page > docs/round.md."""
    main(["--page"])
    assert capsys.readouterr().out == page() == PAGE.read_text()
