"""Distillation from hidden states: nothing at weight 0, gradients, maps that stay at the server, whole runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import flsim
from flsim.cloud.builtin import Builtin, Oracle
from flsim.cloud.make import make_cloud
from flsim.cloud.protocol import Cloud
from flsim.cloud.teacher import FEATURES
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.learning.features import COSINE, SQUARE, fitted_maps
from flsim.loop.checkpoints import latest_checkpoint
from flsim.metrics.rows import Row, without_timing
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from strategies.stages.distillation import Distillation
from strategies.stages.features import Features, Matcher, pairs_of
from strategies.stages.lessons import sequence_lesson
from strategies.stages.student import Lesson, Student
from tests.tiny import TinyRun, without_report

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = (
    "stream.phases=[[arithmetic],[lists]]",
    "cloud.kind=builtin",
    "evaluation.every_rounds=9",
    *(f"client.{key}" for key in ("prompts=2", "group_size=2")),
    "stage.path=strategies.stages.distillation:Distillation",
    *(f"stage.{key}" for key in ("every_rounds=1", "prompts=8", "steps=2", "batch=4", "held_out=4", "users=0")),
    "stage.margin=1.0",
)


def stage(tmp_path: Path, *more: str, cloud: Cloud | None = None, **given: Any) -> tuple[Distillation, Config]:
    """Of the built-in models: 3 layers of 96, taught by 6 of 128."""
    config = load_config(None, ["fleet.devices=2", "stream.phases=[[arithmetic],[lists]]", *more])
    small = {"every_rounds": 1, "prompts": 8, "batch": 4, "steps": 3, "held_out": 4, "margin": 1.0, "users": 0}
    one = Distillation(**{**small, "cache": str(tmp_path / "cache"), **given})
    one.begin(config, make_cloud(config.cloud) if cloud is None else cloud)
    return one, config


def named(rows: list[Row]) -> dict[str, float]:
    return {row.name: row.total / row.weight for row in rows if row.device == ""}


def bytes_of(adapter: Adapter) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in adapter.items()}


def moved(config: Config) -> Adapter:
    """The first adapter, off its zeros."""
    rng = np.random.default_rng(0)
    first = first_adapter(config.model, config.seed)
    return {name: (of + rng.normal(0, 0.05, of.shape)).astype(np.float32) for name, of in first.items()}


@pytest.mark.parametrize("loss", ["sequence", "forward_kl"])
def test_without_weight_it_is_the_loss_of_tokens_bit_for_bit(tmp_path: Path, loss: str) -> None:
    """Also where it does count, but with a weight below all rounding: the answers and the steps are the same."""
    settings: tuple[dict[str, Any], ...] = (
        {},
        {"features": 0.0, "feature_layers": "every"},
        {"features": 1e-30},
        {"features": 1.0},
    )
    found = []
    for more in settings:
        one, config = stage(tmp_path, loss=loss, **more)
        found.append(one.after_round(1, first_adapter(config.model, config.seed), []))
    plain, none, tiny, counted = (bytes_of(adapter) for adapter, _ in found)
    assert plain == none == tiny != counted
    assert [row.name for row in found[0][1]] == [row.name for row in found[1][1]]
    assert not any("feature" in row.name for row in found[0][1])
    before = [named(rows)[f"{loss}_before"] for _, rows in found]
    assert len(set(before)) == 1


@pytest.mark.parametrize("kind", [COSINE, SQUARE])
def test_the_gradient_is_autograds_through_plain_forwards_one_answer_at_a_time(tmp_path: Path, kind: str) -> None:
    """By maps that were not fitted, which would leave next to nothing of a lesson of three answers."""
    one, config = stage(tmp_path, features=1.0)
    student, pairs, weight = one._student, ((1, 2), (3, 6)), 0.7
    lesson, ranks = lesson_of(one, student, pairs), [config.model.rank]
    theta, maps = student.lora.stack([moved(config)]), drawn_maps(len(pairs))
    gradient = Matcher(student, Features(weight, kind, pairs), maps).gradient(theta, ranks, lesson)

    learning = theta.clone().requires_grad_()
    student.lora.attach(learning)
    losses = []
    for prompt, shown in zip(lesson.prompts, lesson.shown, strict=True):
        asked = student.base.tokenizer(prompt)["input_ids"]
        ids = torch.tensor([[*asked, *shown.tokens.tolist()]])
        states = student.base.model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
        for number, (layer, _) in enumerate(pairs):
            own = states[layer][0, len(asked) - 1 : -1] @ maps[number].T  # (T, d_T)
            losses += [apart(*both, kind) for both in zip(own, torch.from_numpy(shown.states[number]), strict=True)]
    (expected,) = torch.autograd.grad(torch.stack(losses).mean(), learning)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(gradient, weight * expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def drawn_maps(pairs: int) -> Tensor:
    """Drawn at random, `(S, d_T, d_S)`."""
    return 0.1 * torch.randn(pairs, 128, 96, generator=torch.Generator().manual_seed(0))


def apart(mapped: Tensor, taught: Tensor, kind: str) -> Tensor:
    """The loss of one state, written out."""
    taught = taught.float()
    cosine, square = (mapped @ taught) / (mapped.norm() * taught.norm()), (mapped - taught).square().sum()
    return torch.ones(()).sub(cosine) if kind == COSINE else square.div(taught.square().sum())


def lesson_of(one: Distillation, student: Student, pairs: tuple[tuple[int, int], ...]) -> Lesson:
    problems = one._problems(1, "train", 3)
    told = Builtin().tell(problems, 1, tuple(layer for _, layer in pairs))
    lesson = sequence_lesson(student, problems, told)
    return Lesson(lesson.prompts, lesson.completions, lesson.loss, lesson.divergence, told)


def test_answers_that_are_read_in_several_passes_pull_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, config = stage(tmp_path, features=1.0)
    student, features = one._student, Features(1.0, COSINE, ((2, 4),))
    lesson, ranks = lesson_of(one, student, features.pairs), [config.model.rank]
    theta, found, fitted = student.lora.stack([moved(config)]), [], []
    for most in (2**15, 1):
        monkeypatch.setattr("flsim.models.layer_states.TOKENS", most)
        matcher = Matcher(student, features, drawn_maps(1))
        found.append((matcher.apart(theta, ranks, lesson), matcher.gradient(theta, ranks, lesson)))
        fitted.append(Matcher.fitted(student, features, theta, ranks, lesson).maps)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5 * float(found[0][1].abs().max()))
    torch.testing.assert_close(*fitted, rtol=1e-2, atol=1e-2)


def test_fitted_maps_are_the_regression_on_plain_forwards(tmp_path: Path) -> None:
    one, config = stage(tmp_path, features=1.0)
    student, features = one._student, Features(1.0, COSINE, ((3, 6),))
    lesson, ranks = lesson_of(one, student, features.pairs), [config.model.rank]
    theta = student.lora.stack([moved(config)])
    maps = Matcher.fitted(student, features, theta, ranks, lesson).maps
    student.lora.attach(theta)
    own = []
    for prompt, shown in zip(lesson.prompts, lesson.shown, strict=True):
        asked = student.base.tokenizer(prompt)["input_ids"]
        ids = torch.tensor([[*asked, *shown.tokens.tolist()]])
        with torch.no_grad():
            states = student.base.model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
        own.append(states[-1][0, len(asked) - 1 : -1])
    taught = torch.cat([torch.from_numpy(shown.states[0]).float() for shown in lesson.shown])
    torch.testing.assert_close(maps, fitted_maps(torch.cat(own)[None], taught[None]), rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_the_teacher_as_its_own_student_has_only_the_ridge_and_16_bits_to_learn(tmp_path: Path) -> None:
    one, config = stage(tmp_path, "model.path=builtin:cloud", features=1.0, feature_layers="every", lr=1e-6)
    found = named(one.after_round(1, first_adapter(config.model, config.seed), [])[1])
    assert found["features_before"] < 0.01
    other, config = stage(tmp_path, features=1.0, feature_layers="every", lr=1e-6)
    apart = named(other.after_round(1, first_adapter(config.model, config.seed), [])[1])["features_before"]
    assert apart > 5 * found["features_before"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [COSINE, SQUARE])
def test_the_students_states_come_nearer_and_their_bytes_are_rows(tmp_path: Path, kind: str) -> None:
    """A token's states of 3 layers are 3 times 128 numbers of 2 bytes."""
    heavy: dict[str, Any] = {"features": 10.0, "feature_loss": kind, "feature_layers": "every", "lr": 5e-3}
    one, config = stage(tmp_path, prompts=32, batch=32, steps=5, **heavy)
    found = named(one.after_round(1, first_adapter(config.model, config.seed), [])[1])
    assert found["features_after"] < 0.97 * found["features_before"]
    assert found["forward_kl_after"] < found["forward_kl_before"]
    teacher, problems = Builtin(), one._problems(1, "train", 32)
    told = {p.question: len(r.tokens) for p, r in zip(problems, teacher.tell(problems, 1), strict=True)}
    assert found["cloud_feature_bytes"] == 3 * 128 * 2 * sum(told.values())
    assert found["cloud_calls"] == len(told)


