"""The demo shows what the README says it shows (slow: the whole run)."""

from pathlib import Path

import pytest

import flsim
from flsim.diagnosis.finding import NOTE


@pytest.mark.slow
def test_demo_reaches_its_claims(tmp_path: Path) -> None:
    run = flsim.run("experiments/configs/demo.yaml", overrides=[f"run_dir={tmp_path}/demo"], progress=False)
    over_random = run.summary.headline.accuracy_over_random
    over_frozen = run.summary.headline.alone_accuracy_over_frozen
    assert over_random is not None
    assert over_frozen is not None
    assert over_random.mean >= 0.15
    assert over_frozen.mean >= 0.08
    assert [phase.phase for phase in run.summary.usage] == ["A", "B", "A"]
    for phase in run.summary.usage:
        assert phase.last_third is not None
        assert abs(phase.last_third.user_mean - 0.3) <= 0.05
    assert not run.summary.set_aside
    assert [one.sentence for one in run.summary.findings if one.severity != NOTE] == []
