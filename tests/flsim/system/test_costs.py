"""Seconds and joules: laws of scaling and additivity, then numbers worked out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.ranges import ConfigError
from flsim.config.system import ClassConfig, CloudTimesConfig, LinkConfig, StandsForConfig, SystemConfig
from flsim.system.classes import CLASSES, LINKS, DeviceClass, Fleet, Link
from flsim.system.joules import joules_of, radio_joules, radio_watts, tail_joules
from flsim.system.seconds import Spans, compute_seconds, micro, read_seconds, sample_seconds, transfer_seconds
from flsim.system.shapes import DECODERS, Shape
from flsim.system.system import System
from flsim.system.work import COUNTED, Work

SHAPE = Shape("by hand", 100_000_000, 2e8, learned=4e8)
DEVICE = DeviceClass("by hand", 1e11, 1e10, 1.0, 15.0, 4.0, 0.5)
RADIO = Link("by hand", 8.0, 2.0, 100.0, 0.0, 0.0, 1000.0, 0.0, 0.0)
WORK = Work(8, 100, 8, 400, 50, 400, 0, 10**6, 10**6)
COUNTS = st.integers(0, 10**6)
WORKS = st.builds(Work, *[COUNTS] * 14)


def test_a_round_by_hand() -> None:
    """Read 100 tokens 0.2 s, eight responses of 50 tokens at once 1 s, learn 400 tokens 1.6 s, 1 MB down and up."""
    assert read_seconds(SHAPE, DEVICE, prompts=1, tokens=100) == pytest.approx(0.2)
    assert sample_seconds(SHAPE, DEVICE, tokens=50, steps=50, context=0) == pytest.approx(1.0)
    assert sample_seconds(SHAPE, DEVICE, tokens=400, steps=50, context=0) == pytest.approx(1.0)  # 16 ms < 20 ms
    assert sample_seconds(SHAPE, DEVICE, tokens=550, steps=50, context=0) == pytest.approx(1.1)  # ten is the crossing
    assert compute_seconds(SHAPE, DEVICE, replace(WORK, prompts=1), at_once=True) == pytest.approx(2.8)
    assert transfer_seconds(1e6, 8, 100) == pytest.approx(1.1)
    assert transfer_seconds(1e6, 2, 100) == pytest.approx(4.1)
    spans = Spans(micro(1.1), micro(2.8), 0, micro(4.1))
    assert spans.total == 8_000_000
    joules = joules_of(CloudTimesConfig(), DEVICE, RADIO, WORK, spans, billions=None)
    assert (joules.compute, joules.radio) == pytest.approx((11.2, 5.2))
    assert joules.device == pytest.approx(16.4)
    assert joules.device / (15 * 3600) == pytest.approx(0.00030, abs=1e-5)


def test_lte_by_hand() -> None:
    """1 MB up takes 1.333 s at 3.918 W, and its tail is dearer than the transfer."""
    lte = LINKS["lte"][1]
    assert radio_watts(lte, up=True) == pytest.approx(3.918, abs=1e-3)
    assert transfer_seconds(1e6, lte.up_mbit, 0) * radio_watts(lte, up=True) == pytest.approx(5.22, abs=0.01)
    assert tail_joules(lte, 100) == pytest.approx(12.27, abs=0.01)
    assert tail_joules(lte, 1) == pytest.approx(1.06)  # the next transfer comes within it


def test_an_adapter_of_qwen_by_hand() -> None:
    """Rank 8 on all linear maps: 24 x 8 x 22,912 numbers; 12,288 bytes of cache a token in bfloat16."""
    shape = DECODERS["Qwen2.5-0.5B"].shape(rank=8, weight_bytes=0.5)
    assert shape.adapter == 24 * 8 * 22_912 == 4_399_104
    assert shape.cache == 12_288
    assert 8 * 4 * shape.adapter / 6e6 == pytest.approx(23.5, abs=0.1)  # seconds up on LTE


@given(work=WORKS, factor=st.sampled_from([0.5, 2.0, 8.0]), at_once=st.booleans())
def test_a_device_that_is_so_many_times_faster_takes_so_much_less(work: Work, factor: float, at_once: bool) -> None:
    fast = replace(DEVICE, flops=factor * DEVICE.flops, bandwidth=factor * DEVICE.bandwidth)
    slow = compute_seconds(SHAPE, DEVICE, work, at_once=at_once)
    assert factor * compute_seconds(SHAPE, fast, work, at_once=at_once) == pytest.approx(slow)


@given(work=WORKS, times=st.integers(1, 5))
def test_twice_the_work_takes_twice_the_time_and_energy(work: Work, times: int) -> None:
    many = work
    for _ in range(times - 1):
        many = many.plus(work)
    one, all_ = (compute_seconds(SHAPE, DEVICE, of, at_once=True) for of in (work, many))
    assert all_ == pytest.approx(times * one)


@given(work=WORKS)
def test_joules_add_up_and_none_is_negative(work: Work) -> None:
    system = System(SystemConfig(), SHAPE, seed=0)
    spans = system.spans(3, 1, work)
    joules = system.joules(3, work, spans)
    assert joules.device == joules.compute + joules.waiting + joules.radio
    assert min(joules.compute, joules.waiting, joules.radio, joules.cloud) >= 0
    assert spans.total == spans.down + spans.compute + spans.cloud + spans.up
    both = replace(spans, overlap=True)
    assert both.total == spans.total - min(spans.compute, spans.cloud)


def test_jitter_has_mean_one_and_follows_names() -> None:
    system = System(SystemConfig(jitter=0.5), SHAPE, seed=0)
    factors = [system._jitter(device, 1) for device in range(4000)]
    assert sum(factors) / len(factors) == pytest.approx(1.0, abs=0.03)
    assert system._jitter(7, 3) == System(SystemConfig(jitter=0.5), SHAPE, seed=0)._jitter(7, 3)


@given(seed=st.integers(0, 2**31), devices=st.integers(1, 3000))
def test_shares_are_held_in_a_fleet_of_any_size(seed: int, devices: int) -> None:
    """And a device is what it is, whatever fleet is around it, and whoever was asked before."""
    fleet = Fleet.of(SystemConfig(), seed)
    names = [fleet.class_of(device).name for device in range(devices)]
    for name, (share, _) in CLASSES.items():
        assert abs(names.count(name) - share * devices) <= 4
    on_lte = [name for device, name in enumerate(names) if fleet.link_of(device).name == "lte"]
    assert abs(on_lte.count("mid") - 0.15 * devices) <= 12  # links are spread over classes, too


def test_a_class_of_ones_own_says_all() -> None:
    own = {"tablet": ClassConfig(share=1.0, flops=1e11)}
    with pytest.raises(ConfigError, match=r"system.classes.tablet is none of those that ship .* lacks bandwidth, mem"):
        Fleet.of(SystemConfig(classes=own), 0)
    with pytest.raises(ConfigError, match=r"system.links gives nobody a share"):
        Fleet.of(SystemConfig(links={"wifi": LinkConfig(share=0.0)}), 0)
    only = Fleet.of(SystemConfig(classes={"low": ClassConfig(busy_w=2.0)}), 0)
    assert only.class_of(5) == replace(CLASSES["low"][1], busy_w=2.0)


def test_a_class_without_the_memory_is_named() -> None:
    shape = DECODERS["Qwen2.5-1.5B"].shape(rank=8, weight_bytes=0.5)
    with pytest.raises(ConfigError, match=r"system.classes.low.memory_gb=0.6 does not hold .* Qwen2.5-1.5B"):
        System(SystemConfig(stands_for=StandsForConfig("Qwen2.5-1.5B")), shape, 0).refuse_small(500)
    System(SystemConfig(), DECODERS["Qwen2.5-0.5B"].shape(rank=8, weight_bytes=0.5), 0).refuse_small(500)


def test_a_count_that_is_missing_ends_the_run() -> None:
    rows = [(name, 3.0, 2.0) for name in COUNTED if name != "decode_steps"]
    with pytest.raises(ConfigError, match=r"device-001 says nothing of decode_steps"):
        Work.counted(rows, down=1, up=1, device="device-001")
    work = Work.counted([*rows, ("decode_steps", 5.0, 2.0), ("reward", 1.0, 1.0)], down=7, up=9, device="device-001")
    assert (work.prompts, work.read_tokens, work.responses, work.decode_steps, work.up_bytes) == (2, 3, 2, 5, 9)


def test_a_question_over_lte_costs_a_tail() -> None:
    """It is the dear side for a battery: 50 tokens alone take less than the radio's tail after one question."""
    only = SystemConfig(links={"lte": LinkConfig()}, classes={"mid": ClassConfig()})
    system = System(only, DECODERS["Qwen2.5-0.5B"].shape(rank=8, weight_bytes=0.5), 0)
    alone = Work(prompts=1, read_tokens=100, responses=1, sampled_tokens=50)
    asked = Work(cloud_trips=1, cloud_prompt_tokens=100, cloud_completion_tokens=50, cloud_up_bytes=400)
    assert system.question(0, alone)[1] < system.question(0, asked)[1]
    assert radio_joules(only.cloud, LINKS["lte"][1], asked, Spans(0, 0, 0, 0)) > 12.0
