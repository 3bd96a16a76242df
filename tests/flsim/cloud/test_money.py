"""Whatever fails after a grant: the calls at the server are those in the books, and no cap is passed."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import clients.device.buying as devices
import flsim
import flsim.cloud.buying as buying
import flsim.cloud.cache as shelf
import flsim.cloud.journal as journal
import flsim.cloud.purchases as purchases
import flsim.loop.commits as commits
from clients.asking.simple import Never
from clients.device.answering import Problems
from clients.device.pack import Pack
from clients.sft import Sft
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import without_timing
from tests.flsim.cloud.chat_server import ChatServer, chat_server
from tests.tiny import TinyRun

Settings = Callable[..., Config]
TINY = (
    "stream.phases=[[numbers]]",
    *(f"cloud.{key}" for key in ("path=flsim.cloud.endpoint:Endpoint", "model=m", "backoff_s=0.01", "retries=0")),
    "strategy.path=strategies.fedavg:FedAvg",
    "evaluation.prompts_per_task=2",
    *(f"client.{key}" for key in ("path=clients.sft:Sft", "steps=2", "prompts=4")),
    "fleet.devices=3",
    "engine.pack=2",
    "budget.tau=0.9",
)


class Answers(dict[str, str]):
    """An answer to anything."""

    def __missing__(self, question: str) -> str:
        return str(eval(question.rstrip("=")))


@pytest.fixture
def settings(tiny_run: TinyRun, tmp_path: Path) -> Settings:
    def make(name: str, server: ChatServer, *more: str) -> Config:
        return tiny_run(name, f"cloud.url={server.url}", f"cloud.cache={tmp_path / name}-cache", *more)

    return make


def total(rows: pd.DataFrame, *names: str, split: str | None = None) -> float:
    found = rows[rows["name"].isin(names)]
    return float(found.loc[found["split"] == split if split else slice(None), "total"].sum())


def in_the_books(rows: pd.DataFrame) -> float:
    """Calls that really went out, of devices, tests and stage alike."""
    return total(rows, "bought_calls", "lost_calls")


def breaks(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool, times: range) -> None:
    """Let a function fail at its calls `times`, before or after it has done what it does."""
    real, calls = getattr(owner, name), iter(range(10**6))

    def shaky(*given: Any, **more: Any) -> Any:
        fails = next(calls) in times
        if fails and not after:
            raise OSError(28, "No space left on device")
        result = real(*given, **more)
        if fails:
            raise RuntimeError("after it was paid")
        return result

    monkeypatch.setattr(owner, name, shaky)


FAULTS: dict[str, tuple[Any, str, bool, range]] = {
    "the cache cannot be written": (shelf.Cache, "put", False, range(2, 999)),
    "the cache is written and then fails": (shelf.Cache, "put", True, range(2, 999)),
    "the cache cannot be read": (shelf.Cache, "get", False, range(6, 999)),
    "the outcome cannot be written down": (journal.Journal, "close", True, range(2, 4)),
    "the cloud answers and the client fails": (buying, "buy", True, range(1, 4)),
    "every second client fails after buying": (devices, "buy", True, range(1, 99, 2)),
    "the verifier fails": (devices, "digest_of", False, range(9, 12)),
}


OWN, FLEET = "budget.calls_total=3", "budget.fleet.calls_total=7"
QUICK = (("the cache cannot be written", OWN), ("every second client fails after buying", FLEET))
CASES = [
    pytest.param(fault, caps, marks=() if (fault, caps) in QUICK else pytest.mark.slow)
    for fault in FAULTS
    for caps in (OWN, FLEET)
]


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("fault", "caps"), CASES)
def test_whatever_fails_after_a_grant_the_calls_are_in_the_books_and_no_cap_is_passed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: str, caps: str
) -> None:
    owner, name, after, times = FAULTS[fault]
    with chat_server(Answers()) as server:
        config = settings("run", server, caps, "rounds=3", "evaluation.every_rounds=3")
        breaks(monkeypatch, owner, name, after=after, times=times)
        run = flsim.run(config, progress=False)
        rows = run.rows
        assert in_the_books(rows) == len(server.asked) > 0
    trained = rows[rows["split"] == "train"]
    spent = trained[trained["name"].isin(["cloud_calls", "lost_calls"])]
    assert total(trained, "bought_calls", "lost_calls") <= spent["total"].sum()
    if "fleet" in caps:
        assert spent["total"].sum() <= 7
        assert rows[rows["name"] == "spent_calls"]["total"].max() == spent["total"].sum()
    else:
        assert (spent.groupby("device")["total"].sum() <= 3).all()


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def kills(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, *, after: bool = True) -> None:
    real, calls = getattr(owner, name), iter(range(10**6))

    def deadly(*given: Any, **more: Any) -> Any:
        dies = next(calls) == at
        if dies and not after:
            raise Killed
        result = real(*given, **more)
        if dies:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, deadly)


STAGE = (
    "stage.path=strategies.stages.distillation:Distillation",
    *(f"stage.{key}" for key in ("every_rounds=1", "prompts=4", "steps=1", "held_out=2", "users=0", "calls_total=12")),
)


PLAIN = ("budget.calls_total=5", "rounds=2", *STAGE)
MOMENTS: list[tuple[Any, str, int, bool]] = [
    (devices, "buy", 1, True),
    (journal.Journal, "close", 2, False),
    (shelf.Cache, "put", 2, True),
    (purchases, "text_reply", 1, True),
    (commits, "save_checkpoint", 1, False),
    (commits, "save_checkpoint", 2, False),
]
"""After answers came, before they are written down, while the stage buys, and before a round is committed."""


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    "number", [pytest.param(at, marks=() if at == 4 else pytest.mark.slow) for at in range(len(MOMENTS))]
)
def test_rows_after_a_kill_and_a_resume_are_those_of_a_run_in_peace_what_was_bought_included(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Every second time the cache is lost, too. What was on its way is lost, counted, and bought again."""
    with chat_server(Answers()) as server:
        in_peace = flsim.run(settings("peace", server, *PLAIN), progress=False).rows
        asked = len(server.asked)
        assert in_the_books(in_peace) == asked
    owner, name, at, after = MOMENTS[number]
    with chat_server(Answers()) as server:
        config = settings("killed", server, *PLAIN)
        with monkeypatch.context() as patch:
            kills(patch, owner, name, at, after=after)
            with pytest.raises(Killed):
                flsim.run(config, progress=False)
        if number % 2:
            shutil.rmtree(str(config.cloud.cache))
        rows = flsim.run(resume=config.folder, progress=False).rows
        assert in_the_books(rows) == len(server.asked)
    if not (rows["name"] == "lost_calls").any():
        assert len(server.asked) == asked
        one, two = (f[f["name"] != "seconds"].reset_index(drop=True) for f in (rows, in_peace))
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    pd.testing.assert_frame_equal(without_timing(rows), without_timing(in_peace), check_exact=True)


