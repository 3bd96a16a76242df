"""The cloud behind a real HTTP server, which also misbehaves: answers, retries, deadlines, limits, and the key."""

import logging
import socket
import time
from email.utils import formatdate
from random import Random
from typing import Any

import pytest

from flsim.cloud.builtin import Builtin
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import Answer, asks_all_tests, instruction
from flsim.cloud.server.address import is_local
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.loop.checks import check
from flsim.problems.families import FAMILIES, TASKS
from flsim.problems.problem import Problem, split_of
from flsim.tasks.stream import proxy_problems, stream_of
from tests.flsim.cloud.answers import answered
from tests.flsim.cloud.chat_server import BROKEN, BUSY, DRIP, OK, PASSING, REFUSED, SLOW, ChatServer, chat_server

PROBLEMS = proxy_problems(TASKS, "train", count=24, rng=Random(0))
ANSWERS = {problem.question: problem.answer for problem in PROBLEMS}
KEY = "sk-planted-0123456789abcdef"


def cloud_at(server: ChatServer | str, **settings: Any) -> Endpoint:
    url = server if isinstance(server, str) else server.url
    quick = {"deadline_s": 0.4, "backoff_s": 0.01, "retries": 2, **settings}
    return Endpoint(url, "m", **quick)


def test_answers_come_in_order_with_the_servers_token_counts() -> None:
    """By hand: this server bills a token per character asked, and one more than the answer has."""
    with chat_server(ANSWERS) as server:
        answers = answered(cloud_at(server), PROBLEMS)
    assert answers == [Answer(p.answer, len(p.question), len(p.answer) + 1) for p in PROBLEMS]
    assert len(server.asked) == len(PROBLEMS)
    assert cloud_at(server).answer([]) == []


def test_the_request_is_the_config() -> None:
    with chat_server(ANSWERS) as server:
        cloud_at(server, system="Be brief.", max_tokens=7).answer(PROBLEMS[:1])
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0.0,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": PROBLEMS[0].question},
        ],
    }


def test_a_question_of_a_data_set_is_sent_under_its_own_instruction() -> None:
    """Without a system prompt, unless there is one for all; the quote counts what is sent."""
    own = Problem("mine", "", 0, "2+2=", "4", instruction="Add.")
    with chat_server({own.prompt: "4"}) as server:
        for system, more in ((None, []), ("Be brief.", [{"role": "system", "content": "Be brief."}])):
            cloud = cloud_at(server, system=system)
            (answer,) = answered(cloud, [own])
            assert server.bodies[-1]["messages"] == [*more, {"role": "user", "content": "Add.\n\n2+2="}]
            assert cloud.quote(own).prompt_tokens == len("Add.\n\n2+2=") + len(system or "") + 64
            assert answer.prompt_tokens <= cloud.quote(own).prompt_tokens


@pytest.mark.parametrize("how", PASSING)
def test_what_fails_once_is_asked_again_and_counted(how: str) -> None:
    with chat_server(ANSWERS, lambda number, _: how if number == 0 else OK) as server:
        (answer,) = answered(cloud_at(server), PROBLEMS[:1])
    assert (answer.text, answer.retries, len(server.asked)) == (PROBLEMS[0].answer, 1, 2)


@pytest.mark.parametrize("how", PASSING)
def test_what_fails_always_is_none_after_all_tries_and_within_the_deadline(how: str) -> None:
    """Three tries of 0.4 s at most with short waits; the reply that drips would take a quarter of a minute."""
    started = time.monotonic()
    with chat_server(ANSWERS, how) as server:
        assert cloud_at(server).answer(PROBLEMS[:1]) == [None]
        took = time.monotonic() - started
        assert len(server.asked) == 3
    assert took < 6  # a busy machine's slack
    assert took > 3 * 0.4 or how not in (SLOW, DRIP)


def test_a_wrong_key_is_not_tried_twice() -> None:
    with chat_server(ANSWERS, REFUSED) as server:
        assert cloud_at(server, stop_when_refused=False).answer(PROBLEMS[:1]) == [None]
        assert len(server.asked) == 1


def test_nobody_there_is_a_failure_and_no_error() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert cloud_at(f"http://127.0.0.1:{port}/v1").answer(PROBLEMS[:5]) == [None] * 5


def test_one_question_that_fails_costs_the_others_nothing() -> None:
    bad = PROBLEMS[3].question
    with chat_server(ANSWERS, lambda _, question: BROKEN if question == bad else OK) as server:
        answers = cloud_at(server).answer(PROBLEMS)
    assert [None if a is None else a.text for a in answers] == [
        None if p.question == bad else p.answer for p in PROBLEMS
    ]


def test_after_three_failures_in_a_row_the_rest_of_a_call_fails_at_once_and_the_next_call_tries_again() -> None:
    """One at a time and without retries, so that three requests are made; then the server is up again."""
    with chat_server(ANSWERS, lambda number, _: BROKEN if number < 3 else OK) as server:
        cloud = cloud_at(server, concurrency=1, retries=0)
        assert cloud.answer(PROBLEMS) == [None] * len(PROBLEMS)
        assert len(server.asked) == 3
        assert [answer.text for answer in answered(cloud, PROBLEMS)] == list(ANSWERS.values())


