"""The warm-up: what is taught and at which share, what it costs, where it lies, and that a run starts from it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flsim
from flsim.config.schema import ConfigError
from flsim.files import DamagedFileError
from flsim.loop import warmup
from flsim.loop.run import warm_up
from flsim.loop.warm_start import FACTS
from flsim.loop.warmup import Warmup
from flsim.metrics.measures import MEASURES
from flsim.metrics.rows import without_timing
from flsim.metrics.run_rows import RunRows
from flsim.models.adapter import load_adapter
from flsim.models.base import first_adapter, load_model
from flsim.models.decoding import encode, read
from flsim.models.decoding import given as given_tokens
from flsim.models.scoring import score
from flsim.models.stacked_lora import StackedLora
from flsim.models.teaching import Course, lesson_of, teach
from flsim.problems.problem import split_of
from flsim.tasks.stream import stream_of
from tests.tiny import TOKEN_RUN, TinyRun, without_pictures

pytestmark = pytest.mark.usefixtures("no_pictures")

TINY = (
    "stream.phases=[[arithmetic],[lists]]",
    "evaluation.every_rounds=9",
    "cloud.cache=null",
    *TOKEN_RUN,
)
WARM = ("warmup.steps=4", "warmup.batch=4", "warmup.questions=6", "warmup.lr=0.01")


def plan_of(config: flsim.Config, *, speaks: bool = True) -> Warmup:
    """The warm-up of a config, whose cloud is not asked."""
    from flsim.cloud.make import make_cloud

    start = first_adapter(config.model, config.seed)
    return Warmup(config, stream_of(config), make_cloud(config.cloud), start, speaks)


@settings(max_examples=30)
@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 30))
def test_the_request_has_its_share_and_every_question_its_turn(share: float, lessons: int, questions: int) -> None:
    course = Course(1, lessons, 1.0, 1, 1.0, share, True, seed=3)
    asked = [course.asks(number) for number in range(lessons)]
    assert abs(sum(asked) - share * lessons) < 1
    met = [course.place(number, questions) for number in range(lessons)]
    counts = [met.count(place) for place in range(questions)]
    assert max(counts) - min(counts) <= 1


def test_the_rate_rises_and_falls_linearly() -> None:
    course = Course(10, 1, 1.0, 5, 1.0, 0.0, True, seed=0)
    assert [round(course.rate(step), 9) for step in range(10)] == [0.2, 0.36, 0.48, 0.56, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_taught_becomes_likelier(tiny_run: TinyRun, share: float) -> None:
    config = tiny_run("any")
    base, start = load_model(config.model), first_adapter(config.model, config.seed)
    lora = StackedLora(base.model, start, config.shape.scale)
    theta = lora.stack([start])
    found = [lesson_of(base, prompt, answer, most=9, after=False) for prompt, answer in (("1+1=", "2"), ("4+7=", "11"))]
    lessons = [one for one in found if one is not None]

    def likelihood() -> float:
        lora.attach(theta)
        reading = read(base, encode(base, [[one.prompt for one in lessons]]))
        said = given_tokens(base, [[one.request if share else one.answer for one in lessons]])
        return float(score(base, reading, said, temperature=1.0).sum())

    before = likelihood()
    taught = teach(base, lora, theta, lessons, Course(20, 2, 0.01, 1, 1.0, share, True, seed=0))
    assert likelihood() > before + 1
    assert (taught.lessons, taught.requests) == (40, 40 * share)


def test_questions_are_of_the_train_split_and_of_what_round_1_brings(tiny_run: TinyRun) -> None:
    more = ("warmup.questions=300",)
    first = plan_of(tiny_run("any", *more)).questions()
    assert {problem.task for problem in first} == {"arithmetic"}
    assert {split_of(problem.question) for problem in first} == {"train"}
    assert len({problem.question for problem in first}) == 300
    assert plan_of(tiny_run("any", *more, "stream.schedule=joint")).tasks == ("arithmetic", "lists")
    assert plan_of(tiny_run("any", *more, "warmup.tasks=[lists]")).tasks == ("lists",)
    assert plan_of(tiny_run("any", *more)).questions() == first
    assert plan_of(tiny_run("any", *more, "seed=1")).questions() != first


def test_the_share_of_the_request_follows_from_who_asks(tiny_run: TinyRun) -> None:
    config = tiny_run("any", *WARM)
    assert [plan_of(config, speaks=says).request_share for says in (True, False)] == [0.25, 0.0]


@pytest.fixture(scope="module")
def bare(tiny_runs: TinyRun) -> flsim.Run:
    """A run without a warm-up."""
    with without_pictures():
        return flsim.run(tiny_runs("bare"), progress=False)


@pytest.fixture(scope="module")
def warm(tiny_runs: TinyRun) -> flsim.Run:
    """One whose warm-up buys its answers."""
    with without_pictures():
        return flsim.run(tiny_runs("warm", *WARM, "warmup.source=cloud"), progress=False)


def before(run: flsim.Run, model: str, name: str) -> list[float]:
    """What was measured of a model before training, by device."""
    rows = run.rows
    found = rows[(rows["round"] == 0) & (rows["model"] == model) & (rows["name"] == name)]
    return list(found["total"])


@pytest.mark.usefixtures("no_report")
def test_no_steps_are_no_section(tiny_runs: TinyRun, bare: flsim.Run) -> None:
    off = flsim.run(tiny_runs("off", "warmup.steps=0", "warmup.source=own", "warmup.batch=3"), progress=False)
    assert without_timing(off.rows).equals(without_timing(bare.rows))
    assert not (off.folder / "warmup").exists()


def test_a_run_starts_from_its_warm_up_and_is_measured_against_it(bare: flsim.Run, warm: flsim.Run) -> None:
    for name in ("accuracy", "alone_accuracy", "cloud_requests"):
        assert before(warm, "frozen", name) == before(warm, "global", name)
    assert before(warm, "base", "alone_accuracy") == before(bare, "frozen", "alone_accuracy")
    config = flsim.load_config(warm.folder / "config.yaml")
    start = first_adapter(config.model, config.seed)
    taught = load_adapter(warm.folder / "warmup", like=start, config=config.model)
    with np.load(warm.folder / "checkpoints" / "round-00001.npz") as kept:
        assert set(taught) == {name.removeprefix("adapter/") for name in kept.files if name.startswith("adapter/")}
    assert any((taught[name] != start[name]).any() for name in start)


@pytest.mark.usefixtures("no_report")
def test_devices_that_keep_a_factor_begin_with_the_warm_up_s(tiny_runs: TinyRun, warm: flsim.Run) -> None:
    """Of FedSA-LoRA's messages only A travels; B is each device's own, and as long as it learned none, the start's."""
    more = ("warmup.source=cloud", "strategy.path=strategies.fedsa_lora:FedSaLora")
    run = flsim.run(tiny_runs("fedsa", *WARM, *more), until=0, progress=False)
    assert without_timing(run.rows).equals(without_timing(warm.rows[warm.rows["round"] == 0]))