@dataclass(frozen=True)
class Dying(Sft):
    """Its process ends in round 2 wherever device 1 has bought."""

    def learn(self, pack: Pack, problems: Problems, step: int) -> None:
        super().learn(pack, problems, step)
        if any(device.index == 1 and device.round == 2 for device in pack.devices):
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report", "one_ray")
@pytest.mark.parametrize("caps", [OWN, FLEET])
def test_a_worker_that_dies_after_buying_takes_no_call_with_it(settings: Settings, caps: str) -> None:
    with chat_server(Answers()) as server:
        config = settings("dies", server, caps, "rounds=3", "engine.kind=ray", "engine.workers=2")
        learner = Dying(steps=2, prompts=4, max_new_tokens=4)
        client = learner.app(config, [], Never(), None)
        rows = flsim.run(config, client=client, progress=False).rows
        assert rows[rows["name"] == "set_aside"]["task"].tolist() == ["died"]
        assert in_the_books(rows) == len(server.asked) > 0
    own = rows[(rows["split"] == "train") & rows["name"].isin(["cloud_calls", "lost_calls"])]
    assert own.groupby("device")["total"].sum().max() <= 3 or caps == FLEET
    assert own["total"].sum() <= 7 or caps == OWN


def test_a_cache_that_cannot_be_written_is_refused_before_the_run(settings: Settings, tmp_path: Path) -> None:
    with chat_server(Answers()) as server:
        (tmp_path / "file").write_text("no folder")
        config = settings("refused", server, f"cloud.cache={tmp_path / 'file'}")
        with pytest.raises(ConfigError, match=r"the cache of cloud answers .* cannot be written .* cloud\.cache=null"):
            flsim.run(config, progress=False)
        assert not server.asked
    assert not config.folder.exists()


def test_an_old_cache_is_read_and_what_is_tried_on_it_leaves_no_trace(tmp_path: Path) -> None:
    cache = shelf.Cache(tmp_path)
    kept = cache.put({b"k" * 32: b"value"})
    cache.check()
    assert cache.get([b"k" * 32, b"tried"]) == kept
    with closing(sqlite3.connect(cache.path)) as connection:
        assert connection.execute("SELECT count(*) FROM bought").fetchone() == (1,)