def test_failures_that_are_not_in_a_row_do_not_stop_a_call() -> None:
    """Two of three fail, one at a time, over and over: every third is answered."""
    with chat_server(ANSWERS, lambda number, _: OK if number % 3 == 2 else BROKEN) as server:
        answers = cloud_at(server, concurrency=1, retries=0).answer(PROBLEMS)
    assert [answer is not None for answer in answers] == [False, False, True] * (len(PROBLEMS) // 3)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_than_allowed_are_with_the_server_and_as_many_as_allowed(limit: int) -> None:
    with chat_server(ANSWERS) as server:
        server.pause_s = 0.02
        cloud_at(server, concurrency=limit, deadline_s=5.0).answer(PROBLEMS)
        assert server.most == limit


def test_the_wait_that_a_server_names_is_kept_up_to_the_deadline() -> None:
    """And not the client's own, which is a minute here, but where the header says nothing; a date has whole seconds."""
    later = formatdate(time.time() + 2, usegmt=True)
    for named, backoff_s, least in (("0", 60.0, 0.0), ("0.25", 60.0, 0.25), (later, 60.0, 0.1), ("soon", 0.01, 0.01)):
        with chat_server(ANSWERS, lambda number, _: BUSY if number == 0 else OK) as server:
            server.retry_after = named
            started = time.monotonic()
            answered(cloud_at(server, deadline_s=3.0, backoff_s=backoff_s), PROBLEMS[:1])
            assert least <= time.monotonic() - started < 6, named


def test_a_wait_beyond_the_deadline_is_a_failure_at_once() -> None:
    with chat_server(ANSWERS, BUSY) as server:
        for named in ("3600", formatdate(time.time() + 3600, usegmt=True)):
            server.retry_after = named
            assert cloud_at(server).answer(PROBLEMS[:1]) == [None]
        assert len(server.asked) == 2


def test_a_quote_is_never_below_what_is_billed() -> None:
    with chat_server(ANSWERS) as server:
        cloud = cloud_at(server, system="µ")
        for problem, answer in zip(PROBLEMS, answered(cloud, PROBLEMS), strict=True):
            quote = cloud.quote(problem)
            assert quote.prompt_tokens == len(problem.question) + 2 + 64
            assert quote.prompt_tokens >= answer.prompt_tokens
            assert quote.completion_tokens == cloud.max_tokens >= answer.completion_tokens


def test_why_it_failed_is_logged_without_a_word_of_the_servers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This server repeats the key in its errors."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(logging.getLogger("flsim.run"), "propagate", True)
    with caplog.at_level(logging.DEBUG):
        for how in (BROKEN, REFUSED):
            with chat_server(ANSWERS, how) as server:
                cloud = cloud_at(server, concurrency=1, retries=0, stop_when_refused=False)
                assert cloud.answer(PROBLEMS[:5]) == [None] * 5
                assert server.keys == {f"Bearer {KEY}"}
    assert "the cloud failed at 5 of 5 questions: 3 answered with status 500, 2 not tried" in caplog.text
    assert "3 answered with status 401" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in repr(vars(cloud))


def test_a_missing_key_is_refused_unless_the_server_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUD_KEY", raising=False)
    far = Endpoint("https://api.example.org/v1", "m", key_env="CLOUD_KEY")
    stream = stream_of(Config())
    with pytest.raises(ConfigError, match=r"environment variable CLOUD_KEY is not set"):
        far.check(stream, 1)
    for host in ("localhost:8000", "127.0.0.1", "[::1]:1"):
        Endpoint(f"http://{host}/v1", "m", key_env="CLOUD_KEY").check(stream, 1)
    for host in ("10.0.0.1", "localhost.example.org"):
        assert not is_local(f"http://{host}/v1")
    monkeypatch.setenv("CLOUD_KEY", KEY)
    far.check(stream, 1)
    with pytest.raises(ConfigError, match=r"concurrency=8 is less than engine\.workers=9"):
        far.check(stream, 9)


ENDPOINT = ("cloud.path=flsim.cloud.endpoint:Endpoint", "cloud.url=http://localhost:1/v1", "cloud.model=m")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ENDPOINT[:1], r"needs cloud\.url: http"),
        (ENDPOINT[:2], r"needs cloud\.model: the name"),
        ((*ENDPOINT, "cloud.url=localhost/v1"), r"must begin with http"),
        ((*ENDPOINT, "cloud.url=https://me:planted@h/v1"), r"holds a user, a password or a query"),
        ((*ENDPOINT, "cloud.url=https://h/v1?key=planted"), r"put the key into the environment"),
        ((*ENDPOINT, "cloud.key_env=sk-planted"), r"must be the name of an environment variable"),
        ((*ENDPOINT, "cloud.key_env=planted123"), r"take it out"),
        ((*ENDPOINT, "cloud.concurrency=0"), r"concurrency=0 must be at least 1"),
        ((*ENDPOINT, "cloud.retries=-1"), r"retries=-1 must be at least 0"),
        ((*ENDPOINT, "cloud.deadline_s=0"), r"deadline_s=0 must be above 0"),
        ((*ENDPOINT, "cloud.max_tokens=0"), r"max_tokens=0 must be at least 1"),
        ((ENDPOINT[1],), r"builtin:Builtin cannot take the settings of cloud: .*'url'; it takes: model, batch_size"),
        ((*ENDPOINT, "evaluation.cloud=some"), r"choose one of: auto, all, granted"),
    ],
)
def test_settings_that_cannot_work_are_refused_and_no_key_is_repeated(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(load_config(None, settings))
    assert "planted" not in str(caught.value)


def test_an_endpoint_answers_granted_test_prompts_only_unless_asked_for_all() -> None:
    endpoint = make_cloud(load_config(None, ENDPOINT).cloud)
    assert [asks_all_tests(endpoint, asked) for asked in ("auto", "all", "granted")] == [False, True, False]
    assert [asks_all_tests(Builtin(), asked) for asked in ("auto", "all", "granted")] == [True, True, False]


def test_the_default_prompt_shows_every_family_and_no_test_question() -> None:
    lines = instruction().splitlines()[3:]
    assert len(lines) == 2 * len(FAMILIES)
    assert {split_of(line[: line.rindex("=") + 1]) for line in lines} == {"train"}
