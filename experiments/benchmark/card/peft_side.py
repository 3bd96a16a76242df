"""peft's side of `flsim benchmark gpu`: its own LoRA model, one device at a time, on the work that ours does.

Nothing ends early, since the model knows no end.
"""

from typing import Any

import torch
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import GenerationConfig

from experiments.benchmark.card.case import LORA, Case, Seconds
from flsim.models.adapter import initial_adapter, quiet_peft
from flsim.models.lora_settings import lora_config


class OneAtATime:
    """peft's LoRA model by transformers' `generate`, a plain forward and backward, and torch's fused Adam.

    Making the optimizer and putting a device's adapter on happens before the clock starts.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        base = case.model()
        self._like = initial_adapter(base, LORA, 0)
        with quiet_peft():
            self.model: Any = get_peft_model(base, lora_config(LORA)).eval()
        self.parameters = [part for part in self.model.parameters() if part.requires_grad]

    def step(self, device: int) -> Seconds:
        """Sample and learn once, as one device."""
        case = self.case
        self.put_on(device)
        optimizer = torch.optim.Adam(self.parameters, lr=1e-4, betas=(0.9, 0.99), fused=True)
        ids = case.prompt_ids(device).to(case.place)  # (P, L)
        weights = case.weights(device).flatten().to(case.place)  # (P * G,)
        rows, in_generate = case.timed(lambda: self.sample(ids))

        def train() -> None:
            optimizer.zero_grad()
            self.pull_back(rows, weights)
            clip_grad_norm_(self.parameters, 1.0)
            optimizer.step()

        _, in_train = case.timed(train)
        return Seconds(0.0, in_generate, in_train)

    def put_on(self, device: int) -> None:
        """The adapter of a device."""
        adapter = self.case.adapter(device, self._like)
        set_peft_model_state_dict(self.model, {name: torch.from_numpy(tensor) for name, tensor in adapter.items()})

    def sample(self, ids: Tensor) -> Tensor:
        """Prompts and completions, `(P * G, L + T)`."""
        case = self.case
        settings = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=case.new_tokens,
            num_return_sequences=case.group_size,
            pad_token_id=0,
        )
        mask = torch.ones_like(ids)
        rows: Tensor = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        return rows

    def pull_back(self, rows: Tensor, weights: Tensor) -> None:
        """Add up the gradients, in as many parts as keep to the micro-batch."""
        tokens = self.case.new_tokens
        size = max(1, self.case.micro_batch // tokens)
        for ids, weight in zip(rows.split(size), weights.split(size), strict=True):  # (m, L + T) and (m,)
            kept = self.model(input_ids=ids, use_cache=False, logits_to_keep=tokens + 1).logits[:, :-1]  # (m, T, V)
            logprobs = torch.log_softmax(kept.float(), -1).gather(-1, ids[:, -tokens:, None])[..., 0]  # (m, T)
            (logprobs.sum(-1) * weight).sum().backward()
