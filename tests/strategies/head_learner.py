"""A learner for tests whose devices carry a head beside LoRA: each pulls it towards a number of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.device.pack import Pack
from clients.sft import Sft
from flsim.models.adapter import Adapter
from flsim.models.base import BaseModel
from flsim.problems.problem import Problem


@dataclass(frozen=True)
class WithHead(Sft):
    """Supervised fine-tuning, and beside it `(head - (1 + device))^2 / 2`."""

    def extras(self, base: BaseModel) -> Adapter:
        width = base.model.config.hidden_size
        return {"head.weight": np.zeros((2, width), np.float32), "head.bias": np.full(2, 0.5, np.float32)}

    def _gradient(self, pack: Pack, lessons: Sequence[Sequence[tuple[Problem, str]]]) -> Tensor:
        gradient = super()._gradient(pack, lessons)  # (K, n)
        lora = pack.world.lora
        goals = torch.tensor([1.0 + device.index for device in pack.devices])  # (K,)
        apart = [head.flatten(1) - goals[:, None] for head in lora.extras(pack.theta).values()]  # (K, numbers) each
        gradient[:, lora.place_of_extras] += torch.cat(apart, 1)
        return gradient
