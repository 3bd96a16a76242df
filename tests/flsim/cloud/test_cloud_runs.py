"""Federated runs whose cloud is a real HTTP server: what it answers, what fails, what is charged, and no key."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import flsim
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import without_timing
from tests.flsim.cloud.chat_server import BROKEN, HANG_UP, OK, PASSING, REFUSED, chat_server
from tests.tiny import TinyRun

KEY = "sk-planted-0123456789abcdef"
Settings = Callable[..., Config]
TINY = (
    "stream.phases=[[numbers]]",
    "cloud.kind=endpoint",
    "cloud.model=m",
    *(f"cloud.{key}" for key in ("deadline_s=0.3", "backoff_s=0.01", "retries=1", "concurrency=2")),
    "strategy.path=strategies.fedavg:FedAvg",
    "evaluation.prompts_per_task=4",
    *(f"client.{key}" for key in ("path=clients.sft:Sft", "steps=2", "prompts=6")),
    "budget.tau=0.5",
)


class Answers(dict[str, str]):
    """An answer to anything: Python's own value of the expression, which is right for some of the tasks."""

    def __missing__(self, question: str) -> str:
        return str(eval(question.rstrip("=")))


@pytest.fixture
def settings(tiny_run: TinyRun, tmp_path: Path) -> Settings:
    """Two devices and two rounds over an endpoint; one cache for all runs of a test."""

    def make(name: str, url: str, *more: str) -> Config:
        return tiny_run(name, f"cloud.url={url}", f"cloud.cache={tmp_path / 'cache'}", *more)

    return make


def total(run: flsim.Run, name: str, split: str = "train") -> float:
    rows = run.rows
    return float(rows.loc[(rows["name"] == name) & (rows["split"] == split), "total"].sum())


@pytest.mark.usefixtures("no_report")
def test_a_run_buys_once_and_a_rerun_from_the_cache_has_the_same_rows(settings: Settings) -> None:
    with chat_server(Answers()) as server:
        cold = flsim.run(settings("cold", server.url), progress=False)
        asked = list(server.asked)
        assert server.most <= 2
    assert asked
    assert len(asked) == len(set(asked))  # nothing twice
    warm = flsim.run(settings("warm", server.url), progress=False)  # nobody is there any more
    pd.testing.assert_frame_equal(without_timing(cold.rows), without_timing(warm.rows), check_exact=True)
    assert total(cold, "cloud_calls") > 0
    assert total(cold, "reward") > 0  # the cloud was right at some
    bought = total(cold, "bought_tokens") + total(cold, "cached_tokens")
    assert bought == total(cold, "cloud_tokens") == total(warm, "cached_tokens")
    assert total(warm, "bought_calls") == total(warm, "bought_money") == 0
    assert total(cold, "bought_calls") + total(cold, "bought_calls", "test") == len(asked)
    assert total(cold, "cloud_failures") == total(cold, "cloud_retries") == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_cloud_that_always_fails_loses_no_run_and_is_not_paid(settings: Settings) -> None:
    """Every request fails in another way than the one before; few fail in a row within a call, so all ways occur."""
    ways = [*PASSING, REFUSED]
    with chat_server(Answers(), lambda number, _: ways[number % len(ways)]) as server:
        quick = ("rounds=1", "client.steps=3", "cloud.deadline_s=0.2", "cloud.concurrency=1")
        run = flsim.run(settings("down", server.url, *quick), progress=False)
        assert len(server.asked) >= len(ways)
    assert run.summary.rounds == 1
    assert run.summary.set_aside == ()
    for name in ("cloud_calls", "cloud_tokens", "cloud_money", "cloud_refused", "bought_tokens"):
        assert total(run, name) == 0, name
    failures = run.rows[(run.rows["name"] == "cloud_failures") & (run.rows["split"] == "train")]
    assert set(failures["device"]) == {"device-000", "device-001"}
    assert (failures["total"] > 0).all()
    assert run.summary.totals["failures"] == failures["total"].sum()
    tests = run.rows[(run.rows["split"] == "test") & (run.rows["model"] == "random")].set_index(["device", "name"])
    for device in ("device-000", "device-001"):
        assert tests["total"][device, "cloud_grants"] == 0  # what was never answered was not used
        assert tests["total"][device, "accuracy"] == tests["total"][device, "alone_accuracy"]
        assert tests["total"][device, "cloud_failures"] > 0
    assert "the cloud failed at" in (run.folder / "run.log").read_text()


@pytest.mark.usefixtures("no_report")
def test_what_fails_now_and_then_is_counted_and_the_rest_is_charged(settings: Settings) -> None:
    """Every third request hangs up; one retry suffices, unless two clients' requests fall together."""
    with chat_server(Answers(), lambda number, _: HANG_UP if number % 3 == 0 else OK) as server:
        run = flsim.run(settings("shaky", server.url, "cloud.concurrency=1", "cloud.retries=1"), progress=False)
    assert total(run, "cloud_failures") == 0
    assert total(run, "cloud_retries") + total(run, "cloud_retries", "test") == sum(
        number % 3 == 0 for number in range(len(server.asked))
    )
    assert total(run, "cloud_calls") > 0


@pytest.mark.usefixtures("no_pictures")
def test_devices_and_server_share_one_cache(settings: Settings, tmp_path: Path) -> None:
    stage = ("stage.path=strategies.stages.distillation:Distillation", "stage.every_rounds=1", "stage.prompts=12")
    more = (*stage, *(f"stage.{key}" for key in ("steps=1", "held_out=4", "users=0", f"cache={tmp_path / 'cache'}")))
    with chat_server(Answers()) as server:
        run = flsim.run(settings("taught", server.url, *more, "rounds=1"), progress=False)
        assert len(server.asked) == len(set(server.asked))  # devices and server share one cache
    line = run.summary.stage[0].values
    assert line["cloud_calls"] == 12
    assert line["cloud_failures"] == 0


def test_the_key_is_nowhere(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that repeats it in every error, with everything logged that anybody logs."""
    monkeypatch.setenv("CLOUD_KEY", KEY)
    with caplog.at_level(logging.DEBUG), chat_server(Answers(), lambda n, _: (REFUSED, BROKEN, OK)[n % 3]) as server:
        run = flsim.run(settings("keyed", server.url, "cloud.key_env=CLOUD_KEY"), progress=False)
    assert server.keys == {f"Bearer {KEY}"}
    files = [path for path in run.folder.parent.rglob("*") if path.is_file()]
    assert run.folder / "config.yaml" in files
    assert run.folder / "run.log" in files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    printed = capfd.readouterr()
    assert KEY not in printed.out + printed.err + caplog.text
    assert "CLOUD_KEY" in (run.folder / "config.yaml").read_text()


def test_a_missing_key_ends_the_run_before_it_has_a_folder(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUD_KEY", raising=False)
    config = settings("keyless", "https://api.example.org/v1", "cloud.key_env=CLOUD_KEY")
    with pytest.raises(ConfigError, match="environment variable CLOUD_KEY is not set"):
        flsim.run(config, progress=False)
    assert not config.folder.exists()


def test_a_rule_that_asks_about_every_test_prompt_is_refused_where_that_costs(settings: Settings) -> None:
    oracle = ("client.asking.path=clients.asking.simple:Oracle",)
    with pytest.raises(ConfigError, match=r"Oracle sends every test prompt to the cloud.*evaluation\.cloud=all"):
        flsim.run(settings("oracle", "http://127.0.0.1:1/v1", *oracle), progress=False)
