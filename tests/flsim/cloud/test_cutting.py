"""Clouds whose model is cut: no answer depends on a batch, the whole one's are the same, and a cache keeps them."""

import pickle
from pathlib import Path

import pytest

from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.cache import Shelf
from flsim.cloud.cached import CachedCloud
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.more_help import Depth, Shared, SharesLayers, sharing
from flsim.collaboration.exits import NEVER
from flsim.collaboration.payload import Payload
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.models.cut import Cut
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream, stream_of

pytestmark = pytest.mark.usefixtures("one_thread")

CUTS = [
    Cut(3),
    Cut(5, Payload("float16")),
    Cut(1, Payload("int8")),
    Cut(5, threshold=0.7),
    Cut(4, Payload("int8"), 0.9),
    Cut(3, threshold=NEVER),
]


def ids_of(cut: Cut) -> str:
    return f"{cut.layer} {cut.payload.sent} {cut.threshold}"


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    stream: TaskStream = stream_of(load_config(None, ["rounds=1", "fleet.devices=1"]))
    return [problem for own in stream.evaluation_problems("device-0", "test", per_task=6).values() for problem in own]


@pytest.mark.parametrize("cut", CUTS, ids=ids_of)
def test_no_answer_depends_on_the_others_of_a_call(cut: Cut, problems: list[Problem]) -> None:
    """Nor on their order: together, the other way round, and one by one; of doubts to the step of a threshold."""
    together, turned, alone = Builtin(), Builtin(batch_size=7), Builtin(batch_size=1)
    found = together.share(problems, cut)
    assert [(one.text, one.said, one.uploads) for one in found] == [
        (one.text, one.said, one.uploads) for one in alone.share(problems, cut)
    ]
    assert [one.text for one in turned.share(problems[::-1], cut)][::-1] == [one.text for one in found]
    steps = [sum(one.doubt > step / 100 for step in range(100)) for one in found]
    assert steps == [sum(one.doubt > step / 100 for step in range(100)) for one in alone.share(problems, cut)]
    assert all((one.doubt > 0) <= (cut.threshold == NEVER) for one in found)


def test_a_doubt_is_the_threshold_from_which_on_the_answer_stays(problems: list[Problem]) -> None:
    """Every threshold of a few is tried: above the doubt the answer is the cloud's, and below it another one."""
    cloud = Builtin()
    doubts = [one.doubt for one in cloud.share(problems, Cut(4, threshold=NEVER))]
    whole = [answer.text for answer in cloud.answer(problems)]
    assert min(doubts) < 0.5 < max(doubts) < 1
    for threshold in (0.3, 0.5, 0.75, 0.95):
        texts = [one.text for one in cloud.share(problems, Cut(4, threshold=threshold))]
        stays = [doubt <= threshold for doubt in doubts]
        assert [text == own for text, own in zip(texts, whole, strict=True)] == stays


def test_a_checkpoint_that_is_cut_says_what_it_says(problems: list[Problem]) -> None:
    """With its own words around a question, and its size known before its weights."""
    cloud = Checkpoint("builtin:cloud")
    assert cloud.depth == Depth(6, 128)
    assert "base" not in vars(cloud)
    whole = cloud.answer(problems)
    found = cloud.share(problems, Cut(2))
    assert [one.text for one in found] == [answer.text for answer in whole]
    sizes = [(answer.prompt_tokens, answer.completion_tokens) for answer in whole]
    assert [(one.prompt, one.said) for one in found] == sizes
    assert [sum(one.uploads) for one in found] == [prompt + said - 1 for prompt, said in sizes]


def test_a_cache_keeps_what_was_shared(problems: list[Problem], tmp_path: Path) -> None:
    """By the cut: another run asks nothing, another cut is another request, and of equal questions one is asked."""

    class Counting(Builtin):
        asked = 0

        def share(self, problems: list[Problem], cut: Cut) -> list[Shared]:  # type: ignore[override]
            Counting.asked += len(problems)
            return super().share(problems, cut)

    some, cut = problems[:4], Cut(3, Payload("int8"))
    first = CachedCloud(Counting(), Shelf(tmp_path))
    found = first.share([*some, some[0]], cut)
    assert (Counting.asked, found[4]) == (4, found[0])
    again = CachedCloud(Counting(), Shelf(tmp_path))
    assert again.share(some, cut) == found[:4] == Builtin().share(some, cut)
    assert Counting.asked == 4
    again.share(some[:1], Cut(3))
    assert Counting.asked == 5
    assert again.depth == Depth(6, 128)


def test_who_shares_layers_and_who_does_not() -> None:
    assert isinstance(Builtin(), SharesLayers)
    assert not isinstance(Oracle(), SharesLayers)
    with pytest.raises(ConfigError, match="Oracle cannot share its layers"):
        sharing(Oracle())
    with pytest.raises(ConfigError, match="Oracle cannot share its layers"):
        CachedCloud(Oracle(), None).share([], Cut(1))


def test_it_travels_without_what_it_loaded(problems: list[Problem]) -> None:
    cloud = Builtin()
    cloud.share(problems[:1], Cut(1))
    assert len(pickle.dumps(cloud)) < 2000
    sent: Builtin = pickle.loads(pickle.dumps(cloud))
    assert sent.share(problems[:1], Cut(1)) == cloud.share(problems[:1], Cut(1))
