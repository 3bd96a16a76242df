"""Measure a built-in model on the test split and write its card (data, steps, accuracy per family and level)."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.pretrain.recipes import Recipe
from flsim.models.folder import HELP
from flsim.problems.families import FAMILIES, TASKS, draw
from flsim.seeding import python_random

_PROBLEMS_PER_LEVEL = 100


@dataclass(frozen=True)
class Accuracy:
    """Greedy exact match of one family and level, with how likely the model is to ask for help."""

    group: str
    family: str
    level: int
    right: float
    asks: float
    """At the first token."""
    asks_after: float
    """In place of the ending token, after the right answer."""


@torch.no_grad()
def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[Accuracy]:
    """Teacher-forced exact match, which equals greedy exact match, help masked out; on the test split."""
    help_id = tokenizer.convert_tokens_to_ids(HELP)
    table = []
    for family in FAMILIES:
        for level in family.levels:
            rng = python_random(0, "model card", family.name, level)
            right, asks, asks_after = 0, 0.0, 0.0
            for _ in range(_PROBLEMS_PER_LEVEL):
                problem = draw(family, level, "test", rng)
                question = tokenizer.encode(problem.question)
                answer = [*tokenizer.encode(problem.answer), tokenizer.eos_token_id]
                logits = model(input_ids=torch.tensor([question + answer])).logits[0, len(question) - 1 : -1]  # (A, V)
                asks += float(logits[0].softmax(-1)[help_id])
                asks_after += float(logits[-1].softmax(-1)[help_id])
                logits[:, help_id] = -torch.inf
                right += int((logits.argmax(-1) == torch.tensor(answer)).all())
            means = (total / _PROBLEMS_PER_LEVEL for total in (right, asks, asks_after))
            table.append(Accuracy(family.task, family.name, level, *means))
    return table


def by_group(table: list[Accuracy]) -> dict[str, tuple[float, float, float]]:
    """Mean accuracy and mean help probabilities, first and after, per group.

    Families weigh the same, and so do the levels of a family.
    """
    result = {}
    for group in TASKS:
        families: dict[str, list[Accuracy]] = defaultdict(list)
        for cell in table:
            if cell.group == group:
                families[cell.family].append(cell)
        parts = [[(c.right, c.asks, c.asks_after) for c in cells] for cells in families.values()]
        each = [[sum(column) / len(column) for column in zip(*cells, strict=True)] for cells in parts]
        right, asks, asks_after = (sum(column) / len(column) for column in zip(*each, strict=True))
        result[group] = (right, asks, asks_after)
    return result


def write_card(folder: Path, recipe: Recipe, table: list[Accuracy], *, seconds: float, threads: int) -> None:
    """Write `README.md` (for people) and `card.json` (for tests) beside the weights."""
    groups, after = by_group(table), recipe.help_after_share > 0
    lines = [
        f"# {recipe.name}: a built-in model of flsim",
        "",
        f"Llama architecture, hidden size {recipe.hidden_size}, {recipe.layers} layers, {recipe.heads} heads;",
        f"half precision on disk. Made by `python -m experiments.pretrain {recipe.name}` in {seconds:.0f} s:",
        f"{sum(s.steps for s in recipe.stages)} steps of {recipe.batch_size} problems, {threads} thread(s), "
        f"torch {torch.__version__}.",
        "",
        "Data: problems of the train split drawn without end by `flsim/problems/families.py`;",
        *(f"{stage.steps} steps with the groups in the proportion {stage.group_weights};" for stage in recipe.stages),
        f"share of careless answers {recipe.slip_shares};",
        f"{recipe.help_share:.0%} of the answers replaced by a help request"
        f"{f', {recipe.help_after_share:.0%} followed by one' if after else ''}.",
        "",
        "Accuracy: greedy exact match with asking disabled, test split,",
        f"{_PROBLEMS_PER_LEVEL} problems per family and level.",
        f"Asks: probability of a help request as first token{', and after the right answer' if after else ''}.",
        "",
        f"| group | accuracy | asks |{' asks after |' if after else ''}",
        f"|---|---|---|{'---|' if after else ''}",
        *(
            f"| {group} | {right:.1%} | {asks:.1%} |{f' {later:.1%} |' if after else ''}"
            for group, (right, asks, later) in groups.items()
        ),
        "",
        "| family | accuracy by level |",
        "|---|---|",
    ]
    for family in FAMILIES:
        cells = [cell for cell in table if cell.family == family.name]
        lines.append(f"| {family.name} | " + ", ".join(f"{c.level}: {c.right:.0%}" for c in cells) + " |")
    folder.joinpath("README.md").write_text("\n".join(lines) + "\n")
    card = {
        "recipe": asdict(recipe),
        "groups": {
            group: {"accuracy": right, "asks": asks, "asks_after": later}
            for group, (right, asks, later) in groups.items()
        },
        "levels": [asdict(cell) for cell in table],
    }
    folder.joinpath("card.json").write_text(json.dumps(card, indent=1) + "\n")
