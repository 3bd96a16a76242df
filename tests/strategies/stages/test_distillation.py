"""Distillation in whole runs: every access, caps, the cache, rollback, resume, shared questions, bad settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import flsim
from clients.device.carried import opts_in
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import Cloud
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import Config, ConfigError
from flsim.loop.checkpoints import latest_checkpoint
from flsim.loop.checks import check
from flsim.metrics.rows import Row, without_timing
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from flsim.models.decoding import encode, given, read
from flsim.models.scoring import unaided
from flsim.problems.problem import split_of
from strategies.stages.distillation import Distillation
from strategies.stages.lessons import forward_lesson, reverse_lesson, sequence_lesson
from strategies.stages.student import Lesson, Student
from tests.tiny import TinyRun, without_pictures

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("every_rounds=1", "prompts=8", "steps=2", "batch=4", "held_out=8", "users=2", "user_prompts=1", "lr=0.01")
TINY = (
    "stream.phases=[[arithmetic],[lists]]",
    "cloud.kind=builtin",
    "evaluation.every_rounds=9",
    *(f"client.{key}" for key in ("prompts=2", "group_size=2")),
    "stage.path=strategies.stages.distillation:Distillation",
    *(f"stage.{key}" for key in SMALL),
)
ACCESSES = ("text", "top_logprobs", "scores", "logits")
METHODS = dict(zip(ACCESSES, ("sequence", "forward_kl", "reverse_kl", "forward_kl"), strict=True))


@pytest.fixture(scope="module")
def settings(tiny_runs: TinyRun) -> TinyRun:
    """Two devices and two rounds; the folder is its own, the cache too unless named."""

    def make(name: str, *more: str) -> Config:
        return tiny_runs(name, f"stage.cache={tiny_runs(name).folder}-cache", *more)

    return make


def adapter_bytes(run: flsim.Run) -> bytes:
    return (run.folder / "adapter" / "adapter_model.safetensors").read_bytes()


def server_rows(run: flsim.Run) -> pd.DataFrame:
    rows = run.rows
    return rows[(rows["split"] == "stage") & (rows["device"] == "")].set_index(["round", "name"])


def value(run: flsim.Run, name: str, round_: int = 2) -> float:
    rows = run.rows
    found = rows[
        (rows["split"] == "stage") & (rows["device"] == "") & (rows["round"] == round_) & (rows["name"] == name)
    ]
    assert len(found) == 1
    return float(found["total"].sum() / found["weight"].sum())


def same_bits(one: Adapter, other: Adapter) -> bool:
    return {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}


def assert_equal_runs(one: flsim.Run, other: flsim.Run) -> None:
    pd.testing.assert_frame_equal(without_timing(one.rows), without_timing(other.rows), check_exact=True)
    assert adapter_bytes(one) == adapter_bytes(other)


@pytest.fixture(scope="module")
def scored(settings: TinyRun) -> flsim.Run:
    """By reverse KL, which buys in every step."""
    with without_pictures():
        return flsim.run(settings("scored", "cloud.access=scores"), progress=False)


@pytest.mark.parametrize("access", ACCESSES)
def test_every_access_gives_a_run_that_learned_from_the_teacher(
    settings: TinyRun, scored: flsim.Run, no_report: None, access: str
) -> None:
    more = (f"cloud.access={access}", "stage.every_rounds=2")
    run = scored if access == "scores" else flsim.run(settings(access, *more), progress=False)
    rows = server_rows(run)
    assert {round_ for round_, _ in rows.index} == ({1, 2} if access == "scores" else {2})
    assert (rows["split"] == "stage").all()
    method = METHODS[access]
    assert {f"{method}_before", f"{method}_after", "kept", "proxy_accuracy_before", "bought_tokens"} <= set(
        rows.loc[2].index
    )
    if access != "scores":  # two steps on four samples each may go anywhere
        assert value(run, f"{method}_after") < value(run, f"{method}_before")
    assert value(run, "bought_tokens") == value(run, "cloud_tokens") > 0
    if access != "scores":
        assert 0 < value(run, "accepted") <= 1


def test_the_report_shows_what_the_stage_did_and_counts_no_server_among_the_users(scored: flsim.Run) -> None:
    own = scored.rows[(scored.rows["split"] == "stage") & (scored.rows["device"] != "")]
    assert own.groupby(["round", "model", "device"])["weight"].sum().to_dict() == {
        (round_, model, device): 2.0
        for round_ in (1, 2)
        for model in ("aggregated", "distilled")
        for device in ("device-000", "device-001")
    }
    assert scored.summary.devices == 2
    assert scored.summary.at_end["global"]["accuracy"].users == 2
    first, second = scored.summary.stage
    assert (first.round, second.round) == (1, 2)
    assert second.users is not None
    assert second.users.users == 2
    assert second.values["kept"] in (0.0, 1.0)
    assert "What the stage did with the adapter" in scored.report.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_a_stage_is_as_it_was(settings: TinyRun, scored: flsim.Run) -> None:
    """What the device learned in round 1 is the same; the adapter that it was measured with no longer is."""
    plain = flsim.run(settings("plain", "stage=null", "cloud.access=scores"), progress=False)
    assert plain.summary.stage == ()
    assert "What the server did" not in plain.report.read_text()
    assert not (plain.rows["split"] == "stage").any()
    assert adapter_bytes(plain) != adapter_bytes(scored)
    mine, other = (
        rows[(rows["split"] == "train") & (rows["round"] == 1)].reset_index(drop=True)
        for rows in (without_timing(plain.rows), without_timing(scored.rows))
    )
    pd.testing.assert_frame_equal(mine, other)


def test_a_warm_cache_gives_the_same_bits_and_buys_nothing(
    settings: TinyRun, scored: flsim.Run, no_report: None
) -> None:
    cache = settings("scored-cache").folder  # where the first run kept what it bought
    assert (cache / "bought.sqlite").is_file()
    again = flsim.run(settings("again", "cloud.access=scores", f"stage.cache={cache}"), progress=False)
    assert_equal_runs(again, scored)
    assert value(again, "bought_tokens") == value(again, "bought_money") == 0
    assert value(again, "cached_tokens") == value(again, "cloud_tokens") == value(scored, "bought_tokens")


def test_a_run_that_is_resumed_is_the_run_that_was_not_stopped(
    settings: TinyRun, scored: flsim.Run, no_report: None
) -> None:
    """Stopped after the first distillation: its ledger and what it has asked come back."""
    stopped = settings("stopped", "cloud.access=scores")
    flsim.run(stopped, until=1, progress=False)
    kept = latest_checkpoint(stopped.folder)
    assert kept is not None
    assert kept.stage.keys() == {"spent", "shared", "known"}
    assert kept.stage["spent"].calls == value(scored, "cloud_calls", 1) == len(kept.stage["known"])
    assert_equal_runs(flsim.run(resume=stopped.folder, progress=False), scored)


def test_questions_of_sharing_devices_are_used(settings: TinyRun, no_report: None) -> None:
    more = ("cloud.kind=oracle", "stage.from_devices=4", "fleet.opt_in=1.0", "stage.every_rounds=2")
    run = flsim.run(settings("sharing", *more), progress=False)
    asked = run.rows[(run.rows["name"] == "cloud_calls") & (run.rows["split"] == "train")]
    used = 8 * value(run, "from_devices")
    assert used == min(4, asked["total"].sum()) > 0


def test_a_device_shares_only_if_it_is_one_that_does() -> None:
    """400 devices at 1/4: 100 on average, sd 8.7."""
    config = load_config(None, ["fleet.devices=400", "fleet.opt_in=0.25"])
    assert (
        abs(sum(opts_in(config.fleet.opt_in, device, seed=config.stream.seed) for device in range(400)) - 100) < 5 * 8.7
    )
    for sharing in (0.0, 1.0):
        one = replace(config, fleet=replace(config.fleet, opt_in=sharing))
        assert {opts_in(one.fleet.opt_in, device, seed=one.stream.seed) for device in range(400)} == {sharing == 1.0}


# ---------------------------------------------------------------------------------------------- the stage by itself


def stage(tmp_path: Path, *more: str, cloud: Cloud | None = None, **given: Any) -> tuple[Distillation, Config]:
    """Of the built-in models, which have something to lose."""
    config = load_config(None, ["fleet.devices=2", "stream.phases=[[arithmetic],[lists]]", *more])
    one = Distillation(**{"every_rounds": 1, "cache": str(tmp_path / "cache"), "users": 0, **given})
    one.begin(config, make_cloud(config.cloud) if cloud is None else cloud)
    return one, config


def named(rows: Sequence[Row]) -> dict[str, float]:
    return {row.name: row.total / row.weight for row in rows if row.device == ""}


def test_an_adapter_that_got_worse_is_rolled_back_to_the_very_bits(tmp_path: Path) -> None:
    one, config = stage(tmp_path, prompts=8, batch=8, steps=3, lr=1.0, held_out=40)
    adapter = first_adapter(config.model, config.seed)
    before = {name: tensor.copy() for name, tensor in adapter.items()}
    after, rows = one.after_round(1, adapter, [])
    found = named(rows)
    assert found["kept"] == 0.0
    assert found["proxy_accuracy_after"] < found["proxy_accuracy_before"]
    assert same_bits(after, before)


def test_a_cap_that_runs_out_ends_the_buying_and_the_rest_goes_on(tmp_path: Path) -> None:
    one, config = stage(tmp_path, "cloud.access=scores", prompts=8, batch=4, steps=2, held_out=4, calls_total=6)
    adapter, calls, found = first_adapter(config.model, config.seed), [], dict[str, float]()
    for round_ in (1, 2, 3):
        adapter, rows = one.after_round(round_, adapter, [])
        found = named(rows)
        calls.append(found["cloud_calls"])
    assert sum(calls) == 6
    assert calls[-1] == 0
    assert found["cloud_refused"] > 0
    assert "kept" not in found  # nothing was learned, so there was nothing to decide


@pytest.mark.parametrize("access", ACCESSES)
def test_the_slm_comes_nearer_to_its_teacher(tmp_path: Path, access: str) -> None:
    one, config = stage(tmp_path, f"cloud.access={access}", prompts=16, steps=4, margin=1.0, held_out=4)
    adapter = first_adapter(config.model, config.seed)
    after, rows = one.after_round(1, adapter, [])
    found = named(rows)
    assert found["kept"] == 1.0
    assert found[f"{METHODS[access]}_after"] < 0.95 * found[f"{METHODS[access]}_before"]
    assert list(after) == list(adapter)
    assert not same_bits(after, adapter)


def test_threads_do_not_enter_the_bits(tmp_path: Path) -> None:
    """The second one finds all in the cache, and two threads where the first had one."""
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        one, config = stage(tmp_path, prompts=16, steps=2, held_out=8)
        results.append(one.after_round(1, first_adapter(config.model, config.seed), [])[0])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert same_bits(*results)


def test_an_anchor_holds_the_student_back(tmp_path: Path) -> None:
    moved = []
    for anchor in (0.0, 100.0):
        one, config = stage(tmp_path, prompts=16, batch=16, steps=6, margin=1.0, anchor=anchor, held_out=4)
        adapter = first_adapter(config.model, config.seed)
        after, _ = one.after_round(1, adapter, [])
        moved.append(sum(float(np.square(after[name] - adapter[name]).sum()) for name in adapter))
    assert moved[1] < 0.8 * moved[0]


def test_it_asks_only_about_what_the_stream_has_brought_and_never_about_a_test_question(tmp_path: Path) -> None:
    one, _ = stage(tmp_path, "rounds=4")
    early, late = (one._problems(round_, "train", 30) for round_ in (1, 3))
    assert {problem.task for problem in early} == {"arithmetic"}
    assert {problem.task for problem in late} == {"arithmetic", "lists"}
    assert {split_of(problem.question) for problem in (*early, *late)} == {"train"}
    assert {split_of(problem.question) for problem in one._problems(1, "validation", 30)} == {"validation"}


def lesson_of(kind: str, student: Student, cloud: Builtin, one: Distillation) -> Lesson:
    problems = one._problems(1, "train", 3)
    told = cloud.tell(problems, 5)
    if kind == "sequence":
        return sequence_lesson(student, problems, told)
    if kind == "forward_kl":
        return forward_lesson(student, problems, told)
    return reverse_lesson(student, problems, cloud.score(problems, [r.tokens.tolist() for r in told]), clip=5.0)


@pytest.mark.parametrize("kind", ["sequence", "forward_kl", "reverse_kl"])
def test_the_gradient_of_a_lesson_is_autograds_through_plain_forwards(tmp_path: Path, kind: str) -> None:
    """Question by question, without packing, micro-batches or shared prompts; the anchor included."""
    one, config = stage(tmp_path)
    student, anchor = one._student, 0.3
    lesson = lesson_of(kind, student, Builtin(), one)
    rng = np.random.default_rng(0)
    first = first_adapter(config.model, config.seed)
    adapter = {n: (t + rng.normal(0, 0.05, t.shape)).astype(np.float32) for n, t in first.items()}
    origin = student.lora.stack([first])
    theta = student.lora.stack([adapter]).requires_grad_()
    gradient = student.gradient(theta.detach(), [config.model.rank], lesson, origin=origin, anchor=anchor)

    def logprobs(at: torch.Tensor, row: int) -> torch.Tensor:
        student.lora.attach(at)
        prompt = encode(student.base, [[lesson.prompts[row]]]).ids[0]  # (1, L)
        said = lesson.completions.tokens[0, row, 0][lesson.completions.mask[0, row, 0]]  # (T,)
        logits = student.base.model(torch.cat([prompt, said[None]], 1)).logits[0, prompt.shape[1] - 1 : -1]
        return unaided(student.base, lesson.completions)(logits, torch.arange(len(logits)))  # (T, V)

    total, longest = torch.zeros(()), lesson.completions.tokens.shape[-1]
    for row in range(len(lesson.prompts)):
        with torch.no_grad():
            held = logprobs(origin, row)
        learning = logprobs(theta, row)
        places = row * longest + torch.arange(len(learning))
        kept = [v for v in range(learning.shape[1]) if v != student.base.help_id]
        pull = (held.exp()[:, kept] * (held[:, kept] - learning[:, kept])).sum()
        total = total + lesson.loss(learning, places).sum() + anchor * pull
    (expected,) = torch.autograd.grad(total / lesson.completions.mask.sum(), theta)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_the_teacher_as_its_own_student_has_nothing_to_learn(tmp_path: Path) -> None:
    """With the cloud's model as the SLM, divergences and gradients vanish but for rounding."""
    one, config = stage(tmp_path, "model.path=builtin:cloud")
    origin = one._student.lora.stack([first_adapter(config.model, config.seed)])
    for kind in ("forward_kl", "reverse_kl"):
        lesson = lesson_of(kind, one._student, Builtin(), one)
        parts = origin, [config.model.rank], lesson
        total, tokens = one._student.divergence(*parts)
        assert abs(total / tokens) < 1e-4
        assert one._student.gradient(*parts, origin=origin, anchor=0.1).abs().max() < 1e-4


