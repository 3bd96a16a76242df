"""The reader: a language model of a million parameters that reads English questions and answers with one token.

It is the device's policy where outcomes were recorded (docs/results/real_outcomes.md): the help request sends the
question to the cloud, and any other token leaves it to the device's own recorded model. It is a Llama with byte-level
BPE pieces, pretrained on questions of the train split only, each ended by the help request in three cases of ten,
whatever the question: it starts out asking at random.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.pretrain.pretraining import Bucket, fit, fresh_model, labelled_rows
from flsim.files import write_atomically
from flsim.seeding import python_random, seed_for
from flsim.tasks.data_file import DataFile
from flsim.tasks.load import load
from flsim.tasks.tables import jsonl_rows

PAD, EOS, HELP = "<pad>", "<eos>", "<help>"
_BEGIN, _DECIDE = "<begin>", "<decide>"
DOMAINS = ("replay_gsm8k", "router_mmlu", "replay_crux")
"""Tables of recorded outcomes, each in the folder of its name."""


@dataclass(frozen=True)
class ReaderRecipe:
    """How it is made."""

    name: str = "reader"
    pieces: int = 2048
    """Of the vocabulary."""
    longest: int = 400
    """Characters of a question that are read, its last ones, where it says what is asked."""
    hidden_size: int = 96
    layers: int = 2
    heads: int = 4
    steps: int = 1200
    batch_size: int = 32
    weights: Mapping[str, float] = field(default_factory=lambda: dict(zip(DOMAINS, (2.0, 2.0, 1.0), strict=True)))
    """How often a question is drawn from each domain, in proportion."""
    help_share: float = 0.3
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    seed: int = 0


READER = ReaderRecipe()
_MEASURED = 200  # held-out questions per domain that the card's perplexity is taken over


def questions_of(data: Path, split: str) -> dict[str, list[str]]:
    """The questions of one split by domain; to GSM8K's belong those of its own training file, where it is there.

    Args:
        data: folder that holds the folders of the tables.
        split: `train` or `validation`.

    Raises:
        ConfigError: if a table is not there.
    """
    texts = {name: [item.question for item in load(name, data / name) if item.split == split] for name in DOMAINS}
    more = data / "gsm8k" / "train.jsonl"
    if split == "train" and more.is_file():
        texts["replay_gsm8k"] += [row.text("question") for row in jsonl_rows(DataFile(more))]
    return texts


def reader_tokenizer(texts: Sequence[str], recipe: ReaderRecipe = READER) -> PreTrainedTokenizerFast:
    """Byte-level pieces of these texts; what it encodes is cut on the left, and stands between two marks.

    The first mark lets attention see how long a question is, the second is where the decision is read off.
    """
    core = Tokenizer(BPE())
    core.normalizer = normalizers.Replace(Regex(rf"\A(?m:.*)(?=(?m:.{{{recipe.longest}}})\z)"), "")
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    marks = [PAD, EOS, HELP, _BEGIN, _DECIDE]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts,
        BpeTrainer(vocab_size=recipe.pieces, special_tokens=marks, initial_alphabet=alphabet, show_progress=False),
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_DECIDE}", special_tokens=[(mark, core.token_to_id(mark)) for mark in (_BEGIN, _DECIDE)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=EOS, padding_side="left")


def pretrain_reader(
    texts: Mapping[str, Sequence[str]], tokenizer: PreTrainedTokenizerFast, recipe: ReaderRecipe = READER
) -> LlamaForCausalLM:
    """Train it from scratch on these questions by domain; its weights are half-precision numbers in float32."""
    seed = seed_for(recipe.seed, "pretrain", recipe.name)
    sizes = {"width": recipe.hidden_size, "layers": recipe.layers, "heads": recipe.heads, "longest": 512}
    model = fresh_model(tokenizer, seed=seed, **sizes)
    encoded = {domain: tokenizer(list(own))["input_ids"] for domain, own in texts.items()}
    fit(
        model,
        lambda step: list(
            _batch(encoded, tokenizer, recipe, python_random(recipe.seed, "pretrain", recipe.name, step))
        ),
        steps=recipe.steps,
        rates=(recipe.muon_lr, recipe.adamw_lr),
        name=recipe.name,
    )
    model.eval()
    return model


def _batch(
    encoded: Mapping[str, Sequence[list[int]]], tokenizer: PreTrainedTokenizerFast, recipe: ReaderRecipe, rng: Random
) -> Iterator[Bucket]:
    """Questions with their end; every token but the first is labelled."""
    domains = rng.choices(list(encoded), [recipe.weights[domain] for domain in encoded], k=recipe.batch_size)
    help_id, eos_id = (tokenizer.get_vocab()[mark] for mark in (HELP, EOS))
    rows: list[tuple[list[int], int]] = []
    for domain in domains:
        end = help_id if rng.random() < recipe.help_share else eos_id
        rows.append(([*rng.choice(encoded[domain]), end], 1))
    return labelled_rows(rows, tokenizer.pad_token_id)


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    """Per piece, of questions; shows that it has learned to read."""
    total, pieces = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])  # (1, L)
        logits: Tensor = model(input_ids=ids).logits[0, :-1]  # (L - 1, V)
        total += float(nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        pieces += ids.shape[1] - 1
    return math.exp(total / pieces)


def make_reader(data: Path, folder: Path, recipe: ReaderRecipe = READER) -> str:
    """Pretrain it and write checkpoint, tokenizer and card; returns the card.

    Args:
        data: as for `questions_of`.
        folder: of the checkpoint.
        recipe: how.
    """
    started = time.perf_counter()
    texts = questions_of(data, "train")
    tokenizer = reader_tokenizer([text for own in texts.values() for text in own], recipe)
    model = pretrain_reader(texts, tokenizer, recipe)
    seconds = time.perf_counter() - started
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = model.float()
    held_out = questions_of(data, "validation")
    found = {domain: perplexity(model, tokenizer, own[:_MEASURED]) for domain, own in held_out.items()}
    return _card(folder, recipe, found, seconds=seconds)


def _card(folder: Path, recipe: ReaderRecipe, found: Mapping[str, float], *, seconds: float) -> str:
    """Write `README.md` and `card.json` beside the weights; `found` is the perplexity by domain."""
    lines = [
        f"# {recipe.name}: a small language model that decides whether to ask",
        "",
        f"Llama architecture, {recipe.pieces} byte-level BPE pieces, hidden size {recipe.hidden_size}, {recipe.layers} "
        f"layers, {recipe.heads} heads; half precision on disk.",
        f"Made by `python -m experiments.pretrain {recipe.name}` in {seconds:.0f} s: {recipe.steps} steps of "
        f"{recipe.batch_size} questions of the train split, torch {torch.__version__}.",
        f"It reads the last {recipe.longest} characters of a question. {recipe.help_share:.0%} of the questions are "
        f"ended by the help request `{HELP}`, the others by `{EOS}`.",
        "",
        "| questions held out (validation) | perplexity per piece |",
        "|---|---|",
        *(f"| {domain} | {value:.1f} |" for domain, value in found.items()),
    ]
    text = "\n".join(lines) + "\n"
    write_atomically(folder / "README.md", text.encode())
    card = {"recipe": asdict(recipe), "perplexity": dict(found)}
    write_atomically(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    return text
