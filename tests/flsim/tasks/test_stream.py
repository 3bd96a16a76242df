from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.schema import SCHEDULES, Config, StreamConfig
from flsim.devices import device_name
from flsim.problems.families import TASKS, families_of
from flsim.problems.problem import SPLITS, split_of
from flsim.tasks.stream import Phase, TaskStream, stream_of

A, B, C = ("arithmetic",), ("strings",), ("numbers", "lists")
DEVICES = [device_name(index) for index in range(30)]
STREAMS = st.builds(
    StreamConfig,
    phases=st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=4).map(tuple),
    schedule=st.sampled_from(SCHEDULES),
    phase_rounds=st.none() | st.integers(1, 12),
    lag_rounds=st.integers(0, 6),
    alpha=st.sampled_from([0.1, 1.0, float("inf")]),
    seed=st.integers(0, 3),
)


@given(STREAMS, st.integers(4, 40))
def test_phases_cover_every_round_once_and_end_with_the_run(config: StreamConfig, rounds: int) -> None:
    phases = TaskStream(config, rounds).phases
    covered = [round_ for phase in phases for round_ in range(phase.first_round, phase.last_round + 1)]
    assert covered == list(range(1, rounds + 1))
    assert phases[-1].last_round == rounds


@given(STREAMS, st.integers(4, 40), st.data())
def test_weights_and_mixtures_are_distributions(config: StreamConfig, rounds: int, data: st.DataObject) -> None:
    stream = TaskStream(config, rounds)
    device, round_ = data.draw(st.sampled_from(DEVICES)), data.draw(st.integers(1, rounds))
    for weights in (stream.phase_weights(device, round_), tuple(stream.mixture(device, round_).values())):
        assert min(weights) >= 0
        assert sum(weights) == pytest.approx(1.0)
    assert tuple(stream.mixture(device, round_)) == stream.tasks


@given(STREAMS, st.integers(4, 40), st.data())
def test_groups_out_of_phase_have_no_share(config: StreamConfig, rounds: int, data: st.DataObject) -> None:
    stream = TaskStream(config, rounds)
    device, round_ = data.draw(st.sampled_from(DEVICES)), data.draw(st.integers(1, rounds))
    live = zip(stream.phase_weights(device, round_), stream.phases, strict=True)
    allowed = {group for weight, phase in live if weight > 0 for group in phase.tasks}
    assert {group for group, share in stream.mixture(device, round_).items() if share > 0} <= allowed


def test_switch() -> None:
    """10 rounds over 3 phases: 10 // 3 = 3 each, the last takes what is left. The third equals the first: letter A."""
    stream = TaskStream(StreamConfig(phases=(A, B, A)), 10)
    assert stream.phases == (Phase("A", A, 1, 3), Phase("B", B, 4, 6), Phase("A", A, 7, 10))
    for device in DEVICES[:3]:
        current = [stream.phase_weights(device, round_).index(1.0) for round_ in range(1, 11)]
        assert current == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
        assert stream.mixture(device, 4) == {"arithmetic": 0.0, "strings": 1.0}


def test_phase_rounds_sets_the_length_and_the_last_phase_takes_the_rest() -> None:
    """Phases of 2 rounds begin at 1, 3, 5; of 6 rounds at 1, 7 and 13, which a run of 10 rounds does not reach."""
    config = StreamConfig(phases=(A, B, C), phase_rounds=2)
    assert [(p.first_round, p.last_round) for p in TaskStream(config, 10).phases] == [(1, 2), (3, 4), (5, 10)]
    long = replace(config, phase_rounds=6)
    assert [(p.first_round, p.last_round) for p in TaskStream(long, 10).phases] == [(1, 6), (7, 10)]


def test_recurring() -> None:
    """Phases of 4 rounds in 10: A 1-4, B 5-8, A 9-10; the device's mixture is the same when A comes back."""
    stream = TaskStream(StreamConfig(phases=(C, B), schedule="recurring", phase_rounds=4), 10)
    assert stream.phases == (Phase("A", C, 1, 4), Phase("B", B, 5, 8), Phase("A", C, 9, 10))
    assert stream.mixture("device-000", 9) == stream.mixture("device-000", 1) != stream.mixture("device-000", 5)


