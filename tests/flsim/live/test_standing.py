"""The state of a run: one law over all signs, the cases by hand, and what a log says of its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.live.standing import (
    DONE,
    FAILED,
    RUNNING,
    STATES,
    STOPPED,
    Signs,
    ends_at,
    last_error,
    standing_of,
    troubles_of,
)

BEGUN = "2026-11-29 11:24:54,591 INFO rounds 0 to 12, 16 devices on local in packs of 8\n"
ASIDE = "2026-11-29 11:25:10,002 WARNING round 3: device-003 is set aside, raised: ValueError: no\n"
FULL = "2026-11-29 11:26:00,000 ERROR the run failed: UnwritableError: no space left\n"
RAISED = """2026-11-29 11:26:00,000 ERROR the run failed
Traceback (most recent call last):
  File "a.py", line 1, in <module>
ValueError: the inner one

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
RuntimeError: bad luck
"""

maybe_round = st.none() | st.integers(0, 5)


@given(
    st.builds(
        Signs,
        rounds=maybe_round,
        newest=maybe_round,
        owner=st.none() | st.just("process 7"),
        lives=st.booleans(),
        is_paused=st.booleans(),
        error=st.none() | st.just("no space"),
        reported=maybe_round,
    )
)
def test_only_what_somebody_works_on_is_running_and_only_what_is_reported_whole_is_done(signs: Signs) -> None:
    found = standing_of(signs)
    assert found.state in STATES
    assert (found.state == RUNNING) == (signs.owner is not None and signs.lives)
    if found.state == DONE:
        assert signs.newest is not None
        assert signs.rounds is not None
        assert signs.newest == signs.reported
        assert signs.newest >= signs.rounds
        assert found.why == ""
    if found.state in (FAILED, STOPPED):
        assert found.why


@pytest.mark.parametrize(
    ("signs", "state", "word"),
    [
        (Signs(12, None, "process 7", lives=True), RUNNING, "before its first round"),
        (Signs(12, 4, "process 7", lives=True), RUNNING, ""),
        (Signs(12, 4, "process 7 (kill -CONT 7)", lives=True, is_paused=True), RUNNING, "paused"),
        (Signs(12, 12, "process 7", lives=True), RUNNING, "writing its report"),
        (Signs(12, 12, reported=12), DONE, ""),
        (Signs(12, 12, reported=4), STOPPED, "flsim resume writes it"),
        (Signs(12, 4, reported=4), STOPPED, "its report is of round 4"),
        (Signs(12, 4), STOPPED, "flsim resume goes on"),
        (Signs(12, 4, "process 7 on here"), FAILED, "process 7 on here, ended without a word"),
        (Signs(12, 4, error="no space"), FAILED, "no space"),
        (Signs(12, 12, error="a picture", reported=12), DONE, ""),
        (Signs(None, 4, reported=4), STOPPED, "round 4"),
    ],
)
def test_states_by_hand(signs: Signs, state: str, word: str) -> None:
    found = standing_of(signs)
    assert (found.state, word in found.why) == (state, True)


def test_a_log_tells_why_the_last_start_ended() -> None:
    assert last_error(BEGUN + ASIDE) is None
    assert last_error(BEGUN + FULL) == "UnwritableError: no space left"
    assert last_error(BEGUN + FULL + BEGUN + ASIDE) is None  # it was resumed
    assert last_error(BEGUN + RAISED) == "RuntimeError: bad luck"
    assert last_error("no log at all\n\x00") is None


def test_troubles_are_the_last_lines_that_warn_the_newest_first() -> None:
    lines = [ASIDE.replace("round 3", f"round {number}").strip() for number in range(20)]
    found = troubles_of(BEGUN + "\n".join(lines) + "\n" + FULL, most=3)
    assert found == [FULL.strip(), lines[19], lines[18]]


def test_the_time_left_goes_by_the_last_five_rounds() -> None:
    """The mean of 9, 3, 3 is 5 s, and two rounds are left; of 100, 1, 1, 1, 1, 1 the first is too long ago."""
    assert ends_at([9.0, 3.0, 3.0], 2, 100.0) == 110.0
    assert ends_at([100.0, 1.0, 1.0, 1.0, 1.0, 1.0], 3, 0.0) == 3.0
    assert ends_at([], 3, 0.0) is None
