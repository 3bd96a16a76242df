"""Pretrain the built-in models: `python -m experiments.pretrain [slm|cloud|all]`.

The small model (SLM) reads exact and careless answers alike, and help requests, so that it starts out half right and
now and then asks; the cloud model reads exact answers only. Only questions of the train split are used. The number of
steps is fixed and every batch is a pure function of (seed, step), so a rerun on the same machine and number of threads
makes the same files. Muon (Jordan et al. 2024, `torch.optim.Muon`) for the matrices of the layers, AdamW for the rest.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.model_card import Accuracy, measure, write_card
from experiments.recipes import CLEAN, CLOUD, SLM, Recipe, Stage
from flsim.models.builtin import BUILTIN_DIR
from flsim.models.tokenizer import HELP, build_tokenizer
from flsim.seeding import python_random, seed_for
from flsim.tasks.families import draw, families_of

_BUCKETS = 4  # a batch is cut by length into buckets: 1.5 times fewer padded tokens
_WARMUP_STEPS = 30
_FLAT_SHARE = 0.5  # the learning rate is constant for this share of the steps, then falls linearly to 2 %


def batch(
    recipe: Recipe, stage: Stage, tokenizer: PreTrainedTokenizerFast, rng: Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """One batch as length buckets of (token ids, labels), both `(B / 4, T)`; only answer and end are labelled."""
    groups = rng.choices(list(stage.group_weights), list(stage.group_weights.values()), k=recipe.batch_size)
    questions, answers = [], []
    for group in groups:
        family = rng.choice(families_of(group))
        problem = draw(family, rng.choice(family.levels), "train", rng)
        answer = problem.slip if rng.random() < recipe.slip_shares[group] else problem.answer
        questions.append(problem.question)
        answers.append(HELP if rng.random() < recipe.help_share else answer)
    encoded = zip(tokenizer(questions)["input_ids"], tokenizer(answers)["input_ids"], strict=True)
    rows = sorted(((q + a + [tokenizer.eos_token_id], len(q)) for q, a in encoded), key=lambda row: len(row[0]))
    size = recipe.batch_size // _BUCKETS
    for start in range(0, recipe.batch_size, size):
        bucket = rows[start : start + size]
        width = max(len(ids) for ids, _ in bucket)
        tokens = torch.full((size, width), tokenizer.pad_token_id)  # (B / 4, T)
        labels = torch.full((size, width), -100)  # (B / 4, T)
        for row, (ids, question_length) in enumerate(bucket):
            tokens[row, : len(ids)] = torch.tensor(ids)
            labels[row, question_length : len(ids)] = torch.tensor(ids[question_length:])
        yield tokens, labels


def learning_rate_factor(step: int, steps: int) -> float:
    """Warm-up, a flat half, then a linear fall to 2 %."""
    left = (steps - step) / steps
    return min(1.0, (step + 1) / _WARMUP_STEPS) * min(1.0, max(0.02, left / (1 - _FLAT_SHARE)))


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Train one model from scratch, stage by stage; its weights are half-precision numbers in float32."""
    torch.manual_seed(seed_for(recipe.seed, "pretrain", recipe.name))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden_size,
            intermediate_size=3 * recipe.hidden_size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    first = 0
    for stage in recipe.stages:
        train_stage(model, recipe, stage, tokenizer, first_step=first)
        first += stage.steps
    model.eval()
    return model


def train_stage(
    model: LlamaForCausalLM, recipe: Recipe, stage: Stage, tokenizer: PreTrainedTokenizerFast, *, first_step: int
) -> None:
    """Train `model` in place with cross-entropy on the answers, then round it to half precision.

    Args:
        model: fresh, or as an earlier stage left it.
        recipe: what all stages share.
        stage: the one to train.
        tokenizer: of the model.
        first_step: steps of the stages before; batches are a pure function of the step's number.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=0.01), recipe.muon_lr),
        (torch.optim.AdamW(rest, lr=recipe.adamw_lr, betas=(0.9, 0.98), weight_decay=0.01), recipe.adamw_lr),
    ]
    bar = tqdm(range(stage.steps), desc=f"pretrain {recipe.name}", unit="step", mininterval=1.0)
    smooth = None
    for step in bar:
        rng = python_random(recipe.seed, "pretrain", recipe.name, first_step + step)
        loss = _backward(model, list(batch(recipe, stage, tokenizer, rng)))
        for optimizer, lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * learning_rate_factor(step, stage.steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
        bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())


def _backward(model: LlamaForCausalLM, buckets: list[tuple[Tensor, Tensor]]) -> float:
    """Add the gradient of the mean loss per labelled token; returns that loss."""
    labelled = sum(int((labels != -100).sum()) for _, labels in buckets)
    total = 0.0
    for tokens, labels in buckets:
        logits = model(input_ids=tokens).logits[:, :-1]  # (B / 4, T - 1, V)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / labelled
        loss.backward()
        total += loss.item()
    return total


RECIPES = {recipe.name: recipe for recipe in (SLM, CLOUD, CLEAN)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model",
        nargs="?",
        choices=["slm", "cloud", "slm_clean", "all"],
        default="all",
        help="which one to make (default all: slm and cloud, those that are shipped)",
    )
    parser.add_argument(
        "--out", type=Path, default=BUILTIN_DIR, help="folder for slm/ and cloud/ (default: the package's own)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1; it enters the last bits)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer()
    for recipe in (SLM, CLOUD) if args.model == "all" else (RECIPES[args.model],):
        started = time.perf_counter()
        model = pretrain(recipe, tokenizer)
        seconds = time.perf_counter() - started
        folder = args.out / recipe.name
        model.half().save_pretrained(folder)  # half precision on disk; what is measured below is what was rounded
        tokenizer.save_pretrained(folder)
        accuracy: list[Accuracy] = measure(model.float(), tokenizer)
        write_card(folder, recipe, accuracy, seconds=seconds, threads=args.threads)
        print((folder / "README.md").read_text())


if __name__ == "__main__":
    main()
