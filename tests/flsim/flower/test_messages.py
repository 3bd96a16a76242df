"""What travels on the wire: round trips, types, sizes, and which replies cannot be used."""

import io
import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import flsim.flower.messages as wire
from flsim.budget.fleet import Allotment
from flsim.devices import device_at, node_of
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.grid import identify
from flsim.flower.messages import DeviceUpdate
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter
from flsim.problems.problem import Problem

TINY, HUGE = np.float32(1.4e-45), np.float32(3.4e38)


@pytest.fixture(scope="module", autouse=True)
def identity() -> None:
    identify()


def adapter() -> Adapter:
    """Values whose bits a careless conversion would lose: a subnormal, negative zero, the largest, a third."""
    return {
        "q.lora_A.weight": np.array([[TINY, -0.0, HUGE], [1 / 3, -1.0, 0.1]], dtype=np.float32),
        "q.lora_B.weight": np.zeros((4, 2), dtype=np.float32),
    }


def instruction(device: int = 2) -> Message:
    content = wire.instruction(to_arrays(adapter()), round_=7, references=True)
    return Message(content, device + 1, MessageType.TRAIN)


def reply(arrays: ArrayRecord | None, metrics: MetricRecord | None) -> Message:
    parts = {"arrays": arrays, "metrics": metrics}
    return Message(RecordDict({k: v for k, v in parts.items() if v is not None}), reply_to=instruction())


def bits(tensors: Adapter) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in tensors.items()}


def test_an_adapter_survives_bit_for_bit() -> None:
    back = to_adapter(to_arrays(adapter()))
    assert bits(back) == bits(adapter())
    assert {name: (t.shape, t.dtype) for name, t in back.items()} == {
        "q.lora_A.weight": ((2, 3), np.dtype("float32")),
        "q.lora_B.weight": ((4, 2), np.dtype("float32")),
    }


