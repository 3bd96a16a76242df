"""Pretrain the built-in models: `python -m experiments.pretrain [MODEL]`, or the reader of real questions.

The small model (SLM) reads exact and careless answers alike, and help requests, so that it starts out half right and
now and then asks; another one, `slm_draft`, asks after an answer as well; the cloud model reads exact answers only.
Only questions of the train split are used. The number of steps is fixed and every batch is a pure function of (seed,
step), so a rerun on the same machine and number of threads makes the same files.

  python -m experiments.pretrain reader --data ../shared/data --out runs    # reader.py beside this says what it is
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.pretrain.model_card import Accuracy, measure, write_card
from experiments.pretrain.pretraining import Bucket, fit, fresh_model, labelled_rows
from experiments.pretrain.reader import READER, make_reader
from experiments.pretrain.recipes import CLEAN, CLOUD, SLM, SLM_DRAFT, Recipe, Stage
from flsim.models.folder import HELP, build_tokenizer
from flsim.models.hub import BUILTIN_DIR
from flsim.problems.families import draw, families_of
from flsim.seeding import python_random, seed_for


def batch(recipe: Recipe, stage: Stage, tokenizer: PreTrainedTokenizerFast, rng: Random) -> Iterator[Bucket]:
    """One batch; only answer and end are labelled."""
    groups = rng.choices(list(stage.group_weights), list(stage.group_weights.values()), k=recipe.batch_size)
    questions, answers = [], []
    for group in groups:
        family = rng.choice(families_of(group))
        problem = draw(family, rng.choice(family.levels), "train", rng)
        answer = problem.slip if rng.random() < recipe.slip_shares[group] else problem.answer
        questions.append(problem.question)
        answers.append(_with_request(answer, recipe, rng.random()))
    encoded = zip(tokenizer(questions)["input_ids"], tokenizer(answers)["input_ids"], strict=True)
    return labelled_rows([(q + a + [tokenizer.eos_token_id], len(q)) for q, a in encoded], tokenizer.pad_token_id)


def _with_request(answer: str, recipe: Recipe, uniform: float) -> str:
    """What is learned as the response; `uniform` is drawn from [0, 1)."""
    if uniform < recipe.help_share:
        return HELP
    return answer + HELP if uniform < recipe.help_share + recipe.help_after_share else answer


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Train one model, stage by stage; its weights are half-precision numbers in float32."""
    seed = seed_for(recipe.seed, "pretrain", recipe.name)
    sizes = {"width": recipe.hidden_size, "layers": recipe.layers, "heads": recipe.heads, "longest": 64}
    model = fresh_model(tokenizer, seed=seed, **sizes)
    if recipe.start:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(BUILTIN_DIR / recipe.start).float().state_dict())
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
    fit(
        model,
        lambda step: list(
            batch(recipe, stage, tokenizer, python_random(recipe.seed, "pretrain", recipe.name, first_step + step))
        ),
        steps=stage.steps,
        rates=(recipe.muon_lr, recipe.adamw_lr),
        name=recipe.name,
    )


RECIPES = {recipe.name: recipe for recipe in (SLM, SLM_DRAFT, CLOUD, CLEAN)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model",
        nargs="?",
        choices=["slm", "slm_draft", "cloud", "slm_clean", "reader", "all"],
        default="all",
        help="which one to make (default all: slm, slm_draft and cloud, those that are shipped)",
    )
    parser.add_argument(
        "--out", type=Path, default=BUILTIN_DIR, help="folder of their folders (default: the package's own)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="for the reader: folder of the tables (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1; it enters the last bits)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.model == READER.name:
        print(make_reader(args.data, args.out / READER.name))
        return
    tokenizer = build_tokenizer()
    for recipe in (SLM, SLM_DRAFT, CLOUD) if args.model == "all" else (RECIPES[args.model],):
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