def test_its_cost_is_booked_and_counts_in_total_spend(bare: flsim.Run, warm: flsim.Run) -> None:
    """Six questions, one call each, at the oracle's sizes: a character is a token, and the end is one more."""
    questions = plan_of(flsim.load_config(warm.folder / "config.yaml")).questions()
    tokens = sum(len(one.prompt) + len(one.answer) + 1 for one in questions)
    totals = warm.summary.totals
    assert (totals["warmup_calls"], totals["warmup_tokens"]) == (6, tokens)
    assert totals["warmup_money"] is not None
    assert totals["warmup_money"] > 0
    assert (
        totals["warmup_learned_tokens"]
        == json.loads((warm.folder / "warmup" / FACTS).read_text())["facts"]["learned_tokens"]
    )
    assert bare.summary.totals["warmup_calls"] is None
    rows = RunRows(warm.rows, (), tau=0.3)
    met = rows.trained("difficulty").groupby("device")["weight"].sum()
    calls = rows.trained("cloud_calls").groupby("device")["total"].sum()
    assert rows.training_calls.to_dict() == pytest.approx(((calls + 6 / 2) / met).to_dict())
    assert set(MEASURES) >= {"warmup_calls", "warmup_tokens", "warmup_money", "base_accuracy"}


def test_a_fleet_is_charged_and_its_cap_holds(tiny_run: TinyRun) -> None:
    more = ("warmup.source=cloud", "budget.fleet.calls_total=4", "cloud.oracle_error=0")
    run = flsim.run(tiny_run("capped", *WARM, *more), progress=False)
    assert run.summary.totals["warmup_calls"] == 4  # two of the six are refused
    assert run.summary.totals["calls"] == 0  # nothing is left for the devices
    assert run.summary.fleet_budget is not None
    assert run.summary.fleet_budget.calls is not None
    assert run.summary.fleet_budget.calls.spent == 4


