"""A BERT in the cloud teaches DistilBERTs on devices under their budgets, and answers tests where they are unsure."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

from flsim import Run, run
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.metrics.rows import read_rows
from flsim.models.encoder import Encoder
from flsim.models.stacked_module import soft_loss, state_loss
from flsim.problems.problem import Problem
from tests.tiny import without_pictures

USERS, EACH = 5, 50
FILLER = "the a is was it this that very quite some of and to"
WORDS = {
    "good": "good great lovely fine sunny happy kind bright sweet calm",
    "bad": "bad awful grim cold sad cruel dark bitter loud sick",
    "neutral": "table chair road paper seven box lamp door river stone",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of three moods by users."""
    draw = random.Random(0)
    folder = tmp_path_factory.mktemp("texts")
    lines = []
    for user in range(USERS):
        for _ in range(EACH):
            mood = draw.choice(sorted(WORDS))
            words = draw.choices(
                ["the", "a", "is", "was", "it", "this", "that", "very", "quite", "some", "of", "and", "to"], k=8
            )
            words += draw.sample(WORDS[mood].split(), 2)
            draw.shuffle(words)
            lines.append(json.dumps({"question": " ".join(words), "answer": mood, "user": f"u{user}", "label": mood}))
    (folder / "moods.jsonl").write_text("\n".join(lines))
    return folder