def test_a_transposed_view_keeps_its_values() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert to_adapter(to_arrays({"w": tensor}))["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_is_read_without_a_copy_has_the_same_bits_and_cannot_be_changed() -> None:
    arrays = to_arrays(adapter())
    read = to_adapter(arrays, copy=False)
    assert bits(read) == bits(to_adapter(arrays))
    with pytest.raises(ValueError, match="read-only"):
        read["q.lora_A.weight"] += 1


def test_float64_arrays_become_float32() -> None:
    """FedAdam and QFedAvg return float64."""
    arrays = ArrayRecord({"w": Array(np.array([1 / 3, 2.0]))})
    assert arrays["w"].dtype == "float64"
    tensor = to_adapter(arrays)["w"]
    assert tensor.dtype == np.float32
    assert tensor.tolist() == [float(np.float32(1 / 3)), 2.0]


@pytest.mark.parametrize(
    "tensor",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.zeros((0, 4), dtype=np.float32),
        np.array([1.0, 2.0]),
        np.array(7, dtype=np.int32),
    ],
    ids=["matrix", "transposed", "empty", "float64", "number"],
)
def test_arrays_are_flowers_own(tensor: NDArray[np.generic]) -> None:
    """The same bytes that Flower writes, but for its order in memory, and Flower reads them."""
    (array,) = to_arrays({"w": tensor}).values()  # type: ignore[dict-item]
    expected = Array(np.array(tensor, order="C"))
    assert (array.dtype, array.shape, array.stype, array.data) == (
        expected.dtype,
        expected.shape,
        expected.stype,
        expected.data,
    )
    assert np.array_equal(array.numpy(), tensor)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_whatever_numpy_writes_is_read(version: tuple[int, int], order: Literal["C", "F"]) -> None:
    tensor = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32, order=order)
    file = io.BytesIO()
    np.lib.format.write_array(file, tensor, version=version)
    back = to_adapter(ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", file.getvalue())}))["w"]
    assert back.tolist() == tensor.tolist()
    back[0, 0] = 9  # a tensor of its own, that may be written to


def test_tensors_that_are_cut_short_are_misshapen() -> None:
    data = to_arrays(adapter())["q.lora_A.weight"].data[:-4]
    cut = ArrayRecord({"q.lora_A.weight": Array("float32", (2, 3), "numpy.ndarray", data)})
    word, detail = complaint(reply(cut, COUNT))
    assert word == "misshapen"
    assert "cannot be read" in detail


def test_a_message_of_its_own_shares_nothing_that_can_be_changed_by_assignment() -> None:
    message = instruction()
    own = wire.own_copy(message)
    del wire.arrays_of(own)["q.lora_A.weight"]
    own.content.config_records["config"]["server-round"] = 99
    own.content["more"] = ConfigRecord()
    assert wire.round_of(message) == 7
    assert bits(wire.adapter_of(message)) == bits(adapter())
    assert sorted(message.content) == ["arrays", "config"]
    assert own.metadata.dst_node_id == message.metadata.dst_node_id


def test_node_ids_and_devices_are_one_apart() -> None:
    """0 is no node id in Flower."""
    assert [node_of(device) for device in (0, 1, 999)] == [1, 2, 1000]
    assert [device_at(node_of(device)) for device in (0, 1, 999)] == [0, 1, 999]


def test_an_instruction_is_read_back() -> None:
    message = instruction()
    assert wire.round_of(message) == 7
    assert wire.flag(message, wire.REFERENCES)
    assert not wire.flag(message, wire.EVALUATE_LOCAL)
    assert bits(wire.adapter_of(message)) == bits(adapter())


@given(
    total=st.floats(allow_nan=False, allow_infinity=False),
    weight=st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    task=st.text(max_size=9),
)
def test_an_update_survives_a_round_trip(total: float, weight: float, task: str) -> None:
    rows = (Row(7, "device-002", task, "train", "own", "reward", total, weight),)
    update = DeviceUpdate(2, adapter(), 12, 1 / 3, rows)
    reply = wire.train_reply(update, instruction(device=2))
    back, (row,) = wire.measures_of(reply), wire.rows_of(reply)
    assert (back.device, back.num_examples, back.reward, row) == (2, 12, 1 / 3, rows[0])
    assert math.copysign(1, row.total) == math.copysign(1, total)
    assert bits(wire.adapter_of(reply)) == bits(adapter())


def test_the_device_of_an_update_is_the_node_that_sent_it_not_what_it_claims() -> None:
    update = DeviceUpdate(99, adapter(), 1, 0.0)
    assert wire.measures_of(wire.train_reply(update, instruction(device=4))).device == 4


def test_an_evaluation_reply_carries_rows_and_examples() -> None:
    rows = (Row(7, "device-002", "arithmetic", "test", "global", "accuracy", 3.0, 20.0),)
    message = wire.evaluate_reply(rows, 80, instruction())
    assert wire.rows_of(message) == rows
    assert dict(message.content.metric_records["metrics"]) == {"num-examples": 80}


def test_a_client_without_rows_has_none() -> None:
    assert wire.rows_of(reply(to_arrays(adapter()), MetricRecord({"num-examples": 1}))) == ()


def test_every_training_reply_has_the_metric_keys_that_flower_wants_to_be_equal() -> None:
    updates = [DeviceUpdate(0, adapter(), 0, 0.0), DeviceUpdate(1, adapter(), 5, 0.5)]
    keys = [set(wire.train_reply(u, instruction()).content.metric_records["metrics"]) for u in updates]
    assert keys[0] == keys[1] == {"num-examples", "effective-groups", "reward", "train_loss"}


def test_size_counts_the_arrays_with_their_npy_headers() -> None:
    """NumPy's format has a header of 128 bytes: A is 128 + 2 * 3 * 4 = 152, B is 128 + 4 * 2 * 4 = 160."""
    assert wire.size_of(instruction()) == 152 + 160


def test_seconds_are_what_was_stamped() -> None:
    message = wire.train_reply(DeviceUpdate(0, adapter(), 1, 0.0), instruction())
    assert wire.seconds_of(message) is None
    wire.stamp(message, seconds=1.25)
    assert wire.seconds_of(message) == 1.25


def test_the_uplink_is_counted_even_if_the_tensors_are_gone() -> None:
    message = wire.train_reply(DeviceUpdate(0, adapter(), 1, 0.0), instruction())
    assert wire.uplink_of(message) == 152 + 160
    wire.stamp(message, seconds=1.25)
    del message.content["arrays"]
    assert wire.uplink_of(message) == 152 + 160


def test_an_error_reply_says_why_in_a_word_and_in_detail() -> None:
    message = wire.error_reply("died", "its worker died: 2 times", instruction(device=4))
    assert message.has_error()
    assert wire.reason_of(message) == ("died", "its worker died: 2 times")
    assert wire.device_of(message) == 4
    codes = [wire.error_reply(word, "x", instruction()).error.code for word in ("raised", "late")]
    assert codes == [2, 0]  # Flower's CLIENT_APP_RAISED_EXCEPTION and UNKNOWN


def test_an_error_of_somebody_elses_is_refused_with_all_it_says() -> None:
    """Such as one of Flower's mods; its first words are no reason that a table could list."""
    message = Message(Error(7, "the mod needs a key: 'x'"), reply_to=instruction())
    assert wire.reason_of(message) == ("refused", "the mod needs a key: 'x'")


def test_the_loss_is_what_the_reward_lacks() -> None:
    for reward, loss in ((0.25, 0.75), (1.5, 0.0)):
        metrics = wire.train_reply(DeviceUpdate(0, adapter(), 5, reward), instruction()).content.metric_records[
            "metrics"
        ]
        assert metrics["train_loss"] == loss


def complaint(message: Message) -> tuple[str, str]:
    with pytest.raises(wire.UnusableReplyError) as caught:
        wire.usable_adapter(message, adapter())
    return caught.value.word, caught.value.detail


def test_a_good_reply_gives_its_adapter() -> None:
    usable = {name: np.clip(tensor, -1e7, 1e7) for name, tensor in adapter().items()}
    message = wire.train_reply(DeviceUpdate(0, usable, 0, 0.0), instruction())
    assert bits(wire.usable_adapter(message, adapter())) == bits(usable)


def test_values_that_no_sum_takes_are_refused_with_the_first_of_them() -> None:
    """The largest float32 is finite, and two of them are not."""
    message = wire.train_reply(DeviceUpdate(0, adapter(), 0, 0.0), instruction())
    with pytest.raises(wire.UnusableReplyError, match=r"^unsummable: \S+ holds 3\.4e\+38; up to 1\.7e\+07 can be"):
        wire.usable_adapter(message, adapter())


def changed(name: str, tensor: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None) -> ArrayRecord:
    """The adapter with one tensor replaced, or left out."""
    tensors = {**adapter(), name: tensor}
    return ArrayRecord({n: Array(t) for n, t in tensors.items() if t is not None})


NAN = np.array([[0, 0, np.nan], [0, 0, 0]], dtype=np.float32)
COUNT = MetricRecord({"num-examples": 1})


@pytest.mark.parametrize(
    ("arrays", "metrics", "word", "detail"),
    [
        pytest.param(None, COUNT, "misshapen", "'arrays'", id="no arrays"),
        pytest.param(to_arrays(adapter()), None, "misshapen", "'metrics'", id="no metrics"),
        pytest.param(changed("q.lora_B.weight", None), COUNT, "misshapen", "1 tensors are missing", id="missing"),
        pytest.param(changed("extra", NAN), COUNT, "misshapen", "1 unknown, first extra", id="unknown"),
        pytest.param(changed("q.lora_A.weight", NAN.T), COUNT, "misshapen", "(3, 2), expected (2, 3)", id="shape"),
        pytest.param(changed("q.lora_A.weight", NAN), COUNT, "not_finite", "1 of 2 tensors", id="nan"),
        pytest.param(changed("q.lora_A.weight", NAN + np.inf), COUNT, "not_finite", "first q.lora_A", id="inf"),
    ],
)
def test_complaints(arrays: ArrayRecord | None, metrics: MetricRecord | None, word: str, detail: str) -> None:
    found = complaint(reply(arrays, metrics))
    assert found[0] == word
    assert detail in found[1]


def test_the_complaint_about_an_error_is_its_own_reason() -> None:
    assert complaint(wire.error_reply("late", "no reply", instruction())) == ("late", "no reply")


def test_text_where_a_number_belongs_is_refused() -> None:
    content = RecordDict({"arrays": to_arrays(adapter()), "config": ConfigRecord({"server-round": "seven"})})
    with pytest.raises(TypeError, match="expected a number in a message, found 'seven'"):
        wire.round_of(Message(content, 1, MessageType.TRAIN))


def test_shared_questions_travel_only_if_there_are_any() -> None:
    problem = Problem("lists", "item", 3, "[3,9,4][1]=", "9", "3")
    update = DeviceUpdate(0, adapter(), 1, 0.0, shared=(problem, problem))
    message = wire.train_reply(update, instruction())
    assert wire.shared_of(message) == (problem, problem)
    bare = wire.train_reply(replace(update, shared=()), instruction())
    assert wire.shared_of(bare) == ()
    assert set(message.content) - set(bare.content) == {wire.SHARED}
    message.content[wire.SHARED] = ConfigRecord({"json": "[[1]]"})
    with pytest.raises(wire.UnusableReplyError, match="shared questions cannot be read"):
        wire.usable_adapter(message, adapter())


@pytest.mark.parametrize(
    "own", [Allotment(), Allotment(0.25, 1 / 3, calls=0, tokens=7, money=0.1), Allotment(test_tau=0.0, price=0.5)]
)
def test_an_allotment_travels_with_its_message_alone(own: Allotment) -> None:
    """Whole numbers stay whole, None stays None; the tensors are shared and the message it came from says nothing."""
    before = instruction()
    message = wire.with_allotment(before, own)
    back = wire.allotment_of(message)
    assert back == own
    assert isinstance(back.calls, int) == (own.calls is not None)
    assert wire.allotment_of(before) == Allotment()
    assert wire.arrays_of(message) is wire.arrays_of(before)
    assert wire.round_of(message) == 7
    assert wire.flag(message, wire.REFERENCES)
    assert message.metadata.dst_node_id == 3
