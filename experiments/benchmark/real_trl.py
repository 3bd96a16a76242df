"""TRL's `GRPOTrainer` on the work of `experiments/benchmark/real.py`, one device at a time.

The trainer is set for speed: float32 on one CPU thread, all responses of a step in one generation batch, learned from
in as many rows at a time as peft's side does, no reference model (`beta=0`), no reports, bars, logs, checkpoints or
gradient checkpointing. It is made once and kept. Rewards are drawn, so that no group is without a gradient.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from trl.trainer.grpo_trainer import GRPOTrainer

from experiments.benchmark.real_sides import Seconds, Work
from experiments.benchmark.trl_device import fast_trainer, quiet_trl
from flsim.models.adapter import quiet_peft
from flsim.models.base import load_model
from flsim.models.lora_settings import lora_config


class Trl:
    """One model with one adapter."""

    def __init__(self, work: Work) -> None:
        quiet_trl()
        self._work = work
        self._base = load_model(work.config.model)
        with quiet_peft():
            self.model = get_peft_model(self._base.as_transformers(), lora_config(work.config.model))
        self._source = torch.Generator().manual_seed(0)
        self._trainer: GRPOTrainer | None = None
        self.prompt_tokens = 0

    def once(self, repeat: int) -> Seconds:
        """One learning step."""
        prompts = [self._base.prompt(problem) for problem in self._work.problems(0, repeat)]
        self.prompt_tokens = sum(map(len, self._base.tokenizer(prompts)["input_ids"]))
        data = Dataset.from_dict({"prompt": prompts})
        if self._trainer is None:
            self._trainer = self._made(data)
        self._trainer.train_dataset = data
        return Seconds(self._work.timed(self._trainer.train))

    def _made(self, data: Dataset) -> GRPOTrainer:
        work = self._work
        fewest = -(-work.responses // work.rows)
        passes = next(n for n in range(fewest, work.responses + 1) if work.responses % n == 0)  # equal ones
        return fast_trainer(
            self.model,
            self._base.tokenizer,
            self._reward,
            data,
            work.learner,
            output_dir=tempfile.mkdtemp(prefix="trl-"),
            max_steps=1,
            per_device_train_batch_size=work.responses // passes,
            gradient_accumulation_steps=passes,
            num_generations=work.group,
            generation_kwargs={"min_new_tokens": work.tokens},
            temperature=1.0,
            seed=0,
        )

    def _reward(self, completions: Sequence[str], **_: Any) -> list[float | None]:
        return list(torch.randn(len(completions), generator=self._source).tolist())