def config(folder: Path, run_dir: Path, *more: str) -> Config:
    return load_config(
        None,
        [
            "name=moods",
            f"run_dir={run_dir}",
            "rounds=2",
            f"data={{moods: {{kind: files, root: {folder}, partition: user, users_per_device: 1}}}}",
            "data.moods.settings.files={all: moods.jsonl}",
            "data.moods.settings.columns={question: question, answer: answer, user: user}",
            "stream.phases=[[moods]]",
            f"fleet.devices={USERS}",
            "client={path: clients.supervised:Supervised, model: 'flsim.models.encoder:Encoder', optimizer: adam}",
            "client.lr=0.002",
            "client.model_settings={base: 'builtin:distilbert', max_tokens: 16}",
            "strategy={path: strategies.fedavg:FedAvg}",
            "evaluation={every_rounds: 2, items: all, own: never}",
            "engine={kind: local, pack: 4}",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def teacher(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that was taught all users' texts: a run of its own."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    settings = "client.model_settings={base: 'builtin:bert', max_tokens: 16}"
    more = (settings, "rounds=5", "client.epochs=5", "client.lr=0.004", "evaluation.every_rounds=5")
    with without_pictures():
        done = run(config(texts, folder, *more), progress=False)
    assert done.summary.at_end["global"]["accuracy"].user_mean > 0.9
    return folder / "adapter" / "module.safetensors"


def taught(texts: Path, teacher: Path, run_dir: Path, *more: str) -> Run:
    settings = f"client.teacher_settings={{base: 'builtin:bert', max_tokens: 16, weights: {teacher}}}"
    own = ("client.teacher=flsim.models.encoder:Encoder", settings)
    return run(config(texts, run_dir, *own, *more), progress=False)


@pytest.mark.usefixtures("no_report")
def test_a_device_is_taught_within_tau_and_caps_and_asks_within_tau(texts: Path, tmp_path: Path) -> None:
    own = (
        "client.teacher=flsim.models.encoder:Encoder",
        "client.teacher_settings={base: 'builtin:bert', max_tokens: 16}",
    )
    caps = ("budget.tau=0.2", "budget.calls_total=9", "rounds=2")
    rows = run(config(texts, tmp_path / "run", *own, *caps), progress=False).rows
    calls = rows[rows["name"] == "cloud_calls"].groupby("device")["total"].sum()
    assert calls.max() <= 9
    assert calls.min() > 5
    sums = rows[rows["split"] == "train"].groupby("name")["total"].sum()
    assert sums["cloud_prompt_tokens"] + sums["cloud_completion_tokens"] == sums["cloud_tokens"]
    assert sums["cloud_trips"] == sums["cloud_calls"] == calls.sum()
    assert sums["cloud_down_bytes"] % sums["cloud_trips"] == 0  # logits and states of each
    assert sums["cloud_up_bytes"] > sums["cloud_trips"]
    first = rows[(rows["name"] == "cloud_purchases") & (rows["round"] == 1)]
    assert (first["total"] <= 0.2 * first["weight"] + 1e-9).all()
    grants = rows[(rows["name"] == "cloud_grants") & (rows["model"] == "global")]
    assert (grants["total"] <= 0.2 * grants["weight"] + 1e-9).all()


STAGE = (
    "stage={path: 'strategies.stages.module_distillation:ModuleDistillation', prompts: 40, epochs: 2}",
    "stage.teacher=flsim.models.encoder:Encoder",
    "stage.teacher_settings={base: 'builtin:bert', max_tokens: 16}",
)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_the_server_brings_the_module_nearer_to_the_teacher_under_its_cap(texts: Path, tmp_path: Path) -> None:
    capped = (*STAGE, "stage.calls_total=50", "evaluation.every_rounds=2")
    whole = run(config(texts, tmp_path / "whole", *capped), progress=False).rows
    said = whole[whole["split"] == "stage"].set_index(["round", "name"])["total"]
    assert said[1, "cloud_calls"] == 40
    assert said[1, "cloud_calls"] + said[2, "cloud_calls"] == 50
    for round_ in (1, 2):
        assert said[round_, "divergence_after"] < said[round_, "divergence_before"]
    run(config(texts, tmp_path / "stopped", *capped), until=1, progress=False)
    again = run(resume=tmp_path / "stopped", progress=False).rows
    other = again[again["split"] == "stage"].set_index(["round", "name"])["total"]
    assert other.sort_index().equals(said.sort_index())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.slow
def test_devices_learn_from_the_cloud_under_their_budget(texts: Path, teacher: Path, tmp_path: Path) -> None:
    more = ("rounds=3", "client.epochs=5", "client.lr=0.004", "budget.tau=0.2", "budget.calls_total=9")
    done = taught(texts, teacher, tmp_path / "run", *more)
    end = done.summary.at_end
    assert end["cloud"]["accuracy"].user_mean > 0.9
    assert end["global"]["cloud_grants"].user_mean <= 0.2
    assert end["global"]["accuracy"].user_mean >= end["global"]["alone_accuracy"].user_mean
    assert end["global"]["alone_accuracy"].user_mean > end["frozen"]["alone_accuracy"].user_mean
    assert {"random", "cloud", "frozen", "global"} <= set(end)


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_what_was_taught_is_paid_once_and_kept(texts: Path, teacher: Path, tmp_path: Path) -> None:
    more = ("rounds=3", "budget.tau=0.5", "client.hard=0", "client.aligned=0")
    whole = taught(texts, teacher, tmp_path / "whole", *more)
    rows = read_rows(whole.folder)
    calls = rows[rows["name"] == "cloud_calls"].groupby("device")["total"].sum()
    held = rows[rows["name"] == "cloud_purchases"].groupby("device")["weight"].max()
    assert (calls <= held).all()  # each example once, however many rounds
    assert (calls >= 0.8 * held).all()
    stopped = tmp_path / "stopped"
    settings = f"client.teacher_settings={{base: 'builtin:bert', max_tokens: 16, weights: {teacher}}}"
    own = ("client.teacher=flsim.models.encoder:Encoder", settings, *more)
    run(config(texts, stopped, *own), until=1, progress=False)
    again = read_rows(run(resume=stopped, progress=False).folder)
    kept = [frame[frame["name"].isin(["cloud_calls", "loss", "accuracy"])] for frame in (rows, again)]
    order = ["round", "device", "task", "split", "model", "name"]
    first, second = (frame.sort_values(order, ignore_index=True) for frame in kept)
    assert first.equals(second)


@pytest.mark.usefixtures("no_pictures")
def test_lora_on_an_encoder_learns_a_few_percent_of_it(texts: Path, tmp_path: Path) -> None:
    settings = "client.model_settings={base: 'builtin:distilbert', max_tokens: 16, rank: 2}"
    done = run(config(texts, tmp_path / "run", "rounds=1", "evaluation.every_rounds=1", settings), progress=False)
    whole = sum(value.numel() for value in Encoder(3, base="builtin:distilbert").parameters())
    sent = done.summary.totals["uplink_bytes"] or 0.0
    assert 0 < sent < 0.05 * 4 * whole * USERS


def test_a_real_folder_is_read(texts: Path, tmp_path: Path) -> None:
    """As `save_pretrained` leaves it: a tokenizer of words and an encoder with other classes."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({w for own in WORDS.values() for w in own.split()})]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    whole.save_pretrained(tmp_path / "encoder")
    small = DistilBertConfig(vocab_size=len(words), dim=8, n_layers=1, n_heads=2, hidden_dim=16)
    small.num_labels = 7
    DistilBertForSequenceClassification(small).save_pretrained(tmp_path / "encoder")
    encoder = Encoder(3, base=str(tmp_path / "encoder"), max_tokens=6)
    inputs = encoder.inputs([Problem("t", "", 0, "good bad door", "good")])
    assert encoder.tokens(inputs).tolist() == [5]
    assert encoder(inputs).shape == (1, 3)


def test_losses_by_hand() -> None:
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    assert float(soft_loss(student, teacher, 1.0)) == pytest.approx(0.130812, abs=1e-5)
    assert float(soft_loss(teacher, teacher, 2.0)) == pytest.approx(0.0, abs=1e-7)
    assert float(state_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))) == pytest.approx(1 - 2**-0.5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["client.model_settings={base: 'builtin:gpt'}"], "builtin:bert and builtin:distilbert"),
        (["client.model_settings={base: /nowhere}"], "no config.json"),
        (["client.teacher=flsim.models.encoder:Encoder", "client.teacher_settings={weights: /no}"], "is no file"),
        (["client.teacher_settings={weights: /no}"], "no teacher"),
        (["client.soft=-1"], "soft=-1"),
        (["stage={path: 'strategies.stages.module_distillation:ModuleDistillation'}"], "teacher is missing"),
    ],
)
def test_bad_input_is_told_before_any_work(texts: Path, tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(config(texts, tmp_path / "run", *more), progress=False)
