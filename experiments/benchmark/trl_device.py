"""A device's round by TRL's `GRPOTrainer`, on the same model, LoRA, questions, verifier and endings as ours.

The trainer is set for speed: float32 on one CPU thread, one generation batch per step (all prompts of the step times
G), no reference model (`beta=0`, the default), no reports, bars, logs, checkpoints or gradient checkpointing. Help ends
a response since it is a second end token of the model, and its reward is the cloud's, one query per prompt as in ours.
The loss is `dr_grpo` without scaling, which is ours up to a constant. There is no budget and hence no dual variable.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import get_peft_model
from transformers import AutoTokenizer, PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from clients.learner import Learner
from experiments.benchmark.setting import Round, Setting
from flsim.cloud.make import make_cloud
from flsim.models.adapter import Adapter
from flsim.models.base import load_base
from flsim.models.folder import folder_of
from flsim.models.lora_settings import lora_config
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import seed_for


def quiet_trl() -> None:
    """Let TRL and what it stands on say nothing."""
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module=r"(trl|peft|transformers|accelerate|torch)\b.*")


def fast_trainer(
    model: Any, tokenizer: Any, reward: Callable[..., list[float | None]], data: Dataset, learner: Learner, **own: Any
) -> GRPOTrainer:
    """A trainer that is set for speed and for our loss, at a learner's rate, clipping and length of responses.

    Args:
        model: with LoRA.
        tokenizer: of its base.
        reward: of completions, as TRL calls it.
        data: the prompts.
        learner: whose work it does.
        own: further settings of `GRPOConfig`: folder, steps, batches, seed; they go before those here.
    """
    settings: dict[str, Any] = {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        "max_completion_length": learner.max_new_tokens,
        "learning_rate": learner.lr,
        "lr_scheduler_type": "constant",
        "max_grad_norm": learner.clip_norm,
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "shuffle_dataset": False,
    }
    args = GRPOConfig(**settings | own)
    trainer = GRPOTrainer(model=model, reward_funcs=reward, args=args, train_dataset=data, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


class TrlDevice:
    """One base model with one LoRA adapter that `GRPOTrainer` trains; which device it stands for is told per round."""

    def __init__(self, setting: Setting) -> None:
        """Load the model and wrap it."""
        quiet_trl()
        self.setting = setting
        config = setting.config
        self._base = load_base(config.model.path)
        self._cloud = make_cloud(config.cloud)
        whole: Any = self._base.as_transformers()
        whole.generation_config.eos_token_id = [self._base.eos_id, self._base.help_id]
        self._model = get_peft_model(whole, lora_config(config.model))
        self._parameters = {
            name.replace(".default.", "."): parameter
            for name, parameter in self._model.named_parameters()
            if parameter.requires_grad
        }
        self._problems: list[Problem] = []
        self._trainer: GRPOTrainer | None = None
        self._folder = tempfile.mkdtemp(prefix="trl-")
        self.tokens = 0
        self.responses = 0

    def learn(self, device: int, round_: Round, adapter: Adapter, *, keep_trainer: bool = False) -> Adapter:
        """One round of one device: `setting.steps` steps from `adapter`.

        Args:
            device: its index.
            round_: which questions it meets.
            adapter: what the server sent.
            keep_trainer: whether the trainer of the last call goes on, with its optimizer; else a new one is made.
        """
        with torch.no_grad():
            for name, tensor in adapter.items():
                self._parameters[name].copy_(torch.from_numpy(tensor))
        self._problems = self.setting.questions(device, round_)
        seed = seed_for(round_.seed, "trl", device, round_.number) % 2**32  # else all devices would sample alike
        questions = [problem.question for problem in self._problems]
        data = Dataset.from_dict({"prompt": questions, "number": list(range(len(questions)))})
        if self._trainer is None or not keep_trainer:
            self._trainer = self._new_trainer(data, seed)
        else:
            self._trainer.train_dataset = data
            transformers.set_seed(seed)
        self._trainer.train()
        return {name: self._parameters[name].detach().numpy().copy() for name in adapter}

    def _new_trainer(self, data: Dataset, seed: int) -> GRPOTrainer:
        client = self.setting.algorithm
        return fast_trainer(
            self._model,
            AutoTokenizer.from_pretrained(folder_of(self.setting.config.model.path)),
            self._reward,
            data,
            client,
            output_dir=self._folder,
            max_steps=self.setting.steps,
            per_device_train_batch_size=self.setting.prompts * client.group_size,
            num_generations=client.group_size,
            temperature=client.temperature,
            seed=seed,
        )

    def _reward(
        self, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], number: Sequence[int], **_: Any
    ) -> list[float | None]:
        """1 where the final answer is right; the asking responses of a prompt share one answer of the cloud."""
        self.tokens += sum(map(len, completion_ids))
        self.responses += len(completion_ids)
        asked = [ids[-1] == self._base.help_id for ids in completion_ids]
        wanted = sorted({n for n, flag in zip(number, asked, strict=True) if flag})
        answers = self._cloud.answer([self._problems[n] for n in wanted])
        helped = {n: "" if answer is None else answer.text for n, answer in zip(wanted, answers, strict=True)}
        final = zip(number, asked, completions, strict=True)
        return list(
            map(float, are_right([(self._problems[n], helped[n] if flag else text) for n, flag, text in final]))
        )