def test_staggered() -> None:
    """Each device keeps one lag of 0 to 3 rounds for all its switches, which nominally are at rounds 6 and 11."""
    stream = TaskStream(StreamConfig(phases=(A, B, C), schedule="staggered", lag_rounds=3), 15)
    lags = []
    for device in DEVICES:
        current = [stream.phase_weights(device, round_).index(1.0) for round_ in range(1, 16)]
        assert current == sorted(current)
        lags.append((current.index(1) + 1 - 6, current.index(2) + 1 - 11))
    assert all(first == second for first, second in lags)
    assert {first for first, _ in lags} == {0, 1, 2, 3}


def test_ramp() -> None:
    """Over 3 rounds of lag, phase 2 from round 4 on has 1/4, 2/4, 3/4 and then all of the weight."""
    stream = TaskStream(StreamConfig(phases=(A, B), schedule="ramp", lag_rounds=3, phase_rounds=3), 9)
    second = [stream.phase_weights("device-000", round_)[1] for round_ in range(1, 10)]
    assert second == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert stream.mixture("device-000", 4) == pytest.approx({"arithmetic": 0.75, "strings": 0.25})


def test_ramp_that_is_longer_than_a_phase_keeps_all_three_phases() -> None:
    """Phases of 2 rounds and a ramp of 3: at round 5, phase 2 has 2/4 of the way and phase 3 takes 1/4 of everything.

    Before phase 3 the weights are 1/4 and 3/4 (round 5 is the third of phase 2); phase 3's quarter comes off both.
    """
    stream = TaskStream(StreamConfig(phases=(A, B, C), schedule="ramp", lag_rounds=3, phase_rounds=2), 9)
    assert stream.phase_weights("device-000", 5) == pytest.approx((0.1875, 0.5625, 0.25))


@pytest.mark.parametrize("schedule", ["ramp", "staggered"])
def test_without_a_lag_every_schedule_is_a_switch(schedule: str) -> None:
    switch = StreamConfig(phases=(A, B, C), lag_rounds=0)
    streams = [TaskStream(config, 12) for config in (switch, replace(switch, schedule=schedule))]
    for round_ in range(1, 13):
        first, second = (stream.phase_weights("device-005", round_) for stream in streams)
        assert first == second


def partition(config: Config) -> list[object]:
    """All that the partition fixes about the first five devices."""
    stream = stream_of(config)
    return [
        (
            [stream.mixture(device, round_) for round_ in range(1, config.rounds + 1)],
            stream.prompts_per_step(device, 8),
            stream.evaluation_problems(device, "test", per_task=5),
        )
        for device in DEVICES[:5]
    ]


