"""A checkpoint as the cloud: the same bits in any batch, chat templates, the desk that all workers ask."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
import ray
import torch
from ray import cloudpickle
from transformers import AutoTokenizer

import flsim
from flsim.cloud.builtin import Builtin
from flsim.cloud.cached import CachedCloud
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.desk import Desk, DeskCloud, find_desk, open_desk
from flsim.cloud.make import fleet_cloud
from flsim.cloud.protocol import Answer, instruction
from flsim.cloud.teacher import FEATURES, access_of
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import without_timing
from flsim.models.base import load_base
from flsim.models.help_request import NO_HELP
from flsim.problems.families import TASKS
from flsim.problems.problem import Problem
from flsim.tasks.stream import proxy_problems, stream_of
from tests.flsim.cloud.chat_server import OK, REFUSED, chat_server

pytestmark = pytest.mark.usefixtures("one_thread", "no_report")

PROBLEMS = proxy_problems(TASKS, "train", count=20, rng=Random(0))
QUESTIONS = [problem.question for problem in PROBLEMS]


def checkpoint(path: Path | str, **settings: Any) -> Checkpoint:
    return Checkpoint(str(path), **{"max_tokens": 8, **settings})


@pytest.mark.parametrize("path", ["tiny", "builtin:cloud"])
def test_no_answer_depends_on_its_batch(path: str, tiny_checkpoint: Path) -> None:
    """A random model, which is hardly ever sure, and a trained one, which is nearly always."""
    model = tiny_checkpoint if path == "tiny" else path
    cloud = checkpoint(model)
    alone = [cloud.answer([problem])[0] for problem in PROBLEMS]
    assert checkpoint(model, batch_size=7).answer(PROBLEMS) == alone
    assert checkpoint(model).answer(PROBLEMS[::-1]) == alone[::-1]
    assert alone == Builtin(str(model), batch_size=1, max_new_tokens=8).answer(PROBLEMS)


def test_where_a_rounding_could_have_chosen_the_question_is_asked_again_alone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a batch had told another answer wherever a token has less than 0.5: none of that comes through.

    Answers of one token, as in longer ones of this random model some token is far below that anyway.
    """
    many = proxy_problems(TASKS, "train", count=64, rng=Random(1))
    right = checkpoint(tiny_checkpoint, max_tokens=1, batch_size=1).answer(many)
    cloud, sizes, chances = checkpoint(tiny_checkpoint, max_tokens=1), list[int](), list[float]()
    real = cloud._generate

    def rounded(questions: list[str]) -> Any:
        answers, replies = real(questions)
        sizes.append(len(questions))
        chances.extend(replies.logprobs.exp().flatten().tolist())
        close = ((replies.logprobs.exp() < 0.5) & replies.mask).any(-1)[0, :, 0].tolist()
        wrong = [Answer("?", 1, 1) if at and len(questions) > 1 else a for a, at in zip(answers, close, strict=True)]
        return wrong, replies

    monkeypatch.setattr(cloud, "_generate", rounded)
    assert cloud.answer(many) == right
    assert sizes[0] == len(many)
    assert set(sizes[1:]) == {1}
    assert any(0.4 < chance < 0.5 for chance in chances[: len(many)])
    assert any(chance > 0.51 for chance in chances[: len(many)])


