"""A real HTTP server of a checkpoint: going on and verifying give the checkpoint's text, or a sentence says why not."""

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from experiments.real.checkpoint import write_checkpoint
from experiments.real.model_server import Able, ModelServer, serving_model
from flsim.cloud.cache import Cache
from flsim.cloud.cached import CachedCloud
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.more_help import Beginning, Draft, Verified
from flsim.cloud.protocol import Answer
from flsim.cloud.server.chat_reply import UnreadableReplyError
from flsim.cloud.server.given_reply import NONE_GIVEN, read_given
from flsim.cloud.server.trial import goes_on, halved
from flsim.config.schema import ConfigError
from flsim.models.base import BaseModel, load_base
from flsim.problems.families import TASKS
from flsim.problems.problem import Problem
from flsim.tasks.stream import proxy_problems

pytestmark = pytest.mark.usefixtures("one_thread")

PROBLEMS = [Problem("mine", "", 0, f"What is {n} + {n}?", str(2 * n), instruction="Add.") for n in range(1, 5)]
LONGEST = 9


@pytest.fixture(scope="module", params=["smollm2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("served") / request.param, request.param, seed=3)


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseModel:
    return load_base(str(folder), key="cloud.model", asks=False)


@pytest.fixture
def server(base: BaseModel) -> Iterator[ModelServer]:
    with serving_model(base) as found:
        yield found


def endpoint(server: ModelServer, **settings: Any) -> Endpoint:
    return Endpoint(server.url, "m", **{"deadline_s": 20.0, "retries": 0, "max_tokens": LONGEST, **settings})


def local(folder: Path) -> Checkpoint:
    return Checkpoint(str(folder), max_tokens=LONGEST)


def whole(cloud: Any) -> list[str]:
    """Its answers, from where the first word stands."""
    return [answer.text for answer in cloud.answer(PROBLEMS) if answer is not None]


def test_the_server_answers_as_the_checkpoint_does(server: ModelServer, folder: Path) -> None:
    assert endpoint(server).answer(PROBLEMS) == local(folder).answer(PROBLEMS)


@pytest.fixture(scope="module")
def letters(tiny_checkpoint: Path) -> BaseModel:
    """A model whose tokens are characters and words, so that a text has one spelling in them."""
    return load_base(str(tiny_checkpoint), key="cloud.model", asks=False)


@pytest.mark.parametrize("way", ["final", "raw"])
def test_an_answer_in_pieces_is_the_whole_answer(letters: BaseModel, tiny_checkpoint: Path, way: str) -> None:
    """Three tokens at a time, each piece after all those before it; by chat, and by completions."""
    problems = proxy_problems(TASKS, "train", count=6, rng=Random(1))
    own = Checkpoint(str(tiny_checkpoint), max_tokens=LONGEST).answer(problems)
    said, over = [""] * len(problems), [False] * len(problems)
    with serving_model(letters) as server:
        cloud = endpoint(server, continues=way, tokenizer=str(tiny_checkpoint))
        for _ in range(LONGEST // 3):
            begun = [Beginning(problem, text) for problem, text in zip(problems, said, strict=True)]
            for place, came in enumerate(cloud.go_on(begun, 3)):
                assert came is not None
                if not over[place]:
                    said[place], over[place] = said[place] + came.answer.text, came.ended
                    assert came.answer.completion_tokens <= 3
    assert said == [answer.text for answer in own]


def greedy(
    cloud: Any, problem: Problem, target: list[int], k: int, wrong: Sequence[int] = ()
) -> tuple[str, int, int, int]:
    """Decode by drafts that are those of `target` but at the places `wrong`; text, tokens, accepted, and calls."""
    said: list[int] = []
    accepted = calls = 0
    ended = False
    while not ended and len(said) < LONGEST:
        drafted = list(target[len(said) : len(said) + k])
        drafted = [token + 1 if len(said) + at in wrong else token for at, token in enumerate(drafted)]
        (found,) = cloud.verify([Draft(problem, tuple(said), tuple(drafted))], "shared", 0.0)
        assert isinstance(found, Verified)
        assert found.billed is not None
        said, ended = [*said, *found.tokens], found.ended
        accepted, calls = accepted + found.accepted, calls + 1
    return cloud.said(said[:LONGEST]), len(said), accepted, calls


def target_of(cloud: Any, problem: Problem) -> list[int]:
    """The greedy tokens, one verification of nothing each."""
    said: list[int] = []
    for _ in range(LONGEST):
        (found,) = cloud.verify([Draft(problem, tuple(said), ())], "shared", 0.0)
        said += found.tokens
        if found.ended:
            break
    return said


@pytest.mark.parametrize("k", [0, 1, 3, 8])
def test_verified_greedy_text_is_the_checkpoints_own(folder: Path, server: ModelServer, k: int) -> None:
    """With right drafts and with some that are wrong; what is said are accepted tokens and one of each call."""
    cloud = CachedCloud(endpoint(server, tokenizer=str(folder)), None)
    for problem, answer in zip(PROBLEMS[:2], whole(local(folder)), strict=False):
        target = target_of(cloud, problem)
        for wrong in ((), (0, 2, 5)):
            text, tokens, accepted, calls = greedy(cloud, problem, target, k, wrong)
            assert text == answer
            assert accepted <= tokens <= accepted + calls
            assert calls == tokens if k == 0 else calls <= tokens


def test_a_server_may_name_tokens_by_their_text(letters: BaseModel, tiny_checkpoint: Path) -> None:
    with serving_model(letters, Able(names_ids=False)) as server:
        cloud = CachedCloud(endpoint(server, tokenizer=str(tiny_checkpoint)), None)
        own = Checkpoint(str(tiny_checkpoint), max_tokens=LONGEST).answer(PROBLEMS[:2])
        for problem, answer in zip(PROBLEMS, own, strict=False):
            assert greedy(cloud, problem, target_of(cloud, problem), 3, (1, 4))[0] == answer.text


def test_verified_drafts_are_billed_as_sent(server: ModelServer, folder: Path) -> None:
    cloud = endpoint(server, tokenizer=str(folder))
    read = len(cloud.tokens.prompt_ids(PROBLEMS[0]))
    (one,) = cloud.verify([Draft(PROBLEMS[0], (5, 6), (7, 8, 9))], "shared", 0.0)
    assert one is not None
    assert one.billed == (read + 5, 1)
    answer = cloud.answer(PROBLEMS[:1])[0]
    assert answer is not None
    assert answer.prompt_tokens == read


def test_what_it_tells_of_its_tokens_is_what_the_checkpoint_tells(server: ModelServer, folder: Path) -> None:
    """Ids, and log-probabilities to within rounding; billed by the server."""
    told = endpoint(server, tokenizer=str(folder)).tell(PROBLEMS, 3)
    for reply, own in zip(told, local(folder).tell(PROBLEMS, 3), strict=True):
        assert reply is not None
        assert reply.answer.tokens == own.answer.tokens
        assert reply.tokens.tolist() == own.tokens.tolist()
        np.testing.assert_array_equal(reply.ids, own.ids)
        np.testing.assert_allclose(reply.logprobs, own.logprobs, atol=1e-4)
    assert [Endpoint("http://127.0.0.1:9/v1", "m", tokenizer=name).access for name in (None, str(folder))] == [
        "text",
        "top_logprobs",
    ]


def test_nothing_of_a_draft_is_bought_twice(server: ModelServer, folder: Path, tmp_path: Path) -> None:
    cloud = CachedCloud(endpoint(server, tokenizer=str(folder)), Cache(tmp_path))
    first = greedy(cloud, PROBLEMS[0], target_of(cloud, PROBLEMS[0]), 3)
    sent = len(server.asked)
    again = CachedCloud(endpoint(server, tokenizer=str(folder)), Cache(tmp_path))
    assert greedy(again, PROBLEMS[0], target_of(again, PROBLEMS[0]), 3) == first
    assert len(server.asked) == sent


def test_a_trial_finds_how_the_server_goes_on(letters: BaseModel) -> None:
    """Where what it does not know is ignored, sending it does no harm."""
    for able, way in (
        (Able(), "final"),
        (Able(goes_on=False, prefills=True), "final"),
        (Able(goes_on=False, prefills=True, refuses=("continue_final_message",)), "prefill"),
    ):
        with serving_model(letters, able) as server:
            cloud = endpoint(server)
            cloud.try_out(goes_on=True)
            asked = len(server.asked)
            assert asked <= 3
            worker = pickle.loads(pickle.dumps(cloud)).for_worker(1)
            worker.go_on([Beginning(PROBLEMS[0], "So")], 2)
            assert ("continue_final_message" in server.asked[-1]) == (way == "final")
            assert len(server.asked) == asked + 1


def test_a_server_that_starts_anew_is_refused_before_the_run(base: BaseModel, folder: Path) -> None:
    with serving_model(base, Able(goes_on=False)) as server:
        with pytest.raises(ConfigError, match=r"does not go on with a beginning: .* started anew or refused; name the"):
            endpoint(server).try_out(goes_on=True)
        asked = len(server.asked)
        endpoint(server, continues="final").try_out(goes_on=True)  # who says so is believed
        endpoint(server, tokenizer=str(folder)).try_out(goes_on=True)  # and completions cannot start anew
        assert len(server.asked) == asked


def test_a_server_that_tells_nothing_of_given_tokens_is_refused_before_the_run(base: BaseModel, folder: Path) -> None:
    with serving_model(base, Able(scores=False)) as server:
        cloud = endpoint(server, tokenizer=str(folder))
        with pytest.raises(ConfigError, match=rf"cannot verify drafts, as a trial {NONE_GIVEN}: it takes the route"):
            cloud.try_out(verifies=True)
        assert cloud.verify([Draft(PROBLEMS[0], (), (5,))], "shared", 0.0) == [None]
    refused = pytest.raises(ConfigError, match="cannot verify drafts, as a trial answered with status 400")
    with serving_model(base, Able(refuses=("echo",))) as server, refused:
        endpoint(server, tokenizer=str(folder)).try_out(verifies=True)
    with serving_model(base) as server:
        endpoint(server, tokenizer=str(folder)).try_out(verifies=True)
        with pytest.raises(ConfigError, match=r"reads \d+ tokens where cloud.tokenizer='builtin:cloud' has \d+; name"):
            endpoint(server, tokenizer="builtin:cloud").try_out(verifies=True)


def test_what_a_server_refuses_of_a_draft_is_learned(base: BaseModel, folder: Path) -> None:
    with serving_model(base, Able(refuses=("return_tokens_as_token_ids",))) as server:
        cloud = endpoint(server, tokenizer=str(folder))
        (first,) = cloud.verify([Draft(PROBLEMS[0], (), (5,))], "shared", 0.0)
        assert first is not None
        cloud.verify([Draft(PROBLEMS[1], (), (5,))], "shared", 0.0)
        assert len(server.asked) == 3


def test_what_an_endpoint_cannot_do_is_said_in_a_sentence(folder: Path) -> None:
    plain = Endpoint("http://127.0.0.1:9/v1", "m")
    with pytest.raises(ConfigError, match=r"verifies greedily only, .* set client.helping.temperature=0"):
        plain.verify([], "shared", 1.0)
    with pytest.raises(ConfigError, match=r"cloud.tokenizer does not say which they are; name a folder"):
        assert plain.vocabulary
    with pytest.raises(ConfigError, match=r"cloud.continues='on' must be one of: auto, final, prefill, prefix, raw"):
        Endpoint("http://127.0.0.1:9/v1", "m", continues="on")
    with pytest.raises(ConfigError, match=r"cloud.continues=raw writes the chat's template itself, and needs"):
        Endpoint("http://127.0.0.1:9/v1", "m", continues="raw")
    with pytest.raises(ConfigError, match=r"cloud\.tokenizer='nowhere'"):
        assert Endpoint("http://127.0.0.1:9/v1", "m", tokenizer="nowhere").vocabulary


def test_a_server_that_is_down_is_not_judged() -> None:
    Endpoint("http://127.0.0.1:9/v1", "m", backoff_s=0).try_out(goes_on=True)
    Endpoint("http://127.0.0.1:9/v1", "m", tokenizer="builtin:cloud").try_out(verifies=True)


@pytest.mark.parametrize(
    ("came", "is_rest"),
    [(" three four", True), ("three", True), ("one two three four", False), ("", False), ("Sure! Here", False)],
)
def test_the_rest_of_an_answer_is_told_from_another_answer(came: str, is_rest: bool) -> None:
    """By hand, of "one two three four" whose first half is "one two"."""
    assert halved("one two three four") == "one two"
    assert goes_on("one two three four", "one two", came) is is_rest
    assert halved("abcd") == "ab"


def test_odd_replies_are_failures_by_name(folder: Path) -> None:
    tokens = Endpoint("http://127.0.0.1:9/v1", "m", tokenizer=str(folder)).tokens
    bill = '"usage": {"prompt_tokens": 2, "completion_tokens": 1}'
    for choice, why in (
        ("{}", NONE_GIVEN),
        ('{"logprobs": {"tokens": ["a"], "top_logprobs": [null]}}', NONE_GIVEN),
        ('{"logprobs": {"tokens": ["a", "b"], "top_logprobs": [null, null]}}', NONE_GIVEN),
        ('{"logprobs": {"tokens": ["a", "b"], "top_logprobs": [null, {"no such": 0}]}}', "cannot tell apart"),
        ('{"logprobs": {"tokens": ["a", "b"], "top_logprobs": [null, {"b": 0}]}}', "no token of its own"),
    ):
        with pytest.raises(UnreadableReplyError, match=why):
            read_given(f'{{"choices": [{choice}], {bill}}}', [5, 6], [6], tokens)
    ending = '{"finish_reason": "stop", "logprobs": {"tokens": ["a", "b"], "top_logprobs": [null, {"b": 0}]}}'
    answer, found = read_given(f'{{"choices": [{ending}], {bill}}}', [5, 6], [6], tokens)
    assert (answer, found) == (Answer("", 2, 1), Verified((6, tokens.ends[0]), 1, True, billed=(2, 1)))