def test_the_training_seed_moves_the_questions_but_not_the_partition() -> None:
    base = Config(stream=StreamConfig(schedule="staggered"))
    assert partition(base) == partition(replace(base, seed=1))
    assert partition(base) != partition(replace(base, stream=replace(base.stream, seed=1)))
    first, again, other = (
        stream_of(base).training_problems("device-000", 1, 0, count=20, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_training_questions_change_with_device_round_and_step_and_come_from_the_train_split() -> None:
    stream = TaskStream(StreamConfig(), 36)
    batches = [
        tuple(stream.training_problems(device, round_, step, count=20, seed=0))
        for device in DEVICES[:2]
        for round_ in (1, 2)
        for step in (0, 1)
    ]
    assert len(set(batches)) == len(batches)
    assert {split_of(problem.question) for batch in batches for problem in batch} == {"train"}


@pytest.mark.parametrize("seed", [0, 1])
def test_training_groups_follow_the_mixture(seed: int) -> None:
    """With 1000 questions a share has a standard error of at most 0.016; the bound is three of them."""
    stream = TaskStream(StreamConfig(alpha=1.0), 36)
    problems = [p for step in range(4) for p in stream.training_problems("device-003", 1, step, count=250, seed=seed)]
    for group, share in stream.mixture("device-003", 1).items():
        assert sum(p.task == group for p in problems) / 1000 == pytest.approx(share, abs=0.05)


def test_infinite_alpha_makes_devices_equal() -> None:
    """Every group of a phase, family of a group and level of a family is then equally likely: 1/2, 1/3 and 1/4."""
    stream = TaskStream(StreamConfig(alpha=float("inf")), 36)
    assert all(
        stream.mixture(device, 1) == {"arithmetic": 0.5, "numbers": 0.5, "strings": 0.0, "lists": 0.0}
        for device in DEVICES
    )
    problems = [
        p for d in DEVICES for p in stream.evaluation_problems(d, "test", per_task=100)["arithmetic"]
    ]  # 3000, so a share's standard error is below 0.01
    for family in families_of("arithmetic"):
        own = [p for p in problems if p.family == family.name]
        assert len(own) / len(problems) == pytest.approx(1 / 3, abs=0.04)
        for level in family.levels:
            assert sum(p.level == level for p in own) / len(own) == pytest.approx(1 / len(family.levels), abs=0.06)


def heterogeneity(alpha: float) -> float:
    """Mean total variation distance of two devices' mixtures over the four groups."""
    stream = TaskStream(StreamConfig(phases=(TASKS,), alpha=alpha), 10)
    mixtures = [np.array(list(stream.mixture(device, 1).values())) for device in DEVICES]
    return float(np.mean([np.abs(p - q).sum() / 2 for p, q in combinations(mixtures, 2)]))


def test_small_alpha_is_more_heterogeneous() -> None:
    """As alpha goes to 0 every device has one of four groups: two differ with probability 3/4, at a distance of 1."""
    values = [heterogeneity(alpha) for alpha in (float("inf"), 10.0, 1.0, 0.1, 0.001)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(0.75, abs=0.1)
    assert min(later - earlier for earlier, later in pairwise(values)) > 0.03


@pytest.mark.parametrize("split", SPLITS)
def test_evaluation_sets_are_fixed_and_from_the_asked_split(split: str) -> None:
    stream = TaskStream(StreamConfig(), 36)
    sets = stream.evaluation_problems("device-002", split, per_task=15)
    assert sets == TaskStream(StreamConfig(), 99).evaluation_problems("device-002", split, per_task=15)
    assert sets != stream.evaluation_problems("device-003", split, per_task=15)
    assert tuple(sets) == stream.tasks
    for group, problems in sets.items():
        assert len(problems) == 15
        assert {problem.task for problem in problems} == {group}
        assert {split_of(problem.question) for problem in problems} == {split}


def test_a_test_is_drawn_once_and_nobody_can_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TaskStream(StreamConfig(seed=41), 99)
    first = stream.evaluation_problems("device-002", "test", per_task=7)
    kept = {task: list(problems) for task, problems in first.items()}
    first["arithmetic"].clear()
    monkeypatch.setattr("flsim.tasks.stream.draw", None)
    assert stream.evaluation_problems("device-002", "test", per_task=7) == kept
    with pytest.raises(TypeError):
        stream.evaluation_problems("device-002", "test", per_task=8)


def test_evaluation_follows_the_devices_own_families_and_levels() -> None:
    """With alpha = 0.01 a device meets practically one family and level per group, in training as in evaluation."""
    stream = TaskStream(StreamConfig(phases=(A,), alpha=0.01), 4)
    own = set()
    for device in DEVICES:
        tests = stream.evaluation_problems(device, "test", per_task=50)["arithmetic"]
        trains = stream.training_problems(device, 1, 0, count=50, seed=0)
        kinds = [[(p.family, p.level) for p in problems] for problems in (tests, trains)]
        favourite = max(set(kinds[0]), key=kinds[0].count)
        assert min(kind.count(favourite) for kind in kinds) > 40
        own.add(favourite)
    assert {family for family, _ in own} == {"add", "subtract", "multiply"}  # families differ from device to device
    assert len(own) > 4  # and so do levels of one family


@given(st.integers(1, 50), st.sampled_from([0.1, 1.0, 5.0]), st.sampled_from(DEVICES))
def test_quantity_stays_between_half_and_double(mean: int, sigma: float, device: str) -> None:
    prompts = TaskStream(StreamConfig(quantity_sigma=sigma), 10).prompts_per_step(device, mean)
    assert max(1, mean // 2) <= prompts <= 2 * mean


def test_quantity() -> None:
    """Sigma 0 gives everyone the mean; sigma 1 meets both bounds; 0.3 has the asked mean.

    A log-normal factor of mean 1 and sigma 0.3 has a standard deviation of 0.31: of 2000 devices' mean, 0.7 %.
    """
    names = [device_name(index) for index in range(2000)]
    equal, wide, usual = (
        [TaskStream(StreamConfig(quantity_sigma=sigma), 10).prompts_per_step(name, 20) for name in names]
        for sigma in (0.0, 1.0, 0.3)
    )
    assert set(equal) == {20}
    assert {min(wide), max(wide)} == {10, 40}
    assert np.mean(usual) == pytest.approx(20, rel=0.025)
    assert len(set(usual)) > 10


def test_device_names_sort_as_their_indices() -> None:
    assert device_name(7) == "device-007"
    assert sorted(DEVICES) == DEVICES
