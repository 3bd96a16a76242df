"""What help in several requests takes: laws of bounds and tails, then questions of every mode worked out by hand."""

from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.cloud.exchange import Exchange, work_of
from flsim.cloud.protocol import Answer, Basket
from flsim.cloud.tariff import Tariff
from flsim.config.ranges import ConfigError
from flsim.config.schema import CloudConfig
from flsim.config.system import CloudTimesConfig, StandsForConfig, SystemConfig
from flsim.system.asking import Asking
from flsim.system.classes import DeviceClass, Link
from flsim.system.joules import radio_joules, tail_joules
from flsim.system.seconds import Spans, asked_bytes, cloud_seconds, compute_seconds, served_seconds, transfer_seconds
from flsim.system.shapes import DECODERS, Shape
from flsim.system.system import System
from flsim.system.work import COUNTED, Work
from tests.flsim.system.test_costs import DEVICE, RADIO, SHAPE

CLOUD = CloudTimesConfig(queue_s=0.3, prefill_per_s=1000.0, decode_per_s=10.0, request_bytes=500)
LAYERS = Shape.of_cloud(StandsForConfig(cloud=0.5, weight_bytes=0.5))
ASKED = work_of(Exchange(trips=1, up_bytes=400, down_bytes=80), 100, 20)
SESSION = work_of(Exchange(4, up_bytes=448, down_bytes=16, read=100, drawn=16, in_session=3), 116, 4)
STATELESS = work_of(Exchange(4, up_bytes=448, down_bytes=16, read=100, drawn=16), 446, 4)
SPLIT = work_of(Exchange(100, 179_200, 400, lower_read=25_000, lower_drawn=25_000, in_session=99), 150, 75)


def seconds(work: Work, of: DeviceClass = DEVICE, link: Link = RADIO) -> float:
    return compute_seconds(SHAPE, of, work, cloud=LAYERS) + cloud_seconds(CLOUD, link, work)


# ------------------------------------------------------------------------------------------------- laws

COUNTS = [one.name for one in fields(Exchange) if one.name not in ("trips", "in_session")]


def exchange(trips: int, counts: Sequence[int], in_session: int) -> Exchange:
    """With the other counts in their order."""
    return replace(Exchange(trips, in_session=in_session), **dict(zip(COUNTS, counts, strict=True)))


EXCHANGES = st.builds(
    lambda counts, trips, session: exchange(trips, counts, min(session, max(trips - 1, 0))),
    st.lists(st.integers(0, 10**5), min_size=len(COUNTS), max_size=len(COUNTS)),
    st.integers(0, 100),
    st.integers(0, 100),
)
SIZES = st.tuples(st.integers(0, 10**4), st.integers(0, 10**4))
KNOWN = SystemConfig(stands_for=StandsForConfig(cloud=1.5), jitter=0.3)


@given(most=EXCHANGES, sizes=SIZES, parts=st.lists(st.floats(0, 1), min_size=12, max_size=12), device=st.integers(0, 9))
def test_what_stays_within_a_quote_takes_no_more_of_anything(
    most: Exchange, sizes: tuple[int, int], parts: list[float], device: int
) -> None:
    """Whatever part of the counts came, if no more requests wait in the queue; so caps on quotes are caps on exchanges.

    And nothing but the counts enters: an exchange of one plain request costs what asking costs.
    """
    counts = [getattr(most, name) for name in COUNTS]
    some = [int(part * count) for part, count in zip(parts, counts, strict=False)]
    trips = int(parts[9] * most.trips)
    queued = min(trips, most.trips - most.in_session)
    came = exchange(trips, some, trips - queued)
    sent, received = (int(part * size) for part, size in zip(parts[10:], sizes, strict=True))
    tariff = Tariff(CloudConfig(), follows=True, asking=Asking(KNOWN, 0, SHAPE), device=device)
    whole = tariff.most(Answer("", *sizes, exchange=most), 0)
    part = tariff.came(Answer("", sent, received, exchange=came), 0)
    beyond = whole.beyond(part)
    assert min(beyond.bytes, beyond.microjoules, beyond.microseconds) >= 0
    plain = tariff.came(Answer("abc", 7, 3), 40)
    assert plain == tariff.came(Answer("abc", 7, 3, exchange=Exchange(trips=1, up_bytes=40, down_bytes=3)), 40)


