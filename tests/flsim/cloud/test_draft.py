"""A draft that is sent along: a question of its own for quote, ledger, journal and cache, by a real local server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clients.asking.scores import Confidence
from clients.asking.simple import Oracle
from clients.da_grpo import DaGrpo
from clients.device.answering import Problems, answer_alone
from clients.device.device import Device
from clients.device.rollout import Rollout, Sampling, roll_out
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests
from experiments.real.checkpoint import write_checkpoint
from experiments.real.server import KnownAnswers, serving
from flsim.budget.ledger import Ledger
from flsim.cloud.builtin import Builtin
from flsim.cloud.cache import key_of
from flsim.cloud.cached import CachedCloud
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.draft import refuse_draft, with_draft
from flsim.cloud.endpoint import Endpoint
from flsim.cloud.journal import TRAINING, Journal, digest_of
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.loop.ready import build_parts
from flsim.problems.problem import Problem
from tests.tiny import tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = "{question}\n\nA smaller model's try: {draft}\nAnswer the question; correct the try if it is wrong."
SUM = Problem("arithmetic", "add", 2, "59+63=", "221")


@pytest.fixture
def server() -> Iterator[KnownAnswers]:
    with serving({}) as found:
        yield found


def world_of(checkpoint: Path, server: KnownAnswers, *more: str) -> World:
    settings = (f"cloud.url={server.url}", "cloud.model=m", f"cloud.draft={WORDS}", "evaluation.prompts_per_task=4")
    config = tiny_world(checkpoint, "model.request=after", *more)
    cloud = load_config(None, ["cloud.path=flsim.cloud.endpoint:Endpoint", "cloud.cache=null", *settings])
    changed = replace(config, cloud=cloud.cloud, evaluation=cloud.evaluation)
    return load_world(changed, Endpoint(server.url, "m"))


def test_the_draft_stands_in_the_words_of_the_setting() -> None:
    told = with_draft(SUM, " 12\n", WORDS)
    assert told.question == (
        "59+63=\n\nA smaller model's try: 12\nAnswer the question; correct the try if it is wrong."
    )
    assert replace(told, question=SUM.question) == SUM
    assert with_draft(SUM, " ", WORDS) is with_draft(SUM, "12", None) is SUM
    braces = with_draft(SUM, "{question}", WORDS)  # what a device says is filled in as it is
    assert "try: {question}" in braces.question


def test_another_draft_is_another_question() -> None:
    one, other = (with_draft(SUM, draft, WORDS) for draft in ("12", "122"))
    cloud = Endpoint("http://127.0.0.1:9/v1", "m")
    assert len({digest_of(p) for p in (SUM, one, other)}) == 3
    assert len({key_of(cloud.identity(), "text", p) for p in (SUM, one, other)}) == 3
    sent = [cloud.quote(p).prompt_tokens for p in (SUM, one, other)]
    assert sent[1] - sent[0] == len(WORDS) - len("{question}") - len("{draft}") + 2
    assert sent[2] - sent[1] == 1


def rolled_out(world: World, problems: Problems, journal: Journal | None = None) -> tuple[Device, Rollout]:
    more: dict[str, Any] = {} if journal is None else {"journal": journal}
    device = replace(Device(0, 1, world.first, 0.5, Ledger(world.config.budget), None), **more)
    world.lora.attach(world.lora.stack([device.adapter]))
    with torch.no_grad():
        bias = torch.full((1, len(problems[0])), 2.0)
        return device, roll_out(world, [device], problems, Sampling(12, 1.5, 6), step=0, help_bias=bias)


def first_drafts(rollout: Rollout, count: int) -> list[str | None]:
    """Of each prompt the first response that asks; None where none does."""
    texts, asked = rollout.completions.texts[0], rollout.asked[0].bool().tolist()
    return [next((t for t, a in zip(texts[p], asked[p], strict=True) if a), None) for p in range(count)]


def test_a_group_sends_the_draft_of_its_first_response_that_asks(
    tiny_checkpoint: Path, server: KnownAnswers, tmp_path: Path
) -> None:
    """The server knows the worded questions alone; ledger, journal and cache have them, the device its own question."""
    world = world_of(tiny_checkpoint, server)
    problems = [own_tests(world, 0)[:5]]
    journal = Journal(tmp_path / "round-00001.train", world.prices)
    _, before = rolled_out(world, problems)
    drafts = first_drafts(before, 5)
    assert sum(draft is not None and bool(draft.strip()) for draft in drafts) >= 3
    told = [with_draft(p, d, WORDS) for p, d in zip(problems[0], drafts, strict=True) if d is not None]
    mine = [p for p, d in zip(problems[0], drafts, strict=True) if d is not None]
    server.answers = {problem.prompt: problem.answer for problem in told}
    world = replace(world, cloud=CachedCloud(Endpoint(server.url, "m"), None))  # it asks anew
    device, rollout = rolled_out(world, problems, journal)
    assert first_drafts(rollout, 5) == drafts
    assert server.asked == 2 * len(told)
    assert device.sent == mine
    torch.testing.assert_close(rollout.right, rollout.right_alone + rollout.asked)
    assert isinstance(world.cloud, CachedCloud)
    assert all(answer is not None for answer in world.cloud.known(told))
    assert device.ledger.total.calls == len(told)
    kept = Journal(tmp_path / "round-00001.train", world.prices)
    assert all(kept.recall(TRAINING, digest_of(problem)) is not None for problem in told)


@pytest.mark.parametrize("every", [True, False])
def test_at_tests_the_greedy_draft_goes_along(tiny_checkpoint: Path, server: KnownAnswers, every: bool) -> None:
    """Under a rule that decides after it, the whole answer; under the policy's own what it said before it asked."""
    world = world_of(tiny_checkpoint, server)
    asks = replace(world.config.evaluation, cloud="all" if every else "granted")
    world = replace(world, config=replace(world.config, evaluation=asks))
    tests = own_tests(world, 0)
    world.lora.attach(None)
    alone = answer_alone(world, [tests], world.answer_tokens)[0]
    server.answers = {with_draft(p, d, WORDS).prompt: p.answer for p, d in zip(tests, alone, strict=True)}
    rules = {"asking": Confidence(calibration=2)}
    rows = evaluate_pack(world, [0], None, model="global", round_=0, taus=[0.5], **rules)[0]  # type: ignore[arg-type]
    value = {name: sum(row.total for row in rows if row.name == name) for name in ("accuracy", "cloud_grants")}
    assert value["cloud_grants"] > 0
    assert value["accuracy"] >= value["cloud_grants"]  # all of them were known, so right
    assert server.asked == (len(tests) if every else value["cloud_grants"])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("builtin:Builtin", ()),
        ("builtin:Oracle", ()),
        ("recorded:Recorded", ()),
        ("checkpoint:Checkpoint", ("cloud.model=builtin:cloud",)),
    ],
)
def test_a_cloud_that_looks_questions_up_is_refused(name: str, more: tuple[str, ...]) -> None:
    settings = [f"cloud.path=flsim.cloud.{name}", *more, f"cloud.draft={WORDS}", "model.path=builtin:slm_draft"]
    who = name.partition(":")[2]
    with pytest.raises(ConfigError, match=rf"cloud\.draft=.* cannot be sent to {who}, which looks questions up or"):
        build_parts(load_config(None, settings))