def test_a_student_that_may_not_ask_never_says_the_help_token(tmp_path: Path) -> None:
    one, _ = stage(tmp_path)
    base = one._student.base
    with torch.no_grad():
        logits = read(base, encode(base, [["12+34="]])).logits
    logprobs = unaided(base, given(base, [[[base.eos_id]]]))(logits, torch.tensor([0]))
    assert logprobs[0, base.help_id] == -torch.inf
    assert float(logprobs.exp().sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["stage.loss=reverse_kl", "cloud.kind=oracle"], "it can do: sequence"),
        (["stage.loss=reverse_kl", "cloud.access=top_logprobs"], "it can do: sequence, forward_kl"),
        (["cloud.kind=oracle", "cloud.access=logits"], "is more than the cloud Oracle can give"),
        (["stage.loss=hinton"], "choose one of: auto, sequence, forward_kl, reverse_kl"),
        (["stage.steps=0"], "steps=0 must be above 0"),
        (["stage.tokens_total=-1"], "tokens_total=-1 must be at least 0"),
        (["stage.promts=3"], "it takes: every_rounds"),
        (["stage.from_devices=2"], "needs devices that let the server see their questions"),
        (["stage.from_devices=9", "fleet.opt_in=1"], "must be at most prompts=8"),
        (["fleet.opt_in=2"], r"fleet\.opt_in=2.0 must be in \[0, 1\]"),
        (["stage.path=strategies.stages.distillation:Nothing"], "has no 'Nothing'"),
    ],
)
def test_bad_settings_are_refused_before_a_folder_is_made(settings: TinyRun, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flsim.run(settings("refused", *more), progress=False)
    assert not settings("any").folder.with_name("refused").exists()


def test_a_server_without_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no path"):
        check(load_config(None, ["stage.steps=3"]))


def test_other_tokens_are_refused_unless_only_text_is_taken(tmp_path: Path) -> None:
    class Foreign(Oracle):
        access = "logits"
        vocabulary: Mapping[str, int] = {"a": 0}

    with pytest.raises(ConfigError, match="cloud's tokenizer"):
        stage(tmp_path, cloud=Foreign(0.0))
    one, config = stage(tmp_path, "cloud.access=text", cloud=Foreign(0.0), prompts=4, steps=1, held_out=4)
    assert named(one.after_round(1, first_adapter(config.model, config.seed), [])[1])["accepted"] == 1.0


def test_what_is_merged_into_the_base_is_in_the_student(tmp_path: Path) -> None:
    """The same model twice: all of it in the adapter, or all of it merged, with an adapter of zero beside it.

    They are measured alike before the lesson; after it the base is its own again for who merges nothing.
    """
    taught = {name: tensor + np.float32(0.02) for name, tensor in first_adapter(ModelConfig(), 0).items()}
    empty = {name: tensor * np.float32("lora_A" in name) for name, tensor in taught.items()}
    merged = {name: tensor * np.float32(2.0 if "lora_B" in name else 1.0) for name, tensor in taught.items()}  # scale 2
    found = []
    for adapter, residual in ((taught, None), (empty, merged)):
        one, _ = stage(tmp_path, prompts=4, batch=4, steps=1, held_out=40)
        found.append(named(one.after_round(1, adapter, [], residual)[1]))
    assert found[0]["proxy_accuracy_before"] == found[1]["proxy_accuracy_before"]
    plain, _ = stage(tmp_path, prompts=4, batch=4, steps=1, held_out=40)
    assert named(plain.after_round(1, empty, [])[1])["proxy_accuracy_before"] != found[1]["proxy_accuracy_before"]


def test_a_strategy_that_shares_a_part_only_is_refused(settings: TinyRun) -> None:
    config = settings("partly", "strategy.path=strategies.fedsa_lora:FedSaLora")
    with pytest.raises(ConfigError, match=r"Distillation needs the whole adapter.*FedSaLora.*stage=null"):
        flsim.run(config, progress=False)
    assert not config.folder.exists()
