"""A round in words, from rows that are made up: every number in a sentence is one of the rows, or one made by hand."""

from dataclasses import replace

import pytest

from flsim.config.schema import BudgetConfig, EvaluationConfig, FleetBudgetConfig, StreamConfig
from flsim.metrics.one_round import Records
from flsim.metrics.rows import USER, Row, Subject, fleet_row, rows_frame
from flsim.metrics.whole_round import facts_of_round
from flsim.report.one_round import told
from flsim.report.whole_round import table_of_round, told_of_round
from flsim.tasks.stream import TaskStream

EVALUATION = EvaluationConfig(every_rounds=1)
STREAM = StreamConfig(phases=(("arithmetic", "numbers"), ("strings",)), schedule="switch")
MINE = {  # of device-000 in round 3
    "dual_variable": 0.25,
    "cloud_calls": 5,
    "cloud_tokens": 410,
    "cloud_money": 0.000125,
    "cloud_refused": 2,
    "effective_groups": 6,
    "aggregation_share": 0.6,
    "update_norm": 0.5,
    "mean_cosine": -0.25,
    "downlink_bytes": 2_500_000,
    "uplink_bytes": 1_250_000,
    "seconds": 1.5,
    "read_tokens": 120,
    "sampled_tokens": 640,
    "learned_tokens": 600,
}
GROUPS = {"reward": (24, 32), "alone_reward": (16, 32), "cloud_requests": (8, 32), "difficulty": (2.0, 8)}


def rows() -> list[Row]:
    """Two devices in rounds 2 and 3; the second is set aside in round 3."""
    one, other = (Subject(3, f"device-00{k}", "train", "own") for k in (0, 1))
    found = [one.row(name, total) for name, total in MINE.items()]
    found += [one.row(name, *pair, task="strings") for name, pair in GROUPS.items()]
    found += [one.row("unanimous_groups", 7, 8, task="strings"), one.row("cut_responses", 3, 32)]
    found += [other.row("set_aside", 1, task="raised"), other.row("downlink_bytes", 2_500_000)]
    found += [replace(one, round=2).row("dual_variable", 0.5), replace(one, round=2).row("cloud_calls", 7)]
    test = Subject(3, "device-000", "test", "global")
    found += [test.row("accuracy", 7, 10, task="strings"), test.row("accuracy", 5, 10, task="numbers")]
    found += [replace(test, round=2).row("accuracy", 9, 20, task="strings")]
    found += [replace(test, model="own").row("accuracy", 13, 20, task="strings")]
    return [*found, fleet_row(3, "update_cosine", 0.5), fleet_row(3, "spent_calls", 12, 40)]


def records(found: list[Row], budget: BudgetConfig | None = None) -> Records:
    log = ["2026 WARNING round 3: device-001 is set aside, raised: ValueError: it stumbles (mine.py:6)"]
    return Records(rows_frame(found), TaskStream(STREAM, 4), budget or BudgetConfig(), EVALUATION, 0.5, log)


def sentences(of: Records, device: str = "device-000", evaluation: EvaluationConfig = EVALUATION) -> dict[str, str]:
    return dict(told(of.of_round(3).of_device(device).facts(), evaluation))


def test_a_devices_round_is_told_in_full() -> None:
    assert sentences(records(rows(), BudgetConfig(tau=0.25, calls_total=12))) == {
        "Met": "It met 8 prompts, all of strings. It was in phase B (strings), and what it meets had just switched. "
        "Their mean difficulty was 0.25, where 0 is the easiest level and 1 the hardest.",
        "Sampled": "It sampled 32 responses, of which 16 (50.0 %) were right without the cloud. In 7 of 8 groups all "
        "responses agreed on whether to ask. 6 groups taught something: there, not all responses were worth the same. "
        "3 responses reached the limit without an end.",
        "Asked": "It asked for help with 8 of 32 responses (25.0 %). The cloud was called 5 times. 2 prompts more were "
        "refused by budget.calls_total (12 of 12 were spent).",
        "Granted": "Its tau, the share of its prompts that may ask, was 0.25. It was capped by budget.calls_total=12.",
        "Earned": "Its mean reward was 0.750, and the cohort's mean 0.750. Without the cloud it was 0.500, and the "
        "cohort's mean 0.500.",
        "Lambda": "Lambda, its price of asking, went from 0.500 to 0.250.",
        "Cost": "The cloud cost it 5 calls, 410 tokens and 0.000125 of money, in the unit of cloud.price_*. Its tokens "
        "were 120 read, 640 sampled and 600 learned from. It received 2.5 MB and sent 1.2 MB back. The simulation took "
        "1.50 s for it. Seconds and joules of the device are not recorded: the section `system` has them followed.",
        "Weighed": "Its update had a share of 60.0 % in the aggregation; equal shares of 1 device would be 100.0 %.",
        "Changed": "Its product B A moved by 0.5 in Frobenius norm, and that of the mean device by 0.5. The cosine "
        "between its move and the cohort's mean move was -0.25. On its tests the global model was right on 45.0 % "
        "after round 2. After its local steps its own model was right on 65.0 %. After the aggregation the global "
        "model was right on 60.0 %.",
    }