# ---------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def settings(tiny_runs: TinyRun) -> TinyRun:
    def make(name: str, *more: str) -> Config:
        return tiny_runs(name, f"stage.cache={tiny_runs(name).folder}-cache", "stage.features=0.5", *more)

    return make


@pytest.fixture(scope="module")
def whole(settings: TinyRun) -> Iterator[flsim.Run]:
    with without_report():
        yield flsim.run(settings("whole"), progress=False)


def adapter_bytes(run: flsim.Run) -> bytes:
    return (run.folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_run_that_is_resumed_is_the_run_that_was_not_stopped(
    settings: TinyRun, whole: flsim.Run, no_report: None
) -> None:
    """The maps are fitted anew, to the same bits; a checkpoint need not know of them."""
    config = settings("stopped")
    flsim.run(config, until=1, progress=False)
    kept = latest_checkpoint(config.folder)
    assert kept is not None
    assert kept.stage.keys() == {"spent", "shared", "known"}
    again = flsim.run(resume=config.folder, progress=False)
    assert without_timing(again.rows).equals(without_timing(whole.rows))
    assert adapter_bytes(again) == adapter_bytes(whole)


def test_no_message_holds_a_map(settings: TinyRun, whole: flsim.Run, no_report: None) -> None:
    """What goes down and up, and what is kept as the adapter, is of the size that it has without hidden states."""
    plain = flsim.run(settings("plain", "stage.features=0"), progress=False)
    sent = [
        rows[rows["name"].isin(("uplink_bytes", "downlink_bytes"))].groupby(["round", "name"])["total"].sum()
        for rows in (whole.rows, plain.rows)
    ]
    assert len(sent[0]) == 4
    assert sent[0].equals(sent[1])
    assert len(adapter_bytes(whole)) == len(adapter_bytes(plain))
    assert adapter_bytes(whole) != adapter_bytes(plain)
    kept = [latest_checkpoint(run.folder) for run in (whole, plain)]
    shapes = [{name: of.shape for name, of in one.adapter.items()} for one in kept if one is not None]
    assert shapes[0] == shapes[1]
    assert all(width not in shape for shape in shapes[0].values() for width in (128,))  # the cloud's


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["cloud.access=logits"], r"stage\.features=0\.5 needs a cloud that gives features.*gives logits; set"),
        (["cloud.kind=oracle"], r"needs a cloud that gives features, its hidden states, and Oracle"),
        (["stage.loss=reverse_kl"], "the cloud shows hidden states of its own answers, and there it gives none"),
        (["stage.features=-1"], "features=-1 must be at least 0"),
        (["stage.feature_loss=l2"], "feature_loss='l2' is not known; choose one of: cosine, square"),
        (["stage.feature_layers=first"], r"feature_layers='first' must be last, every, or pairs"),
        (["stage.feature_layers=[[1]]"], r"feature_layers=\[\[1\]\] must be last, every, or pairs"),
        (
            ["stage.feature_layers=[[0, 1]]"],
            r"must be last, every, or pairs of a layer of the SLM and one of the cloud",
        ),
        (["stage.feature_layers=[[2, 7]]"], r"has the pair \[2, 7\], and the SLM has 2 layers, the cloud 6"),
    ],
)
def test_bad_settings_are_refused_before_a_folder_is_made(settings: TinyRun, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flsim.run(settings("refused", *more), progress=False)
    assert not settings("any").folder.with_name("refused").exists()


def test_other_tokens_are_refused_though_answers_alone_would_do(tmp_path: Path) -> None:
    class Foreign(Oracle):
        access = FEATURES
        vocabulary: Mapping[str, int] = {"a": 0}

    stage(tmp_path, cloud=Foreign(0.0), loss="sequence")
    with pytest.raises(ConfigError, match="cloud's tokenizer"):
        stage(tmp_path, cloud=Foreign(0.0), loss="sequence", features=0.5)


def test_pairs_by_hand() -> None:
    assert pairs_of("last", 3, 6) == ((3, 6),)
    assert pairs_of("every", 3, 6) == ((1, 2), (2, 4), (3, 6))
    assert pairs_of("every", 6, 12) == tuple((layer, 2 * layer) for layer in range(1, 7))  # DistilBERT's
    assert pairs_of("every", 4, 2) == ((1, 1), (2, 1), (3, 2), (4, 2))
    assert pairs_of([[1, 2], [3, 6]], 3, 6) == ((1, 2), (3, 6))
