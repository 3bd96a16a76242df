"""Asking that is stuck: which rows say so, and a run that says it once, with what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flsim
from flsim.diagnosis.finding import FAULT
from flsim.diagnosis.limits import limit
from flsim.diagnosis.stuck import STUCK, Asked, asked_in, is_stuck, mend, told
from flsim.metrics.rows import Row, fleet_row
from tests.tiny import TinyRun, without_report

ROUNDS = int(limit("rounds"))
NEVER = ("client.head_temperature=0.01", "client.dual_init=1", "client.dual_lr=0", "client.imitate=0")
"""A head whose price no gain reaches."""


def trained(name: str, total: float, weight: float) -> Row:
    return Row(1, "device-000", "lists", "train", "own", name, total, weight)


def test_what_was_explored_is_not_asked() -> None:
    """Of 80 responses 24 count as asked, and 16 of them could not ask: 8 of 64."""
    rows = [trained("cloud_requests", 24, 80), trained("explored", 16, 80), fleet_row(1, "spent_calls", 5.0)]
    rows += [Row(1, "device-000", "lists", "test", "global", "cloud_requests", 5, 5)]
    assert asked_in(rows) == Asked(8, 64)


def test_help_that_takes_little_may_be_had_everywhere() -> None:
    """All of 64 responses asked, for 3/10 of what asking takes: within tau; at all of it, or at none, it is stuck."""
    rows = [trained("cloud_requests", 64, 64), trained("weighed_requests", 19.2, 64)]
    assert asked_in(rows) == Asked(64, 64, 0.3)
    assert not is_stuck([asked_in(rows)] * ROUNDS, 0.3)
    assert is_stuck([Asked(64, 64, 1.0)] * ROUNDS, 0.3)
    assert is_stuck([Asked(0, 64, 0.0)] * ROUNDS, 0.3)


@given(st.lists(st.sampled_from([0.0, 0.004, 0.02, 0.3, 0.9, 1.0]), max_size=6), st.floats(0, 1))
def test_it_takes_three_rounds_at_an_end_that_the_budget_does_not_want(usages: list[float], tau: float) -> None:
    found = is_stuck([Asked(100 * usage, 100) for usage in usages], tau)
    last = usages[-ROUNDS:]
    silent = all(usage <= 0.02 * tau for usage in last)
    loud = all(usage >= 1 - 0.02 * (1 - tau) for usage in last)
    assert found == (len(last) == ROUNDS and (silent or loud) and 0.05 <= tau <= 0.95)


@pytest.mark.parametrize("tau", [0.0, 0.01, 0.99, 1.0])
def test_at_the_ends_of_tau_nothing_is_stuck(tau: float) -> None:
    for usage in (0.0, 1.0):
        assert not is_stuck([Asked(100 * usage, 100)] * 9, tau)


def test_the_sentence_says_what_to_do() -> None:
    assert mend(0.0, explores=False).endswith("set client.explore=0.5, or for DA-GRPO client.policy=head.")
    assert "no response had asked the cloud for 3 rounds, with budget.tau=0.3" in told(0.0, 7, 0.3)
    assert "every response" in told(1.0, 7, 0.3)
    assert "raise client.explore" in mend(1.0, explores=True)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_says_it_once_on_the_screen_in_its_rows_and_on_its_page(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the rounds that show it were run by two processes, and not again when it goes on."""
    config = tiny_run("stuck", *NEVER, "rounds=5", "evaluation.every_rounds=5")
    with without_report():
        flsim.run(config, until=2, progress=True)
        assert "stuck" not in capsys.readouterr().out
        flsim.run(resume=config.folder, until=4, progress=True)
        assert capsys.readouterr().out.count("Asking is stuck: by round 3") == 1
    run = flsim.run(resume=config.folder, progress=True)
    assert "Asking is stuck" not in capsys.readouterr().out
    assert run.rows[run.rows["name"] == STUCK]["round"].tolist() == [3]
    (found,) = (one for one in run.summary.findings if one.name == "asks_always_or_never")
    assert found.severity == FAULT
    assert found.sentence.startswith(told(0.0, 3, 0.3))
    assert [(query.first, query.last) for query in found.rows] == [(1, 5)]
    assert "set client.explore=0.5" in run.report.read_text()


def test_who_never_learns_to_ask_is_not_stuck(tiny_run: TinyRun, no_report: None) -> None:
    run = flsim.run(tiny_run("grpo", "client.path=clients.grpo:Grpo", "rounds=3"), progress=False)
    assert STUCK not in set(run.rows["name"])
