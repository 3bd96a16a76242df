"""The benchmark of the shared prefix on a tiny checkpoint: what is read, and that every part has its line."""

from pathlib import Path

import pytest

from experiments.benchmark.__main__ import main
from experiments.benchmark.prefix import EXAMPLES, WORDS, tokens_read
from experiments.real.checkpoint import write_checkpoint
from flsim.config.model import ModelConfig
from flsim.models.base import load_model
from flsim.models.decoding import encode
from flsim.problems.problem import Problem


def test_the_table_has_every_part_and_counts_a_shared_token_once(
    tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_checkpoint(tmp_path, "smollm2"))
    main(["prefix", "--model", folder, "--devices", "1", "2", "--prompts", "3", "--tokens", "2", "--repeats", "1"])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    cells = [row for row in cells if row and row[0].isdigit()]
    parts = ["reading", "sampling", "reading and gradient"]
    assert [(row[0], row[3]) for row in cells] == [(devices, part) for devices in "12" for part in parts]
    base = load_model(ModelConfig(path=folder, examples={"all": EXAMPLES}))
    asked = [Problem("words", "", 1, f'What is the opposite of "{word}"?', "") for word in WORDS[:3]]
    prompts = encode(base, base.prompts([asked]))
    (first, *others) = (base.tokenizer(text)["input_ids"] for text in base.prompts([asked])[0])
    begun = next(place for place, token in enumerate(first) if any(other[place] != token for other in others))
    assert tokens_read(prompts) == int(prompts.mask.sum()) - 2 * begun
    assert cells[0][1:3] == [str(int(prompts.mask.sum())), str(tokens_read(prompts))]