def test_who_reads_drafts(tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert Endpoint("http://127.0.0.1:9/v1", "m").reads_drafts
    assert Checkpoint(str(write_checkpoint(tmp_path / "tiny", "llama"))).reads_drafts
    assert not Checkpoint("builtin:cloud").reads_drafts
    assert not Checkpoint(str(tiny_checkpoint)).reads_drafts
    assert not Builtin().reads_drafts


def test_a_model_that_asks_before_it_answers_has_no_drafts_to_send() -> None:
    cloud = Endpoint("http://127.0.0.1:9/v1", "m")
    config = load_config(None, [f"cloud.draft={WORDS}"])
    with pytest.raises(
        ConfigError, match=r"model\.request=anywhere is taken to ask before .* set model\.request=after"
    ):
        refuse_draft(cloud, WORDS, config.model)
    refuse_draft(cloud, None, config.model)
    refuse_draft(cloud, WORDS, load_config(None, ["model.path=builtin:slm_draft"]).model)
    with pytest.raises(ValueError, match=r"client\.asking=Oracle looks at the cloud's answers before it decides"):
        DaGrpo.client_app(load_config(None, [f"cloud.draft={WORDS}"]), asking=Oracle())


@pytest.mark.parametrize(
    "words", ["try: {draft}", "{question} {draft} {more}", "{question:>9} {draft}", "{question {draft}"]
)
def test_words_without_both_fields_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"cloud\.draft=.* must hold \{question\} and \{draft\} and nothing else"):
        load_config(None, [f"cloud.draft={words}"])
