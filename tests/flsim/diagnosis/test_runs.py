"""A table of runs by findings, on the built-in world: each run has the fault that it is made for, the healthy one none.

The demo, whole, is silent likewise (`tests/experiments/test_demo.py`).
"""

from pathlib import Path

import pytest

import flsim
from flsim.config.load import load_config
from flsim.diagnosis.finding import FAULT, NOTE, WARNING

SMALL = (
    *("rounds=4", "fleet.devices=3", "stream.phases=[[arithmetic]]", "stream.alpha=inf", "engine.kind=local"),
    *("evaluation.every_rounds=4", "evaluation.prompts_per_task=10"),
    *("client.steps=2", "client.prompts=6", "client.group_size=6"),
)
TESTED = ("rounds=3", "fleet.devices=6", "evaluation.prompts_per_task=30")
GRPO = "client.path=clients.grpo:Grpo"
PHONES = (
    *(GRPO, "fleet.devices=6", "client.prompts=4", "client.group_size=4", "client.steps=1"),
    *("system.stands_for.device=Qwen2.5-0.5B", "system.classes.mid.share=0.8"),
)
NEAR = tuple(f"system.links.wifi.{key}" for key in ("share=1", "up_mbit=1000", "down_mbit=1000"))
"""A link that takes next to no time."""

RUNS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "healthy": ((), {}),
    "steps of no length": (
        ("client.lr=1e-30", "client.imitate=0", "client.replay=0"),
        {"dead_adapter": FAULT},
    ),
    "steps that ruin the model": ((GRPO, "client.lr=30"), {"reward_collapse": FAULT}),
    "steps that ruin it for its users": (("client.lr=30", *TESTED), {"worst_off": WARNING}),
    "a price that no gain reaches": (
        ("client.head_temperature=0.01", "client.dual_init=1", "client.dual_lr=0", "client.imitate=0"),
        {"asks_always_or_never": FAULT},
    ),
    "no price": (("client.dual_init=0", "client.dual_lr=0"), {"asks_always_or_never": FAULT}),
    "a cap far below tau": (("budget.calls_per_round=1", "budget.tau=0.9"), {"budget": WARNING}),
    "responses without room": (("client.max_new_tokens=2",), {"length_collapse": WARNING}),
    "phones on a good link": ((*PHONES, *NEAR), {}),
    "phones on a bad link": ((*PHONES, "system.links.slow.share=1"), {"communication_bound": WARNING}),
    "one slow phone": (
        (*PHONES, *NEAR, "system.classes.low.share=0.2", "system.classes.low.bandwidth=1e8"),
        {"stragglers": WARNING},
    ),
    "late replies": (
        (
            *(*PHONES, *NEAR, "rounds=12", "fleet.cohort=2"),
            *("system.end.kind=buffered", "system.end.in_flight=6", "system.end.max_staleness=1"),
        ),
        # what is dropped is wasted, too, and towards the end all of it is
        {"stragglers": WARNING, "stale": WARNING, "nobody_counts": FAULT},
    ),
    "only the first": (
        (*PHONES, *NEAR, "rounds=16", "fleet.cohort=2", "system.end.kind=first", "system.end.over=3"),
        {"stragglers": WARNING, "participation_bias": WARNING},
    ),
    "small batteries": (
        (*PHONES, *NEAR, "system.charge_w=0.5", "system.classes.mid.battery_wh=0.01"),
        # work that no charge was left to finish
        {"stragglers": WARNING, "absent": WARNING, "nobody_counts": FAULT},
    ),
    "a deadline that all miss": (
        (*PHONES, *NEAR, "system.end.kind=deadline", "system.end.deadline_s=0.001"),
        {"stragglers": WARNING, "nobody_counts": FAULT},  # all joules are wasted
    ),
}
"""Settings, and what is worse than a note of what they bring about, with its severity."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_made_to_have_a_fault_has_its_finding(name: str, tmp_path: Path, no_report: None) -> None:
    settings, expected = RUNS[name]
    config = load_config(None, [f"run_dir={tmp_path / 'run'}", *SMALL, *settings])
    flsim.run(config, progress=False)
    found = {one.name: one.severity for one in flsim.diagnose(config.folder) if one.severity != NOTE}
    assert found == expected