@given(
    exchanges=st.lists(EXCHANGES.filter(lambda one: one.trips > 0), min_size=1, max_size=5),
    rest=st.integers(0, 10**6),
    overlap=st.booleans(),
)
def test_gaps_between_transfers_add_up_to_the_computing(exchanges: list[Exchange], rest: int, overlap: bool) -> None:
    """Under tails that never end the radio is up in all of a round but its transfers: gaps, waits, the last tail."""
    work = Work(sampled_tokens=rest, responses=1)
    for one in exchanges:
        work = work.plus(work_of(one, 10, 10))
    system = System(replace(KNOWN, jitter=0.0, overlap=overlap, cloud=CLOUD), SHAPE, 0)
    spans = replace(system.spans(0, 1, replace(work, down_bytes=10, up_bytes=10)), overlap=overlap)
    assert 0 <= spans.helping <= spans.compute
    endless = replace(RADIO, base_mw=0.0, tail_s=1e9, tail_mw=1000.0)
    waits = served_seconds(CLOUD, work) + work.cloud_trips * endless.rtt_ms / 1000
    found = radio_joules(CLOUD, endless, work, spans)
    assert found == pytest.approx(spans.compute / 1e6 + waits + 1e9, rel=1e-9)
    assert spans.total == spans.down + spans.up + spans.compute + spans.waiting
    assert spans.total >= spans.down + spans.up + max(spans.compute, spans.cloud)
    if overlap:  # what waits for its own request cannot go on meanwhile
        assert spans.total == spans.down + spans.up + spans.helping + max(spans.compute - spans.helping, spans.cloud)


@given(EXCHANGES, EXCHANGES)
def test_a_basket_keeps_what_follows_from_each_exchange(one: Exchange, other: Exchange) -> None:
    basket = Basket()
    for took in (one, other):
        basket.add(Answer("", 1, 2, exchange=took), CloudConfig())
    facts = basket.sent_facts()
    assert facts["cloud_trips"] == one.trips + other.trips
    assert facts.get("cloud_further_trips", 0) == max(one.trips - 1, 0) + max(other.trips - 1, 0)
    assert facts.get("cloud_session_trips", 0) == one.in_session + other.in_session


def test_a_run_without_modes_has_no_rows_of_them() -> None:
    basket = Basket()
    basket.add(Answer("165", 4, 3), CloudConfig())
    basket.add(None, CloudConfig())
    assert set(basket.sent_facts()) == set(COUNTED) - {
        "read_tokens",
        "sampled_tokens",
        "decode_steps",
        "learned_tokens",
    }


# ------------------------------------------------------------------------------------------------- by hand


def test_verifying_by_hand() -> None:
    """100 tokens in, 20 out, drafts of 4 that are all accepted: 4 requests of 3 bytes a token and 4 back each.

    The device reads for 0.2 s and draws 16 tokens for 0.32. In one session 0.4 s of round trips, 948 B up and 516 down,
    0.3 in the queue, 116 tokens read and 4 said: 0.52 + 0.4 + 0.003792 + 0.000516 + 0.3 + 0.116 + 0.4. Stateless it
    waits in the queue, reads the prefix and sends headers four times. Asking says all 20 tokens itself.
    """
    assert asked_bytes(CLOUD, SESSION) == (948, 516)
    assert seconds(SESSION) == pytest.approx(1.740308)
    assert seconds(STATELESS) == pytest.approx(0.52 + 0.4 + 0.009792 + 0.002016 + 1.2 + 0.446 + 0.4)
    assert seconds(ASKED) == pytest.approx(0.1 + 0.0036 + 0.00058 + 0.3 + 0.1 + 2.0)
    assert seconds(SESSION) < seconds(ASKED) < seconds(STATELESS)


def test_handing_over_by_hand() -> None:
    """Twice 5 tokens of the cloud's, each a request of its own with all that was said before."""
    took = Exchange(trips=2, up_bytes=430, down_bytes=40, read=110, drawn=10)
    work = work_of(took, 100 + 115, 10)
    device = 0.22 + 0.2
    assert seconds(work) == pytest.approx(device + 0.2 + 8 * 1430 / 2e6 + 8 * 1040 / 8e6 + 0.6 + 0.215 + 1.0)


def test_a_cut_model_by_hand() -> None:
    """A quarter of 0.5 billion parameters at 4 bits: 25 tokens' worth at 10 ms read, 25 at 25 ms said one by one.

    200 tokens of 896 numbers in float16 are 358,400 B, 0.478 s on LTE, against 800 B of text.
    """
    assert LAYERS is not None
    assert (LAYERS.multiplied, LAYERS.weights) == (500_000_000, 2.5e8)
    assert compute_seconds(SHAPE, DEVICE, SPLIT, cloud=LAYERS) == pytest.approx(0.25 + 0.625)
    moved = 8 * 179_700 / 2e6 + 8 * 900 / 8e6
    assert seconds(SPLIT) == pytest.approx(0.875 + 10.0 + moved + 0.3 + 0.15 + 7.5)
    assert 200 * DECODERS["Qwen2.5-0.5B"].hidden * 2 == 358_400
    assert transfer_seconds(358_400, 6, 0) == pytest.approx(0.478, abs=1e-3)