def test_a_sure_answer_is_given_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained cloud is asked again about few of its answers."""
    cloud, sizes = checkpoint("builtin:cloud"), list[int]()
    real = cloud._generate

    def counted(questions: list[str]) -> Any:
        sizes.append(len(questions))
        return real(questions)

    monkeypatch.setattr(cloud, "_generate", counted)
    cloud.answer(PROBLEMS)
    assert sizes[0] == len(PROBLEMS)
    assert len(sizes) < 1 + len(PROBLEMS) / 2


def chatty(tiny_checkpoint: Path, folder: Path, template: str) -> Path:
    """The tiny checkpoint with a chat template."""
    load_base(str(tiny_checkpoint)).as_transformers().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_template_wraps_the_question_and_the_system_prompt(tiny_checkpoint: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}={% endif %}"
    path = chatty(tiny_checkpoint, tmp_path / "chatty", template)
    cloud = checkpoint(path, system="'ab'")
    assert cloud.prompt(PROBLEMS[0]) == f"['ab'][{QUESTIONS[0]}]="
    assert cloud.quote(PROBLEMS[0]).prompt_tokens == len(cloud.base.tokenizer(cloud.prompt(PROBLEMS[0]))["input_ids"])
    assert cloud.answer(PROBLEMS) != checkpoint(tiny_checkpoint).answer(PROBLEMS)
    assert cloud.identity() != checkpoint(path, system="'ac'").identity()
    with pytest.raises(ConfigError, match=r"cloud\.system has no effect: .* has no chat template"):
        checkpoint(tiny_checkpoint, system="'ab'").check(stream_of(Config()), 1)


def test_a_question_of_a_data_set_stands_under_its_own_instruction(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The notation of the built-in world is explained for its own questions alone; `cloud.system` is for all."""
    template = "{% for m in messages %}[{{ m['role'] }} {{ m['content'] }}]{% endfor %}"
    path = chatty(tiny_checkpoint, tmp_path / "chatty", template)
    told, own = checkpoint(path), Problem("mine", "", 0, "1+1=", "2", instruction="Add.")
    assert told.prompt(own) == "[user Add.\n\n1+1=]"
    assert told.prompt(PROBLEMS[0]) == f"[system {instruction()}][user {QUESTIONS[0]}]"
    assert checkpoint(path, system="'ab'").prompt(own) == "[system 'ab'][user Add.\n\n1+1=]"
    assert checkpoint(tiny_checkpoint).prompt(own) == own.prompt == "Add.\n\n1+1="


