"""`flsim record`: every question once, whatever ends it, under caps; and a run on the table that it writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.command.__main__ import main
from flsim.cloud import cache, journal, purchases
from flsim.cloud.answer_table import read_table
from flsim.cloud.recorded import Recorded
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.tasks.stream import stream_of
from tests.flsim.cloud.chat_server import BROKEN, OK, ChatServer, chat_server
from tests.flsim.cloud.test_money import Killed, kills

CAPITALS = {
    **{"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo", "Peru": "Lima", "Cuba": "Havana"},
    **{"Japan": "Tokyo", "Kenya": "Nairobi", "Chile": "Santiago", "Ghana": "Accra", "Nepal": "Kathmandu"},
}
QUESTIONS = {f"What is the capital of {country}?": city for country, city in CAPITALS.items()}
SAID = {question: city if city != "Rome" else "Milan" for question, city in QUESTIONS.items()}
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(SAID) as there:
        yield there


@pytest.fixture
def config(tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    splits = ["train", "validation", "test"]
    rows = [
        {"q": q, "a": a, "kind": "far" if n % 2 else "near", "split": splits[n % 3]}
        for n, (q, a) in enumerate(QUESTIONS.items())
    ]
    (tmp_path / "capitals.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = tmp_path / "small.yaml"
    file.write_text(
        f"""
name: small
stream: {{phases: [[capitals]]}}
fleet: {{devices: 1}}
data:
  capitals:
    kind: files
    root: {tmp_path}
    settings: {{files: {{all: capitals.jsonl}}, columns: {{question: q, answer: a, label: kind, split: split}}}}
    verifier: words
    instruction: ""
cloud:
  path: flsim.cloud.endpoint:Endpoint
  url: {server.url}
  model: tiny
  system: One word.
  concurrency: 3
  retries: 0
  cache: {tmp_path / "cache"}
  price_per_completion_token: 0.5
"""
    )
    return file


def record(config: Path, *more: str) -> int:
    return main(["record", str(config), "--out", str(config.parent / "said.jsonl.gz"), *more])


def test_a_table_has_every_answer_once_and_says_where_it_comes_from(
    config: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: four of five far ones are right; the server bills a token per letter, and one more than was said."""
    assert record(config, "--note", "revision 7") == 0
    out = capsys.readouterr()
    assert "capitals     far   80.0 %" in out.out
    assert sorted(server.asked) == sorted(QUESTIONS)
    table = read_table(config.parent / "said.jsonl.gz")
    assert {line.question: line.answer for line in table.lines} == SAID
    assert [line.right for line in table.lines] == [line.answer != "Milan" for line in table.lines]
    for line in table.lines:
        assert (line.prompt_tokens, line.completion_tokens) == (len(line.question), len(line.answer) + 1)
        assert line.seconds is not None
        assert line.seconds >= 0
    assert table.about["settings"]["system"] == "One word."
    assert (table.about["model"], table.about["note"], table.about["questions"]) == ("tiny", "revision 7", 11)
    assert KEY not in json.dumps(dict(table.about))
    assert not (config.parent / "said.jsonl.gz.part").exists()
    assert record(config) == 2
    assert "never overwrites" in capsys.readouterr().err
    assert len(server.asked) == 11


def test_a_run_takes_the_table_for_its_cloud(config: Path) -> None:
    """A text is judged anew, and what lies in a table can neither be changed nor be lacking without a word."""
    assert record(config) == 0
    file = config.parent / "said.jsonl.gz"
    (task,) = (stream := stream_of(load_config(config))).data
    cloud = Recorded(str(file))
    cloud.check(stream, 1)
    problems = [task.problem(item) for item in task.source.items]
    assert [answer.text for answer in cloud.answer(problems)] == list(SAID.values())
    assert cloud.quote(problems[0]).tokens == len(problems[0].question) + len("Paris") + 1
    lines = (config.parent / "capitals.jsonl").read_text()
    (config.parent / "capitals.jsonl").write_text(
        lines + "\n" + json.dumps({"q": "New?", "a": "x", "kind": "near", "split": "train"})
    )
    with pytest.raises(ConfigError, match=r"no answer to 1 of the 12 questions of 'capitals', such as 'New\?'"):
        cloud.check(stream_of(load_config(config, ["data.capitals.quantity_sigma=0.1"])), 1)


MOMENTS: list[tuple[Any, str, int, bool, int]] = [
    (journal.Journal, "send", 1, True, 0),
    (purchases, "text_reply", 4, False, 3),
    (cache.Cache, "put", 1, True, 0),
    (journal.Journal, "close", 1, False, 0),
    (journal.Journal, "close", 2, True, 0),
]
"""What dies, at which of its calls, before or after it; and how many answers are lost with it of three on their way."""


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
def test_after_a_kill_nothing_is_paid_twice(
    config: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Every second time without a cache."""
    more = ["cloud.cache=null"] if moment % 2 else []
    owner, name, at, after, lost = MOMENTS[moment]
    with monkeypatch.context() as patch:
        kills(patch, owner, name, at, after=after)
        with pytest.raises(Killed):
            record(config, *more)
    assert not (config.parent / "said.jsonl.gz").exists()
    assert record(config, *more) == 0
    assert len(server.asked) == len(QUESTIONS) + lost
    table = read_table(config.parent / "said.jsonl.gz")
    assert {line.question: line.answer for line in table.lines} == SAID
    assert all(line.seconds is not None for line in table.lines)


def test_caps_hold_over_all_attempts_together(
    config: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert record(config, "budget.fleet.calls_total=4") == 1
        assert "7 of 11 questions have no answer, as the caps of budget.fleet refused 7" in capsys.readouterr().err
    assert len(server.asked) == 4
    assert record(config, "budget.fleet.money_total=0") == 1
    assert len(server.asked) == 4
    assert record(config) == 0
    assert len(server.asked) == 11


def test_what_failed_is_asked_again_and_can_be_left_out(
    config: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behave = lambda _, question: BROKEN if "Peru" in question else OK
    assert record(config) == 1
    assert "1 of 11 questions have no answer, as the cloud gave none" in capsys.readouterr().err
    assert record(config, "--leave-out") == 0
    assert len(read_table(config.parent / "said.jsonl.gz").lines) == 10
    assert server.asked.count("What is the capital of Peru?") == 2
    assert len(server.asked) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["stream.phases=[[capitals, lists]]"], "names 'lists', whose questions are drawn without end"),
        (["--out", "said.csv"], r"said.csv must end in .jsonl or .jsonl.gz"),
        (["--out", "nowhere/said.jsonl"], "lies in a folder that is not there"),
        (["cloud.url=https://example.org/v1", "cloud.key_env=NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_asked(
    config: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    assert record(config, *settings) == 2
    assert message in capsys.readouterr().err
    assert not server.asked
    assert not list(config.parent.glob("*.part"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("Milan", "Rome"), "is not as it was written"),
        (lambda text: text.partition("\n")[2], "is no table of answers"),
        (lambda text: text + text.splitlines()[1] + "\n", r"line 13: the question .* is there twice"),
        (lambda text: text.replace('"prompt_tokens": ', '"prompt_tokens": 0.5'), "must be whole numbers"),
        (lambda text: text[:-30], r"line 12: no JSON"),
    ],
)
def test_a_table_that_was_changed_is_named(config: Path, change: Any, message: str) -> None:
    file = config.parent / "said.jsonl"
    assert main(["record", str(config), "--out", str(file)]) == 0
    file.write_text(change(file.read_text()))
    with pytest.raises(ConfigError, match=message):
        Recorded(str(file)).check(stream_of(load_config(config)), 1)