def test_what_the_records_lack_is_said_with_the_setting_that_has_it() -> None:
    """No own model, no norm, no start of lambda, nobody of the panel, nothing of a device whose update is not used."""
    few = [row for row in rows() if row.round == 3 and (row.split, row.model) != ("test", "own")]
    few = [row for row in few if row.name not in ("update_norm", "mean_cosine")]
    said = sentences(replace(records(few), first_dual=None), evaluation=EvaluationConfig(own="never"))
    assert said["Lambda"].endswith("what it began with is not recorded, as client.dual_init is not in the config.")
    assert "evaluation.own is never, and evaluation.own=always tests it" in said["Changed"]
    assert "engine.stream at least as large as the cohort has it measured" in said["Changed"]
    bare = [row for row in rows() if row.split == "train"]
    assert (
        "it is not of the panel (evaluation.devices=1)"
        in sentences(records(bare), evaluation=EvaluationConfig(devices=1))["Changed"]
    )
    other = sentences(records(rows()), "device-001")
    assert other["Set aside"].startswith("Its update was not used, raised: ValueError: it stumbles (mine.py:6). ")
    assert "What it met is not recorded" in other["Met"]
    assert "Weighed" not in other


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        ({"calls_per_round": 5}, "by budget.calls_per_round (5 of 5 were spent)"),
        ({"calls_per_round": 9, "tokens_per_round": 420}, "by budget.tokens_per_round (410 of 420 were spent)"),
        (
            {"tokens_total": 420, "money_per_round": 0.00013},
            "by budget.tokens_total (410 of 420 were spent) or budget.money_per_round (0.000125 of 0.00013 were spent)",
        ),
        (
            {"bytes_per_round": 9000, "seconds_per_question": 2.5},
            "by budget.bytes_per_round (0 of 9,000 were spent) or budget.seconds_per_question=2.5",
        ),
        ({}, "by a cap that is not recorded"),
    ],
)
def test_who_refused_is_found_from_what_was_spent(caps: dict[str, float], words: str) -> None:
    """A cap on calls is met exactly; of others any may be it, as nobody knows how large the next question was."""
    assert f"2 prompts more were refused {words}." in sentences(records(rows(), BudgetConfig(**caps)))["Asked"]  # type: ignore[arg-type]


def test_a_share_of_the_fleets_budget_and_its_price_are_told() -> None:
    one = Subject(3, "device-000", "train", "own")
    more = [one.row("allotment_calls", 5), one.row("target_usage", 0.125)]
    said = sentences(records([*rows(), *more], BudgetConfig(fleet=FleetBudgetConfig(division="price"))))
    assert said["Granted"].startswith(
        "Its tau, the share of its prompts that may ask, was 0.125. Of the fleet's budget"
    )
    assert "by its allotment of the fleet's calls (5 of 5 were spent)" in said["Asked"]
    assert said["Lambda"] == "Lambda, the price of asking, was the fleet's: 0.250."


def test_what_a_mode_of_help_took_is_told_where_rows_have_it() -> None:
    """None of a run in which devices ask whole questions."""
    one = Subject(3, "device-000", "train", "own")
    counts = {"cloud_trips": 12, "cloud_up_bytes": 3100, "cloud_down_bytes": 400, "cloud_further_trips": 7}
    counts |= {"helped_read": 9, "helped_drawn": 40}
    more = [one.row(name, value) for name, value in counts.items()]
    more += [one.row("drafted_tokens", 40, 12), one.row("accepted_tokens", 30, 40), one.row("computed_again", 2, 12)]
    more += [one.row("help_share", 1.5, 5)]
    found = records([*rows(), *more], BudgetConfig(unit="tokens"))
    assert sentences(found)["Helped"] == (
        "Its mode of help took 12 requests to the cloud, with 3.1 kB up and 400 bytes down. Between them its own model "
        "read 9 tokens and drew 40. Of 40 drafted tokens the cloud accepted 30 (75.0 %); 2 places were computed again, "
        "alone. A question took 30.0 % of what asking takes at most, in tokens."
    )
    cut = [one.row(name, value) for name, value in counts.items() if not name.startswith("helped")]
    cut += [one.row("lower_read", 25_000, 1000), one.row("lower_drawn", 2500, 1000)]
    said = sentences(records([*rows(), *cut]))["Helped"]
    assert said.endswith("as much as 25 tokens read and 2.5 said through all layers of the cloud's model.")
    assert "Helped" not in sentences(records(rows()))