def test_a_cloud_needs_no_help_token(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last token stays free to say: ruling out id -1 would have been ruling out that."""
    monkeypatch.setattr("flsim.models.base.is_built_in", lambda vocabulary: False)
    with pytest.raises(ConfigError, match=r"^model\.path=.*cannot write the help request '<unknown> I need"):
        load_base(str(tiny_checkpoint))
    cloud = checkpoint(tiny_checkpoint)
    assert cloud.base.help_id == NO_HELP
    head = cloud.base.model.lm_head
    bias = torch.zeros(head.out_features)
    bias[-1] = 1e3
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    _, replies = cloud._generate(QUESTIONS[:1])
    assert set(replies.tokens.flatten().tolist()) == {head.out_features - 1}


def test_it_can_teach_and_a_wrong_path_is_refused(tiny_checkpoint: Path) -> None:
    assert access_of(checkpoint(tiny_checkpoint), None) == FEATURES
    with pytest.raises(ConfigError, match=r"cloud\.model='nowhere' is no folder of a checkpoint"):
        checkpoint("nowhere")
    with pytest.raises(ConfigError, match=r"needs cloud\.model: the folder"):
        Checkpoint()


def test_a_pickle_has_no_weights(tiny_checkpoint: Path) -> None:
    """What travels to a worker, or lies in a checkpoint of the server, is the settings; it answers as before."""
    cloud = checkpoint(tiny_checkpoint)
    answers, identity = cloud.answer(PROBLEMS[:3]), cloud.identity()
    data = cloudpickle.dumps(cloud)
    assert len(data) < 1000
    again = cloudpickle.loads(data)
    assert (again.answer(PROBLEMS[:3]), again.identity()) == (answers, identity)


def test_the_desk_answers_together_what_comes_together(tiny_checkpoint: Path) -> None:
    """Three workers at once and one of them again, later: one batch of all questions, and none for what is known."""
    desk, plain = Desk(checkpoint(tiny_checkpoint)), checkpoint(tiny_checkpoint)

    async def day() -> list[list[Answer | None]]:
        parts = (PROBLEMS[:8], PROBLEMS[4:12], PROBLEMS[12:])
        together = await asyncio.gather(*(desk.serve("answer", part) for part in parts))
        return [*together, await desk.serve("answer", PROBLEMS)]

    *together, again = asyncio.run(day())
    assert again == plain.answer(PROBLEMS)
    assert together == [again[:8], again[4:12], again[12:]]
    assert asyncio.run(desk.batches()) == 2


def tiny_run(tiny_checkpoint: Path, folder: Path, *more: str) -> list[str]:
    return [
        f"run_dir={folder}",
        f"model.path={tiny_checkpoint}",
        "model.rank=2",
        "rounds=2",
        "stream.phases=[[numbers]]",
        "fleet.devices=4",
        "budget.tau=0.5",
        f"cloud.cache={folder}-cache",
        "strategy.path=strategies.fedavg:FedAvg",
        "evaluation.every_rounds=2",
        "evaluation.prompts_per_task=4",
        "engine.pack=1",
        *(f"client.{key}" for key in ("path=clients.sft:Sft", "steps=2", "prompts=4")),
        *more,
    ]


ENDPOINT = "cloud.path=flsim.cloud.endpoint:Endpoint"
MODEL = ("cloud.path=flsim.cloud.checkpoint:Checkpoint", "cloud.model=builtin:cloud")


@pytest.fixture
def two_cpus() -> Iterator[None]:
    """A Ray for one test."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_one_desk_serves_all_workers_with_the_rows_of_one_process(
    two_cpus: None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    alone = load_config(None, tiny_run(tiny_checkpoint, tmp_path / "alone", "engine.kind=local", *MODEL))
    fleet = load_config(None, tiny_run(tiny_checkpoint, tmp_path / "fleet", "engine.kind=ray", *MODEL))
    one, other = (without_timing(flsim.run(config, progress=False).rows) for config in (alone, fleet))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert find_desk() is None  # it went with the run


@pytest.mark.slow
def test_a_desk_that_dies_is_a_failure_and_comes_back(two_cpus: None, tiny_checkpoint: Path) -> None:
    desk = open_desk(checkpoint(tiny_checkpoint))
    cloud = fleet_cloud(checkpoint(tiny_checkpoint), None, 2)
    assert isinstance(cloud, CachedCloud)
    assert isinstance(cloud.cloud, DeskCloud)
    before = cloud.answer(PROBLEMS[:5])
    ray.kill(desk, no_restart=False)
    failed = [cloud.cloud.answer(PROBLEMS[5:10])]
    while failed[-1] == [None] * 5:
        assert len(failed) < 1000
        failed.append(cloud.cloud.answer(PROBLEMS[5:10]))
    assert failed[-1] == checkpoint(tiny_checkpoint).answer(PROBLEMS[5:10])
    assert cloud.answer(PROBLEMS[:5]) == before
    ray.kill(desk)


@pytest.mark.slow
def test_ray_workers_share_the_endpoints_limit(two_cpus: None, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Two workers at a limit of four, slowly enough that they meet; the rows are those of one process.

    One question fails for good, and the run's log says why.
    """
    answers = {p.question: p.answer for p in PROBLEMS}

    class Anything(dict[str, str]):
        def __missing__(self, question: str) -> str:
            return str(eval(question.rstrip("=")))

    with chat_server(Anything(answers), lambda _, question: REFUSED if len(question) > 9 else OK) as server:
        server.pause_s = 0.02
        where = (f"cloud.url={server.url}", "cloud.model=m", "cloud.concurrency=4")
        rows = []
        for kind in ("ray", "local"):
            config = load_config(
                None, tiny_run(tiny_checkpoint, tmp_path / kind, ENDPOINT, *where, f"engine.kind={kind}")
            )
            rows.append(without_timing(flsim.run(config, progress=False).rows))
            assert 2 <= server.most <= 4
            assert "answered with status 401" in (config.folder / "run.log").read_text()
    pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)