def test_leaving_early_by_hand() -> None:
    """Of 20 tokens the device decides 15 in half of the layers; 5 positions go up with 35 states before them, 1,792 B.

    All 20 are drawn through half of the layers, 10 tokens' worth; a question that is decided whole takes no request.
    """
    took = Exchange(5, 40 * 1792, 20, lower_read=50_000, lower_drawn=10_000, in_session=4)
    work = work_of(took, 20, 5)
    moved = 8 * (71_680 + 500) / 2e6 + 8 * 520 / 8e6
    assert seconds(work) == pytest.approx(0.5 + 0.25 + 0.5 + moved + 0.3 + 0.02 + 0.5)
    alone = work_of(Exchange(lower_read=50_000, lower_drawn=10_000), 0, 0)
    assert seconds(alone) == pytest.approx(0.75)
    assert radio_joules(CLOUD, replace(RADIO, tail_s=10.0, tail_mw=1e3), alone, Spans(0, 750_000, 0, 0)) == 0


def test_tails_within_a_question_by_hand() -> None:
    """Tails of 10 s at 1 W: four waits of 0.304 s, three gaps of a fourth of 0.52 s, and one that is whole.

    As requests of four questions the same would have taken three more whole ones, for what lies between them.
    """
    link = replace(RADIO, base_mw=0.0, tail_s=10.0, tail_mw=1000.0)
    system = System(SystemConfig(cloud=CLOUD), SHAPE, 0)
    spans = Spans(0, 520_000, 0, 0, helping=520_000)
    assert radio_joules(CLOUD, link, SESSION, spans) == pytest.approx(4 * 0.304 + 3 * 0.13 + 10)
    busy = Spans(0, 100_520_000, 0, 0, helping=520_000)
    assert radio_joules(CLOUD, link, SESSION, busy) == pytest.approx(4 * 0.304 + 3 * 0.13 + 10)
    apart = replace(SESSION, cloud_further_trips=0)
    assert radio_joules(CLOUD, link, apart, busy) == pytest.approx(4 * 0.304 + 3 * 10 + 10)
    asked, joules = system.question(0, SESSION)
    of, own = system.class_of(0), compute_seconds(SHAPE, system.class_of(0), SESSION)
    cloud = cloud_seconds(CLOUD, system.link_of(0), SESSION)
    assert asked == pytest.approx(own + cloud, abs=2e-6)
    parts = Spans(0, round(1e6 * own), round(1e6 * cloud), 0, helping=round(1e6 * own))
    radio = radio_joules(CLOUD, system.link_of(0), SESSION, parts)
    assert joules == pytest.approx(of.busy_w * own + of.waiting_w * cloud + radio, abs=1e-4)
    assert tail_joules(link, 0.13) == pytest.approx(0.13)


def test_a_question_costs_its_device_what_it_computes_for_it() -> None:
    """4 W for 0.52 s and 0.5 W for the rest, a radio of 1 W for 948 B up and 516 down; caps are held against it."""
    asking = Asking(SystemConfig(cloud=CLOUD), 0, SHAPE)
    vars(asking)["fleet"] = type("One", (), {"class_of": lambda *_: DEVICE, "link_of": lambda *_: RADIO})()
    microseconds, microjoules = asking.cost(0, 1, SESSION)
    assert microseconds == 1_740_308
    assert microjoules == pytest.approx(1e6 * (4 * 0.52 + 0.5 * 1.220308 + 0.003792 + 0.000516), abs=2)
    assert asking.bytes(SESSION) == 948 + 516
    nothing = replace(asking, shape=None)
    vars(nothing)["fleet"] = asking.fleet
    assert nothing.cost(0, 1, SESSION)[0] == 1_220_308


# ------------------------------------------------------------------------------------------------- refusals


def test_layers_of_a_model_of_unknown_size_end_the_run() -> None:
    rows = [(name, 3.0, 2.0) for name in COUNTED]
    work = Work.counted([*rows, ("lower_drawn", 2500.0, 1000.0)], down=1, up=1, device="device-001")
    assert (work.lower_drawn, work.lower_read, work.helped_read, work.cloud_session_trips) == (2500, 0, 0, 0)
    with pytest.raises(ConfigError, match=r"system.stands_for.cloud does not say how large .* such as 1.5"):
        System(SystemConfig(), SHAPE, 0).spans(0, 1, work)
    with pytest.raises(ConfigError, match=r"system.stands_for.cloud does not say"):
        Asking(SystemConfig(), 0).cost(0, 1, work)


def test_a_class_has_to_hold_its_layers_of_the_cloud() -> None:
    """A quarter of 7 billion at 4 bits is 0.875 GB."""
    config = SystemConfig(stands_for=StandsForConfig(cloud=7.0))
    System(config, SHAPE, 0).refuse_small(100)
    message = r"memory_gb=0.6 does not hold .* and, beside it, 0.88 GB of the cloud's model.*client.helping.layer"
    with pytest.raises(ConfigError, match=message):
        System(config, SHAPE, 0).refuse_small(100, 0.25)
    with pytest.raises(ConfigError, match=r"hold 25% of the layers .* set system.stands_for.cloud"):
        System(SystemConfig(), SHAPE, 0).refuse_small(100, 0.25)
    System(SystemConfig(stands_for=StandsForConfig(cloud=0.5)), SHAPE, 0).refuse_small(100, 0.25)