def test_seconds_and_joules_are_told_where_rows_have_them() -> None:
    one = Subject(3, "device-000", "train", "own")
    times = {"round_seconds": 90, "compute_seconds": 60, "link_seconds": 30, "waited_seconds": 0, "joules": 250}
    more = [*(one.row(name, value) for name, value in times.items()), one.row("battery", 7.5, 12.0)]
    user = Subject(0, "device-000", USER, USER)
    said = sentences(records([*rows(), *more, user.row("class_low", 1), user.row("link_lte", 1)]))
    assert said["Cost"].endswith(
        "The device itself, of class low on lte, took 90.0 s in virtual time (60.0 s of arithmetic and 30.0 s of "
        "transfers), and 250 J. Its battery held 7.5 of 12 Wh afterwards."
    )


def test_an_update_that_comes_rounds_later_is_followed() -> None:
    """Of round 1, aggregated in round 3; another one came too late to be used, and a third has not come yet."""
    one, late, flying = (Subject(1, f"device-00{k}", "train", "own") for k in range(3))
    found = [of.row("reward", k, 10) for k, of in enumerate((one, late, flying))]
    found += [replace(one, round=3).row("staleness", 2), replace(one, round=3).row("aggregation_share", 0.25)]
    found += [replace(late, round=3).row("staleness", 2), replace(late, round=3).row("set_aside", 1, task="stale")]
    found += [Subject(3, "device-003", "train", "own").row("reward", 1, 10)]
    of = records(found)

    def said(device: str, round_: int) -> dict[str, str]:
        return dict(told(of.of_round(round_).of_device(device).facts(), EVALUATION))

    assert said("device-000", 1)["Weighed"] == (
        "Its update had a share of 25.0 % in the aggregation; equal shares of 1 device would be 100.0 %. It was "
        "aggregated in round 3, 2 versions old."
    )
    assert said("device-001", 1)["Set aside"].startswith("Its update was not used, stale.")
    assert said("device-002", 1)["Weighed"] == "Its update had not come to the server when the run ended."
    assert said("device-000", 3) == {
        "Landed": "It was not asked to learn in this round. What it learned in round 1 came in now, 2 versions old, "
        "and had a share of 25.0 % in the aggregation."
    }
    whole = dict(told_of_round(facts_of_round(of, 3)))
    assert whole["Who"].startswith("The server asked 1 device, and 2 updates came in.")


def test_a_whole_round_is_told_with_its_devices_in_a_table() -> None:
    facts = facts_of_round(records(rows()), 3)
    said = dict(told_of_round(facts))
    assert said["Who"] == (
        "2 devices learned in it, and the updates of 1 were aggregated. Set aside were device-001 (raised). They were "
        "in phase B."
    )
    assert said["Budget"] == "The fleet has spent 12 of 40 calls so far."
    assert said["Accuracy"] == "The mean user's was 45.0 % after round 2. It was 60.0 % afterwards."
    lines, left_out = table_of_round(facts)
    assert lines[0].split()[:4] == ["device", "prompts", "right", "alone"]
    assert lines[2].split() == [
        *("device-000", "8", "50.0", "%", "75.0", "%", "25.0", "%", "5", "2", "0.25", "60.0", "%", "0.5", "-0.25")
    ]
    assert lines[3].split() == ["device-001", *["-"] * 10, "raised"]
    assert left_out == 0


def test_of_a_large_cohort_the_table_shows_who_was_set_aside_and_who_earned_least() -> None:
    found = [Subject(1, f"device-{k:03d}", "train", "own").row("reward", k, 100) for k in range(40)]
    found.append(Subject(1, "device-039", "train", "own").row("set_aside", 1, task="died"))
    lines, left_out = table_of_round(facts_of_round(records(found), 1))
    assert [line.split()[0] for line in lines[2:]] == [*(f"device-{k:03d}" for k in range(19)), "device-039"]
    assert left_out == 20
