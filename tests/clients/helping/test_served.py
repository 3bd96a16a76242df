"""Modes of help with a real server of the built-in cloud model: its own text, its bill, nothing bought twice."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

import flsim
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from clients.helping.handover import Handover
from clients.helping.helping import Asked, Caller, Helping
from clients.helping.verify import Verify
from experiments.real.model_server import Able, ModelServer, serving_model
from flsim.cloud.builtin import Builtin
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.protocol import Answer
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import read_rows, without_timing
from flsim.models.base import BaseModel, load_base
from tests.tiny import TOKEN_RUN

pytestmark = [pytest.mark.usefixtures("one_thread", "no_report")]

CLOUD = "builtin:cloud"
VERIFY = ("client.helping.path=clients.helping.verify:Verify", "client.helping.stateless=true")
HANDOVER = ("client.helping.path=clients.helping.handover:Handover",)


@pytest.fixture(scope="module")
def base(one_thread: None) -> BaseModel:
    return load_base(CLOUD, key="cloud.model", asks=False)


@pytest.fixture
def server(base: BaseModel) -> Iterator[ModelServer]:
    with serving_model(base) as found:
        yield found


@torch.no_grad()
def helped(world: World, mode: Helping) -> tuple[list[Answer | None], list[Answer | None]]:
    """What comes of six questions with a mode, and of asking the built-in cloud for them."""
    problems = own_tests(world, 0)
    world.lora.attach(None)
    (answers,) = mode.help(world.pair, [Caller(0, [Asked(one, "", 0) for one in problems])])
    return answers, list(Builtin().for_server().answer(problems))


def world_of(cloud: Endpoint) -> World:
    config = load_config(None, ["rounds=1", "fleet.devices=2", "evaluation.prompts_per_task=3", "cloud.cache=null"])
    return load_world(config, cloud)


def test_verified_by_a_server_the_text_is_the_clouds_and_the_bill_the_servers(server: ModelServer) -> None:
    """The law of a cloud that forgets between requests: what the server bills is what the mode reserves by."""
    cloud = Endpoint(server.url, "m", max_tokens=16, tokenizer=CLOUD, deadline_s=60)
    mode = Verify(k=4, stateless=True)
    world = world_of(cloud)
    mode.try_out(cloud)
    server.asked.clear()
    answers, own = helped(world, mode)
    assert [one and one.text for one in answers] == [one and one.text for one in own]
    sent = sum(len(body["prompt"]) for body in server.asked)
    assert sum(one.prompt_tokens for one in answers if one) == sent
    assert sum(one.completion_tokens for one in answers if one) == len(server.asked)
    for one, problem in zip(answers, own_tests(world, 0), strict=True):
        quote = mode.quote(cloud, problem)
        assert one is not None
        assert one.exchange is not None
        assert quote.exchange is not None
        assert one.prompt_tokens <= quote.prompt_tokens
        assert one.completion_tokens <= quote.completion_tokens
        assert one.exchange.up_bytes <= quote.exchange.up_bytes


@pytest.mark.parametrize("way", ["raw", "final"])
def test_handed_over_whole_the_answer_is_the_clouds(server: ModelServer, way: str) -> None:
    """Where the device is never sure, and the cloud may say all at once; by either route."""
    cloud = Endpoint(server.url, "m", max_tokens=16, tokenizer=CLOUD, continues=way, deadline_s=60)
    answers, own = helped(world_of(cloud), Handover(tokens=16, below=0.0, times=1))
    assert [one and one.text for one in answers] == [one and one.text for one in own]


def config_of(folder: Path, name: str, server: ModelServer, *more: str) -> Config:
    small = ("rounds=1", "stream.phases=[[arithmetic]]", "fleet.devices=2", "evaluation.prompts_per_task=2")
    path = ("cloud.path=flsim.cloud.endpoint:Endpoint", f"cloud.url={server.url}", "cloud.model=m")
    own = (
        "engine.kind=local",
        "client.max_new_tokens=8",
        "cloud.max_tokens=8",
        "budget.tau=0.8",
        "cloud.deadline_s=60",
    )
    cache = f"cloud.cache={folder / 'cache'}"
    return load_config(None, [f"run_dir={folder / name}", cache, *small, *path, *own, *TOKEN_RUN, *more])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [VERIFY, HANDOVER])
def test_a_rerun_with_a_mode_buys_nothing_and_has_the_same_rows(
    server: ModelServer, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    tokenizer = f"cloud.tokenizer={CLOUD}"
    flsim.run(config_of(tmp_path, "first", server, tokenizer, *mode), progress=False)
    asked = len(server.asked)
    assert asked > 3
    flsim.run(config_of(tmp_path, "again", server, tokenizer, *mode), progress=False)
    trial = 2 if mode == VERIFY else 0  # what a trial sends is in no book
    assert len(server.asked) == asked + trial
    rows, same = (without_timing(read_rows(tmp_path / name)) for name in ("first", "again"))
    kept, also = (of[~of["name"].str.startswith(("bought_", "cached_"))] for of in (rows, same))
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), also.reset_index(drop=True))
    assert rows[rows["name"] == "bought_calls"]["total"].sum() > 0
    assert same[same["name"] == "bought_calls"]["total"].sum() == 0


@pytest.mark.parametrize(
    ("able", "mode", "why"),
    [
        (Able(goes_on=False), HANDOVER, r"cannot tell whether the server of cloud\.url goes on with a beginning"),
        (
            Able(scores=False),
            (*VERIFY, f"cloud.tokenizer={CLOUD}"),
            "cannot verify drafts, as a trial told no log-prob",
        ),
        (Able(), VERIFY, r"cloud\.tokenizer does not say which they are"),
    ],
)
def test_what_a_server_cannot_do_is_told_before_anything_is_written(
    base: BaseModel, tmp_path: Path, able: Able, mode: tuple[str, ...], why: str
) -> None:
    with serving_model(base, able) as server, pytest.raises(ConfigError, match=why):
        flsim.run(config_of(tmp_path, "refused", server, *mode), progress=False)
    assert not (tmp_path / "refused" / "config.yaml").exists()
