"""TRL's `GRPOTrainer` for `flsim benchmark gpu`: one device's step, on a base with random weights.

It is set as in `experiments/benchmark/trl_device.py`. All completions of the step are one generation batch of exactly
T tokens each, learned from in as many passes as the micro-batch asks for. Rewards are drawn, so that no group is
without a gradient; the prompts are of as many characters as ours have tokens, each one a token. The trainer is made
once and kept.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model

from clients.grpo import Grpo
from experiments.benchmark.card.case import LORA, Case, Seconds
from experiments.benchmark.trl_device import fast_trainer, quiet_trl
from flsim.models.adapter import quiet_peft
from flsim.models.folder import build_tokenizer
from flsim.models.lora_settings import lora_config


class Trl:
    """One model with one adapter."""

    def __init__(self, case: Case) -> None:
        quiet_trl()
        self._case = case
        with quiet_peft():
            model = get_peft_model(case.model(), lora_config(LORA))
        self._source = torch.Generator().manual_seed(0)
        rows = case.prompts * case.group_size
        passes = max(1, -(-rows * case.new_tokens // case.micro_batch))
        passes = next(n for n in range(passes, rows + 1) if rows % n == 0)  # equal ones
        data = Dataset.from_dict({"prompt": [str(k) * case.prompt_tokens for k in range(1, case.prompts + 1)]})
        learner = Grpo(prompts=case.prompts, group_size=case.group_size, max_new_tokens=case.new_tokens, lr=1e-4)
        self._trainer = fast_trainer(
            model,
            build_tokenizer(),
            self._reward,
            data,
            learner,
            use_cpu=case.place == "cpu",
            output_dir=tempfile.mkdtemp(prefix="trl-"),
            max_steps=1,
            per_device_train_batch_size=rows // passes,
            gradient_accumulation_steps=passes,
            num_generations=case.group_size,
            generation_kwargs={"min_new_tokens": case.new_tokens},
            temperature=1.0,
            seed=0,
        )

    def step(self) -> Seconds:
        """Sample and learn once; all of it counts as training."""
        _, seconds = self._case.timed(self._trainer.train)
        return Seconds(0.0, 0.0, seconds)

    def _reward(self, completions: Sequence[str], **_: Any) -> list[float | None]:
        return list(torch.randn(len(completions), generator=self._source).tolist())
