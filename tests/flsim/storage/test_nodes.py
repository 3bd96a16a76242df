"""Nodes that share a store and nothing else: states and purchases of one are known on the other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import MetricRecord, RecordDict

from flsim.budget.ledger import Account
from flsim.cloud.journal import PURCHASES, TRAINING, Journal, journal_of, path_of
from flsim.cloud.protocol import MONEY, Answer
from flsim.config.schema import CloudConfig
from flsim.files import DamagedFileError
from flsim.flower import store as store_module
from flsim.flower.grid import store_in
from flsim.flower.store import DeviceStore
from flsim.storage.behind import bucket_behind, open_copy
from flsim.storage.bucket import Bucket

PRICES = CloudConfig()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to the node of a name, and its copy of the run."""

    def at(name: str) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return open_copy(Bucket.at(f"file://{tmp_path}/there"))

    return at


def states(*values: int) -> dict[int, RecordDict]:
    return {device: RecordDict({"memory": MetricRecord({"value": value})}) for device, value in enumerate(values)}


def test_a_state_is_read_on_the_node_that_left_it_and_on_any_other(node: Callable[[str], Path]) -> None:
    first = store_in(node("a"))
    saved = first.save(3, states(10, 11))
    assert first.load(1, saved[1]) == states(10, 11)[1]
    folder = node("b")
    other = first.here()
    assert other == store_in(folder)
    assert other.folder != first.folder
    assert other.load(1, saved[1]) == states(10, 11)[1]
    assert other.files() == first.files()
    assert [path.suffix for path in other.folder.iterdir()] == [".state"]  # it alone was got
    assert other.bucket is not None
    other.bucket.delete(other.files())
    assert other.load(1, saved[1]) == states(10, 11)[1]  # from what the node keeps
    with pytest.raises(DamagedFileError, match=r"\.states of file://.*/devices is gone, and device-000"):
        other.load(0, saved[0])


def test_a_node_keeps_no_more_than_so_much_and_loses_nothing(
    node: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(node("a"))
    early = store.save(1, states(1, 2))
    monkeypatch.setattr(store_module._trim, "__defaults__", (0,))
    late = store.save(2, states(3, 4))
    assert not list(store.folder.glob("*.states"))
    assert [store.load(0, saved[0]) for saved in (early, late)] == [states(1)[0], states(3)[0]]


def test_a_store_in_a_folder_of_its_own_knows_no_bucket(tmp_path: Path) -> None:
    assert bucket_behind(tmp_path / "run" / "devices") is None
    store = store_in(tmp_path / "run")
    assert store.here() is store
    assert store == DeviceStore(tmp_path / "run" / "devices")


def test_what_was_sent_to_a_paid_cloud_is_known_on_another_node_before_and_after_its_answer(
    node: Callable[[str], Path],
) -> None:
    """The first node is lost after it has sent; the next counts that, asks, and leaves its answer to a third."""

    def journal() -> Journal:
        return journal_of(place(), 2, TRAINING, PRICES, MONEY, total=Account())

    def place() -> Path:
        return bucketed / PURCHASES / "device-007"

    bucketed = node("a")
    first = journal()
    first.send(TRAINING, [("question", Answer("", 5, 7))])
    bucketed = node("b")
    second = journal()
    assert (second.held.calls, second.held.tokens) == (1, 12)
    second.send(TRAINING, [("question", Answer("", 5, 7))])
    second.close(TRAINING, [("question", Answer("42", 5, 1))])
    bucketed = node("a")  # whose own file has less
    third = journal()
    assert third.held.calls == 2  # the one that nobody knows the answer of, and the one that came
    answer = third.recall(TRAINING, "question")
    assert answer is not None
    assert answer.text == "42"
    later = journal_of(place(), 4, TRAINING, PRICES, MONEY, total=Account())
    assert later.before.calls == 2  # of a round that was lost with its device
    assert bucket_behind(place()) is not None
    assert path_of(place(), 2, TRAINING).is_file()


def test_a_journal_that_the_store_has_not_is_of_an_attempt_that_was_given_up(node: Callable[[str], Path]) -> None:
    place = node("a") / PURCHASES / "device-007"
    journal_of(place, 1, TRAINING, PRICES, MONEY, total=Account()).send(TRAINING, [("question", Answer("", 5, 7))])
    bucket = bucket_behind(place)
    assert bucket is not None
    bucket.delete(bucket.sizes())
    assert journal_of(place, 1, TRAINING, PRICES, MONEY, total=Account()).held.calls == 0