@pytest.mark.usefixtures("no_report")
def test_a_kill_in_the_warm_up_and_one_after_it_change_nothing(
    tiny_runs: TinyRun, warm: flsim.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_runs("killed", *WARM, "warmup.source=cloud")
    calls: list[Any] = []

    def killed(*args: Any, **more: Any) -> None:
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(warmup, "teach", killed)
    with pytest.raises(KeyboardInterrupt):
        flsim.run(config, progress=False)
    monkeypatch.undo()
    assert calls
    assert not (config.folder / "warmup" / FACTS).exists()
    flsim.run(resume=config.folder, until=0, progress=False)
    monkeypatch.setattr(warmup, "teach", killed)  # it is there now, and is made no more
    again = flsim.run(resume=config.folder, progress=False)
    assert without_timing(again.rows).equals(without_timing(warm.rows))


@pytest.mark.usefixtures("no_report")
def test_the_cache_hands_it_to_another_run(
    tiny_runs: TinyRun, warm: flsim.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = (*WARM, "warmup.source=cloud", f"cloud.cache={tmp_path / 'cache'}")
    one = flsim.run(tiny_runs("one", *shared), until=0, progress=False)
    monkeypatch.setattr(warmup, "teach", None)
    other = flsim.run(tiny_runs("other", *shared, "client.lr=0.5"), until=0, progress=False)
    assert without_timing(other.rows).equals(without_timing(one.rows))
    first = warm.rows[warm.rows["round"] == 0]
    assert without_timing(other.rows).equals(without_timing(first))
    file = next((tmp_path / "cache" / "warmup").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="delete it, and the warm-up is made again"):
        flsim.run(tiny_runs("third", *shared), until=0, progress=False)


def test_the_command_leaves_what_a_run_would_have_started_from(
    tiny_runs: TinyRun, warm: flsim.Run, tmp_path: Path
) -> None:
    config = tiny_runs("command", *WARM, "warmup.source=cloud")
    warm_up(config, tmp_path / "warm", progress=False)
    for file in ("adapter_model.safetensors", "adapter_config.json", FACTS):
        assert (tmp_path / "warm" / file).read_bytes() == (warm.folder / "warmup" / file).read_bytes()
    warm_up(config, tmp_path / "warm", progress=False)
    with pytest.raises(ConfigError, match="holds another adapter, and nothing is overwritten"):
        warm_up(tiny_runs("command", *WARM, "seed=1"), tmp_path / "warm", progress=False)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("warmup.tasks=[strings]",), "warmup.tasks names 'strings', which stream.phases never brings"),
        (("warmup.lr=.inf",), "warmup.lr=inf must be above 0 and finite"),
        (("warmup.source=silver",), "choose one of: gold, cloud, own"),
        (("model.max_new_tokens=1",), "none of the 6 right answers .* fits into a response of 1 tokens"),
        (("warmup.source=own", "warmup.temperature=0.01"), "the model itself was right in no try"),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(tiny_run: TinyRun, more: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        flsim.run(tiny_run("bad", *WARM, *more), progress=False)


@pytest.mark.parametrize("client", [{"path": "clients.grpo:Grpo"}, {"path": "clients.da_grpo:DaGrpo"}])
def test_a_request_is_taught_to_nobody_who_never_says_one(tiny_run: TinyRun, client: dict[str, Any]) -> None:
    config = replace(tiny_run("silent", *WARM, "warmup.request_share=0.2"), client=client)
    with pytest.raises(ConfigError, match="would teach a request that devices of"):
        flsim.run(config, progress=False)
    assert not config.folder.exists()


def test_its_own_right_tries_are_taught(tiny_run: TinyRun) -> None:
    """The built-in model is right on some; what it tries is counted, and wrong tries are left out."""
    config = tiny_run("own", *WARM, "warmup.source=own", "model.path=builtin:slm", "warmup.samples=3")
    found = plan_of(config).learn(config.folder, progress=False)
    assert 0 < found.facts["answered"] <= found.facts["questions"] == 6
    assert found.facts["sampled_tokens"] > 6 * 3
    assert found.facts["cloud_calls"] == 0
    assert all(math.isfinite(value) for value in found.facts.values())
