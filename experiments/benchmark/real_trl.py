"""TRL's `GRPOTrainer` on the work of `experiments/benchmark/real.py`, one device at a time.

The trainer is set for speed: float32 on one CPU thread, all responses of a step in one generation batch, learned from
in as many rows at a time as peft's side does, no reference model (`beta=0`), no reports, bars, logs, checkpoints or
gradient checkpointing. It is made once and kept. Rewards are drawn, so that no group is without a gradient.
"""

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import get_peft_model
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from experiments.benchmark.real_sides import Seconds, Work
from flsim.models.adapter import lora_config, quiet_peft
from flsim.models.base import load_model


class Trl:
    """One model with one adapter."""

    def __init__(self, work: Work) -> None:
        transformers.logging.set_verbosity_error()
        warnings.filterwarnings("ignore", module=r"(trl|peft|transformers|accelerate|torch)\b.*")
        self._work = work
        self._base = load_model(work.config.model)
        with quiet_peft():
            self.model = get_peft_model(self._base.model, lora_config(work.config.model))
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
        args = GRPOConfig(
            output_dir=tempfile.mkdtemp(prefix="trl-"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
            max_steps=1,
            per_device_train_batch_size=work.responses // passes,
            gradient_accumulation_steps=passes,
            num_generations=work.group,
            max_completion_length=work.tokens,
            generation_kwargs={"min_new_tokens": work.tokens},
            temperature=1.0,
            learning_rate=work.learner.lr,
            lr_scheduler_type="constant",
            max_grad_norm=work.learner.clip_norm,
            loss_type="dr_grpo",
            scale_rewards="none",
            shuffle_dataset=False,
            seed=0,
        )
        trainer = GRPOTrainer(
            model=self.model,
            reward_funcs=self._reward,
            args=args,
            train_dataset=data,
            processing_class=self._base.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _reward(self, completions: Sequence[str], **_: Any) -> list[float | None]:
        return list(torch.randn(len(completions), generator=self._source).tolist())
